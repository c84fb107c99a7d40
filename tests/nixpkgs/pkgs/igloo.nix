# igloo as a package: the program that a test names, made to run with this set's C library. Real package sets build it from
# its sources (nix/package.nix); there is no compiler for that here.
final: prev:
let program = builtins.getEnv "IGLOO_PROGRAM"; in
if program == "" then { } else {
  igloo = derivation {
    name = "igloo";
    inherit (final) system;
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    program = builtins.path { path = program; name = "igloo"; };
    inherit (final) glibc;
    args = [ "-ec" ''
      mkdir -p $out/bin
      cp $program $out/bin/igloo
      chmod u+w $out/bin/igloo
      patchelf --set-interpreter $glibc/lib/${final.glibc.loader} --set-rpath $glibc/lib $out/bin/igloo
    '' ];
  };
}
