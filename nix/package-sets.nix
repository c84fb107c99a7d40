# The package sets that igloo.toml has as `@base`, `@devTools`, ..., of this package set: lists to be put together with
# `++`. The names are igloo's own table, which a test keeps equal to the program's.
pkgs:
let
  inherit (builtins) elemAt filter foldl' fromJSON isAttrs isString mapAttrs readFile split trace;
  names = fromJSON (readFile ./package-sets.json);
  at = path: foldl' (set: name: if isAttrs set then set.${name} or null else null) pkgs (filter isString (split "\\." path));
  # A package set that is older or smaller lacks some: said, and left out.
  find = set: path:
    let found = at path; in
    if found == null then trace "igloo: this package set has no `${path}`; `${set}` comes without it" [ ] else [ found ];
in
mapAttrs (set: paths: builtins.concatMap (find set) paths) names
