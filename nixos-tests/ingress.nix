# The ingress as other machines see it: names, certificates, pages.
{ config, ... }:
{
  meta.timeout = 900;
  requiredFeatures.uid-range = true;

  # Modules of the kernel cannot be loaded in there.
  defaults.networking.firewall.enable = false;

  containers.ingress = {
    imports = [ ../modules/devhost ];
    services.devhost = {
      enable = true;
      publicAddress = "dev.example.org";
      domains = [ "dev2.example.org" ];
      expiry.enable = false;
    };
    # The sandbox of Nix forbids setuid files.
    security.enableWrappers = false;
    # No container runs here.
    systemd.services.devhost-boot.enable = false;
  };

  containers.client = { pkgs, ... }: {
    networking.hosts.${config.containers.ingress.networking.primaryIPAddress} = [
      "www.one.dev.example.org"
      "www.one.dev2.example.org"
      "www.two.dev.example.org"
    ];
    environment.systemPackages = [ pkgs.curl ];
  };

  testScript = ''
    import json
    import shlex

    start_all()
    ingress.wait_for_unit("devhost-ingress.service")
    ingress.wait_for_open_port(443)
    client.wait_for_unit("multi-user.target")

    # A container that is stopped.
    record = {
        "version": 1,
        "name": "one",
        "system": "/nix/store/00000000000000000000000000000000-one",
        "aliases": ["www"],
    }
    ingress.succeed(
        "install -d -m 0700 /var/lib/devhost/containers/one",
        f"echo {shlex.quote(json.dumps(record))} > /var/lib/devhost/containers/one/container.json",
    )
    authority = ingress.succeed("cat $(devhost ingress --ca)")
    client.succeed(f"echo {shlex.quote(authority)} > /root/ca.pem")

    with subtest("http leads to https"):
        client.wait_until_succeeds(
            "curl -sS -o /dev/null -w '%{http_code} %{redirect_url}' http://www.one.dev.example.org/a?b"
            " | grep -x '308 https://www.one.dev.example.org/a?b'",
            timeout=60,
        )

    with subtest("a certificate for each name, from its own authority"):
        for domain in ["dev.example.org", "dev2.example.org"]:
            answer = client.succeed(f"curl -sS --cacert /root/ca.pem -w '%{{http_code}}' https://www.one.{domain}/")
            assert "Container one is stopped" in answer and answer.endswith("503"), answer
        client.fail("curl -sS https://www.one.dev.example.org/")

    with subtest("no certificate for names of nobody"):
        client.fail("curl -sS --cacert /root/ca.pem https://www.two.dev.example.org/")
        assert "There is no container two" in client.succeed("curl -sS http://www.two.dev.example.org/")

    with subtest("it has no power but that of opening its ports"):
        pid = ingress.succeed("systemctl show -P MainPID devhost-ingress.service").strip()
        assert ingress.succeed(f"grep CapEff /proc/{pid}/status").split()[1] == "0000000000000400"
  '';
}
