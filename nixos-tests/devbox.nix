# A blank disk, installed from the ISO of a devbox, and started from then: without a network
# device, with 1 GiB of memory. The test plays devbox-cli.
{ config, hostPkgs, lib, ... }:
let
  inherit (hostPkgs.stdenv.hostPlatform) system;

  devbox = import (hostPkgs.path + "/nixos/lib/eval-config.nix") {
    inherit system;
    modules = [
      ../modules/devbox
      ({ modulesPath, ... }: {
        # The driver's way in.
        imports = [ (modulesPath + "/testing/test-instrumentation.nix") ];
        nixpkgs.pkgs = hostPkgs;
        devbox = { hypervisor = "qemu"; user.login = "alice"; };
        networking.hostName = "box";
        # There is no device to wait for.
        networking.useDHCP = false;
        system.stateVersion = lib.trivial.release;
      })
    ] ++ config.devboxModules;
  };

  settings = hostPkgs.writeText "settings.json" (builtins.toJSON {
    version = 1;
    mode = "direct";
    disk = devbox.config.devbox.install.disk;
    login = "alice";
    hostName = "box";
    substituters = [ ];
    trustedPublicKeys = [ ];
  });
  # Releases differ in what it asks for.
  qemu = hostPkgs.callPackage (hostPkgs.path + "/nixos/lib/qemu-common.nix") { };
in
{
  options.devboxModules = lib.mkOption {
    type = lib.types.listOf lib.types.raw;
    default = [ ];
    description = "Further modules of the machine.";
  };

  config = {
    meta.timeout = 3600;

    testScript = ''
      import json
      import pathlib
      import shlex
      import shutil
      import subprocess
      import tempfile

      folder = pathlib.Path(tempfile.mkdtemp())
      disk, seed, variables = folder / "disk.qcow2", folder / "seed.img", folder / "variables.fd"
      key = folder / "key"


      def run(*command: object) -> str:
          return subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True).stdout


      def box(name: str, *devices: str):  # type: ignore[no-untyped-def]
          return create_machine(
              start_command=" ".join([
                  "${qemu.qemuBinary hostPkgs.qemu_test}", "-m 1024", "-nic none",
                  "-drive if=pflash,format=raw,unit=0,readonly=on,file=${hostPkgs.OVMF.firmware}",
                  f"-drive if=pflash,format=raw,unit=1,file={variables}",
                  f"-drive if=none,id=disk,file={disk}", "-device virtio-blk-pci,drive=disk,bootindex=2",
                  *devices,
              ]),
              name=name,
          )


      run("${hostPkgs.qemu_test}/bin/qemu-img", "create", "-q", "-f", "qcow2", disk, "8G")
      shutil.copyfile("${hostPkgs.OVMF.variables}", variables)
      run("${hostPkgs.openssh}/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
      run("${hostPkgs.dosfstools}/bin/mkfs.vfat", "-F", "16", "-n", "DEVBOX-SEED", "-C", seed, "16384")
      for name, source in {"settings.json": "${settings}", "authorized_keys": f"{key}.pub", "user_key": key}.items():
          run("${hostPkgs.mtools}/bin/mcopy", "-i", seed, source, f"::{name}")
      [iso] = pathlib.Path("${devbox.config.system.build.devboxInstaller}/iso").glob("*.iso")

      with subtest("the ISO installs, and the machine goes off"):
          installer = box(
              "installer",
              f"-drive if=none,id=seed,format=raw,file={seed}", "-device virtio-blk-pci,drive=seed",
              f"-drive if=none,id=iso,media=cdrom,format=raw,readonly=on,file={iso}", "-device virtio-scsi-pci", "-device scsi-cd,drive=iso,bootindex=1",
          )
          installer.start()
          installer.wait_for_shutdown()
          report = [json.loads(line) for line in run("${hostPkgs.mtools}/bin/mtype", "-i", seed, "::report.jsonl").splitlines()]
          assert report[-1]["kind"] == "verdict" and report[-1]["verdict"] == "installed", report[-1]
          [host_key] = [event["hostKey"] for event in report if event["kind"] == "hostKey"]

      with subtest("the disk starts, and is the system that was built"):
          machine = box("machine")
          machine.start()
          machine.wait_for_unit("multi-user.target")
          machine.succeed("test $(readlink -f /run/current-system) = ${devbox.config.system.build.toplevel}")
          assert machine.succeed("cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub").strip() == host_key
          assert machine.succeed("findmnt -no LABEL / /boot").split() == ["nixos", "boot"]
          machine.succeed("nix-store --verify-path ${devbox.config.system.build.toplevel}")

      with subtest("ssh, with the keys of the seed disk, and sudo"):
          machine.wait_for_unit("sshd.service")
          machine.succeed(f"echo {shlex.quote('localhost ' + host_key)} >/tmp/known_hosts")
          login = "ssh -o BatchMode=yes -o UserKnownHostsFile=/tmp/known_hosts alice@localhost"
          assert machine.succeed(f"runuser -u alice -- {login} sudo -n id -un").strip() == "root"
          # Keys are the only way in.
          machine.fail(f"runuser -u alice -- {login.replace('BatchMode=yes', 'BatchMode=yes -o PubkeyAuthentication=no')} true")

      with subtest("it goes on after a restart"):
          machine.shutdown()
          machine.start()
          machine.wait_for_unit("multi-user.target")
          assert machine.succeed("systemctl --failed --plain --no-legend") == ""
    '';
  };
}
