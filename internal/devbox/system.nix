# The system of a host of a flake: name -> nixosConfigurations -> answer.
name: hosts:
{
  names = builtins.attrNames hosts;
  drvPath = if hosts ? ${name} then hosts.${name}.config.system.build.toplevel.drvPath else "";
}
