# `pkgs.nixos`, in the manner of NixOS: modules come to a system with an `init`, which starts their services, says when it
# is ready, and ends by SIGRTMIN+3, as systemd does in containers.
final: prev:
let
  inherit (final) lib;
  inherit (lib) mkOption mkIf types;
  option = type: default: mkOption { inherit type default; };

  base = { config, pkgs, ... }: {
    options = {
      boot.isContainer = option types.bool false;
      networking = {
        hostName = option types.str "nixos";
        useDHCP = option types.bool true;
        firewall.allowedTCPPorts = option (types.listOf types.int) [ ];
      };
      environment.systemPackages = option (types.listOf types.package) [ ];
      environment.etc = option (types.attrsOf (types.submodule { options.text = option types.str ""; })) { };
      system.build.toplevel = option types.unspecified null;
      systemd.services = option
        (types.attrsOf (types.submodule {
          options = {
            script = option types.lines "";
            wantedBy = option (types.listOf types.str) [ ];
            after = option (types.listOf types.str) [ ];
          };
        }))
        { };
      # busybox's own server, under the name of another.
      services.httpd = {
        enable = option types.bool false;
        adminAddr = option types.str "";
        documentRoot = option types.str "/srv";
      };
    };
    config = {
      environment.systemPackages = [ pkgs.busybox pkgs.bash ];
      systemd.services = mkIf config.services.httpd.enable {
        httpd = {
          wantedBy = [ "multi-user.target" ];
          script = "exec ${pkgs.busybox}/bin/httpd -f -p ${toString (lib.last ([ 80 ] ++ config.networking.firewall.allowedTCPPorts))} -h ${config.services.httpd.documentRoot}";
        };
      };
      system.build.toplevel = toplevel config;
    };
  };

  toplevel = config: final.runCommand "nixos-system-${config.networking.hostName}-23.11"
    {
      services = map (name: final.writeTextFile {
        name = "unit-${name}";
        executable = true;
        text = "#!${final.bash}/bin/bash\nexport PATH=/run/current-system/sw/bin\n${config.systemd.services.${name}.script}\n";
      }) (builtins.filter (name: config.systemd.services.${name}.wantedBy != [ ]) (builtins.attrNames config.systemd.services));
      packages = map (p: p.outPath) config.environment.systemPackages;
      inherit (final) systemInit busybox;
      hostName = config.networking.hostName;
    } ''
    mkdir -p $out/sw/bin $out/services $out/etc
    for package in $packages; do ln -sf $package/bin/* $out/sw/bin/; done
    for service in $services; do ln -s $service $out/services/; done
    echo "$hostName" > $out/etc/hostname
    # Absolute, as NixOS has it: nothing is on PATH when it starts.
    { echo "#!$busybox/bin/sh"; echo "exec $systemInit/bin/system-init $out"; } > $out/init
    chmod +x $out/init
  '';
in
{
  nixos = module:
    let built = lib.evalModules { modules = [ base module ]; specialArgs = { pkgs = final; modulesPath = ./.; }; }; in
    built.config.system.build.toplevel // { inherit (built) config options; inherit (built.config.system.build) toplevel; };

  systemInit = final.stdenv.mkDerivation {
    pname = "system-init";
    version = "1";
    src = ./c;
    nativeBuildInputs = [ final.gcc ];
    installPhase = ''
      mkdir -p $out/bin
      gcc -O1 -o $out/bin/system-init $src/init.c
    '';
  };
}
