# Attribute sets that refer to themselves and can be extended.
{ lib }:
rec {
  fix = f: let self = f self; in self;

  fix' = f: let self = f self // { __unfix__ = f; }; in self;

  # An overlay is `final: previous: { changes }`.
  extends = overlay: f: final:
    let previous = f final; in previous // overlay final previous;

  composeExtensions = first: second: final: previous:
    let
      changes = first final previous;
    in
    changes // second final (previous // changes);

  composeManyExtensions = lib.foldr composeExtensions (_: _: { });

  makeExtensible = makeExtensibleWithCustomName "extend";

  makeExtensibleWithCustomName = name: f:
    fix' (self: f self // { ${name} = overlay: makeExtensibleWithCustomName name (extends overlay f); });

  # Applies `f` until the result no longer changes.
  converge = f: x: let next = f x; in if next == x then x else converge f next;
}
