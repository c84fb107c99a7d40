# For flake-parts: containers of NixOS modules, with the options of flake-containers. No root, no systemd-nspawn, no sleep:
# igloo runs them.
igloo:
{ config, lib, inputs, ... }:
let
  inherit (lib) mkIf mkOption types;
  cfg = config.flake-containers;
  option = type: default: description: mkOption { inherit type default description; };

  container = types.submodule {
    options = {
      configuration = option types.unspecified { } "The container's NixOS module.";
      volumes = option (types.listOf types.str) [ ]
        "What of the machine it sees: `PATH`, or `FROM:TO` with FROM below the flake's directory.";
      volumes-ro = option (types.listOf types.str) [ ] "The same, read-only.";
      runCommand = option types.unspecified null "`pkgs: script`, run when the container is up.";
      ports = option types.unspecified null
        "Ports to publish on 127.0.0.1, `[\"8080:80\"]`. Unless said, those that the firewall of the configuration lets through; those below 1024 are published 8000 higher.";
    };
  };
in
{
  options.flake-containers = {
    enable = option types.bool false "Whether the flake has containers.";
    name = option types.str "containers" "What igloo calls all of them together.";
    nixpkgs = {
      nixpkgs = option types.unspecified (inputs.nixpkgs or null) "The package set's files, if the input isn't called `nixpkgs`.";
      config = option types.unspecified { } "`config` of the package set.";
      overlays = option types.unspecified [ ] "Overlays of the package set.";
    };
    containers = option (types.attrsOf container) { } "The containers, by name.";
  };

  config = mkIf cfg.enable {
    perSystem = { system, ... }:
      let
        pkgs = import cfg.nixpkgs.nixpkgs { inherit system; inherit (cfg.nixpkgs) config overlays; };
        described = (igloo { inherit pkgs; }).containers { project = cfg.name; inherit (cfg) containers; };
      in
      {
        packages = described.commands // { containers = described.commands.containers-up // { inherit (described) manifest; }; };
        devShells.flake-containers = pkgs.mkShell { packages = builtins.attrValues described.commands; };
      };
  };
}
