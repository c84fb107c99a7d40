# An igloo.toml from Nix's values. `write` needs nothing of a package set: the shell of Nix's sandbox is enough.
{ system }:
let
  inherit (builtins) attrNames concatStringsSep filter isAttrs isBool isInt isList isString toJSON;

  # JSON's strings are TOML's.
  string = text: toJSON (toString text);
  value = v:
    if isBool v then (if v then "true" else "false")
    else if isInt v then toString v
    else if isList v then "[${concatStringsSep ", " (map value v)}]"
    else if isAttrs v && !(v ? outPath) then "{ ${concatStringsSep ", " (map (line v) (keys v))} }"
    else string v;
  # What is null isn't said.
  keys = set: filter (name: set.${name} != null) (attrNames set);
  line = set: name: "${string name} = ${value set.${name}}";
  table = header: set: [ "[${header}]" ] ++ map (line set) (keys set);
  # Tables of tables get headers of their own, so that findings point at short lines.
  nested = name: set: builtins.concatMap (inner: table "${name}.${string inner}" set.${inner}) (attrNames set);
in
rec {
  # { project, sources, shells, services, images } with igloo.toml's keys.
  text = { project, ... }@manifest:
    let rest = filter (name: name != "project") (attrNames manifest); in
    concatStringsSep "\n" (table "project" project ++ builtins.concatMap (name: nested name manifest.${name}) rest) + "\n";

  write = manifest: derivation {
    name = "igloo.toml";
    inherit system;
    builder = "/bin/sh";
    args = [ "-c" ''printf '%s' "$text" > "$out"'' ];
    text = text manifest;
    preferLocalBuild = true;
    allowSubstitutes = false;
  };

  # The outputs of packages that somebody gets who installs them.
  installed = packages:
    let
      outputs = p:
        if !(isAttrs p) then [ "${p}" ]
        else if p.outputSpecified or false then [ p.outPath ]
        else map (name: (p.${name} or p).outPath) (p.meta.outputsToInstall or [ (p.outputName or "out") ]);
    in
    builtins.concatMap outputs packages;

  # What igloo and registries take for a name.
  slug = text:
    let
      good = builtins.split "[^A-Za-z0-9-]+" text;
    in
    concatStringsSep "-" (filter (part: isString part && part != "") good);
}
