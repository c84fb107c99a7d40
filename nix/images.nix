# `mkDevContainer` and `mkRuntime`: they describe an image, igloo builds it. What they give is a derivation of what
# `docker load` takes, and its `manifest` is the description, for `igloo --flake .#NAME image build | push | run`.
{ pkgs, igloo }:
let
  system = pkgs.stdenv.hostPlatform.system or pkgs.system;
  toml = import ./manifest.nix { inherit system; };
  inherit (builtins) attrNames baseNameOf concatStringsSep elem filter listToAttrs match;

  # The `config` of an image as OCI and docker have it, as igloo.toml has it.
  known = [ "Cmd" "Entrypoint" "Env" "ExposedPorts" "Labels" "Volumes" "WorkingDir" "User" "StopSignal" ];
  variable = text:
    let parts = match "([^=]*)=(.*)" (toString text); in
    if parts == null then throw "igloo: `${toString text}` in `extraConfig.Env` is not NAME=VALUE"
    else { name = builtins.elemAt parts 0; value = builtins.elemAt parts 1; };
  configured = config:
    let unknown = filter (name: !(elem name known)) (attrNames config); in
    if unknown != [ ]
    then throw "igloo: `extraConfig.${builtins.head unknown}` is not known; known are ${concatStringsSep ", " known}"
    else {
      run = config.Cmd or null;
      entrypoint = config.Entrypoint or null;
      ports = if config ? ExposedPorts then attrNames config.ExposedPorts else null;
      labels = config.Labels or null;
      volumes = if config ? Volumes then attrNames config.Volumes else null;
      stop-signal = config.StopSignal or null;
    };

  image = kind: { name, tag, packages, user, workdir, extraConfig }:
    let
      short = toml.slug (baseNameOf name);
      # Programs of others, such as VS Code's server, find their loader and libraries by nix-ld.
      foreign = kind == "devcontainer" && builtins.any (p: p.pname or "" == "nix-ld") packages;
      libc = pkgs.stdenv.cc.libc or pkgs.glibc;
      loader = if system == "aarch64-linux" then "ld-linux-aarch64.so.1" else "ld-linux-x86-64.so.2";
      contents = toml.installed packages ++ (if foreign then [ libc.outPath ] else [ ]);
      variables = (if foreign then {
        NIX_LD = "${libc}/lib/${loader}";
        NIX_LD_LIBRARY_PATH = "/usr/local/lib";
      } else { }) // (if extraConfig ? Env then listToAttrs (map variable extraConfig.Env) else { });
      # A registry's host has a dot or a port; anything else is a plain name.
      repository = if match "[^/]*[.:][^/]*/.*" name != null then name else null;
      manifest = toml.write {
        project = { name = short; systems = [ (if system == "aarch64-linux" then "arm64" else "amd64") ]; };
        images.${short} = configured extraConfig // {
          inherit kind;
          name = repository;
          packages = contents;
          account = user;
          user = extraConfig.User or null;
          workdir = extraConfig.WorkingDir or workdir;
          env = variables;
        };
      };
      archive = derivation {
        name = "${short}.tar";
        inherit system manifest tag;
        builder = "${igloo}/bin/igloo";
        args = [ "__nix-image" ];
        __structuredAttrs = true;
        # Igloo sees no database in there: Nix tells it what belongs to the closure.
        exportReferencesGraph.closure = contents;
        # What is in the image stays referred to by the archive's layers only.
        unsafeDiscardReferences.out = true;
      };
    in
    archive // { inherit manifest; imageName = name; imageTag = tag; passthru = { inherit manifest; }; };
in
{
  # A container to develop in: user `vscode` with sudo, what VS Code's server needs, direnv's hook.
  mkDevContainer =
    { packages, name ? "devcontainer", tag ? "latest", user ? "vscode", workdir ? null, extraConfig ? { } }:
    image "devcontainer" { inherit packages name tag user workdir extraConfig; };

  # A container to run in: nothing but the packages, an ordinary user.
  mkRuntime =
    { packages, name ? "runtime", tag ? "latest", user ? "app", workdir ? "/app", extraConfig ? { } }:
    image "runtime" { inherit packages name tag user workdir extraConfig; };
}
