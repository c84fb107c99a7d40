# For nix-darwin: `virtualisation.igloo`, a launchd agent. `virtualisation.docker-darwin.{enable,logFile}`, which many
# have copied, means the same.
igloo:
{ config, lib, pkgs, ... }:
let
  session = import ./session.nix igloo { inherit lib pkgs; };
  old = config.virtualisation.docker-darwin;
  cfg = config.virtualisation.igloo // {
    logFile = if config.virtualisation.igloo.logFile != null then config.virtualisation.igloo.logFile else old.logFile;
  };
in
{
  options.virtualisation.igloo = session.options;
  options.virtualisation.docker-darwin = { inherit (session.options) enable logFile; };

  config = lib.mkIf (cfg.enable || old.enable) {
    environment.systemPackages = [ cfg.package ];
    launchd.user.agents.igloo = {
      path = [ cfg.package config.environment.systemPath ];
      script = session.script "up --wait" cfg;
      serviceConfig = {
        Label = "local.igloo";
        # Supervisors outlive the command that started them.
        AbandonProcessGroup = true;
        RunAtLoad = true;
        # Again only after a failure: a project that can't be brought up now may be later.
        KeepAlive.SuccessfulExit = false;
        ThrottleInterval = 30;
      } // (if cfg.logFile == null then { } else {
        StandardOutPath = toString cfg.logFile;
        StandardErrorPath = toString cfg.logFile;
      });
    };
  };
}
