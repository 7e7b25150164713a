# The package set of the test bed: that of channels/offline, which links to the machine's
# programs, with what else NixOS' own modules ask for. A name that only nixpkgs knows is an empty
# package, whose path says so: placeholder-NAME.
{ system, config, overlays }:
let
  lib = import ../lib;
  inherit (import ./derivation.nix { inherit lib system; }) finish mkDerivation;

  placeholder = name: mkDerivation { name = "placeholder-${name}"; buildCommand = "mkdir $out"; meta.mainProgram = name; } // {
    __functor = self: _: self;
    override = _: placeholder name;
    overrideAttrs = _: placeholder name;
  };
  placeholders = lib.genAttrs (lib.importJSON ../names.json) placeholder;

  runCommand = name: arguments: command: mkDerivation ({
    inherit name;
    # The machine's systemd lacks units of NixOS' own: those are left out.
    buildCommand =
      if lib.elem name [ "system-units" "user-units" ]
      then lib.replaceStrings [ ''if ! [ -e $fn ]; then echo "missing $fn"; false; fi'' ] [ ''[ -e $fn ] || continue'' ] command
      else command;
  } // arguments);

  # A package of further links: names of files (shell patterns) in the folders of the machine.
  # One link per file, see channels/offline/README.md.
  links = name: entries: runCommand name { } (lib.concatMapStrings
    ({ from, files ? [ "*" ], to, copy ? false }: ''
      mkdir -p $out/${to}
      for pattern in ${lib.escapeShellArgs files}; do
        for file in ${from}/$pattern; do
          if [ ! -d "$file" ]; then
            ${if copy then ''cp -P "$file" $out/${to}/'' else ''ln -s "$file" $out/${to}/''}
          fi
        done
      done
    '')
    entries);

  overlay = self: before:
    let
      # Versions of Debian 12, where modules of NixOS decide by one.
      versions = { nix = "2.8"; nginx = "1.22"; openssh = "9.2"; podman = "4.3"; postgresql = "15"; redis = "7.0"; sudo = "1.9"; };
      host = lib.mapAttrs
        (name: value:
          if lib.isDerivation value
          then finish { pname = name; version = versions.${name} or "1"; meta = { mainProgram = name; } // value.meta or { }; passthru = value.passthru or { }; } value
          else value)
        before;
      # A package, and more files of the machine in it.
      extended = name: entries: attributes: finish ({ inherit (host.${name}) pname version meta; } // attributes)
        (self.symlinkJoin { inherit name; paths = [ before.${name} (links "${name}-more" entries) ]; });
      # A package of programs of the machine.
      named = name: programs: runCommand name { meta.mainProgram = lib.head programs; } (''
        mkdir -p $out/bin
      '' + lib.concatMapStrings (program: ''
        for folder in /usr/sbin /usr/bin; do
          [ ! -e $folder/${program} ] || ln -sf $folder/${program} $out/bin/
        done
        [ -L $out/bin/${program} ] || { echo "this machine has no ${program}; run: scripts/setup nixos" >&2; exit 1; }
      '') programs);
      systemdAttributes =
        lib.genAttrs [
          "withAcl" "withAnalyze" "withApparmor" "withAudit" "withBootloader" "withCompression" "withCoredump" "withCryptsetup" "withDocumentation"
          "withEfi" "withFido2" "withFirstboot" "withHomed" "withHostnamed" "withHwdb" "withImportd" "withIptables" "withKexectools" "withLibBPF"
          "withLibidn2" "withLibseccomp" "withOomd" "withOpenSSL" "withPasswordQuality" "withPCRE2" "withPolkit" "withPortabled" "withQrencode"
          "withRemote" "withRepart" "withResolved" "withSelinux" "withSysupdate" "withSysusers" "withTests" "withTpm2Tss" "withUkify" "withUserDb"
          "withVmspawn"
        ] (_: false) // lib.genAttrs [ "withLocaled" "withLogind" "withMachined" "withNetworkd" "withNspawn" "withPam" "withTimedated" "withTimesyncd" "withUtmp" ] (_: true) // {
          kmod = self.kmod;
          kbd = placeholder "kbd";
          util-linux = self.util-linux;
          interfaceVersion = 2;
        };
    in
    placeholders // host
    # Whichever a module asks for, it gets the one that the machine has.
    // lib.genAttrs (map (major: "postgresql_${toString major}") (lib.range 12 18)) (_: self.postgresql)
    // {
      inherit lib config overlays runCommand links;
      _type = "pkgs";
      path = ../.;
      runCommandLocal = runCommand;
      runCommandCC = runCommand;
      runCommandNoCC = runCommand;
      extend = _: self;
      appendOverlays = more: import ./packages.nix { inherit system config; overlays = overlays ++ more; };
      __splicedPackages = self;
      callPackage = lib.callPackageWith self;
      callPackages = lib.callPackagesWith self;
      newScope = extra: lib.callPackageWith (self // extra);
      buildPackages = self;
      pkgsStatic = self;
      pkgsi686Linux = self;

      writeTextFile = { name, text, executable ? false, destination ? "", checkPhase ? "", meta ? { }, ... }: runCommand name { inherit text meta; passAsFile = [ "text" ]; } ''
        target=$out${lib.escapeShellArg destination}
        mkdir -p "$(dirname "$target")"
        cp "$textPath" "$target"
        ${lib.optionalString executable ''chmod +x "$target"''}
        ${checkPhase}
      '';
      writeText = name: text: self.writeTextFile { inherit name text; };
      writeTextDir = path: text: self.writeTextFile { name = baseNameOf path; inherit text; destination = "/${path}"; };
      writeScript = name: text: self.writeTextFile { inherit name text; executable = true; };
      writeScriptBin = name: text: self.writeTextFile { inherit name text; executable = true; destination = "/bin/${name}"; meta.mainProgram = name; };
      writeShellScript = name: text: self.writeScript name "#!/usr/bin/bash\n${text}\n";
      writeShellScriptBin = name: text: self.writeScriptBin name "#!/usr/bin/bash\n${text}\n";
      writeStringReferencesToFile = _: self.emptyFile;

      buildEnv = arguments: finish { } (before.buildEnv (removeAttrs arguments [ "extraOutputsToInstall" ]));
      # What it merges may depend on the names of the result, so that nothing is looked at before the
      # build.
      symlinkJoin = { name, paths, postBuild ? "", meta ? { }, ... }: runCommand name
        {
          inherit paths meta;
          manifest = builtins.toJSON { paths = map toString paths; pathsToLink = [ "/" ]; ignoreCollisions = true; };
          passAsFile = [ "paths" "manifest" ];
        } ''
        python3 -I -S ${../offline/merge.py} "$manifestPath"
        ${postBuild}
      '';

      substituteAll = { src, isExecutable ? false, name ? baseNameOf (toString src), dir ? "", postInstall ? "", ... }@arguments: mkDerivation (removeAttrs arguments [ "postInstall" ] // {
        inherit name;
        buildCommand = ''
          target=$out
          ${lib.optionalString (dir != "") ''mkdir -p $out/${dir}; target=$out/${dir}/${name}''}
          substituteAll "$src" "$target"
          ${lib.optionalString isExecutable ''chmod +x "$target"''}
          ${postInstall}
        '';
      });
      substitute = { src, substitutions ? [ ], ... }: runCommand (baseNameOf (toString src)) { } "substitute ${src} $out ${toString substitutions}";

      # nixpkgs' own would tidy it and look for mistakes.
      writers = before.writers // { writeNginxConfig = self.writeText; };

      closureInfo = _: self.emptyDirectory;
      writeClosure = _: self.emptyFile;

      stdenv = before.stdenv // rec {
        inherit mkDerivation;
        hostPlatform = lib.systems.elaborate system;
        buildPlatform = hostPlatform;
        targetPlatform = hostPlatform;
        inherit (hostPlatform) isLinux isDarwin isx86_64 isAarch64 is64bit;
        shell = "/usr/bin/bash";
        cc = placeholder "cc" // { libc = placeholder "libc"; bintools = placeholder "bintools" // { dynamicLinker = "/lib64/ld-linux-x86-64.so.2"; }; };
      };
      stdenvNoCC = self.stdenv;

      # The variables that setuid programs must not get, for NixOS' wrappers. glibc 2.36 has these.
      srcOnly = _: mkDerivation {
        name = "sources";
        buildPhase = ''
          mkdir -p sysdeps/generic
          {
            printf '#define UNSECURE_ENVVARS \\\n'
            for variable in GCONV_PATH GETCONF_DIR GLIBC_TUNABLES HOSTALIASES LD_AUDIT LD_DEBUG LD_DEBUG_OUTPUT LD_DYNAMIC_WEAK \
              LD_HWCAP_MASK LD_LIBRARY_PATH LD_ORIGIN_PATH LD_PRELOAD LD_PROFILE LD_SHOW_AUXV LOCALDOMAIN LOCPATH MALLOC_TRACE \
              NIS_PATH NLSPATH RESOLV_HOST_CONF RES_OPTIONS TMPDIR TZDIR; do
              printf '  "%s\\0" \\\n' "$variable"
            done
            printf '\n'
          } > sysdeps/generic/unsecvars.h
        '';
        installPhase = "cp -R . $out";
      };
      glibc = placeholder "glibc";
      cacert = lib.fix (cacert: host.cacert // { p11kit = placeholder "p11kit"; unbundled = placeholder "certificates"; hashed = placeholder "certificates"; override = _: cacert; });
      linuxHeaders = self.emptyDirectory;
      glibcLocales = placeholder "glibc-locales";
      glibcLocalesUtf8 = placeholder "glibc-locales";
      libxcrypt = placeholder "libxcrypt" // { enabledCryptSchemeIds = [ "y" "gy" "7" "2b" "2y" "2a" "6" ]; };

      perl = host.perl // { withPackages = _: host.perl; };
      python3 = host.python3 // { withPackages = _: host.python3; pythonVersion = "3"; };
      bashInteractive = host.bash // { shellPath = "/bin/bash"; };
      shadow = finish { inherit (host.shadow) pname version meta; shellPath = "/bin/nologin"; } (self.symlinkJoin {
        name = "shadow";
        paths = [ host.shadow (named "shadow-more" [ "newuidmap" "newgidmap" "newgrp" "sg" "passwd" "chsh" "chfn" "gpasswd" "expiry" "login" ]) ];
      }) // { su = self.su; };
      # NixOS makes these setuid everywhere.
      fuse = runCommand "fuse" { } "mkdir -p $out/bin; ln -s /usr/bin/false $out/bin/fusermount";
      fuse3 = runCommand "fuse" { } "mkdir -p $out/bin; ln -s /usr/bin/false $out/bin/fusermount3";
      util-linux = host.util-linux // { login = host.util-linux; bin = self.util-linux; mount = self.util-linux; };
      unixtools = lib.genAttrs [ "ifconfig" "arp" "route" "netstat" "ping" ] (_: host.nettools);
      sudo = extended "sudo" [{ from = "/usr/sbin"; files = [ "visudo" ]; to = "sbin"; } { from = "/usr/bin"; files = [ "sudoedit" ]; to = "bin"; }] { };
      nix = finish { inherit (host.nix) pname version meta; } (self.symlinkJoin
        {
          name = "nix";
          paths = [
            host.nix
            (links "nix-more" [{ from = "/usr/bin"; files = [ "nix-daemon" ]; to = "bin"; }])
            (self.writeTextDir "lib/tmpfiles.d/nix-daemon.conf" "d /nix/var/nix/daemon-socket 0755 root root - -\n")
            (self.writeTextDir "lib/systemd/system/nix-daemon.socket" ''
              [Unit]
              Before=multi-user.target
              RequiresMountsFor=/nix/store
              ConditionPathIsReadWrite=/nix/var/nix/daemon-socket
              [Socket]
              ListenStream=/nix/var/nix/daemon-socket/socket
            '')
            (self.writeTextDir "lib/systemd/system/nix-daemon.service" ''
              [Unit]
              RequiresMountsFor=/nix/store
              RequiresMountsFor=/nix/var
              ConditionPathIsReadWrite=/nix/var/nix/daemon-socket
              [Service]
              ExecStart=@/usr/bin/nix-daemon nix-daemon --daemon
              KillMode=process
            '')
          ];
        });
      nettools = self.symlinkJoin { name = "nettools"; paths = [ host.nettools host.hostname ]; };
      nginx = finish { inherit (host.nginx) pname version meta; modules = [ ]; }
        (self.symlinkJoin {
          name = "nginx";
          paths = [
            host.nginx
            # Debian has them in /etc.
            (self.writeTextDir "conf/fastcgi.conf" "fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;\n")
            (self.writeTextDir "conf/uwsgi_params" "uwsgi_param QUERY_STRING $query_string;\n")
          ];
        });
      nginxStable = self.nginx;
      postgresql = lib.fix (postgresql: host.postgresql // { withJIT = postgresql; withoutJIT = postgresql; withPackages = _: postgresql; pkgs = { }; });
      mailcap = self.writeTextDir "etc/nginx/mime.types" ''
        types {
          text/html html;
          text/css css;
          text/plain txt;
          text/javascript js;
          application/json json;
          image/png png;
          image/svg+xml svg;
        }
      '';
      skopeo = placeholder "skopeo" // {
        policy = self.writeTextDir "default-policy.json" (builtins.toJSON { default = [{ type = "insecureAcceptAnything"; }]; });
      };
      # Its units run the program with its PATH.
      podman = finish { inherit (host.podman) pname version meta; } (self.symlinkJoin {
        name = "podman";
        paths = [
          before.podman
          (links "podman-more" [
            { from = "/usr/lib/systemd/system"; files = [ "podman*" ]; to = "lib/systemd/system"; copy = true; }
            { from = "/usr/lib/systemd/user"; files = [ "podman*" ]; to = "lib/systemd/user"; copy = true; }
            { from = "/usr/lib/tmpfiles.d"; files = [ "podman.conf" ]; to = "lib/tmpfiles.d"; copy = true; }
          ])
        ];
        postBuild = "sed -i 's,/usr/bin/podman,${before.podman}/bin/podman,' $out/lib/systemd/*/podman*";
      });
      # podman looks whether it is there; its networks are netavark's.
      cni-plugins = runCommand "cni-plugins" { } "mkdir -p $out/bin";
      libcap = named "libcap" [ "capsh" "getcap" "setcap" "getpcaps" ];
      logrotate = links "logrotate" [{ from = "/usr/sbin"; files = [ "logrotate" ]; to = "bin"; } { from = "/usr/sbin"; files = [ "logrotate" ]; to = "sbin"; }];
      mkpasswd = named "whois" [ "mkpasswd" ];
      cpio = placeholder "cpio";
      xorg = placeholder "xorg" // {
        xauth = placeholder "xauth";
        lndir = self.writeShellScriptBin "lndir" ''exec cp -rs "$1/." "''${2-.}"'';
      };
      linux-pam = links "linux-pam" [{ from = "/usr/lib/*/security"; files = [ "*.so" ]; to = "lib/security"; } { from = "/usr/sbin"; files = [ "unix_chkpwd" ]; to = "bin"; }];
      pam = self.linux-pam;

      makeDBusConf = { serviceDirectories, ... }: runCommand "dbus-1" { } ''
        mkdir $out
        for kind in session system; do
          # The distribution's own, but for the part of the administrator, which would be this
          # file itself.
          grep -vE '<include[^>]*>/etc/dbus-1/|</busconfig>' /usr/share/dbus-1/$kind.conf > $out/$kind.conf
          {
            for folder in ${toString serviceDirectories}; do
              echo "<servicedir>$folder/share/dbus-1/$kind-services</servicedir>"
              echo "<includedir>$folder/share/dbus-1/$kind.d</includedir>"
            done
            echo '</busconfig>'
          } >> $out/$kind.conf
        done
      '';
      dbus = extended "dbus"
        [
          { from = "/usr/lib/systemd/system"; files = [ "dbus.service" "dbus.socket" ]; to = "etc/systemd/system"; copy = true; }
          { from = "/usr/lib/systemd/user"; files = [ "dbus.service" "dbus.socket" ]; to = "etc/systemd/user"; copy = true; }
          { from = "/usr/lib/dbus-1.0"; to = "libexec"; }
        ]
        { };

      # Units are copied: where a guest would find those that they link to, it has an empty folder
      # (module.nix).
      systemd = finish
        ({ pname = "systemd"; version = "252"; } // systemdAttributes)
        (self.symlinkJoin {
          name = "systemd";
          paths = [
            before.systemd
            (links "systemd-more" [
              { from = "/usr/lib/tmpfiles.d"; to = "example/tmpfiles.d"; copy = true; }
              { from = "/usr/lib/sysctl.d"; to = "example/sysctl.d"; copy = true; }
              { from = "/usr/lib/systemd"; to = "lib/systemd"; }
              { from = "/usr/bin"; files = [ "machinectl" ]; to = "bin"; }
              { from = "/usr/lib/*/security"; files = [ "pam_systemd*.so" ]; to = "lib/security"; }
              { from = "/usr/share/dbus-1/system.d"; files = [ "org.freedesktop.*" ]; to = "share/dbus-1/system.d"; }
              { from = "/usr/share/dbus-1/system-services"; files = [ "org.freedesktop.*" ]; to = "share/dbus-1/system-services"; }
            ])
          ];
          # Links between units stay what they are: NixOS looks at them.
          postBuild = ''
            for kind in system user; do
              mkdir -p $out/example/systemd/$kind
              for unit in /usr/lib/systemd/$kind/*.*; do
                [ -d "$unit" ] || cp -P "$unit" $out/example/systemd/$kind/
              done
              for folder in /usr/lib/systemd/$kind/*.wants; do
                cp -RP $folder $out/example/systemd/$kind/
              done
            done
            # True below /lib of the machine, where the guest sees nothing.
            sed -i '/^ConditionPathExists=|\/lib\/systemd\/system\//d' $out/example/systemd/system/systemd-logind.service
            for name in home journal-nocow portables static-nodes-permissions systemd systemd-nologin systemd-nspawn systemd-tmp tmp var x11; do
              [ -e $out/example/tmpfiles.d/$name.conf ] || touch $out/example/tmpfiles.d/$name.conf
            done
          '';
        });
      systemdMinimal = self.systemd;

      # sshd 9.2 has no -G, by which NixOS looks at a configuration once more.
      openssh = finish { inherit (host.openssh) pname version meta; withKerberos = false; } (self.symlinkJoin
        {
          name = "openssh";
          paths = [ before.openssh (links "openssh-more" [{ from = "/usr/share/openssh"; to = "share/openssh"; }]) ];
          postBuild = ''
            rm $out/bin/sshd
            printf '#!/bin/sh\n[ "$1" != -G ] || exit 0\nexec /usr/sbin/sshd "$@"\n' > $out/bin/sshd
            chmod +x $out/bin/sshd
          '';
        });
      linuxPackages = { kernel = placeholder "kernel" // { version = "6.1"; config = { isEnabled = _: true; isYes = _: true; isSet = _: true; }; }; stdenv = self.stdenv; kernelAtLeast = _: true; kernelOlder = _: false; extend = _: self.linuxPackages; };
      linuxPackages_latest = self.linuxPackages;
      nixos-install-tools = placeholder "nixos-install-tools";
    };

in
import ../offline/default.nix { inherit lib system; overlays = [ overlay ] ++ overlays; }
