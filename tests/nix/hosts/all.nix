# Every option at a value that is not its default.
{
  services.devhost = {
    enable = true;
    publicAddress = "dev.example.org";
    domains = [ "dev2.example.org" ];
    allowedGroups = [ "devhost" "web team" "ORG\\devs" ];
    adminGroups = [ "wheel" ];
    allowedChannels = [ "https://hydra.example.org/*" "github:NixOS/nixpkgs/*" ];
    allowedURIs = [ "https://github.com/" ];
    authorizedKeys = [ "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl alice" ];
    defaults = { memory = "4G"; cpus = 1.5; tasks = 4096; ioWeight = 50; disk = "20G"; };
    maximum = { memory = "16G"; cpus = 8; tasks = 32768; ioWeight = 1000; disk = "100G"; };
    allowNesting = false;
    defaultNesting = true;
    network = {
      ipv4Pool = "10.42.0.0/16";
      ipv6Pool = "2001:db8:7::/64";
      ipv6Routed = true;
      nat = false;
      forwardPorts = [ "20000-29999" 8443 ];
      restrictBuilders = false;
    };
    expiry = { enable = false; warnAfter = "2d"; stopAfter = "3d12h"; deleteAfter = "2w"; archiveFor = "8w"; };
    batou.enable = false;
    ingress = {
      enable = false;
      httpPort = 8080;
      httpsPort = 8444;
      tls = "files";
      acme = { email = "admin@example.org"; directory = "https://ca.example.org/acme/directory"; caFile = "/etc/ssl/own-ca.pem"; };
      certificates = [{ certificate = "/etc/devhost-tls/wildcard.crt"; key = "/etc/devhost-tls/wildcard.key"; }];
    };
    openFirewall = false;
    sysctls = { ipForward = false; inotifyInstances = 65536; inotifyWatches = 1048576; };
  };
}
