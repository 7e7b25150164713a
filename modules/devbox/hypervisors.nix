# What the hypervisors can do. Options, assertions, guest settings and the table in docs/options
# come from here; what is new to one is said here and nowhere else.
#
#   summary   what it is
#   systems   the kinds of guest that it runs
#   nested    those of them in which machines can run in turn
#   console   the guest's serial console, by kind
#   image     the format of its disks
{
  tart = {
    summary = "macOS on Apple Silicon, by Apple's Virtualization framework";
    systems = [ "aarch64-linux" ];
    nested = [ "aarch64-linux" ];
    console.aarch64-linux = "hvc0";
    image = "raw";
  };
  qemu = {
    summary = "Linux and macOS, by QEMU";
    systems = [ "aarch64-linux" "x86_64-linux" ];
    nested = [ "x86_64-linux" ];
    console = { aarch64-linux = "ttyAMA0"; x86_64-linux = "ttyS0"; };
    image = "qcow2";
  };
}
