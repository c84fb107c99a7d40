# Real C: a shared library with several outputs, and programs that load it at run time.
final: prev:
let inherit (final) lib stdenv; in
{
  # `libgreet.so` in `out`, its header in `dev`, a program of its own in `bin`.
  libgreet = stdenv.mkDerivation {
    pname = "libgreet";
    version = "1.2.0";
    src = ./c;
    outputs = [ "out" "dev" "bin" ];
    meta = { license = lib.licenses.gpl3Plus; description = "greets"; mainProgram = "greet"; platforms = lib.platforms.linux; };
    buildPhase = ''
      gcc -O1 -fPIC -shared -Wl,-soname,libgreet.so.1 -o libgreet.so.1.2.0 greet.c
    '';
    installPhase = ''
      mkdir -p $out/lib $dev/include $dev/lib/pkgconfig $bin/bin
      cp libgreet.so.1.2.0 $out/lib/
      ln -s libgreet.so.1.2.0 $out/lib/libgreet.so.1
      ln -s libgreet.so.1 $out/lib/libgreet.so
      cp greet.h $dev/include/
      printf 'Name: greet\nVersion: 1.2.0\nLibs: -L%s -lgreet\nCflags: -I%s\n' $out/lib $dev/include > $dev/lib/pkgconfig/greet.pc
      gcc -O1 -I. -o $bin/bin/greet main.c -L$out/lib -lgreet -Wl,-rpath,$out/lib
    '';
  };

  hello = stdenv.mkDerivation {
    pname = "hello";
    version = "2.12";
    src = ./c;
    buildInputs = [ final.libgreet ];
    meta = { license = lib.licenses.gpl3Plus; description = "says hello"; mainProgram = "hello"; platforms = lib.platforms.linux; };
    buildPhase = "gcc $NIX_CFLAGS_COMPILE -DNAME='\"world\"' -o hello main.c -lgreet";
    installPhase = "mkdir -p $out/bin $out/share; cp hello $out/bin/; echo $version > $out/share/version";
  };

  # The names of libraries that others refer to.
  zlib = stdenv.mkDerivation {
    pname = "zlib";
    version = "1.3";
    outputs = [ "out" "dev" ];
    meta = { license = lib.licenses.mit; platforms = lib.platforms.linux; };
    buildCommand = ''
      mkdir -p $out/lib $dev/include
      echo 'const char *zlibVersion(void) { return "1.3"; }' > z.c
      gcc -shared -fPIC -Wl,-soname,libz.so.1 -o $out/lib/libz.so.1 z.c
      ln -s libz.so.1 $out/lib/libz.so
      echo 'const char *zlibVersion(void);' > $dev/include/zlib.h; echo $out > $dev/include/zlib.out
    '';
  };
  openssl = stdenv.mkDerivation {
    pname = "openssl";
    version = "3.0.12";
    outputs = [ "bin" "dev" "out" ];
    meta = { license = lib.licenses.mit; platforms = lib.platforms.linux; mainProgram = "openssl"; };
    buildCommand = ''
      mkdir -p $bin/bin $out/lib $out/etc/ssl $dev/include/openssl
      printf '#!%s/bin/bash\n# %s\necho "OpenSSL 3.0.12"\n' ${final.bash} $out > $bin/bin/openssl; chmod +x $bin/bin/openssl
      echo 'int ssl(void) { return 3; }' > s.c; gcc -shared -fPIC -o $out/lib/libssl.so.3 s.c
      echo "/* $out */" > $dev/include/openssl/ssl.h
    '';
  };
}
