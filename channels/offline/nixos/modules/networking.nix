# networking.*: names and hosts. Addresses are the host's business (/etc/systemd/network).
{ config, lib, pkgs, ... }:
let
  cfg = config.networking;

  portRange = lib.types.attrsOf lib.types.port;

  ports = description: lib.mkOption {
    type = lib.types.listOf lib.types.port;
    default = [ ];
    apply = ports: lib.unique (lib.sort builtins.lessThan ports);
    inherit description;
  };
  ranges = description: lib.mkOption {
    type = lib.types.listOf portRange;
    default = [ ];
    inherit description;
  };

  portOptions = {
    allowedTCPPorts = ports "TCP ports open to other machines.";
    allowedUDPPorts = ports "UDP ports open to other machines.";
    allowedTCPPortRanges = ranges "Ranges of TCP ports open to other machines.";
    allowedUDPPortRanges = ranges "Ranges of UDP ports open to other machines.";
  };

  bool = default: description: lib.mkOption {
    type = lib.types.bool;
    inherit default description;
  };
in
{
  options.networking = {
    hostName = lib.mkOption {
      type = lib.types.strMatching "^$|^[[:alnum:]]([[:alnum:]_-]{0,61}[[:alnum:]])?$";
      default = "";
      description = "Name of the container. Empty: the name that the host gives it.";
    };
    domain = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      description = "Domain of the container.";
    };
    fqdn = lib.mkOption {
      type = lib.types.str;
      readOnly = true;
      default =
        if cfg.hostName != "" && cfg.domain != null then "${cfg.hostName}.${cfg.domain}"
        else throw "networking.fqdn needs networking.hostName and networking.domain; a development container gets its name at run time";
      description = "Full name.";
    };
    hosts = lib.mkOption {
      type = lib.types.attrsOf (lib.types.listOf lib.types.str);
      default = { };
      example = { "192.0.2.1" = [ "db.example.org" "db" ]; };
      description = "Names in /etc/hosts, by address.";
    };
    extraHosts = lib.mkOption {
      type = lib.types.lines;
      default = "";
      description = "Lines for /etc/hosts.";
    };
    hostFiles = lib.mkOption {
      type = lib.types.listOf lib.types.path;
      default = [ ];
      description = "Files that make up /etc/hosts.";
    };
    nameservers = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Accepted without effect: resolv.conf is the host's business.";
    };
    search = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Accepted without effect: resolv.conf is the host's business.";
    };
    resolvconf.enable = bool false "Accepted without effect: resolv.conf is the host's business.";
    useHostResolvConf = bool false "Accepted without effect: resolv.conf is the host's business.";
    useNetworkd = bool true "Accepted without effect: networkd it is.";
    useDHCP = bool false "Accepted without effect: addresses are the host's business.";
    dhcpcd.enable = bool false "Accepted without effect: addresses are the host's business.";
    enableIPv6 = bool true "Accepted without effect: addresses are the host's business.";
    nftables.enable = bool false "Accepted without effect: the host filters.";

    firewall = portOptions // {
      enable = bool false "Accepted without effect: the host filters.";
      allowPing = bool true "Accepted without effect: the host filters.";
      trustedInterfaces = lib.mkOption {
        type = lib.types.listOf lib.types.str;
        default = [ ];
        description = "Accepted without effect: the host filters.";
      };
      logRefusedConnections = bool false "Accepted without effect: the host filters.";
      rejectPackets = bool false "Accepted without effect: the host filters.";
      checkReversePath = lib.mkOption {
        type = lib.types.either lib.types.bool (lib.types.enum [ "strict" "loose" ]);
        default = false;
        description = "Accepted without effect: the host filters.";
      };
      interfaces = lib.mkOption {
        type = lib.types.attrsOf (lib.types.submodule { options = portOptions; });
        default = { };
        description = "Ports open on one interface; accepted without effect: the host filters.";
      };
    };
  };

  config = {
    networking.hostFiles = [
      (pkgs.writeText "hosts" (
        "127.0.0.1 localhost\n::1 localhost\n"
        + lib.optionalString (cfg.hostName != "") "127.0.0.2 ${lib.optionalString (cfg.domain != null) "${cfg.hostName}.${cfg.domain} "}${cfg.hostName}\n"
        + lib.concatStrings (lib.mapAttrsToList
          (address: names: lib.optionalString (names != [ ]) "${address} ${lib.concatStringsSep " " names}\n")
          cfg.hosts)
        + cfg.extraHosts
      ))
    ];

    environment.etc = {
      hosts.source = pkgs.concatText "hosts" cfg.hostFiles;
      "nsswitch.conf".text = ''
        passwd: files
        group: files
        shadow: files
        hosts: files dns
        networks: files
        services: files
        protocols: files
        rpc: files
      '';
      "host.conf".text = "multi on\n";
      services.text = lib.concatMapStrings (line: "${line}\n") [
        "ftp 21/tcp" "ssh 22/tcp" "telnet 23/tcp" "smtp 25/tcp mail" "domain 53/tcp" "domain 53/udp" "http 80/tcp www"
        "pop3 110/tcp" "ntp 123/udp" "imap2 143/tcp imap" "ldap 389/tcp" "https 443/tcp" "https 443/udp"
        "submission 587/tcp" "ldaps 636/tcp" "imaps 993/tcp" "pop3s 995/tcp" "mysql 3306/tcp" "postgresql 5432/tcp postgres"
        "redis 6379/tcp" "http-alt 8080/tcp"
      ];
      protocols.text = lib.concatMapStrings (line: "${line}\n") [
        "ip 0 IP" "icmp 1 ICMP" "tcp 6 TCP" "udp 17 UDP" "ipv6-icmp 58 IPv6-ICMP"
      ];
      mtab.source = "/proc/mounts";
      hostname = lib.mkIf (cfg.hostName != "") { text = "${cfg.hostName}\n"; };
    };
  };
}
