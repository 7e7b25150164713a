{ lib, pkgs, ... }:
let
  inherit (lib) mkOption types;

  matching = pattern: description: types.strMatching pattern // { inherit description; };
  domain = matching "[a-z0-9]([a-z0-9-]*[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*" "domain name";
  size = matching "[0-9]+(\\.[0-9]+)?[KMGT]?" "amount, such as \"4G\"";
  duration = matching "([0-9]+[wdhms])+" "length of time, such as \"1w2d\" or \"36h\"";
  ports = types.either types.port (matching "[0-9]+-[0-9]+" "range, such as \"1024-2047\"");
  group = matching "[A-Za-z0-9_.+@\\\\ -]+" "name of a group";
  # As a text: a path would be copied to the store, where everybody reads it.
  absolute = matching "/.+" "absolute path in quotes";
  number = types.either types.ints.unsigned types.float;

  limits = about: {
    memory = mkOption {
      type = size;
      default = "0";
      example = "4G";
      description = "Memory ${about}, with K, M, G or T (powers of 1024); `\"0\"` for no limit.";
    };
    cpus = mkOption {
      type = number;
      default = 0;
      example = 2;
      description = "Processor time ${about}, in processors, such as 1.5; 0 for no limit.";
    };
    tasks = mkOption {
      type = types.ints.unsigned;
      default = 0;
      example = 4096;
      description = "Processes and threads ${about}; 0 for no limit.";
    };
    ioWeight = mkOption {
      type = types.ints.between 0 10000;
      default = 0;
      example = 100;
      description = "Share of the disks' time ${about}, 1 to 10000; 0 for the usual one, 100.";
    };
    disk = mkOption {
      type = size;
      default = "0";
      example = "20G";
      description = ''
        What the root folder may hold ${about}, with K, M, G or T (powers of 1024), where
        the file system has project quotas; `"0"` for no limit.
      '';
    };
  };

  # A NixOS configuration, of any number of definitions.
  configuration = lib.mkOptionType {
    name = "configuration";
    description = "NixOS module";
    merge = _: definitions: { imports = map (definition: { _file = definition.file; imports = [ definition.value ]; }) definitions; };
  };

  # One that is declared. Names and values are checked by devhost too, while the system is built.
  container.options = {
    channel = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "https://hydra.example.org/nixexprs.tar.xz";
      description = ''
        Where its NixOS comes from, as `devhost ensure --channel` takes it: the URL of a
        nixexprs.tar.xz, or the absolute path of a folder. It is resolved once, and again when
        it is another one.
      '';
    };
    flake = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "github:NixOS/nixpkgs/nixos-26.05";
      description = "The same as a flake reference of a nixpkgs.";
    };
    config = mkOption {
      type = types.nullOr configuration;
      default = null;
      example = lib.literalExpression or lib.literalExample "{ services.nginx.enable = true; }";
      description = ''
        A NixOS module: then the system is built with the host's own, from the nixpkgs of the
        host, and nothing is evaluated or built later.
      '';
    };
    provision = mkOption {
      type = types.listOf types.path;
      default = [ ];
      example = lib.literalExpression or lib.literalExample "[ ./provision.nix ]";
      description = ''
        Further NixOS modules, each a file or a folder with a default.nix. Beside files of
        theirs, what they import comes from the folder alone. They end in a store that every
        container can read: no secrets.
      '';
    };
    autoStart = mkOption {
      type = types.bool;
      default = true;
      description = "Whether it is started when it is made, and with the host. Who stops it has it stay so.";
    };
    ephemeral = mkOption {
      type = types.bool;
      default = false;
      description = "Whether its root folder is emptied at each start, also when it reboots. Its addresses and keys stay.";
    };
    expiry = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether it is stopped and deleted as others are when its declaration has not changed for
        long. A deleted one is made anew when any declaration changes, and when the host starts.
      '';
    };
    aliases = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "www" ];
      description = "Short names that the ingress serves by https.";
    };
    environment = mkOption {
      type = types.str;
      default = "";
      example = "shop";
      description = "What it belongs to: declared containers of one environment reach each other.";
    };
    authorizedKeys = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl alice" ];
      description = "Public keys that may log in as `developer`, besides those of the host's settings.";
    };
    nesting = mkOption {
      type = types.bool;
      default = false;
      description = "Whether container engines such as docker work inside, which costs some isolation.";
    };
    network = mkOption {
      type = types.enum [ "private" "host" ];
      default = "private";
      description = ''
        `"private"` for a network of its own, or `"host"` for that of the host: then what it
        serves is served by the host, on ports from 1024 on, it reaches every service of the host
        that listens on localhost, and all containers, and the packet filter does not hold for
        it. It sets up no interface, route or filter. Its sshd has a loopback address and a port
        of its own; {command}`devhost ssh` finds it. It has no {option}`aliases`,
        {option}`forwardPorts` or {option}`nesting`. A change takes effect when it is started next.
      '';
    };
    forwardPorts = mkOption {
      type = types.listOf (types.submodule {
        options = {
          protocol = mkOption {
            type = types.enum [ "tcp" "udp" ];
            default = "tcp";
            description = "Protocol of the port.";
          };
          hostPort = mkOption {
            type = types.port;
            example = 8080;
            description = "The port of the host, one of {option}`services.devhost.network.forwardPorts`.";
          };
          guestPort = mkOption {
            type = types.port;
            example = 80;
            description = "The port of the container.";
          };
        };
      });
      default = [ ];
      example = [{ hostPort = 8080; guestPort = 80; }];
      description = "Ports of the host that lead to the container, for everybody.";
    };
    bindMounts = mkOption {
      type = types.attrsOf (types.submodule {
        options = {
          hostPath = mkOption {
            type = types.str;
            example = "/home/alice/shop";
            description = ''
              The folder of the host, by its own path: a symbolic link in it is refused. What is
              mounted below it is not shown.
            '';
          };
          isReadOnly = mkOption {
            type = types.bool;
            default = true;
            description = "Whether the container may only read there.";
          };
          owner = mkOption {
            type = types.nullOr (types.either types.str types.ints.positive);
            default = null;
            example = "developer";
            description = ''
              User of the container, by name or by number: what belongs to the folder's owner on
              the host belongs to that user inside, and the other way round. Whoever else writes
              there inside is nobody outside. Without one, everything there is nobody's, and who
              may write needs one. A folder of root's cannot be written to. With
              {option}`services.devhost.containers.<name>.config` every user with a fixed `uid`
              has a name here, else `developer` and `s-dev` do.
            '';
          };
        };
      });
      default = { };
      example = { "/srv/s-dev/shop" = { hostPath = "/home/alice/shop"; isReadOnly = false; owner = "s-dev"; }; };
      description = ''
        Folders of the host that the container sees, by where it sees them: below /srv, /var,
        /home or the like. Setuid files and devices in them have no effect inside.
      '';
    };
    limits = lib.mapAttrs
      (_: option: option // {
        type = types.nullOr option.type;
        default = null;
        description = "${lib.removeSuffix "\n" option.description} null for that of {option}`services.devhost.defaults`.";
      })
      (limits "for the container");
  };

  days = default: description: mkOption {
    type = duration;
    inherit default description;
    example = "1w2d";
  };
