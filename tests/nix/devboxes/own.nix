# A machine that wants everything in another way: settings of the module give way.
{ options, ... }:
{
  boot.loader = { systemd-boot.enable = false; grub = { enable = true; device = "nodev"; efiSupport = true; }; timeout = 5; };
  boot.growPartition = false;
  fileSystems."/" = { device = "/dev/disk/by-label/root"; fsType = "xfs"; autoResize = false; };
  fileSystems."/boot" = { device = "/dev/disk/by-label/ESP"; };
  zramSwap.enable = false;
  services.qemuGuest.enable = false;
  services.openssh.enable = false;
  services.openssh.settings.PasswordAuthentication = true;
  security.sudo.wheelNeedsPassword = true;
  security.pam.loginLimits = [{ domain = "*"; type = "soft"; item = "nofile"; value = "4096"; }];
  systemd =
    if options.systemd ? settings then { settings.Manager.DefaultLimitNOFILE = "4096"; }
    else { extraConfig = "DefaultLimitNOFILE=4096"; };
  users.users.devbox = { description = "Me"; hashedPassword = "*"; };
  documentation = { nixos.enable = true; doc.enable = true; info.enable = true; };
}
