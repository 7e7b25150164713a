# The reference page of a module's options, in Markdown: { module }; for modules/devbox also a
# table of what the hypervisors can do. It is made with channels/offline's library, so that it is
# the same everywhere.
{ module }:
let
  lib = import ../channels/offline/lib;

  evaluated = lib.evalModules {
    # Defaults that need more have a text.
    modules = [ (../modules + "/${module}/options.nix") { _module.args.pkgs = { }; } ];
  };

  # An option that holds further ones is followed by them.
  collect = options: lib.concatMap
    (value: if lib.isOption value then [ value ] ++ collect (value.type.getSubOptions value.loc) else collect value)
    (lib.attrValues (removeAttrs options [ "_module" "_freeformOptions" ]));

  # {command}`x` is for NixOS' manual.
  plain = lib.replaceStrings [ "{command}`" "{option}`" ] [ "`" "`" ];
  pretty = value: if value ? _type && value ? text then value.text else lib.generators.toPretty { multiline = false; } value;
  field = name: text: "- ${name}: ${text}\n";

  entry = option: ''
    ## `${lib.showOption option.loc}`

    ${lib.removeSuffix "\n" (plain option.description)}

    ${field "type" option.type.description}''
  + (if option ? defaultText then field "default" option.defaultText
  else if option ? default then field "default" "`${pretty option.default}`" else "")
  + lib.optionalString (option ? example) (field "example" "`${pretty option.example}`")
  + lib.optionalString (option.readOnly or false) "- read only\n";

  hypervisors = ../modules + "/${module}/hypervisors.nix";
  table =
    let
      row = cells: "| ${lib.concatStringsSep " | " cells} |\n";
      consoles = hypervisor: lib.concatStringsSep ", " (lib.unique (map (system: "`${hypervisor.console.${system}}`") hypervisor.systems));
      list = values: lib.concatMapStringsSep ", " (value: "`${value}`") values;
    in
    row [ "`devbox.hypervisor`" "on" "guests" "machines inside (`vm.nested`)" "serial console" ]
    + row [ "---" "---" "---" "---" "---" ]
    + lib.concatStrings (lib.mapAttrsToList
      (name: hypervisor: row [ "`${name}`" hypervisor.summary (list hypervisor.systems) (list hypervisor.nested) (consoles hypervisor) ])
      (import hypervisors))
    + "\n";
in
"# Options of modules/${module}\n\n" + lib.optionalString (builtins.pathExists hypervisors) table + lib.concatMapStringsSep "\n" entry (collect evaluated.options)
