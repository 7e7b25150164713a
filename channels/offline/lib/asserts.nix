# Checks whose message reaches the person who evaluates.
{ lib }:
rec {
  assertMsg = condition: message: if condition then true else throw message;

  assertOneOf = name: value: allowed:
    assertMsg (builtins.elem value allowed) "${name} must be one of ${
      lib.generators.toPretty { } allowed
    }, but is: ${lib.generators.toPretty { } value}";
}
