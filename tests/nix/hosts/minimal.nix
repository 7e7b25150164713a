# A host that says no more than it must.
{
  services.devhost.enable = true;
}
