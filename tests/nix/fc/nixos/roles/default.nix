# Stands in for the roles of Flying Circus' platform.
{ imports = [ ./devhost ]; }
