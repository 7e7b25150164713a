# Showing values on standard error while they are evaluated.
{ lib }:
let
  inherit (builtins) deepSeq trace;
in
rec {
  traceIf = condition: message: value: if condition then trace message value else value;
  traceValFn = f: value: trace (f value) value;
  traceVal = traceValFn lib.id;
  traceSeq = message: trace (deepSeq message message);
  traceValSeqFn = f: value: traceSeq (f value) value;
  traceValSeq = traceValSeqFn lib.id;
}
