{
  inputs = {
    igloo.url = "flake:igloo"; # or path:/where/you/have/igloo
    nixpkgs.follows = "igloo/nixpkgs"; # the same packages in all projects are the same layers
  };

  outputs = { self, igloo, nixpkgs }:
    let
      system = "x86_64-linux";
      sets = igloo.packageSets.${system};
      lib = igloo.lib.${system};
    in
    {
      devShells.${system}.default = igloo.devShells.${system}.python;

      # nix build .#runtime && docker load < result
      # igloo --flake .#runtime image push
      packages.${system} = {
        devcontainer = lib.mkDevContainer {
          name = "registry.example/my-org/my-project/devcontainer";
          packages = sets.base ++ sets.vscodeCompat ++ sets.devTools ++ sets.python ++ sets.pythonDev;
        };
        runtime = lib.mkRuntime {
          name = "registry.example/my-org/my-project/runtime";
          packages = sets.base ++ sets.python;
        };
      };
    };
}
