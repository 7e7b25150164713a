# Nothing but the guest itself: accounts, sshd, sudo.
{ ... }:
{
}
