# virtualisation.podman and virtualisation.containers: the host's podman.
{ config, lib, pkgs, ... }:
let
  cfg = config.virtualisation.podman;
  containers = config.virtualisation.containers;

  toml = pkgs.formats.toml { };
  json = pkgs.formats.json { };

  bool = description: lib.mkOption {
    type = lib.types.bool;
    default = false;
    inherit description;
  };
  registries = default: description: lib.mkOption {
    type = lib.types.listOf lib.types.str;
    inherit default description;
  };

  dockerCompat = pkgs.runCommand "podman-docker-compat" { } ''
    mkdir -p "$out/bin"
    ln -s ${cfg.package}/bin/podman "$out/bin/docker"
  '';

  network = {
    dns_enabled = false;
    driver = "bridge";
    id = lib.concatStrings (lib.genList (_: "0") 64);
    internal = false;
    ipam_options.driver = "host-local";
    ipv6_enabled = false;
    name = "podman";
    network_interface = "podman0";
    subnets = [{ gateway = "10.88.0.1"; subnet = "10.88.0.0/16"; }];
  } // cfg.defaultNetwork.settings;
in
{
  options.virtualisation = {
    podman = {
      enable = bool "Whether podman is there, with its socket at /run/podman/podman.sock.";
      package = lib.mkOption {
        type = lib.types.package;
        default = pkgs.podman;
        defaultText = lib.literalExpression "pkgs.podman";
        internal = true;
        description = "The program of podman.";
      };
      extraPackages = lib.mkOption {
        type = lib.types.listOf lib.types.package;
        default = [ ];
        description = "Further programs that podman finds. Here they are on everybody's PATH.";
      };
      dockerCompat = bool "Whether `docker` is another name of podman.";
      dockerSocket.enable = bool "Whether podman's socket is also at /run/docker.sock.";
      defaultNetwork.settings = lib.mkOption {
        inherit (json) type;
        default = { };
        example = { dns_enabled = true; };
        description = "Settings of podman's default network.";
      };
    };

    containers = {
      enable = bool "Whether /etc/containers is made.";
      containersConf.settings = lib.mkOption {
        inherit (toml) type;
        default = { };
        description = "Settings of containers.conf.";
      };
      storage.settings = lib.mkOption {
        inherit (toml) type;
        description = "Settings of storage.conf.";
      };
      registries = {
        search = registries [ "docker.io" "quay.io" ] "Registries that short names are looked for at.";
        insecure = registries [ ] "Registries without TLS.";
        block = registries [ ] "Registries that are not used.";
      };
      policy = lib.mkOption {
        type = lib.types.attrsOf lib.types.unspecified;
        default = { };
        description = "Which signatures images need (policy.json); empty: none.";
      };
    };
  };

  config = lib.mkMerge [
    (lib.mkIf cfg.enable {
      virtualisation.containers = {
        enable = true;
        containersConf.settings.network.network_backend = "netavark";
      };

      environment.systemPackages = [ cfg.package ]
        ++ lib.optional cfg.dockerCompat dockerCompat
        ++ cfg.extraPackages;

      environment.etc."containers/networks/podman.json" = lib.mkIf (cfg.defaultNetwork.settings != { }) {
        source = json.generate "podman.json" network;
      };

      systemd.optionalUpstreamUnits = [ "podman.service" "podman.socket" "podman-restart.service" ];
      # They run the host's podman, which looks for the firewall on PATH.
      systemd.services = lib.genAttrs [ "podman" "podman-restart" ] (_: { path = [ pkgs.iptables pkgs.nftables ]; });
      systemd.sockets.podman = {
        wantedBy = [ "sockets.target" ];
        socketConfig = {
          SocketGroup = "podman";
          Symlinks = lib.mkIf cfg.dockerSocket.enable [ "/run/docker.sock" ];
        };
      };
      users.groups.podman = { };
    })

    (lib.mkIf containers.enable {
      virtualisation.containers.storage.settings.storage = {
        driver = lib.mkDefault "overlay";
        graphroot = lib.mkDefault "/var/lib/containers/storage";
        runroot = lib.mkDefault "/run/containers/storage";
      };

      environment.etc = {
        "containers/containers.conf".source = toml.generate "containers.conf" containers.containersConf.settings;
        "containers/storage.conf".source = toml.generate "storage.conf" containers.storage.settings;
        "containers/registries.conf".source = toml.generate "registries.conf" {
          unqualified-search-registries = containers.registries.search;
          registry = map
            (location: {
              inherit location;
              insecure = lib.elem location containers.registries.insecure;
              blocked = lib.elem location containers.registries.block;
            })
            (lib.unique (containers.registries.insecure ++ containers.registries.block));
        };
        "containers/policy.json".source = json.generate "policy.json" (
          if containers.policy != { } then containers.policy
          else { default = [{ type = "insecureAcceptAnything"; }]; });
      };
    })
  ];
}
