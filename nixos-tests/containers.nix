# Containers that a host declares: bind mounts, a root folder that is emptied, and what a switch
# of the host does to them.
{ lib, ... }:
let
  web = {
    config = { lib, ... }: {
      environment.etc.proof.text = lib.mkDefault "first";
      users.users.shop = { isSystemUser = true; uid = 4711; group = "service"; };
    };
    aliases = [ "www" ];
    limits.memory = "512M";
    bindMounts."/srv/docs".hostPath = "/srv/docs";
    bindMounts."/srv/shop" = { hostPath = "/home/alice/shop"; isReadOnly = false; owner = "shop"; };
  };
in
{
  meta.timeout = 1800;

  nodes.host = {
    imports = [ ../modules/devhost ];

    services.devhost = {
      enable = true;
      containers = {
        inherit web;
        scratch = { config = { }; ephemeral = true; };
        later = { config = { }; autoStart = false; };
      };
    };
    users.users.alice.isNormalUser = true;
    systemd.tmpfiles.rules = [
      "d /srv/docs 0755 alice users -"
      "d /home/alice/shop 0755 alice users -"
    ];

    system.switch.enable = true;
    specialisation = {
      changed.configuration.services.devhost.containers.web.config.environment.etc.proof.text = "second";
      gone.configuration.services.devhost.containers = lib.mkForce { inherit web; };
    };

    virtualisation = { cores = 2; memorySize = 3072; diskSize = 4096; };
  };

  testScript = ''
    host.start()
    host.wait_for_unit("devhost-apply.service", timeout=900)


    def pid(container: str) -> str:
        return host.succeed(f"systemctl show -P MainPID devhost@{container}.service")


    def switch(name: str) -> None:
        host.succeed(f"/run/booted-system/specialisation/{name}/bin/switch-to-configuration test", timeout=900)


    with subtest("they are there, and run where they are to"):
        assert host.succeed("devhost exec web -- cat /etc/proof") == "first"
        host.succeed("devhost exec scratch -- true")
        host.fail("systemctl is-active devhost@later.service")
        host.succeed("devhost status later")

    with subtest("bind mounts"):
        host.succeed("devhost exec web -- runuser -u shop -- touch /srv/shop/inside")
        assert host.succeed("stat -c %U /home/alice/shop/inside").strip() == "alice"
        host.succeed("runuser -u alice -- touch /home/alice/shop/outside")
        assert host.succeed("devhost exec web -- stat -c %U /srv/shop/outside").strip() == "shop"
        host.fail("devhost exec web -- touch /srv/docs/inside")

    with subtest("a root folder that is emptied"):
        host.succeed("devhost exec scratch -- touch /root/left", "devhost restart scratch")
        host.succeed("devhost exec scratch -- true")
        host.fail("devhost exec scratch -- test -e /root/left")

    with subtest("a switch changes one in place, and leaves the other alone"):
        before = pid("web"), pid("scratch")
        switch("changed")
        assert host.succeed("devhost exec web -- cat /etc/proof") == "second"
        assert (pid("web"), pid("scratch")) == before

    with subtest("what is declared no more is archived and removed"):
        switch("gone")
        host.fail("devhost status scratch")
        assert "scratch" in host.succeed("devhost undelete --list")
        assert host.succeed("devhost exec web -- cat /etc/proof") == "first"
        assert pid("web") == before[0]

    assert host.succeed("systemctl --failed --plain --no-legend 'devhost*'") == ""
  '';
}
