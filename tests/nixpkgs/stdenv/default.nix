# `stdenv.mkDerivation`, with nixpkgs' checks of licences, vulnerabilities and platforms.
final: prev:
let
  inherit (final) lib config;

  licences = meta: lib.flatten (meta.license or [ ]);
  check = name: pname: meta:
    let
      unfree = builtins.filter (l: !(l.free or true)) (licences meta);
      refuse = why: throw "Package ‘${name}’ in ${toString ./..} ${why}, refusing to evaluate.";
    in
    if unfree != [ ] && !config.allowUnfree && !config.allowUnfreePredicate { inherit pname name meta; } then
      refuse "has an unfree license (‘${lib.concatMapStringsSep " " (l: l.shortName) unfree}’)"
    else if meta.knownVulnerabilities or [ ] != [ ] && !builtins.elem name config.permittedInsecurePackages then
      refuse "is marked as insecure"
    else if meta.broken or false && !config.allowBroken then
      refuse "is marked as broken"
    else if !builtins.elem final.system (meta.platforms or [ final.system ]) then
      refuse "is not available on the requested hostPlatform: ${final.system}"
    else true;

  make = args:
    let
      pname = args.pname or (builtins.parseDrvName args.name).name;
      version = args.version or (builtins.parseDrvName args.name).version;
      name = args.name or "${pname}-${version}";
      meta = args.meta or { };
      outputs = args.outputs or [ "out" ];
      dev = p: if lib.isDerivation p then p.dev or p else p;
      libs = p: if lib.isDerivation p then [ (p.dev or p) (p.lib or p.out or p) ] else [ p ];
      raw = builtins.derivation (builtins.removeAttrs args [ "meta" "passthru" ] // {
        inherit name outputs;
        inherit (final) system;
        builder = "${final.bash}/bin/bash";
        args = args.args or [ "-e" ./builder.sh ];
        stdenv = args.stdenv or final.stdenv;
        nativeBuildInputs = map (p: lib.getBin (dev p)) (args.nativeBuildInputs or [ ]);
        buildInputs = lib.unique (builtins.concatMap libs (args.buildInputs or [ ]));
        propagatedBuildInputs = lib.unique (builtins.concatMap libs (args.propagatedBuildInputs or [ ]));
      });
      checked = builtins.seq (check name pname meta) raw;
      extra = {
        inherit pname version name outputs;
        meta = {
          inherit name;
          outputsToInstall = [ (if builtins.elem "bin" outputs then "bin" else builtins.head outputs) ];
        } // meta // {
          unfree = builtins.any (l: !(l.free or true)) (licences meta);
          insecure = meta.knownVulnerabilities or [ ] != [ ];
          available = (builtins.tryEval (check name pname meta)).success;
        };
        passthru = args.passthru or { };
        overrideAttrs = f: make (args // (let g = f args; in if builtins.isFunction g then f args args else g));
      } // args.passthru or { };
      # Names and metadata are to be had of what must not be built.
      output = o: {
        type = "derivation";
        outputName = o;
        outputSpecified = o != builtins.head outputs;
        inherit (final) system;
        drvPath = checked.drvPath;
        outPath = checked.${o}.outPath;
        inherit (checked) drvAttrs;
        all = map (n: every.${n}) outputs;
      } // extra // every;
      every = lib.genAttrs outputs output;
    in
    builtins.removeAttrs every.${builtins.head outputs} [ "outputSpecified" ];

  mkDerivation = args: if builtins.isFunction args then lib.fix (self: make (args (self // { finalPackage = self; }))) else make args;

  stdenv = derivation {
    name = "stdenv-linux";
    inherit (final) system;
    builder = "${final.bash}/bin/bash";
    setup = ./setup.sh;
    inherit (final) bash;
    initialPath = map toString [ final.coreutils final.gcc final.bash ];
    PATH = "${final.busybox}/bin";
    args = [ "-ec" ''
      mkdir -p $out
      { echo "export initialPath='$initialPath' SHELL=$bash/bin/bash"; cat $setup; } > $out/setup
    '' ];
  };
in
{
  stdenv = stdenv // {
    inherit mkDerivation;
    cc = final.gcc;
    isLinux = true;
    shell = "${final.bash}/bin/bash";
    hostPlatform = { inherit (final) system; isLinux = true; isx86_64 = final.system == "x86_64-linux"; isAarch64 = final.system == "aarch64-linux"; };
  };
  stdenvNoCC = final.stdenv;
  coreutils = final.busybox // { pname = "coreutils"; };
}
