# What devhost relies on in a container, without devhost: files that it hands over, and what
# the guest makes of them.
{
  meta.timeout = 900;
  requiredFeatures.uid-range = true;

  containers.guest = { pkgs, ... }: {
    imports = [ ./handover.nix ];
    devhost.guest = {
      serviceUser = "shop";
      selfSignedCertificate.enable = true;
    };
    networking.hosts."192.0.2.8" = [ "upstream.example.org" ];
    services.nginx.enable = true;
    environment.systemPackages = [ pkgs.openssl ];
  };

  testScript = ''
    start_all()
    guest.wait_for_unit("multi-user.target")
    login = "ssh -i /root/person -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes"

    with subtest("login by a key that the host hands over, and by nothing else"):
        guest.wait_for_open_port(22)
        assert guest.succeed(f"{login} developer@localhost id -un").strip() == "developer"
        guest.fail(f"{login} shop@localhost true")
        guest.succeed("sshd -T | grep -x 'passwordauthentication no'")
        guest.succeed("sshd -T | grep -x 'maxstartups 100:30:200'")

    with subtest("accounts"):
        assert guest.succeed("stat -c %U:%G /srv/shop").strip() == "shop:service"
        assert guest.succeed("stat -c %a:%G /etc/local/nixos").strip() == "2775:service"
        guest.succeed("id -nG developer | grep -w service")

    with subtest("names: the provision's, and the host's, which change while it runs"):
        assert "192.0.2.8" in guest.succeed("getent hosts upstream.example.org")
        assert "192.0.2.7" in guest.succeed("getent hosts guest.dev.example.org")
        guest.succeed(
            "echo '192.0.2.9 peer' > /run/devhost/hosts.new",
            "mv /run/devhost/hosts.new /run/devhost/hosts",
        )
        guest.wait_until_succeeds("getent hosts peer", timeout=60)
        assert "192.0.2.8" in guest.succeed("getent hosts upstream.example.org")
        assert "192.0.2.1" in guest.succeed("cat /etc/resolv.conf")

    with subtest("its own certificate, for nginx"):
        guest.wait_for_unit("devhost-certificate.service")
        guest.succeed(
            "openssl x509 -in /var/lib/devhost-certificate/certificate.pem -noout -ext subjectAltName | grep DNS:guest"
        )
        assert guest.succeed("stat -c %a:%G /var/lib/devhost-certificate/key.pem").strip() == "640:nginx"

    with subtest("a notice for people"):
        guest.succeed("grep -q /run/devhost/notice /etc/bashrc")

    with subtest("fc-manage says what is missing"):
        assert "devhost restart guest" in guest.fail("fc-manage 2>&1")

    assert guest.succeed("systemctl --failed --plain --no-legend 'devhost*' sshd.service nginx.service") == ""
  '';
}
