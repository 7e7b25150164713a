# Every option of the guest module at a value that is not its default. nix-ld is in a guest of
# its own (../guests.nix): not every release has it.
{
  devhost.guest = {
    serviceUser = "shop";
    selfSignedCertificate = { enable = true; group = "service"; };
  };
}
