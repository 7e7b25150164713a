# networkd, a firewall that filters what is forwarded, names of the host's own.
{
  services.devhost = {
    enable = true;
    publicAddress = "dev.example.org";
    ingress = { httpPort = 8080; httpsPort = 8443; };
  };
  networking = {
    hostName = "dev";
    useNetworkd = true;
    useDHCP = false;
    nftables.enable = true;
    firewall.filterForward = true;
    hosts."192.0.2.7" = [ "printer.example.org" ];
  };
  security.lockKernelModules = true;
}
