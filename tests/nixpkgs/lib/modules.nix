# A module system in the manner of nixpkgs, as far as the modules of igloo's flake and small ones of users go: options,
# imports, `mkIf`, `mkMerge`, `mkDefault`, `mkForce`, submodules.
lib:
let
  inherit (builtins) attrNames concatLists concatMap elem filter foldl' head isAttrs isFunction isPath listToAttrs map
    mapAttrs removeAttrs;
  is = type: v: isAttrs v && v._type or null == type;

  # The condition of a set becomes that of its values, so that asking which there are evaluates no condition.
  sets = v:
    if is "merge" v then concatMap sets v.contents
    else if is "if" v then map (mapAttrs (_: content: { _type = "if"; inherit (v) condition; inherit content; })) (sets v.content)
    else if is "override" v then map (mapAttrs (_: content: v // { inherit content; })) (sets v.content)
    else [ v ];
  # What holds, with priorities.
  discharge = v:
    if is "merge" v then concatMap discharge v.contents
    else if is "if" v then (if v.condition then discharge v.content else [ ])
    else if is "override" v then [{ inherit (v) priority; value = v.content; }]
    else [{ priority = 100; value = v; }];
  values = defs:
    let
      all = concatMap discharge defs;
      best = foldl' (p: d: if d.priority < p then d.priority else p) 10000 all;
    in
    map (d: d.value) (filter (d: d.priority == best) all);
  names = defs: attrNames (foldl' (acc: set: acc // set) { } (concatMap sets defs));
  below = name: concatMap (def: concatMap (set: if set ? ${name} then [ set.${name} ] else [ ]) (sets def));

  one = name: check: {
    inherit name;
    merge = path: defs:
      let all = values defs; v = lib.last all; in
      if check v then v else throw "A definition for option `${path}' is not of type `${name}'.";
  };
  types = rec {
    unspecified = one "unspecified" (_: true);
    raw = unspecified;
    anything = unspecified;
    attrs = one "attribute set" isAttrs;
    bool = one "boolean" builtins.isBool;
    int = one "integer" builtins.isInt;
    str = one "string" builtins.isString;
    lines = { name = "lines"; merge = _: defs: lib.concatStringsSep "\n" (values defs); };
    path = one "path" (v: isPath v || builtins.isString v || v ? outPath);
    package = one "package" (v: v ? outPath);
    port = int;
    enum = options: one "enum" (v: elem v options);
    nullOr = type: {
      name = "null or ${type.name}";
      merge = path: defs: let all = values defs; in if filter (v: v != null) all == [ ] then null else type.merge path defs;
    };
    listOf = type: { name = "list of ${type.name}"; merge = path: defs: map (v: type.merge path [ v ]) (concatLists (values defs)); };
    attrsOf = type: {
      name = "attribute set of ${type.name}";
      merge = path: defs: listToAttrs (map
        (name: { inherit name; value = type.merge "${path}.${name}" (below name defs); })
        (filter (name: concatMap discharge (below name defs) != [ ]) (names defs)));
    };
    lazyAttrsOf = attrsOf;
    submodule = module: {
      name = "submodule";
      merge = path: defs: (evalModules { prefix = path; modules = [ module ] ++ map (def: { config = def; }) defs; }).config;
    };
    # All definitions: whoever asks evaluates them.
    deferredModule = { name = "module"; merge = _: defs: { imports = values defs; }; };
  };

  evalModules = { modules, specialArgs ? { }, prefix ? "", args ? { } }:
    let
      module = m:
        let
          v = if isFunction m then m (specialArgs // args // { inherit lib config options; }) else if isAttrs m then m else module' m;
          plain = !(v ? config || v ? options);
        in
        {
          options = v.options or { };
          config = if plain then removeAttrs v [ "imports" "_file" "key" ] else v.config or { };
          imports = v.imports or [ ];
        };
      module' = m: let v = import m; in if isFunction v then v (specialArgs // args // { inherit lib config options; }) else v;
      flatten = m: let own = module m; in concatMap flatten own.imports ++ [ own ];
      all = concatMap flatten modules;
      options = foldl' lib.recursiveUpdate { } (map (m: m.options) all);
      eval = path: options: defs:
        let
          unknown = filter (name: !(options ? ${name})) (names defs);
          at = name: if path == "" then name else "${path}.${name}";
          option = name: o:
            if is "option" o then
              let
                own = below name defs ++ (if o ? default then [{ _type = "override"; priority = 1500; content = o.default; }] else [ ]);
                merged = if own == [ ] then throw "The option `${at name}' is used but not defined." else o.type.merge (at name) own;
              in
              (o.apply or (v: v)) merged
            else eval (at name) o (below name defs);
        in
        if unknown != [ ] && !(options ? _freeform) then throw "The option `${at (head unknown)}' does not exist."
        else (listToAttrs (map (name: { inherit name; value = types.unspecified.merge (at name) (below name defs); }) unknown))
          // mapAttrs option (removeAttrs options [ "_freeform" ]);
      config = eval prefix options (map (m: m.config) all);
    in
    { inherit config options; };
in
{
  inherit evalModules types;
  mkOption = o: o // { _type = "option"; type = o.type or types.unspecified; };
  mkEnableOption = what: { _type = "option"; type = types.bool; default = false; description = "Whether to enable ${what}."; };
  mkIf = condition: content: { _type = "if"; inherit condition content; };
  mkMerge = contents: { _type = "merge"; inherit contents; };
  mkDefault = content: { _type = "override"; priority = 1000; inherit content; };
  mkForce = content: { _type = "override"; priority = 50; inherit content; };
  literalExpression = text: { _type = "literalExpression"; inherit text; };
}
