# A miniature package set in the manner of nixpkgs; see README.md.
{ system ? builtins.currentSystem
, config ? { }
, overlays ? [ ]
}:
let
  lib = import ./lib;
  base = final: {
    inherit system lib overlays;
    pkgs = final;
    config = {
      allowUnfree = builtins.getEnv "NIXPKGS_ALLOW_UNFREE" == "1";
      allowUnfreePredicate = _: false;
      permittedInsecurePackages = [ ];
      allowBroken = false;
    } // (if builtins.isFunction config then config { inherit lib; pkgs = final; } else config);
    callPackage = lib.callPackageWith final;
    extend = overlay: import ./. { inherit system config; overlays = overlays ++ [ overlay ]; };
    # `appendOverlays` and `extend` start over, since overlays may change the bootstrap as well.
    appendOverlays = more: import ./. { inherit system config; overlays = overlays ++ more; };
    hostPlatform = final.stdenv.hostPlatform;
    recurseIntoAttrs = attrs: attrs // { recurseForDerivations = true; };
  };
in
lib.fix (builtins.foldl' (f: overlay: lib.extends overlay f) base (
  [
    (import ./stdenv/bootstrap.nix)
    (import ./stdenv)
    (import ./pkgs/build-support.nix)
    (import ./pkgs/scripts.nix)
    (import ./pkgs/c.nix)
    (import ./pkgs/python.nix)
    (import ./pkgs/marked.nix)
    (import ./pkgs/nixos.nix)
    (import ./pkgs/igloo.nix)
  ] ++ overlays
))
