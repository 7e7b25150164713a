# The names of this channel's library: { "" = [ names ]; SET = [ names ]; } for
# `lib` and its sets, and which of them nixpkgs' `lib` does not know.
{ reference ? null }:
let
  inherit (builtins) attrNames concatMap filter isAttrs listToAttrs;

  lib = import ../lib;

  sets = filter (name: isAttrs lib.${name} && !(lib.${name} ? _type) && !(lib.${name} ? __functor)) (attrNames lib);
  unknown = prefix: ours: theirs: map (name: prefix + name) (filter (name: !(theirs ? ${name})) (attrNames ours));
in
{
  names = { "" = attrNames lib; } // listToAttrs (map (name: { inherit name; value = attrNames lib.${name}; }) sets);
  unknown = unknown "" lib reference ++ concatMap (name: unknown "${name}." lib.${name} (reference.${name} or { })) sets;
}
