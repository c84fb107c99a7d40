# For NixOS: `virtualisation.igloo`, a systemd user service.
igloo:
{ config, lib, pkgs, ... }:
let
  session = import ./session.nix igloo { inherit lib pkgs; };
  cfg = config.virtualisation.igloo;
in
{
  options.virtualisation.igloo = session.options;

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];
    # Containers without root begin with a user namespace.
    security.unprivilegedUsernsClone = true;
    systemd.user.services.igloo = {
      description = "igloo's projects";
      wantedBy = [ "default.target" ];
      # `newuidmap` is setuid, and only there.
      path = [ "/run/wrappers" ];
      script = session.script "up --wait" cfg;
      preStop = session.script "down" cfg;
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
      } // (if cfg.logFile == null then { } else {
        StandardOutput = "append:${toString cfg.logFile}";
        StandardError = "append:${toString cfg.logFile}";
      });
    };
  };
}
