# What everything else is built with. There is no bootstrap tarball here: a shell, a C library and a compiler are taken
# from the machine (Debian 12 or later with busybox-static, patchelf, gcc), and get real references among themselves,
# so that nothing of the machine is needed to run what is built.
final: prev:
let
  # `/bin/sh` is there in every sandbox; below `/usr` lies what the settings in README.md let in.
  raw = name: { outputs ? [ "out" ], ... }@args: script: derivation (args // {
    inherit name outputs;
    inherit (final) system;
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    args = [ "-ec" script ];
  });
  triple = if final.system == "aarch64-linux" then "aarch64-linux-gnu" else "x86_64-linux-gnu";
  loader = if final.system == "aarch64-linux" then "ld-linux-aarch64.so.1" else "ld-linux-x86-64.so.2";
in
{
  busybox = raw "busybox-1.35.0" { } ''
    mkdir -p $out/bin
    cp /usr/bin/busybox $out/bin/busybox
    for applet in $(/usr/bin/busybox --list); do
      [ $applet = busybox ] || ln -s busybox $out/bin/$applet
    done
  '' // { pname = "busybox"; version = "1.35.0"; meta.mainProgram = "busybox"; };

  # The machine's C library, without what only its packages need.
  glibc = raw "glibc-2.36" { inherit triple loader; } ''
    mkdir -p $out/lib
    for lib in $loader libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 librt.so.1 libresolv.so.2 libcrypt.so.1 \
               libnss_files.so.2 libnss_dns.so.2 libgcc_s.so.1; do
      for dir in /usr/lib/$triple /lib/$triple; do
        if [ -e $dir/$lib ] && ! [ -e $out/lib/$lib ]; then cp -L $dir/$lib $out/lib/; chmod u+w $out/lib/$lib; fi
      done
    done
    # Libraries find each other in the same directory; the loader has no such entry, and libc is left alone.
    for lib in $out/lib/*; do
      case $lib in */ld-linux*|*/libc.so.6) ;; *) patchelf --set-rpath $out/lib $lib ;; esac
    done
  '' // { pname = "glibc"; version = "2.36"; inherit loader; };

  ncurses = raw "ncurses-6.4" { inherit (final) glibc; inherit triple; outputs = [ "out" "dev" ]; } ''
    mkdir -p $out/lib $dev/include
    for dir in /usr/lib/$triple /lib/$triple; do
      [ -e $out/lib/libtinfo.so.6 ] || ! [ -e $dir/libtinfo.so.6 ] || cp -L $dir/libtinfo.so.6 $out/lib/
    done
    chmod u+w $out/lib/*; patchelf --set-rpath $glibc/lib $out/lib/libtinfo.so.6
    echo "/* $out */" > $dev/include/term.h
  '' // { pname = "ncurses"; version = "6.4"; };

  bash = raw "bash-5.2" { inherit (final) glibc ncurses; inherit loader; } ''
    mkdir -p $out/bin
    cp /bin/bash $out/bin/bash || cp /usr/bin/bash $out/bin/bash
    chmod u+w $out/bin/bash
    patchelf --set-interpreter $glibc/lib/$loader --set-rpath $ncurses/lib:$glibc/lib $out/bin/bash
    ln -s bash $out/bin/sh
  '' // { pname = "bash"; version = "5.2"; meta.mainProgram = "bash"; };
  bashInteractive = final.bash;

  # A compiler whose programs run on this C library. It is the machine's own, so that it must be visible in builds.
  gcc = raw "gcc-wrapper-12" { inherit (final) glibc bash; inherit loader; } ''
    mkdir -p $out/bin
    for tool in gcc cc; do
      cat > $out/bin/$tool <<WRAPPER
    #!$bash/bin/bash
    # Only what links gets the flags of linking.
    link=(-Wl,--dynamic-linker=$glibc/lib/$loader -Wl,-rpath,$glibc/lib)
    for arg in "\$@"; do case "\$arg" in -c|-S|-E|-M|-MM) link=() ;; esac; done
    exec /usr/bin/gcc \$NIX_CFLAGS_COMPILE "\$@" "\''${link[@]}" \$NIX_LDFLAGS
    WRAPPER
      chmod +x $out/bin/$tool
    done
  '' // { pname = "gcc-wrapper"; version = "12"; cc = { lib = final.glibc; }; };
}
