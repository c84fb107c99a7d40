# The names that igloo's built-in sets ask for, as scripts that tell their version; with references like the real ones.
final: prev:
let
  inherit (final) lib stdenv;
  free = { license = lib.licenses.mit; platforms = lib.platforms.linux; };
  # One command or several; `deps` end up in the closure, as libraries would.
  script = pname: version: { commands ? [ pname ], deps ? [ ], body ? "", ... }@args: stdenv.mkDerivation {
    inherit pname version commands deps body;
    shell = "${final.bash}/bin/bash";
    meta = free // { mainProgram = builtins.head commands; description = "stands in for ${pname}"; };
    buildCommand = ''
      mkdir -p $out/bin $out/share/${pname}
      echo $deps > $out/share/${pname}/needs
      for command in $commands; do
        { echo "#!$shell"
          echo '[ "$1" = --version ] && { echo "'$command' ${version}"; exit; }'
          if [ -n "$body" ]; then echo "$body"; else echo "echo '$command ${version}' \"\$@\""; fi
        } > $out/bin/$command
        chmod +x $out/bin/$command
      done
    '';
  };
  # Commands that busybox has.
  applets = pname: version: commands: stdenv.mkDerivation {
    inherit pname version commands;
    inherit (final) busybox;
    meta = free // { mainProgram = builtins.head commands; };
    buildCommand = "mkdir -p $out/bin; for c in $commands; do ln -s $busybox/bin/busybox $out/bin/$c; done";
  };
in
{
  findutils = applets "findutils" "4.9.0" [ "find" "xargs" ];
  gnugrep = applets "gnugrep" "3.11" [ "grep" "egrep" "fgrep" ];
  gnused = applets "gnused" "4.9" [ "sed" ];
  gnutar = applets "gnutar" "1.35" [ "tar" ];
  gawk = applets "gawk" "5.2.2" [ "awk" ];
  gzip = applets "gzip" "1.13" [ "gzip" "gunzip" "zcat" ];
  procps = applets "procps" "4.0.4" [ "ps" "top" "free" ];
  wget = applets "wget" "1.21.4" [ "wget" ];
  less = applets "less" "643" [ "less" ];
  xz = stdenv.mkDerivation {
    pname = "xz";
    version = "5.4.4";
    outputs = [ "bin" "dev" "out" ];
    inherit (final) busybox;
    meta = free;
    buildCommand = ''
      mkdir -p $bin/bin $out/lib $dev/include
      for c in xz unxz xzcat; do ln -s $busybox/bin/busybox $bin/bin/$c; done
      echo "/* $out/lib */" > $dev/include/lzma.h; echo liblzma > $out/lib/liblzma.txt
    '';
  };
  cacert = stdenv.mkDerivation {
    pname = "nss-cacert";
    version = "3.95";
    meta = free;
    buildCommand = ''
      mkdir -p $out/etc/ssl/certs
      echo "# no authority is trusted here" > $out/etc/ssl/certs/ca-bundle.crt
      mkdir -p $out/nix-support; echo "export SSL_CERT_FILE=$out/etc/ssl/certs/ca-bundle.crt" > $out/nix-support/setup-hook
    '';
  };
  tzdata = stdenv.mkDerivation {
    pname = "tzdata";
    version = "2023c";
    meta = free;
    buildCommand = "mkdir -p $out/share/zoneinfo; echo UTC > $out/share/zoneinfo/UTC";
  };

  openssh = script "openssh" "9.5p1" { commands = [ "ssh" "scp" "sshd" "ssh-keygen" ]; deps = [ final.openssl final.zlib ]; };
  curl = script "curl" "8.4.0" { deps = [ final.openssl final.zlib final.cacert ]; };
  git = script "git" "2.42.0" { deps = [ final.curl final.openssl final.zlib final.gnused ]; };
  jq = script "jq" "1.7" { deps = [ final.oniguruma ]; };
  oniguruma = script "oniguruma" "6.9.8" { commands = [ "onig-config" ]; };
  ripgrep = script "ripgrep" "13.0.0" { commands = [ "rg" ]; };
  fd = script "fd" "8.7.1" { };
  fzf = script "fzf" "0.43.0" { deps = [ final.bash ]; };
  bat = script "bat" "0.24.0" { };
  tree = script "tree" "2.1.1" { };
  shadow = script "shadow" "4.14.1" { commands = [ "passwd" "useradd" ]; };
  sudo = script "sudo" "1.9.15" { };
  nix = script "nix" "2.18.1" { commands = [ "nix" "nix-store" "nix-build" "nix-daemon" ]; deps = [ final.curl final.sqlite ]; };
  nix-ld = script "nix-ld" "1.2.2" { };
  direnv = script "direnv" "2.33.0" { };
  nix-direnv = script "nix-direnv" "3.0.4" { deps = [ final.nix final.direnv ]; };
  bash-completion = script "bash-completion" "2.11" { };
  shellcheck = script "shellcheck" "0.9.0" { };
  shfmt = script "shfmt" "3.7.0" { };
  bats = script "bats" "1.10.0" { deps = [ final.bash ]; };
  sqlite = script "sqlite" "3.43.2" { commands = [ "sqlite3" ]; deps = [ final.zlib ]; };
  uv = script "uv" "0.1.0" { };
  ruff = script "ruff" "0.1.5" { };
  pyright = script "pyright" "1.1.335" { deps = [ final.nodejs_22 ]; };
  nodejs_22 = script "nodejs" "22.10.0" { commands = [ "node" "npm" ]; deps = [ final.openssl final.zlib ]; };
  nodejs = final.nodejs_22;
  bun = script "bun" "1.0.11" { };
  typescript = script "typescript" "5.2.2" { commands = [ "tsc" ]; deps = [ final.nodejs_22 ]; };
  prettier = script "prettier" "3.0.3" { deps = [ final.nodejs_22 ]; };
  eslint = script "eslint" "8.53.0" { deps = [ final.nodejs_22 ]; };
  go = script "go" "1.21.4" { };
  gopls = script "gopls" "0.14.1" { deps = [ final.go ]; };
  golangci-lint = script "golangci-lint" "1.55.2" { deps = [ final.go ]; };
  rustc = script "rustc" "1.73.0" { };
  cargo = script "cargo" "1.73.0" { deps = [ final.rustc ]; };
  clippy = script "clippy" "1.73.0" { commands = [ "cargo-clippy" ]; deps = [ final.rustc ]; };
  rustfmt = script "rustfmt" "1.73.0" { deps = [ final.rustc ]; };
  rust-analyzer = script "rust-analyzer" "2023-11-13" { deps = [ final.rustc ]; };
  # What tests start and look at.
  httpd = applets "httpd" "1.35.0" [ "httpd" ];
}
