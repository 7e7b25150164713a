# An /etc that nobody can write.
{
  services.devhost.enable = true;
  boot.initrd.systemd.enable = true;
  systemd.sysusers.enable = true;
  users.mutableUsers = false;
  system.etc.overlay = { enable = true; mutable = false; };
}
