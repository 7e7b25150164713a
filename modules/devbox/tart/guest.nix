{ config, lib, pkgs, ... }:
{
  config = lib.mkIf (config.devbox.hypervisor == "tart") {
    # Folders of the Mac, by `tart run --dir`.
    boot.initrd.availableKernelModules = [ "virtiofs" ];

    # Where neither tart nor the Mac's ARP cache knows the address, devbox-cli finds it in what
    # the machine has printed: a line as internal/seed/report.go describes it.
    systemd.services.devbox-address = {
      description = "Printing the address of this devbox on its console";
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      path = [ (pkgs.iproute2 or pkgs.iproute) pkgs.gnused ];
      # The address that packets to elsewhere have; none is sent. It takes as long as DHCP does.
      script = ''
        for attempt in $(seq 120); do
          address=$(ip -4 -o route get 192.0.2.1 2>/dev/null | sed -n 's/.* src \([0-9.]*\).*/\1/p')
          if [ -n "$address" ]; then
            printf '\ndevbox-report: {"version":1,"kind":"address","address":"%s"}\n' "$address" >/dev/console
            exit 0
          fi
          sleep 1
        done
      '';
    };
  };
}
