# Parts of version numbers such as "1.22.3".
{ lib }:
let
  part = i: version:
    let parts = builtins.splitVersion version;
    in if builtins.length parts > i then builtins.elemAt parts i else "";
in
rec {
  splitVersion = builtins.splitVersion;
  major = part 0;
  minor = part 1;
  patch = part 2;
  majorMinor = version: lib.concatStringsSep "." (lib.take 2 (splitVersion version));
  pad = n: version:
    let
      numbers = lib.head (lib.splitString "-" version);
      tag = lib.removePrefix numbers version;
      parts = lib.splitString "." numbers;
      zeros = builtins.genList (_: "0") (lib.max 0 (n - builtins.length parts));
    in
    lib.concatStringsSep "." (lib.take n (parts ++ zeros)) + tag;
}
