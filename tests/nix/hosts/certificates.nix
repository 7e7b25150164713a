# An ingress that shows a certificate which NixOS gets and renews, and one of elsewhere.
{
  services.devhost = {
    enable = true;
    publicAddress = "dev.example.org";
    ingress = {
      tls = "files";
      certificates = [
        { certificate = "/var/lib/acme/dev.example.org/fullchain.pem"; key = "/var/lib/acme/dev.example.org/key.pem"; }
        { certificate = "/etc/devhost-tls/shop.crt"; key = "/etc/devhost-tls/shop.key"; }
      ];
    };
  };
  security.acme = {
    acceptTerms = true;
    defaults.email = "admin@example.org";
    certs."dev.example.org" = {
      domain = "*.dev.example.org";
      dnsProvider = "rfc2136";
      environmentFile = "/etc/acme-dns";
      group = "web";
    };
    certs."mail.example.org" = { webroot = "/var/lib/acme/acme-challenge"; };
  };
  users.groups.web = { };
}
