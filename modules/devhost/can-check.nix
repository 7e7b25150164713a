# Whether the machine that builds can run the host's program, to have it check what was built.
pkgs: pkgs.stdenv.buildPlatform.system == pkgs.stdenv.hostPlatform.system
