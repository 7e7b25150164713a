# The example hosts, by name; each of them is a NixOS configuration of its own.
{
  minimal = ./minimal.nix;
  all = ./all.nix;
  nftables = ./nftables.nix;
  desktop = ./desktop.nix;
  immutable = ./immutable.nix;
  flyingcircus = ./flyingcircus.nix;
  platform = ./platform.nix;
  builder = ./builder.nix;
  declared = ./declared.nix;
  certificates = ./certificates.nix;
}
