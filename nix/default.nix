# What igloo's flake has for one package set.
{ pkgs
  # igloo itself, to build images inside Nix with. `igloo --flake REF image build` needs none.
, igloo ? pkgs.igloo or (throw "igloo: this package set has neither `rustPlatform` nor `igloo`, so that Nix can't build images; `igloo --flake REF image build` can")
}:
let
  packageSets = import ./package-sets.nix pkgs;
  shell = packages: pkgs.mkShell { inherit packages; };
  languages = builtins.filter (name: packageSets ? "${name}Dev") (builtins.attrNames packageSets);
in
import ./images.nix { inherit pkgs igloo; } // {
  inherit igloo packageSets;
  # `default` to look around with, and one for each language.
  devShells = { default = shell (packageSets.base ++ packageSets.devTools); } // builtins.listToAttrs (map
    (name: { inherit name; value = shell (packageSets.base ++ packageSets.${name} ++ packageSets."${name}Dev"); })
    languages);
  containers = import ./containers.nix { inherit pkgs; igloo = if pkgs ? igloo then igloo else null; };
}
