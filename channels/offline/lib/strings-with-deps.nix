# Pieces of text that name the pieces that must come before them, as in
# `system.activationScripts`.
{ lib }:
rec {
  fullDepEntry = text: deps: { inherit text deps; };
  noDepEntry = text: fullDepEntry text [ ];
  packEntry = fullDepEntry "";
  stringAfter = deps: text: fullDepEntry text deps;

  # The texts of `names` and of all that they depend on, each once, dependencies
  # first.
  textClosureList = pieces: names:
    let
      add = state: name:
        if state.seen ? ${name} then state
        else
          let
            piece = pieces.${name};
            before = builtins.foldl' add (state // { seen = state.seen // { ${name} = true; }; }) piece.deps;
          in
          before // { texts = before.texts ++ [ piece.text ]; };
    in
    (builtins.foldl' add { seen = { }; texts = [ ]; } names).texts;

  textClosureMap = f: pieces: names:
    lib.concatStringsSep "\n" (map f (textClosureList pieces names));
}
