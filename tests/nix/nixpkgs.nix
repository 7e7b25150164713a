# A tree of nixpkgs as the input of a flake: { tree }. One whose packages are stand-ins, which
# knows one kind of machine only, gets those of every kind but aarch64-darwin, which it is too old for.
{ tree }:
let
  flake = (import (tree + "/flake.nix")).outputs { self = flake; } // { outPath = tree; };
  inherit (flake) lib;

  legacyPackages = lib.genAttrs [ "aarch64-linux" "x86_64-darwin" "x86_64-linux" ] (system: import tree { inherit system; });
  isOld = lib.versionOlder (flake.legacyPackages.x86_64-linux.go.version or "0") "1.26";
in
if isOld then
  flake // {
    inherit legacyPackages;
    lib = lib // {
      nixosSystem = arguments: import (tree + "/nixos/lib/eval-config.nix") ({
        inherit lib;
        system = null;
        pkgs = legacyPackages.${arguments.system};
      } // removeAttrs arguments [ "system" ]);
    };
  }
else flake
