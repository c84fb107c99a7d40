# Containers of NixOS modules: the manifest that igloo runs them by, and commands for each of them and for all.
{ pkgs, igloo }:
let
  system = pkgs.stdenv.hostPlatform.system or pkgs.system;
  toml = import ./manifest.nix { inherit system; };
  inherit (builtins) attrNames concatStringsSep elemAt length listToAttrs mapAttrs match split substring;

  # A volume as flake-containers has it: `PATH`, or `FROM:TO` with FROM below the flake's directory.
  volume = suffix: text:
    let
      parts = builtins.filter builtins.isString (split ":" text);
      from = elemAt parts 0;
      to = if length parts > 1 then elemAt parts 1 else from;
      place = if match "[/.].*" from != null then from else "./${from}";
    in
    "${place}:${to}${suffix}";

  # Unprivileged ports are published as they are, the others 8000 higher, since everybody may publish those.
  published = port: if port < 1024 then "${toString (port + 8000)}:${toString port}" else toString port;

  nixos = name: container: pkgs.nixos {
    imports = [
      ({ lib, ... }: {
        boot.isContainer = true;
        networking.hostName = lib.mkDefault name;
        networking.useDHCP = lib.mkDefault false;
      })
      container.configuration
    ] ++ (if container.runCommand or null == null then [ ] else [
      ({ pkgs, ... }: {
        systemd.services.run-command = {
          wantedBy = [ "multi-user.target" ];
          after = [ "network.target" ];
          script = container.runCommand pkgs;
        };
      })
    ]);
  };

  service = name: container:
    let
      built = nixos name container;
      # `pkgs.nixos` gives the system with its parts; older ones are the derivation itself.
      toplevel = built.toplevel or built.config.system.build.toplevel;
      allowed = built.config.networking.firewall.allowedTCPPorts or [ ];
    in
    {
      packages = [ toplevel.outPath ];
      init = "system";
      run = [ "${toplevel}/init" ];
      # For who looks inside; the init has one of its own.
      env.PATH = "/run/wrappers/bin:/run/current-system/sw/bin:/usr/bin:/bin";
      volumes = map (volume "") (container.volumes or [ ]) ++ map (volume ":ro") (container.volumes-ro or [ ]);
      ports = if container.ports or null != null then container.ports else map published allowed;
    };

  script = name: text: derivation {
    inherit name system;
    builder = "/bin/sh";
    args = [ "-c" ''
      PATH=$tools
      mkdir -p "$out/bin"
      printf '%s' "$text" > "$out/bin/$name"
      chmod +x "$out/bin/$name"
    '' ];
    tools = "${pkgs.coreutils}/bin";
    text = ''
      #!/bin/sh
      # The project is the flake's directory.
      root=$PWD
      until [ -e "$root/flake.nix" ] || [ "$root" = / ]; do root=$(dirname "$root"); done
      [ -e "$root/flake.nix" ] || { echo "${name}: there is no flake.nix here or above" >&2; exit 1; }
      igloo() { exec ${if igloo == null then "igloo" else "${igloo}/bin/igloo"} -C "$root" --manifest "$manifest" "$@"; }
      ${text}
    '';
    preferLocalBuild = true;
  } // { meta.mainProgram = name; };
in
# `project`: a name for all of them together. `containers`: by name, { configuration, volumes, volumes-ro, runCommand, ports }.
{ project ? "containers", containers }:
let
  manifest = toml.write {
    project = { name = project; systems = [ (if system == "aarch64-linux" then "arm64" else "amd64") ]; };
    services = mapAttrs service containers;
  };
  command = name: text: { inherit name; value = script name "manifest=${manifest}\n${text}"; };
  shell = words: ''
    [ $# -gt 0 ] || set -- /run/current-system/sw/bin/bash -l
    igloo exec ${words} -- "$@"
  '';
  each = name: [
    (command "${name}-up" ''igloo up --wait ${name} "$@"'')
    (command "${name}-down" ''igloo stop ${name} "$@"'')
    (command "${name}-shell" (shell name))
  ];
  all = [
    (command "containers-up" ''igloo up --wait "$@"'')
    (command "containers-down" ''igloo down "$@"'')
    (command "containers-shell" ''
      [ $# -gt 0 ] || { echo "containers-shell: which one? ${concatStringsSep ", " (attrNames containers)}" >&2; exit 2; }
      name=$1; shift
      ${shell ''"$name"''}'')
    (command "containers-ps" ''igloo ps "$@"'')
    (command "containers-logs" ''igloo logs "$@"'')
  ];
in
{
  inherit manifest;
  commands = listToAttrs (builtins.concatMap each (attrNames containers) ++ all);
}
