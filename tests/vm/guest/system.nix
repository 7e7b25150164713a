# A system that has what nixos-install and sshd meet in one of NixOS: activate,
# bin/switch-to-configuration, init and sw. It refers to two other store paths.
{ tools, boot, guest }:
let
  copy = name: path: builtins.path { inherit name path; };
  sources = copy "devbox-test-sources" (guest + "/system");
in
derivation rec {
  name = "nixos-system-devbox-test";
  system = builtins.currentSystem;
  tools' = copy "devbox-test-tools" tools;
  boot' = copy "devbox-test-boot" boot;
  builder = "${tools'}/bin/busybox";
  args = [ "sh" "-c" ''
    PATH= busybox=${tools'}/bin/busybox
    $busybox mkdir -p $out/bin $out/sw/bin
    for file in activate init bin/switch-to-configuration; do
      $busybox printf '#!%s sh\n' $busybox >$out/$file
      $busybox sed -e "s|@tools@|${tools'}|g" -e "s|@boot@|${boot'}|g" -e "s|@out@|$out|g" ${sources}/''${file##*/} >>$out/$file
      $busybox chmod 555 $out/$file
    done
    $busybox printf '#!%s sh\nexec %s sh "$@"\n' $busybox $busybox >$out/sw/bin/bash
    $busybox chmod 555 $out/sw/bin/bash
  '' ];
}
