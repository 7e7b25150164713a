# Checks of the flake: { pkgs, tree }, tree being the nixpkgs that they are evaluated with. What
# scripts/check-nix does besides needs programs, or more than one tree.
{ pkgs, tree }:
let
  inherit (pkgs) lib;
  tests = import ./. { inherit tree; };
  guests = import ./guests.nix { inherit tree; };
  devboxes = import ./devboxes.nix { inherit tree; };

  # An output that is there when the value is good; what is wrong fails the evaluation already.
  holds = name: good: pkgs.runCommand "devhost-${name}" { } (if good then "touch $out" else throw "${name}: run scripts/check-nix");
  all = lib.foldl' (good: value: builtins.deepSeq value good) true;
  # A check for each value that must be as in a file, and for each set of others.
  expected = kind: folder: lib.mapAttrs' (name: value: lib.nameValuePair "evaluation-${kind}-${name}" (holds "evaluation-${kind}-${name}" (
    builtins.fromJSON (builtins.unsafeDiscardStringContext (builtins.toJSON value)) == lib.importJSON (./expected + "/${folder}/${name}.json")
  )));
  sets = prefix: lib.mapAttrs' (part: values: lib.nameValuePair "evaluation-${prefix}${part}" (holds "evaluation-${prefix}${part}" (all (lib.attrValues values))));

  # Those that Flying Circus' platform on the search path is needed for come with scripts/check-nix.
  hosts = removeAttrs tests.hosts [ "platform" ];

  pages = lib.filter (name: builtins.pathExists (../../modules + "/${name}/options.nix")) (lib.attrNames (builtins.readDir ../../modules));
  devhost = pkgs.callPackage ../../pkgs/devhost.nix { };
in
{
  option-pages = holds "option-pages" (lib.all
    (module: import ../../scripts/options-page.nix { inherit module; } == builtins.readFile (../../docs/options + "/${module}.md"))
    pages);

  # Fetched anew whenever the list of modules changes: a hash that has become stale is found,
  # also where the old modules are in the store.
  vendor-hash = devhost.goModules.overrideAttrs (_: {
    name = "devhost-go-modules-${builtins.substring 0 12 (builtins.hashString "sha256" (builtins.readFile ../../go.mod + builtins.readFile ../../go.sum))}";
  });

  evaluation-assertions = holds "evaluation-assertions" (tests.assertions == lib.importJSON ./expected/assertions.json);
}
// sets "" (removeAttrs tests [ "assertions" "hosts" ])
// sets "guest-" (removeAttrs guests [ "guests" ])
// sets "devbox-" (removeAttrs devboxes [ "devboxes" ])
// expected "host" "hosts" hosts
// expected "guest" "guests" guests.guests
// expected "devbox" "devboxes" devboxes.devboxes
