# Trivial builders and shells.
final: prev:
let inherit (final) lib stdenv; in
rec {
  runCommand = name: env: buildCommand: stdenv.mkDerivation ({ inherit name buildCommand; } // env);
  runCommandNoCC = runCommand;
  runCommandCC = runCommand;
  writeTextFile = { name, text, executable ? false, destination ? "", meta ? { } }: stdenv.mkDerivation {
    inherit name text executable destination meta;
    passAsFile = [ "text" ];
    buildCommand = ''
      mkdir -p "$(dirname "$out$destination")"
      cp "$textPath" "$out$destination"
      if [ -n "$executable" ]; then chmod +x "$out$destination"; fi
    '';
  };
  writeText = name: text: writeTextFile { inherit name text; };
  writeScript = name: text: writeTextFile { inherit name text; executable = true; };
  writeScriptBin = name: text: writeTextFile { inherit name text; executable = true; destination = "/bin/${name}"; meta.mainProgram = name; };
  writeShellScript = name: text: writeScript name "#!${final.bash}/bin/bash\n${text}";
  writeShellScriptBin = name: text: writeScriptBin name "#!${final.bash}/bin/bash\n${text}";
  writeShellApplication = { name, text, runtimeInputs ? [ ] }:
    writeShellScriptBin name "export PATH=${lib.makeBinPath runtimeInputs}:$PATH\n${text}";
  symlinkJoin = { name, paths, postBuild ? "" }: stdenv.mkDerivation {
    inherit name paths postBuild;
    buildCommand = ''
      mkdir -p $out
      for path in $paths; do cp -rsf $path/. $out/ 2>/dev/null || (cd $path && find . | while read -r f; do
        if [ -d "$f" ] && ! [ -L "$f" ]; then mkdir -p "$out/$f"; else ln -sf "$path/$f" "$out/$f"; fi; done); done
      eval "$postBuild"
    '';
  };
  buildEnv = { name, paths, pathsToLink ? [ "/" ], postBuild ? "", ... }: symlinkJoin { inherit name paths postBuild; };
  mkShell = { name ? "nix-shell", packages ? [ ], inputsFrom ? [ ], nativeBuildInputs ? [ ], buildInputs ? [ ], shellHook ? "", ... }@args:
    stdenv.mkDerivation (builtins.removeAttrs args [ "packages" "inputsFrom" ] // {
      inherit name;
      buildInputs = buildInputs ++ lib.concatMap (p: p.drvAttrs.buildInputs or [ ]) inputsFrom;
      nativeBuildInputs = packages ++ nativeBuildInputs ++ lib.concatMap (p: p.drvAttrs.nativeBuildInputs or [ ]) inputsFrom;
      shellHook = lib.concatMapStrings (p: p.shellHook or "") inputsFrom + shellHook;
      phases = "buildPhase";
      buildPhase = ''{ echo "# what the environment was"; export; } > $out'';
    });
  mkShellNoCC = mkShell;
  # A file with this digest, to be added by hand or by `tests/nixpkgs/sources`: evaluation needs no network.
  requireFile = { name, sha256 }: derivation {
    inherit name;
    inherit (final) system;
    builder = "/bin/sh";
    args = [ "-c" "echo 'add it with nix-store --add-fixed sha256 ${name}' >&2; exit 1" ];
    outputHashMode = "flat";
    outputHashAlgo = "sha256";
    outputHash = sha256;
  };
}
