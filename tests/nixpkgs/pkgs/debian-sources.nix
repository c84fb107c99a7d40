# Programs built from the sources of Debian's packages, which `tests/nixpkgs/sources` fetches and adds to a store. They
# take minutes, so that only benchmarks and those who ask for them build them.
final: prev:
let
  inherit (final) lib stdenv requireFile;
  pinned = builtins.fromJSON (builtins.readFile ./debian-sources.json);
  from = pname: args: stdenv.mkDerivation ({
    inherit pname;
    inherit (pinned.${pname}) version;
    src = requireFile { inherit (pinned.${pname}) name sha256; };
    meta = { license = lib.licenses.mit; mainProgram = pname; platforms = lib.platforms.linux; };
  } // args);
in
{
  debian = lib.recurseIntoAttrs rec {
    zlib = from "zlib" { configurePhase = "bash ./configure --prefix=$out"; buildPhase = "make CC=gcc libz.a libz.so.1.2.13"; };
    lua = from "lua" { buildPhase = "make -C src linux CC=gcc MYLDFLAGS="; installPhase = "make install INSTALL_TOP=$out"; };
    redis = from "redis" { makeFlags = "MALLOC=libc USE_SYSTEMD=no"; installFlags = "PREFIX=$(out)"; };
    pcre2 = from "pcre2" { configureFlags = "--disable-static --disable-dependency-tracking"; };
    nginx = from "nginx" {
      buildInputs = [ zlib pcre2 ];
      configurePhase = ''bash ./configure --prefix=$out --with-cc-opt="-Wno-error $NIX_CFLAGS_COMPILE" --with-ld-opt="$NIX_LDFLAGS"'';
    };
  };
}
