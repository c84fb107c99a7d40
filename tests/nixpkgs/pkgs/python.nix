# Nested sets, as nixpkgs has for each version of Python.
final: prev:
let
  inherit (final) lib stdenv;
  python = minor: stdenv.mkDerivation {
    pname = "python3";
    version = "3.${minor}.1";
    inherit (final) bash;
    deps = [ final.openssl final.zlib final.sqlite ];
    meta = { license = lib.licenses.mit; mainProgram = "python3"; platforms = lib.platforms.linux; };
    passthru = {
      pythonVersion = "3.${minor}";
      sitePackages = "lib/python3.${minor}/site-packages";
      pkgs = packages minor;
      withPackages = f: final.symlinkJoin { name = "python3-3.${minor}.1-env"; paths = [ final."python3${minor}" ] ++ f (packages minor); };
    };
    buildCommand = ''
      mkdir -p $out/bin $out/lib/python3.${minor}/site-packages
      echo $deps > $out/lib/python3.${minor}/needs
      printf '#!%s/bin/bash\necho "Python 3.${minor}.1" "$@"\n' $bash > $out/bin/python3.${minor}
      chmod +x $out/bin/python3.${minor}; ln -s python3.${minor} $out/bin/python3; ln -s python3 $out/bin/python
    '';
  };
  module = minor: pname: version: deps: stdenv.mkDerivation {
    pname = "python3.${minor}-${pname}";
    inherit version;
    python = final."python3${minor}";
    propagatedBuildInputs = deps;
    meta = { license = lib.licenses.mit; mainProgram = pname; platforms = lib.platforms.linux; };
    buildCommand = ''
      site=$out/lib/python3.${minor}/site-packages/${pname}
      mkdir -p $out/bin $site; echo "version = '${version}'" > $site/__init__.py
      printf '#!%s/bin/python3\n' $python > $out/bin/${pname}; chmod +x $out/bin/${pname}
      fixupPhase
    '';
  };
  packages = minor: lib.makeExtensible (self: lib.recurseIntoAttrs {
    python = final."python3${minor}";
    pip = module minor "pip" "23.3" [ self.setuptools ];
    setuptools = module minor "setuptools" "68.2" [ ];
    virtualenv = module minor "virtualenv" "20.24" [ self.pip ];
    flask = module minor "flask" "3.0.0" [ self.jinja2 ];
    jinja2 = module minor "jinja2" "3.1.2" [ ];
    requests = module minor "requests" "2.31" [ ];
  });
in
{
  python311 = python "11";
  python312 = python "12";
  python3 = final.python312;
  python311Packages = packages "11";
  python312Packages = packages "12";
  python3Packages = final.python312Packages;
}
