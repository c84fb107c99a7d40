# The few functions of nixpkgs' library that flakes out there use all the time.
let
  inherit (builtins) attrNames concatStringsSep elem filter foldl' functionArgs head intersectAttrs isAttrs isFunction
    isList isString length listToAttrs map mapAttrs replaceStrings substring stringLength tail toJSON;
  lib = base // import ./modules.nix lib;
  base = rec {
  inherit (builtins) attrNames attrValues concatLists concatMap concatStringsSep elem elemAt filter foldl' fromJSON
    functionArgs genList hasAttr head isAttrs isBool isFunction isInt isList isString length listToAttrs map mapAttrs
    pathExists readFile removeAttrs replaceStrings substring stringLength tail toJSON toString;
  version = "23.11-mini";

  fix = f: let x = f x; in x;
  extends = overlay: f: final: let prev = f final; in prev // overlay final prev;
  composeExtensions = f: g: final: prev: let a = f final prev; b = g final (prev // a); in a // b;
  composeManyExtensions = foldl' composeExtensions (_: _: { });
  makeExtensible = f: fix f // { extend = overlay: makeExtensible (extends overlay f); };

  genAttrs = names: f: listToAttrs (map (name: { inherit name; value = f name; }) names);
  nameValuePair = name: value: { inherit name value; };
  mapAttrs' = f: set: listToAttrs (map (name: f name set.${name}) (attrNames set));
  mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
  filterAttrs = f: set: listToAttrs (map (name: nameValuePair name set.${name}) (filter (n: f n set.${n}) (attrNames set)));
  optionalAttrs = yes: set: if yes then set else { };
  recursiveUpdate = a: b: a // mapAttrs (n: v: if isAttrs v && isAttrs (a.${n} or null) then recursiveUpdate a.${n} v else v) b;
  attrByPath = path: default: set:
    if path == [ ] then set
    else if isAttrs set && set ? ${head path} then attrByPath (tail path) default set.${head path}
    else default;
  getAttrFromPath = path: set: attrByPath path (throw "cannot find attribute `${concatStringsSep "." path}'") set;

  optional = yes: x: if yes then [ x ] else [ ];
  optionals = yes: xs: if yes then xs else [ ];
  unique = foldl' (acc: x: if elem x acc then acc else acc ++ [ x ]) [ ];
  flatten = x: if isList x then builtins.concatMap flatten x else [ x ];
  any = builtins.any;
  all = builtins.all;
  last = xs: builtins.elemAt xs (length xs - 1);

  optionalString = yes: s: if yes then s else "";
  concatMapStrings = f: xs: concatStringsSep "" (map f xs);
  concatMapStringsSep = sep: f: xs: concatStringsSep sep (map f xs);
  makeBinPath = makeSearchPathOutput "bin" "bin";
  makeLibraryPath = makeSearchPathOutput "lib" "lib";
  makeSearchPathOutput = output: dir: pkgs: concatMapStringsSep ":" (p: "${getOutput output p}/${dir}") (filter (p: p != null) pkgs);
  hasPrefix = prefix: s: substring 0 (stringLength prefix) s == prefix;
  hasSuffix = suffix: s: let n = stringLength s; m = stringLength suffix; in n >= m && substring (n - m) m s == suffix;
  removePrefix = prefix: s: if hasPrefix prefix s then substring (stringLength prefix) (-1) s else s;
  splitString = sep: s: filter isString (builtins.split (escapeRegex sep) s);
  escapeRegex = replaceStrings [ "." "+" "*" "?" "(" ")" "[" "]" "{" "}" "^" "$" "|" "\\" ] [ "\\." "\\+" "\\*" "\\?" "\\(" "\\)" "\\[" "\\]" "\\{" "\\}" "\\^" "\\$" "\\|" "\\\\" ];
  escapeShellArg = s: "'${replaceStrings [ "'" ] [ "'\\''" ] (toString s)}'";
  escapeShellArgs = concatMapStringsSep " " escapeShellArg;
  versionAtLeast = a: b: builtins.compareVersions a b >= 0;
  versionOlder = a: b: builtins.compareVersions a b < 0;

  isDerivation = x: x.type or null == "derivation";
  getOutput = output: p: if p.outputSpecified or false then p else p.${output} or p.out or p;
  getBin = getOutput "bin";
  getDev = getOutput "dev";
  getLib = getOutput "lib";
  getName = p: p.pname or (builtins.parseDrvName p.name).name;
  getVersion = p: p.version or (builtins.parseDrvName p.name).version;
  getExe = p: "${getBin p}/bin/${p.meta.mainProgram or (getName p)}";
  recurseIntoAttrs = attrs: attrs // { recurseForDerivations = true; };
  setFunctionArgs = f: args: { __functor = _: f; __functionArgs = args; };
  warn = text: builtins.trace "warning: ${text}";

  callPackageWith = scope: fn: args:
    let
      f = if isFunction fn then fn else import fn;
      build = args: makeOverridable f (intersectAttrs (functionArgs f) scope // args);
    in
    build args;
  makeOverridable = f: args:
    let result = f args; in
    if isAttrs result
    then result // { override = new: makeOverridable f (args // (if isFunction new then new args else new)); }
    else result;

  licenses = {
    mit = { spdxId = "MIT"; shortName = "mit"; free = true; };
    gpl3Plus = { spdxId = "GPL-3.0-or-later"; shortName = "gpl3Plus"; free = true; };
    unfree = { shortName = "unfree"; free = false; };
    bsl11 = { spdxId = "BUSL-1.1"; shortName = "bsl11"; free = false; };
  };
  platforms = { linux = [ "x86_64-linux" "aarch64-linux" ]; x86_64 = [ "x86_64-linux" ]; };
  systems.flakeExposed = [ "x86_64-linux" "aarch64-linux" ];
  };
in
lib
