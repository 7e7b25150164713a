# The package set: links to the host's programs, trivial builders, formats.
{ lib
, system ? builtins.currentSystem
, overlays ? [ ]
}:
let
  builders = import ./builders.nix { inherit lib system; };
  table = import ./programs.nix;

  # A store folder of one link per program (never a link to a folder, see README.md).
  hostPackage = name:
    { debian
    , programs ? [ ]
    , optional ? [ ]
    , first ? { }
    , folder ? ""
    , files ? { }
    , passthru ? { }
    }:
    builders.build {
      inherit name passthru;
      meta = {
        mainProgram = lib.head (lib.attrNames first ++ [ name ]);
        description = "The host's own programs (Debian: ${debian})";
      } // lib.optionalAttrs (programs != [ ]) {
        mainProgram = if lib.elem name programs then name else lib.head programs;
      };
      script = ''
        missing() {
          echo "channels/offline: package ${name}: this host has no $1." >&2
          echo "Install the Debian or Ubuntu package that brings it and build again: apt-get install ${debian}" >&2
          exit 1
        }
        # Searched from the last to the first.
        folders=
        for folder in ${if folder != "" then folder else "/usr/sbin /usr/bin"}; do
          [ ! -d "$folder" ] || folders="$folder $folders"
        done
        # The sandbox shows /usr; some links below it go the old way round, through /sbin.
        usable() {
          [ -x "$1" ] && return
          [ -L "$1" ] || return
          case $(readlink "$1") in
            /sbin/*) [ -x "/usr$(readlink "$1")" ] ;;
            *) return 1 ;;
          esac
        }
        locate() {
          for folder in $folders; do
            if usable "$folder/$1"; then
              found=$folder/$1
              return 0
            fi
          done
          return 1
        }
        mkdir -p "$out/bin"
        set --
        for program in ${lib.escapeShellArgs programs}; do
          locate "$program" || missing "$program${lib.optionalString (folder != "") " in ${folder}"}"
          set -- "$@" "$found"
        done
        for program in ${lib.escapeShellArgs optional}; do
          if locate "$program"; then
            set -- "$@" "$found"
          fi
        done
        [ $# = 0 ] || ln -s "$@" "$out/bin/"
      '' + lib.concatStrings (lib.mapAttrsToList
        (program: candidates: ''
          if [ ! -L "$out/bin/"${lib.escapeShellArg program} ]; then
            found=
            for candidate in ${lib.escapeShellArgs candidates}; do
              if locate "$candidate"; then
                break
              fi
            done
            [ -n "$found" ] || missing ${lib.escapeShellArg (lib.concatStringsSep " or " candidates)}
            ln -s "$found" "$out/bin/"${lib.escapeShellArg program}
          fi
        '')
        first) + lib.concatStrings (lib.mapAttrsToList
        (target: source: ''
          [ -f ${lib.escapeShellArg source} ] || missing ${lib.escapeShellArg source}
          mkdir -p "$(dirname "$out/"${lib.escapeShellArg target})"
          ln -s ${lib.escapeShellArg source} "$out/"${lib.escapeShellArg target}
        '')
        files);
    };

  hostPackages = lib.mapAttrs hostPackage (table // {
    postgresql = postgresqlWith table.postgresql "host";
  } // lib.listToAttrs (map
    (major: {
      name = "postgresql_${major}";
      value = postgresqlWith
        (table.postgresql // {
          debian = "postgresql-${major}";
          folder = "/usr/lib/postgresql/${major}/bin";
        })
        major;
    })
    [ "13" "14" "15" "16" "17" "18" ]));

  # psqlSchema names the default data folder. Which major version the host has is
  # not known when a configuration is evaluated, so the unversioned package says "host".
  postgresqlWith = entry: psqlSchema: entry // { passthru = { inherit psqlSchema; }; };

  platform = {
    inherit system;
    config = system;
    isLinux = lib.hasSuffix "-linux" system;
    isDarwin = false;
    isx86_64 = lib.hasPrefix "x86_64-" system;
    isAarch64 = lib.hasPrefix "aarch64-" system;
    is64bit = true;
  };

  base = self:
    hostPackages
    // removeAttrs builders [ "build" ]
    // {
      inherit lib system;
      pkgs = self;

      bashInteractive = self.bash;
      coreutils-full = self.coreutils;
      mawk = self.gawk;
      net-tools = self.nettools;
      openssh_hpn = self.openssh;
      python3Minimal = self.python3;
      utillinux = self.util-linux;
      # The programs of util-linux that nixpkgs also has as packages of their own.
      getopt = self.util-linux;
      mount = self.util-linux;
      su = self.util-linux;

      # As nixpkgs' own: it finds its network's firewall whatever PATH is.
      podman = builders.build {
        name = "podman";
        inherit (hostPackages.podman) meta;
        script = ''
          mkdir -p "$out/bin" "$out/libexec/podman"
          cp -P ${hostPackages.podman}/libexec/podman/* "$out/libexec/podman/"
          cat > "$out/bin/podman" <<'END'
          #!${builders.runtimeShell}
          export PATH=$PATH:${lib.makeBinPath [ self.iptables self.nftables ]}
          exec ${hostPackages.podman}/bin/podman "$@"
          END
          chmod 0755 "$out/bin/podman"
        '';
      };

      cacert = builders.build {
        name = "cacert";
        # The host's own bundle is in /etc, out of reach; its parts are in /usr.
        script = ''
          if [ ! -d /usr/share/ca-certificates ]; then
            echo "channels/offline: package cacert: this host has no /usr/share/ca-certificates." >&2
            echo "Install the Debian or Ubuntu package that brings it and build again: apt-get install ca-certificates" >&2
            exit 1
          fi
          mkdir -p "$out/etc/ssl/certs"
          find /usr/share/ca-certificates -name '*.crt' -print0 | sort -z | xargs -0 -r cat > "$out/etc/ssl/certs/ca-bundle.crt"
        '';
      };

      hello = self.writeShellScriptBin "hello" "echo 'Hello, world!'";
      emptyDirectory = builders.build { name = "empty-directory"; script = "mkdir \"$out\""; };
      emptyFile = builders.build { name = "empty-file"; script = ": > \"$out\""; };

      stdenv = {
        hostPlatform = platform;
        buildPlatform = platform;
        targetPlatform = platform;
        inherit (platform) system isLinux isDarwin isx86_64 isAarch64;
        mkDerivation = args: throw
          "channels/offline builds nothing from source (${args.pname or args.name or "stdenv.mkDerivation"}); use runCommand, or a channel with network access";
      };
      stdenvNoCC = self.stdenv;

      formats = import ./formats.nix {
        inherit lib;
        inherit (builders) writeText build;
      };

      callPackage = lib.callPackageWith self;
      newScope = extra: lib.callPackageWith (self // extra);

    };

  extended = lib.foldl'
    (previous: overlay: self: let before = previous self; in before // overlay self before)
    base
    overlays;

  self = extended self;
in
self
