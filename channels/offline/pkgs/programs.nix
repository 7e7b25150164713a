# Which programs of the host make up a package. Per package:
#
#   debian    the Debian (and Ubuntu) package that brings the programs; named when one is missing
#   programs  names that become bin/NAME, found in the host's /usr/bin and /usr/sbin
#   optional  the same, left out where the host has none
#   first     bin/NAME = the first of these programs that the host has (Debian's
#             alternatives point through /etc, which containers do not share)
#   folder    where else to look for programs; a shell pattern, the last match is used
#   files     further files: name in the package = path on the host
#   passthru  further attributes of the package
{
  acl = { debian = "acl"; programs = [ "getfacl" "setfacl" ]; };
  attr = { debian = "attr"; programs = [ "getfattr" "setfattr" ]; };
  bash = { debian = "bash"; programs = [ "bash" ]; first.sh = [ "bash" ]; passthru.shellPath = "/bin/bash"; };
  buildah = { debian = "buildah"; programs = [ "buildah" ]; };
  bzip2 = { debian = "bzip2"; programs = [ "bzip2" "bunzip2" "bzcat" ]; };
  conmon = { debian = "conmon"; programs = [ "conmon" ]; };
  coreutils = {
    debian = "coreutils";
    programs = [
      "[" "arch" "b2sum" "base32" "base64" "basename" "cat" "chgrp" "chmod" "chown" "chroot" "cksum" "comm" "cp"
      "csplit" "cut" "date" "dd" "df" "dir" "dircolors" "dirname" "du" "echo" "env" "expand" "expr" "factor" "false"
      "fmt" "fold" "groups" "head" "id" "install" "join" "link" "ln" "logname" "ls" "md5sum" "mkdir" "mkfifo" "mknod"
      "mktemp" "mv" "nice" "nl" "nohup" "nproc" "numfmt" "od" "paste" "pathchk" "pr" "printenv" "printf" "ptx" "pwd"
      "readlink" "realpath" "rm" "rmdir" "seq" "sha1sum" "sha224sum" "sha256sum" "sha384sum" "sha512sum" "shred"
      "shuf" "sleep" "sort" "split" "stat" "stdbuf" "stty" "sum" "sync" "tac" "tail" "tee" "test" "timeout" "touch"
      "tr" "true" "truncate" "tsort" "tty" "uname" "unexpand" "uniq" "unlink" "vdir" "wc" "whoami" "yes"
    ];
    optional = [ "hostid" "pinky" "users" "who" ];
  };
  crun = { debian = "crun"; programs = [ "crun" ]; };
  curl = { debian = "curl"; programs = [ "curl" ]; };
  dbus = { debian = "dbus"; programs = [ "dbus-daemon" "dbus-send" "dbus-monitor" "dbus-uuidgen" ]; };
  diffutils = { debian = "diffutils"; programs = [ "cmp" "diff" "diff3" "sdiff" ]; };
  file = { debian = "file"; programs = [ "file" ]; };
  findutils = { debian = "findutils"; programs = [ "find" "xargs" ]; };
  gawk = { debian = "mawk"; first = { awk = [ "gawk" "mawk" "original-awk" ]; gawk = [ "gawk" "mawk" "original-awk" ]; }; };
  getconf = { debian = "libc-bin"; programs = [ "getconf" ]; };
  getent = { debian = "libc-bin"; programs = [ "getent" ]; };
  git = {
    debian = "git";
    programs = [ "git" "git-receive-pack" "git-shell" "git-upload-archive" "git-upload-pack" ];
  };
  gnugrep = { debian = "grep"; programs = [ "grep" "egrep" "fgrep" ]; };
  gnupg = { debian = "gpg"; programs = [ "gpg" ]; optional = [ "gpg-agent" "gpgconf" "gpgv" ]; };
  gnused = { debian = "sed"; programs = [ "sed" ]; };
  gnutar = { debian = "tar"; programs = [ "tar" ]; };
  gzip = { debian = "gzip"; programs = [ "gzip" "gunzip" "zcat" "zgrep" ]; };
  hostname = { debian = "hostname"; programs = [ "hostname" ]; };
  htop = { debian = "htop"; programs = [ "htop" ]; };
  iproute2 = { debian = "iproute2"; programs = [ "ip" "ss" "bridge" ]; optional = [ "tc" ]; };
  iptables = {
    debian = "iptables";
    first = {
      iptables = [ "iptables-nft" ]; iptables-save = [ "iptables-nft-save" ]; iptables-restore = [ "iptables-nft-restore" ];
      ip6tables = [ "ip6tables-nft" ]; ip6tables-save = [ "ip6tables-nft-save" ]; ip6tables-restore = [ "ip6tables-nft-restore" ];
    };
  };
  iputils = { debian = "iputils-ping"; programs = [ "ping" ]; };
  jq = { debian = "jq"; programs = [ "jq" ]; };
  kmod = { debian = "kmod"; programs = [ "kmod" "lsmod" "modprobe" ]; };
  less = { debian = "less"; programs = [ "less" ]; };
  locale = { debian = "libc-bin"; programs = [ "locale" ]; };
  logrotate = { debian = "logrotate"; programs = [ "logrotate" ]; };
  lsof = { debian = "lsof"; programs = [ "lsof" ]; };
  mailutils = { debian = "mailutils"; first.mail = [ "mail.mailutils" "bsd-mailx" ]; };
  memcached = { debian = "memcached"; programs = [ "memcached" ]; };
  nano = { debian = "nano"; programs = [ "nano" ]; };
  ncurses = { debian = "ncurses-bin"; programs = [ "clear" "infocmp" "reset" "tic" "toe" "tput" "tset" ]; };
  nettools = { debian = "net-tools"; programs = [ "netstat" "ifconfig" "route" ]; };
  nftables = { debian = "nftables"; programs = [ "nft" ]; };
  nginx = { debian = "nginx-light"; programs = [ "nginx" ]; };
  # Optional, all of it: the host's own Nix may lie in the store, where containers see it anyway.
  nix = {
    debian = "nix-bin";
    optional = [
      "nix" "nix-build" "nix-channel" "nix-collect-garbage" "nix-copy-closure" "nix-env" "nix-hash" "nix-instantiate"
      "nix-prefetch-url" "nix-shell" "nix-store"
    ];
  };
  nodejs = { debian = "nodejs"; programs = [ "node" ]; optional = [ "npm" "npx" ]; };
  openssh = {
    debian = "openssh-server";
    programs = [ "scp" "sftp" "ssh" "ssh-add" "ssh-agent" "ssh-keygen" "ssh-keyscan" "sshd" ];
    files."libexec/sftp-server" = "/usr/lib/openssh/sftp-server";
  };
  openssl = { debian = "openssl"; programs = [ "openssl" ]; };
  perl = { debian = "perl-base"; programs = [ "perl" ]; };
  php = { debian = "php-cli"; first.php = [ "php8.4" "php8.3" "php8.2" "php" ]; };
  podman = {
    debian = "podman netavark aardvark-dns";
    programs = [ "podman" ];
    files = {
      "libexec/podman/netavark" = "/usr/lib/podman/netavark";
      "libexec/podman/aardvark-dns" = "/usr/lib/podman/aardvark-dns";
    };
  };
  podman-compose = { debian = "podman-compose"; programs = [ "podman-compose" ]; };
  postgresql = {
    debian = "postgresql";
    folder = "/usr/lib/postgresql/*/bin";
    programs = [
      "clusterdb" "createdb" "createuser" "dropdb" "dropuser" "initdb" "pg_basebackup" "pg_controldata" "pg_ctl"
      "pg_dump" "pg_dumpall" "pg_isready" "pg_restore" "postgres" "psql" "reindexdb" "vacuumdb"
    ];
    optional = [
      "pg_amcheck" "pg_archivecleanup" "pg_checksums" "pg_config" "pg_receivewal" "pg_recvlogical" "pg_resetwal"
      "pg_rewind" "pg_test_fsync" "pg_test_timing" "pg_upgrade" "pg_verifybackup" "pg_waldump" "pgbench" "vacuumlo"
    ];
  };
  procps = {
    debian = "procps";
    programs = [ "free" "pgrep" "pkill" "ps" "sysctl" "top" "uptime" ];
    # Some of these come with other packages in some releases.
    optional = [ "pidof" "pidwait" "pmap" "pwdx" "slabtop" "tload" "vmstat" "w" "watch" ];
  };
  psmisc = { debian = "psmisc"; programs = [ "fuser" "killall" "pstree" ]; };
  # pydoc3 tells it from python3-minimal, which has half of the standard library.
  python3 = { debian = "python3"; programs = [ "python3" "pydoc3" ]; first.python = [ "python3" ]; };
  redis = {
    debian = "redis-server redis-tools";
    programs = [ "redis-server" "redis-cli" ];
    optional = [ "redis-benchmark" "redis-check-aof" "redis-check-rdb" "redis-sentinel" ];
  };
  rsync = { debian = "rsync"; programs = [ "rsync" ]; };
  ruby = { debian = "ruby"; programs = [ "ruby" ]; };
  screen = { debian = "screen"; programs = [ "screen" ]; };
  shadow = {
    debian = "passwd login";
    programs = [ "chage" "chpasswd" "groupadd" "groupdel" "groupmod" "nologin" "useradd" "userdel" "usermod" ];
  };
  socat = { debian = "socat"; programs = [ "socat" ]; };
  sqlite = { debian = "sqlite3"; programs = [ "sqlite3" ]; };
  strace = { debian = "strace"; programs = [ "strace" ]; };
  sudo = { debian = "sudo"; programs = [ "sudo" "visudo" ]; };
  systemd = {
    debian = "systemd";
    programs = [
      "busctl" "journalctl" "loginctl" "networkctl" "systemctl" "systemd-analyze" "systemd-cat" "systemd-escape"
      "systemd-notify" "systemd-run" "systemd-tmpfiles"
    ];
    optional = [
      "hostnamectl" "localectl" "systemd-ask-password" "systemd-cgls" "systemd-cgtop" "systemd-creds"
      "systemd-delta" "systemd-detect-virt" "systemd-id128" "systemd-machine-id-setup" "systemd-mount" "systemd-path"
      "systemd-socket-activate" "systemd-stdio-bridge" "systemd-tty-ask-password-agent" "timedatectl"
    ];
    # Debian keeps these in systemd-sysv; all are systemctl under another name.
    first = {
      halt = [ "systemctl" ]; poweroff = [ "systemctl" ]; reboot = [ "systemctl" ]; shutdown = [ "systemctl" ];
    };
  };
  telnet = { debian = "telnet"; first.telnet = [ "telnet.netkit" "inetutils-telnet" ]; };
  tmux = { debian = "tmux"; programs = [ "tmux" ]; };
  tree = { debian = "tree"; programs = [ "tree" ]; };
  tzdata = { debian = "tzdata"; files."share/zoneinfo/tzdata.zi" = "/usr/share/zoneinfo/tzdata.zi"; };
  unzip = { debian = "unzip"; programs = [ "unzip" ]; };
  util-linux = {
    debian = "util-linux mount";
    programs = [
      "findmnt" "flock" "getopt" "logger" "mount" "mountpoint" "nsenter" "runuser" "setpriv" "setsid" "su" "umount"
      "unshare"
    ];
    optional = [
      "agetty" "cal" "chrt" "col" "column" "dmesg" "fallocate" "hexdump" "ionice" "ipcmk" "ipcrm" "ipcs" "kill"
      "login" "losetup" "lsblk" "lscpu" "lsns" "mcookie" "more" "namei" "prlimit" "rename.ul" "renice" "rev" "script"
      "scriptreplay" "swapon" "taskset" "wall" "whereis"
    ];
  };
  vim = { debian = "vim-tiny"; first = { vim = [ "vim.basic" "vim.tiny" ]; vi = [ "vim.basic" "vim.tiny" ]; }; };
  wget = { debian = "wget"; programs = [ "wget" ]; };
  which = { debian = "debianutils"; first.which = [ "which.debianutils" "which.gnu" ]; };
  whois = { debian = "whois"; programs = [ "whois" ]; };
  xz = { debian = "xz-utils"; programs = [ "xz" "unxz" "xzcat" ]; };
  zip = { debian = "zip"; programs = [ "zip" ]; };
  zstd = { debian = "zstd"; programs = [ "zstd" "unzstd" "zstdcat" ]; };
}
