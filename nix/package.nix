# igloo itself.
{ rustPlatform, lib ? { } }:
let
  cargo = builtins.fromTOML (builtins.readFile ../Cargo.toml);
in
rustPlatform.buildRustPackage {
  pname = "igloo";
  version = cargo.workspace.package.version;
  # Tests, benchmarks and these files change nothing of the program.
  src = builtins.path {
    name = "igloo-source";
    path = ../.;
    filter = path: _:
      dirOf path != toString ../. || !(builtins.elem (baseNameOf path) [ ".git" ".ci" "target" "bench" "fuzz" "flake.nix" "examples" ]);
  };
  cargoLock.lockFile = ../Cargo.lock;
  cargoBuildFlags = [ "--package" "igloo" ];
  # They need root, other users, network namespaces and an archive of packages: `tests/run` does that.
  doCheck = false;
  meta = {
    description = "Reproducible environments and containers from one igloo.toml and one igloo.lock";
    mainProgram = "igloo";
    license = with lib.licenses or { mit = { }; asl20 = { }; }; [ mit asl20 ];
    platforms = [ "x86_64-linux" "aarch64-linux" ];
  };
}