in
{
  options.services.devhost = {
    enable = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = "Whether people may make development containers on this host with {command}`devhost`.";
    };

    package = mkOption {
      type = types.package;
      default = pkgs.callPackage ../../pkgs/devhost.nix { };
      defaultText = "devhost, built with the host's own packages";
      description = "The package that holds {command}`devhost` and its systemd units.";
    };

    publicAddress = mkOption {
      type = types.either (types.enum [ "" ]) domain;
      default = "";
      example = "dev.example.org";
      description = ''
        Public name of the host: containers are reached at
        `https://ALIAS.CONTAINER.NAME`. Without one it is `devhost.localhost`, for this
        machine alone.
      '';
    };

    domains = mkOption {
      type = types.listOf domain;
      default = [ ];
      example = [ "dev2.example.org" ];
      description = "Further names below which containers are reached at the same time.";
    };

    allowedGroups = mkOption {
      type = types.listOf group;
      default = [ "devhost" ];
      example = [ "developers" ];
      description = ''
        Groups of the host whose members may use devhost through sudo, and with it every
        container. The group `devhost` is made if it is among them; others must exist.
      '';
    };

    adminGroups = mkOption {
      type = types.listOf group;
      default = [ "sudo" "wheel" ];
      example = [ "wheel" ];
      description = ''
        Groups whose members are root on this host by sudo anyway. They may use devhost
        too, and its commands for admins.
      '';
    };

    allowedChannels = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "https://hydra.example.org/*" "github:NixOS/nixpkgs/*" ];
      description = ''
        Channels that containers may be made from, as `--channel` gives them (folders as
        absolute paths); `*` stands for anything. An empty list allows all.
      '';
    };

    allowedURIs = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "https://github.com/" ];
      description = "What an evaluation may fetch: the beginnings of addresses, as `allowed-uris` in nix.conf(5).";
    };

    authorizedKeys = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl alice" ];
      description = "Public keys that may log in to every container as `developer`.";
    };

    defaults = limits "of a new container that asks for none";
    maximum = limits "that no container may go beyond";

    containers = mkOption {
      type = types.attrsOf (types.submodule container);
      default = { };
      example = lib.literalExpression or lib.literalExample "{ ci.config = ./ci.nix; }";
      description = ''
        Containers that this configuration declares, by name. A switch makes those that are
        new, brings up to date in place those whose definition changed, archives and removes
        those that are gone, and leaves all others alone.
      '';
    };

    allowNesting = mkOption {
      type = types.bool;
      default = true;
      description = "Whether people may ask for `--nesting` (podman and docker inside), which costs some isolation.";
    };

    defaultNesting = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = ''
        Whether a new container has nesting where the person who makes it does not say. Those of
        {option}`services.devhost.containers` say it themselves.
      '';
    };

    network = {
      ipv4Pool = mkOption {
        type = types.str;
        default = "";
        example = "10.42.0.0/16";
        description = "Private IPv4 prefix that containers get addresses of, at least a /26; `\"\"` for a free one.";
      };
      ipv6Pool = mkOption {
        type = types.str;
        default = "";
        example = "fd00:42::/64";
        description = ''
          IPv6 prefix that containers get addresses of, at least a /112; `""` for a private
          one that is made up.
        '';
      };
      ipv6Routed = mkOption {
        type = types.bool;
        default = false;
        description = "Whether the IPv6 prefix is routed to this host: then there is no address translation for it.";
      };
      nat = mkOption {
        type = types.bool;
        default = true;
        description = "Whether containers reach the outside by the host's address.";
      };
      forwardPorts = mkOption {
        type = types.listOf ports;
        default = [ "1024-32767" ];
        example = [ "20000-29999" 8443 ];
        description = ''
          Ports of this host that may lead to containers (`--forward-port`): ports and
          ranges of them. An empty list allows none. NixOS' firewall does not filter them.
        '';
      };
      restrictBuilders = mkOption {
        type = types.bool;
        default = true;
        description = ''
          Whether Nix' builders that have a network (fixed-output derivations) reach the outside
          only: no container, no service of this host but its resolver, no metadata service.
          Turn it off where builders need a proxy or a mirror on this host, or talk to themselves
          over localhost.
        '';
      };
    };

    expiry = {
      enable = mkOption {
        type = types.bool;
        default = true;
        description = "Whether containers that nobody deploys to are stopped and deleted.";
      };
      warnAfter = days "5d" "When people are told that a container will be stopped, counted from the last deployment.";
      stopAfter = days "1w" "When a container is stopped; later than `warnAfter`; `\"0s\"` for never.";
      deleteAfter = days "4w2d" "When a container is archived and deleted; later than `stopAfter`; `\"0s\"` for never.";
      archiveFor = days "4w2d" "How long the archive of a deleted container is kept; `\"0s\"` for good.";
    };

    batou.enable = mkOption {
      type = types.bool;
      default = true;
      description = ''
        Whether devhost answers as {command}`fc-build-dev-container`, {command}`fc-devhost`
        and {command}`nixos-container`, which batou calls. NixOS' own containers can be
        reached by the last one all the same.
      '';
    };

    ingress = {
      enable = mkOption {
        type = types.bool;
        default = true;
        description = "Whether containers are reached by https through the host.";
      };
      httpPort = mkOption {
        type = types.port;
        default = 80;
        description = "The port that redirects to https.";
      };
      httpsPort = mkOption {
        type = types.port;
        default = 443;
        description = "The port of https.";
      };
      tls = mkOption {
        type = types.enum [ "internal" "acme" "files" ];
        default = "internal";
        example = "acme";
        description = ''
          Where certificates come from: `"internal"` is an own certificate authority, which
          browsers must be told to trust; `"acme"` an ACME server such as Let's Encrypt, that
          makes one for each name when it is first asked for; `"files"` is
          {option}`services.devhost.ingress.certificates`.
        '';
      };
      acme = {
        email = mkOption {
          type = types.str;
          default = "";
          example = "admin@example.org";
          description = ''
            Mail address of the account at the ACME server; `""` for none. With
            `tls = "acme"`, the server's terms of service are taken as agreed to.
          '';
        };
        directory = mkOption {
          type = types.either (types.enum [ "" ]) (matching "https://.+" "https URL");
          default = "";
          example = "https://acme-staging-v02.api.letsencrypt.org/directory";
          description = "The ACME server, by the URL of its directory; `\"\"` for Let's Encrypt.";
        };
        caFile = mkOption {
          type = types.either (types.enum [ "" ]) types.path;
          default = "";
          example = "/etc/ssl/own-ca.pem";
          description = ''
            PEM file with the certificates that an ACME server of one's own is trusted by; `""`
            for those that the host trusts ({option}`security.pki.certificateFiles`).
          '';
        };
      };
      certificates = mkOption {
        type = types.listOf (types.submodule {
          options = {
            certificate = mkOption {
              type = absolute;
              example = "/var/lib/acme/dev.example.org/fullchain.pem";
              description = "PEM file with a certificate, followed by its chain.";
            };
            key = mkOption {
              type = absolute;
              example = "/var/lib/acme/dev.example.org/key.pem";
              description = "PEM file with its private key.";
            };
          };
        });
        default = [ ];
        example = [{ certificate = "/var/lib/acme/dev.example.org/fullchain.pem"; key = "/var/lib/acme/dev.example.org/key.pem"; }];
        description = ''
          What is shown with `tls = "files"`; the first of those that are for a name, a valid one
          if there is one. Files are read again when they change. For those in the `directory` of
          a certificate in {option}`security.acme.certs`, the ingress starts after that
          certificate's unit, as a member of its group.
        '';
      };
    };

    openFirewall = mkOption {
      type = types.bool;
      default = true;
      description = ''
        Whether NixOS' firewall lets pass what devhost needs: the ports of the ingress, and,
        with {option}`networking.firewall.filterForward`, what goes to and comes from
        containers; who may reach whom there is decided by devhost's own filter.
      '';
    };

    sysctls = {
      ipForward = mkOption {
        type = types.bool;
        default = true;
        description = ''
          Whether IPv4 forwarding is on from the start of the host. Otherwise devhost turns it
          on with the first container, as it does for IPv6 in any case: there, interfaces that
          learn their routes from a router need a setting of their own before.
        '';
      };
      inotifyInstances = mkOption {
        type = types.ints.positive;
        default = 8192;
        example = 65536;
        description = ''
          inotify instances that a user may have (`fs.inotify.max_user_instances`), unless the
          host's configuration sets that; systemd in each container takes some.
        '';
      };
      inotifyWatches = mkOption {
        type = types.nullOr types.ints.positive;
        default = null;
        example = 1048576;
        description = ''
          Files that a user may watch (`fs.inotify.max_user_watches`), unless the host's
          configuration sets that; null for the kernel's own choice.
        '';
      };
    };
  };
}
