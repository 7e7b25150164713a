# The life of a container on a dev host, as people on other machines see it.
{ hostPkgs, ... }:
let
  channel = hostPkgs.path;

  # What `devhost ensure` builds of the channel and the provision. It is in the host's store
  # before: the machines have no network to fetch anything from.
  provision = ../examples/demo;
  guest = import (channel + "/nixos") {
    inherit (hostPkgs.stdenv.hostPlatform) system;
    configuration.imports = [ ../modules/container-guest (provision + "/provision.nix") ];
  };

  names = map (name: "${name}.dev.example.org") [ "www.one" "shop.one" "nothing.one" ];
in
{
  meta.timeout = 3600;

  # The clock is this test's.
  defaults.services.timesyncd.enable = false;

  # An ACME server, to which the names of containers lead to the host.
  nodes.acme = { lib, nodes, ... }: {
    imports = [ (hostPkgs.path + "/nixos/tests/common/acme/server") ];
    networking.nameservers = lib.mkForce [ ];
    networking.hosts.${nodes.host.networking.primaryIPAddress} = names;
  };

  nodes.host = { lib, nodes, ... }: {
    imports = [ ../modules/devhost ];

    services.devhost = {
      enable = true;
      publicAddress = "dev.example.org";
      allowedChannels = [ "/nix/store/*" ];
      ingress.tls = "acme";
      ingress.acme = {
        email = "admin@example.org";
        directory = "https://${nodes.acme.test-support.acme.caDomain}/dir";
        caFile = nodes.acme.test-support.acme.caCert;
      };
    };
    networking.hosts.${nodes.acme.networking.primaryIPAddress} = [ nodes.acme.test-support.acme.caDomain ];
    services.openssh.enable = true;
    users.users.alice = { isNormalUser = true; extraGroups = [ "devhost" ]; };
    users.users.mallory.isNormalUser = true;

    system.switch.enable = true;

    nix.settings.substituters = lib.mkForce [ ];
    system.extraDependencies = [ guest.system ];
    virtualisation = {
      cores = 2;
      memorySize = 4096;
      diskSize = 8192;
      writableStore = true;
      # It outlives the reboot.
      writableStoreUseTmpfs = false;
    };
  };

  nodes.client = { nodes, pkgs, ... }: {
    networking.hosts.${nodes.host.networking.primaryIPAddress} = names;
    networking.hosts.${nodes.acme.networking.primaryIPAddress} = [ nodes.acme.test-support.acme.caDomain ];
    environment.systemPackages = [ pkgs.curl ];
    environment.etc."acme-ca.pem".source = nodes.acme.test-support.acme.caCert;
  };

  testScript = { nodes, ... }: ''
    import json
    import shlex

    start_all()
    acme.wait_for_unit("pebble.service")
    acme.wait_for_open_port(443)
    host.wait_for_unit("multi-user.target")
    host.wait_for_unit("devhost-boot.service")
    host.wait_for_unit("devhost-ingress.service")
    client.wait_for_unit("multi-user.target")

    client.succeed("mkdir -p -m 700 /root/.ssh", "ssh-keygen -q -t ed25519 -N ''' -f /root/.ssh/id_ed25519")
    key = client.succeed("cat /root/.ssh/id_ed25519.pub").strip()
    for person in ["alice", "mallory"]:
        host.succeed(
            f"install -d -m 700 -o {person} /home/{person}/.ssh",
            f"echo {shlex.quote(key)} > /home/{person}/.ssh/authorized_keys",
            f"chown {person} /home/{person}/.ssh/authorized_keys",
        )
    options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes -o LogLevel=ERROR"
    toplevel = host.succeed("readlink -f /run/current-system")


    def devhost(command: str, person: str = "alice") -> str:
        return f"ssh {options} {person}@host sudo -n devhost {command}"


    def page(alias: str) -> str:
        return f"curl -sS --fail --cacert /root/ca.pem https://{alias}.one.dev.example.org/"


    def expire(days: int) -> None:
        # Certificates that are made from now on must be valid for the client.
        for machine in [client, host, acme]:
            machine.succeed(f"date -s '+{days} days 1 hour'")
        host.succeed("systemctl start devhost-expire.service")


    def status() -> dict[str, object]:
        shown: dict[str, object] = json.loads(client.succeed(devhost("status one --json")))
        return shown


    with subtest("the settings are as devhost wants them"):
        host.succeed("devhost host check", "devhost doctor")

    with subtest("who is in no allowed group may do nothing"):
        client.fail(devhost("list", person="mallory"))
        client.fail(devhost("ensure one --channel ${channel}", person="mallory"))

    with subtest("a developer makes a container"):
        client.succeed(
            devhost("ensure one --channel ${channel} --provision ${provision} --alias www --memory 1G --timeout 10m"),
            timeout=1800,
        )
        assert status()["status"] == "running"

    with subtest("nothing changed"):
        assert "unchanged" in client.succeed(devhost("ensure one") + " 2>&1")

    with subtest("a channel that is not allowed is refused"):
        assert "none of those that are allowed" in client.fail(devhost("ensure two --channel /etc") + " 2>&1")

    with subtest("ssh, by name, through the host"):
        name = client.succeed(f"ssh {options} -o ProxyCommand='ssh {options} -W %h:%p alice@host' developer@one hostname")
        assert name.strip() == "one", name
        client.succeed(
            f"ssh {options} -o ProxyCommand='ssh {options} -W %h:%p alice@host' developer@one sudo -n true"
        )

    with subtest("https, by alias, with certificates of the ACME server"):
        # What it signs with, it makes when it starts.
        client.wait_until_succeeds(
            "curl -sS --fail --cacert /etc/acme-ca.pem https://${nodes.acme.test-support.acme.caDomain}:15000/roots/0 -o /root/ca.pem", timeout=60
        )
        client.wait_until_succeeds(page("www"), timeout=120)
        host.fail("devhost ingress --ca")
        assert "It works" in client.succeed(page("www"))
        client.fail(page("shop"))
        client.fail(page("nothing"))
        assert "has no alias nothing" in client.succeed("curl -sS http://nothing.one.dev.example.org/")
        acme.succeed("journalctl -u pebble.service | grep -F www.one.dev.example.org")
        acme.fail("journalctl -u pebble.service | grep -F nothing.one.dev.example.org")

    with subtest("another alias, while the host's system stays the same"):
        client.succeed(devhost("ensure one --alias www --alias shop"))
        client.wait_until_succeeds(page("shop"), timeout=60)
        assert host.succeed("readlink -f /run/current-system") == toplevel

    with subtest("the database of the provision"):
        greeting = host.succeed("devhost exec one -- sudo -u s-dev psql -Atc \"SELECT greeting FROM greetings WHERE language = 'en'\"")
        assert greeting.strip() == "Hello", greeting

    with subtest("names that every user of the host knows, also of stopped containers"):
        address = client.succeed(devhost("ip one")).strip()
        assert address in host.succeed("su alice -c 'getent hosts one'")
        client.succeed(devhost("stop one"))
        assert address in host.succeed("su alice -c 'getent hosts one'")
        client.succeed(devhost("start one"))

    with subtest("it is back after a reboot of the host"):
        host.succeed("sync")
        host.shutdown()
        host.start()
        host.wait_for_unit("devhost-boot.service", timeout=600)
        client.wait_until_succeeds(page("www"), timeout=300)
        assert host.succeed("readlink -f /run/current-system") == toplevel

    with subtest("a switch of the host to what it has restarts no container"):
        leader = host.succeed("systemctl show -P MainPID devhost@one.service")
        host.succeed("/run/current-system/bin/switch-to-configuration test")
        assert host.succeed("systemctl show -P MainPID devhost@one.service") == leader

    with subtest("expiry: a warning, the stop, the archive, and the way back"):
        expire(5)
        assert status()["status"] == "running"
        assert status()["warnings"]
        expire(2)
        assert status()["status"] == "stopped"
        expire(21)
        expire(2)
        client.fail(devhost("status one"))
        assert "one" in client.succeed(devhost("undelete --list"))
        client.succeed(devhost("undelete one"), timeout=600)
        client.wait_until_succeeds(page("www"), timeout=120)

    with subtest("nothing is left of a container that is destroyed"):
        client.succeed(devhost("destroy one"))
        client.fail(page("www"))
        host.fail("getent hosts one")
        host.fail("systemctl is-active devhost@one.service")
        host.fail("ip -o link | grep ' vd-'")
        host.fail("test -e /var/lib/devhost/containers/one")
        host.fail("test -e /nix/var/nix/profiles/devhost/one")
        assert host.succeed("systemctl --failed --plain --no-legend 'devhost*'") == ""
  '';
}
