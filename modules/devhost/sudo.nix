# What lets members of the allowed groups run devhost as root, and nothing else; the same
# rules as `devhost host install` writes elsewhere (internal/sudoers), with NixOS' paths.
{ config, lib, ... }:
let
  cfg = config.services.devhost;

  folder = "/run/current-system/sw/bin";
  programs = [ "devhost" ] ++ lib.optionals cfg.batou.enable [ "fc-build-dev-container" "fc-devhost" "nixos-container" ];

  # Characters that mean something in a rule get a backslash.
  special = lib.stringToCharacters ",:=\\ \"!()#%@*?[]";
  escape = lib.replaceStrings special (map (character: "\\${character}") special);
in
{
  config = lib.mkIf cfg.enable {
    users.groups = lib.mkIf (lib.elem "devhost" cfg.allowedGroups) { devhost = { }; };

    # Rules that come later win.
    security.sudo.extraConfig = lib.mkIf (cfg.allowedGroups != [ ]) (lib.mkAfter ''
      Cmnd_Alias DEVHOST = ${lib.concatMapStringsSep ", " (program: "${folder}/${program}") programs}
      Defaults!DEVHOST env_reset, !setenv, env_keep="COLORTERM NO_COLOR"
      Defaults!DEVHOST secure_path="/run/wrappers/bin:${folder}"
      Defaults!DEVHOST !requiretty
      ${lib.concatMapStringsSep "\n" (group: "%${escape group} ALL=(root) NOPASSWD: NOSETENV: DEVHOST") cfg.allowedGroups}
    '');
  };
}
