{
  imports = [
    ./infrastructure.nix
    ./users.nix
  ];
}
