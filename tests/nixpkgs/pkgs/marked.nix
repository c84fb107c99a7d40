# Packages that nixpkgs would refuse, each for another reason.
final: prev:
let
  inherit (final) lib stdenv;
  trivial = pname: version: meta: stdenv.mkDerivation {
    inherit pname version meta;
    inherit (final) bash;
    buildCommand = ''
      mkdir -p $out/bin
      printf '#!%s/bin/bash\necho %s %s\n' $bash $pname $version > $out/bin/$pname; chmod +x $out/bin/$pname
    '';
  };
in
{
  terraform = trivial "terraform" "1.6.4" { license = lib.licenses.bsl11; };
  vscode = trivial "vscode" "1.84.2" { license = lib.licenses.unfree; };
  openssl_1_1 = trivial "openssl" "1.1.1w" { license = lib.licenses.mit; knownVulnerabilities = [ "end of life since 2023-09-11" ]; };
  broken-tool = trivial "broken-tool" "0.1" { broken = true; };
  x86-only = trivial "x86-only" "1.0" { platforms = lib.platforms.x86_64; };
  # Not to be built: for those who want to see a build fail.
  fails = stdenv.mkDerivation { name = "fails-1"; buildCommand = "echo 'this build fails' >&2; exit 3"; };
}
