# The options that NixOS and nix-darwin share: projects that are up while their owner is logged in.
igloo:
{ lib, pkgs }:
let
  inherit (lib) mkOption types;
  option = type: default: description: mkOption { inherit type default description; };
in
rec {
  options = {
    enable = option types.bool false "Whether igloo is installed, and its projects are brought up at login.";
    package = option types.unspecified (igloo { inherit pkgs; }).igloo "igloo itself.";
    projects = option (types.listOf types.str) [ ] "Directories of projects to bring up. One that isn't there is left out.";
    logFile = option types.unspecified null "A file for what is said about it; the journal, or nowhere on macOS, if null.";
  };

  # `up` brings projects to the declared state whatever they are in, so that nothing has to be looked at before.
  script = verb: cfg: builtins.concatStringsSep "\n" (map
    (project: ''
      if [ -d ${lib.escapeShellArg project} ]; then
        ${cfg.package}/bin/igloo -C ${lib.escapeShellArg project} ${verb} || failed=1
      fi
    '')
    cfg.projects ++ [ "exit \${failed:-0}" ]);
}
