{
  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
    flake-parts.url = "github:hercules-ci/flake-parts";
    igloo.url = "flake:igloo"; # or path:/where/you/have/igloo
    igloo.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs = inputs@{ flake-parts, igloo, ... }:
    flake-parts.lib.mkFlake { inherit inputs; } {
      imports = [ igloo.flakeModules.default ];
      systems = [ "x86_64-linux" ];

      # nix run .#httpserver-up, nix run .#containers-up, nix develop .#flake-containers
      flake-containers = {
        enable = true;
        containers.httpserver = {
          volumes-ro = [ "site:/srv/site" ];
          configuration = { ... }: {
            networking.firewall.allowedTCPPorts = [ 80 ];
            services.nginx.enable = true;
            services.nginx.virtualHosts.localhost.root = "/srv/site";
          };
        };
      };
    };
}
