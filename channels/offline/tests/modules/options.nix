{ lib, ... }:
{
  options.numbers = lib.mkOption { type = lib.types.listOf lib.types.int; default = [ ]; };
}
