# A dev host whose options are not at their defaults: what they change on a machine that runs.
{
  meta.timeout = 1200;

  nodes.host = {
    imports = [ ../modules/devhost ../modules/flyingcircus.nix ];

    flyingcircus.roles.devhost = {
      enable = true;
      publicAddress = "dev.example.org";
      cleanupContainers = false;
    };
    services.devhost = {
      domains = [ "dev2.example.org" ];
      allowedGroups = [ "web team" ];
      maximum = { memory = "1G"; cpus = 1.5; tasks = 4096; };
      allowNesting = false;
      network = {
        ipv4Pool = "10.42.0.0/16";
        ipv6Pool = "fd00:42::/64";
        forwardPorts = [ "20000-29999" 8443 ];
      };
      batou.enable = false;
      ingress = { httpPort = 8080; httpsPort = 8444; };
      sysctls = { inotifyInstances = 65536; inotifyWatches = 1048576; };
    };

    users.groups."web team" = { };
    users.users.alice = { isNormalUser = true; extraGroups = [ "web team" ]; };
    users.users.bob = { isNormalUser = true; extraGroups = [ "users" ]; };

    networking.useNetworkd = true;
    networking.nftables.enable = true;
    networking.firewall.filterForward = true;
    networking.hosts."192.0.2.7" = [ "printer.example.org" ];
  };

  testScript = ''
    import json

    host.start()
    host.wait_for_unit("devhost-boot.service")
    host.wait_for_unit("devhost-ingress.service")

    with subtest("devhost reads what the options say"):
        host.succeed("devhost host check")
        settings = json.loads(host.succeed("cat /etc/devhost-settings.json"))
        assert settings["domains"] == ["dev2.example.org"], settings
        assert settings["network"]["forwardPorts"] == ["20000-29999", "8443"], settings

    with subtest("the allowed group, and no other"):
        host.succeed("su - alice -c 'sudo -n devhost list'")
        host.fail("su - bob -c 'sudo -n devhost list'")
        host.fail("su - alice -c 'sudo -n true'")

    with subtest("what no container may have"):
        for asked, said in {
            "--memory 2G": "at most --memory 1GiB",
            "--cpus 2": "at most --cpus 1.5",
            "--tasks 5000": "at most --tasks 4096",
            "--nesting": "leave --nesting away",
            "--forward-port 8444:80": "allow 20000-29999, 8443",
        }.items():
            answer = host.fail(f"su - alice -c 'sudo -n devhost ensure one --channel /etc/missing {asked}' 2>&1")
            assert said in answer, answer
        assert json.loads(host.succeed("devhost list --json")) == []

    with subtest("ports of the ingress, with the certificates of both domains"):
        host.wait_for_open_port(8444)
        host.wait_for_open_port(8080)
        host.fail("ss -Hltn 'sport = :443' | grep .")
        assert "no container one" in host.succeed("curl -sS -H 'Host: a.one.dev2.example.org' http://localhost:8080/")
        host.succeed("nft list ruleset | grep 8444")

    with subtest("nobody is stopped or deleted"):
        host.fail("systemctl is-active devhost-expire.timer")

    with subtest("names that batou calls are left alone"):
        host.fail("test -e /run/current-system/sw/bin/fc-build-dev-container")

    with subtest("sysctls"):
        assert host.succeed("sysctl -n fs.inotify.max_user_instances").strip() == "65536"
        assert host.succeed("sysctl -n fs.inotify.max_user_watches").strip() == "1048576"
        assert host.succeed("sysctl -n net.ipv4.ip_forward").strip() == "1"

    with subtest("names of the host's own configuration"):
        assert "192.0.2.7" in host.succeed("getent hosts printer.example.org")
        assert host.succeed("readlink -f /etc/hosts").strip() == "/run/devhost-names/hosts"

    assert host.succeed("systemctl --failed --plain --no-legend 'devhost*'") == ""
  '';
}
