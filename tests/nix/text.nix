# Generated texts without what differs from one release of NixOS, and from one release of a
# package, to the next: { lib }.
{ lib }:
let
  # What differs, and is told by other means.
  noise = line: line == "" || line == "[Install]"
    || lib.any (key: lib.hasPrefix "${key}=" line) [ "Environment" "WantedBy" "X-Restart-Triggers" ];
in
rec {
  # Store paths lose their hashes and versions.
  plain = text: lib.concatMapStrings (part: if lib.isString part then part else lib.head part)
    (builtins.split "/nix/store/[a-z0-9]{32}-([a-zA-Z_-]*[a-zA-Z_])(-[0-9][^ /:\"]*)?" (builtins.unsafeDiscardStringContext text));

  # The lines of a unit's file.
  linesOfUnit = text: lib.filter (line: !noise line) (lib.splitString "\n" (plain text));
}
