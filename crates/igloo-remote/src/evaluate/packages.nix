# What igloo asks of Nix: one evaluation for all names and systems, where nothing is built.
# A package that cannot be had gives its name alone; igloo then asks for it by itself, to hear why.
# `names` are `{ asked, path }` of packages, `outputs` `{ asked, reference, path }` of outputs of flakes.
{ source, systems, names, outputs, overlays, allowUnfree, permittedInsecure, strict }:
let
  packages = system:
    if source == null then { }
    else
      import source {
        inherit system;
        overlays = map import overlays;
        config = {
          inherit allowUnfree;
          permittedInsecurePackages = permittedInsecure;
        };
      };
  at = path: set:
    if path == [ ] then { found = true; value = set; }
    else if builtins.isAttrs set && builtins.hasAttr (builtins.head path) set
    then at (builtins.tail path) (builtins.getAttr (builtins.head path) set)
    else { found = false; value = null; };
  near = path: set:
    let
      parent = at (initial path) set;
      last = builtins.elemAt path (builtins.length path - 1);
      begins = name: builtins.substring 0 3 name == builtins.substring 0 3 last;
    in
    if parent.found && builtins.isAttrs parent.value then builtins.filter begins (builtins.attrNames parent.value) else [ ];
  initial = path: builtins.genList (builtins.elemAt path) (builtins.length path - 1);
  describe = asked: drv:
    let
      wanted = if drv.outputSpecified or false then [ drv.outputName ] else drv.meta.outputsToInstall or [ (drv.outputName or "out") ];
      one = name: {
        inherit name;
        path = builtins.unsafeDiscardStringContext (drv.${name} or drv).outPath;
      };
    in
    {
      inherit asked;
      version = toString (drv.version or "");
      name = drv.name or "";
      priority = drv.meta.priority or 5;
      drv = builtins.unsafeDiscardStringContext drv.drvPath;
      outputs = map one wanted;
    };
  attempt = value: if strict then { success = true; inherit value; } else builtins.tryEval value;
  look = set: asked: path:
    let
      found = attempt (let found = at path set; in builtins.seq found.value found);
      package = attempt (let package = describe asked found.value.value; in builtins.deepSeq package package);
      isPackage = builtins.isAttrs found.value.value && found.value.value ? drvPath;
    in
    if !found.success then { inherit asked; failed = true; }
    else if !found.value.found then { inherit asked; missing = near path set; }
    else if !isPackage then { inherit asked; missing = [ ]; kind = "set"; }
    else if package.success then package.value
    else { inherit asked; failed = true; };
  ofFlake = system: { asked, reference, path }:
    let
      outputs = builtins.getFlake reference;
      places = [ [ "packages" system ] [ "legacyPackages" system ] [ ] ];
      candidates = map (place: place ++ (if path == [ ] then [ "default" ] else path)) places;
      good = builtins.filter (path: (at path outputs).found) candidates;
    in
    look outputs asked (if good == [ ] then builtins.head candidates else builtins.head good);
  ofSystem = system:
    let set = packages system; in
    map ({ asked, path }: look set asked path) names ++ map (ofFlake system) outputs;
in
builtins.listToAttrs (map (system: { name = system; value = ofSystem system; }) systems)
