{
  description = "Reproducible environments and containers from one igloo.toml and one igloo.lock";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  # These files only describe; igloo builds and runs.
  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      each = f: builtins.listToAttrs (map (name: { inherit name; value = f name; }) systems);
      with' = import ./nix;
      of = system: with' { pkgs = import nixpkgs { inherit system; overlays = [ self.overlays.default ]; }; };
    in
    {
      # mkDevContainer, mkRuntime. `lib.withPkgs { pkgs = ...; }` gives them and the sets for another package set.
      lib = each (system: { inherit (of system) mkDevContainer mkRuntime; }) // { withPkgs = with'; };
      packageSets = each (system: (of system).packageSets);
      packages = each (system: { default = (of system).igloo; inherit (of system) igloo; });
      devShells = each (system: (of system).devShells);

      overlays.default = final: prev:
        if prev ? rustPlatform then { igloo = final.callPackage ./nix/package.nix { }; } else { };

      # Containers of NixOS modules, with the options of flake-containers.
      flakeModules.default = import ./nix/flake-module.nix with';
      flakeModule = self.flakeModules.default;

      # Projects that are up while one is logged in.
      nixosModules.default = import ./nix/nixos.nix with';
      darwinModules.default = import ./nix/darwin.nix with';

      templates = {
        default = { path = ./nix/templates/project; description = "An igloo.toml with packages from nixpkgs"; };
        images = { path = ./nix/templates/images; description = "A flake with a devcontainer and a runtime image"; };
        containers = { path = ./nix/templates/containers; description = "A flake with NixOS containers"; };
      };
    };
}
