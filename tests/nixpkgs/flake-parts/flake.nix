{
  description = "As much of flake-parts as igloo's tests use";

  outputs = { self }: {
    lib.mkFlake = { inputs }: module:
      let
        inherit (inputs.nixpkgs) lib;
        inherit (lib) mkOption types;
        outputs = mkOption { type = types.attrsOf types.unspecified; default = { }; };
        top = { ... }: {
          options = {
            systems = mkOption { type = types.listOf types.str; };
            perSystem = mkOption { type = types.deferredModule; default = { }; };
            flake = outputs;
          };
        };
        one = config: system: (lib.evalModules {
          modules = [ { options = { packages = outputs; devShells = outputs; apps = outputs; flake-root = outputs; }; } config.perSystem ];
          specialArgs = { inherit system; pkgs = inputs.nixpkgs.legacyPackages.${system}; self' = { }; inputs' = { }; };
        }).config;
        inherit (lib.evalModules { modules = [ top module ]; specialArgs = { inherit inputs; self = inputs.self; withSystem = null; }; }) config;
        each = lib.genAttrs config.systems (one config);
        of = name: builtins.mapAttrs (_: c: c.${name}) each;
      in
      { packages = of "packages"; devShells = of "devShells"; apps = of "apps"; } // config.flake;
  };
}
