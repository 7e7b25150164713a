package devhost

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"

	"devhost/internal/cli/cliargs"
	"devhost/internal/ingress"
	"devhost/internal/names"
	"devhost/internal/settings"
)

// defaultDomain needs no DNS: names below localhost are this machine.
const defaultDomain = "devhost.localhost"

func domainFlag() cli.Flag {
	return &cli.StringFlag{Name: "domain", Value: defaultDomain, EnvVars: []string{"DEVHOST_DOMAIN"}, Usage: "public `DOMAIN` below which containers are reached (default: publicAddress and domains of the settings)"}
}

// publicDomains is the value of the flag, in lower case and without a dot at the
// end; without the flag, those of the host's settings.
func publicDomains(c *cli.Context, host settings.Settings) (domain string, more []string, err error) {
	domain = strings.ToLower(strings.TrimSuffix(c.String("domain"), "."))
	if known := append([]string{host.PublicAddress}, host.Domains...); !c.IsSet("domain") {
		known = slices.DeleteFunc(known, func(name string) bool { return name == "" })
		if len(known) > 0 {
			domain, more = known[0], known[1:]
		}
	}
	if err := names.Domain(domain); err != nil {
		return "", nil, &cliargs.UsageError{Command: cliargs.CommandName(c), Err: err}
	}
	return domain, more, nil
}

func (a *app) ingressCommand() *cli.Command {
	return &cli.Command{
		Name: "ingress", Usage: "serve https://ALIAS.CONTAINER.DOMAIN until it is stopped",
		Description: `Ends TLS and passes requests on to port 443 of the container that the name
belongs to. New containers and aliases answer at once. Certificates are those of
an own certificate authority, whose root certificate, for curl --cacert or a
browser, is printed at the start, and by --ca; with ingress.tls of the settings,
they come from an ACME server or from files.`,
		Flags: []cli.Flag{
			domainFlag(),
			&cli.StringSliceFlag{Name: "https", Usage: "`ADDRESS:PORT` to serve https on; can be repeated (default: the settings' port, else 443, on loopback for a domain below localhost, else everywhere)"},
			&cli.StringSliceFlag{Name: "http", Usage: "`ADDRESS:PORT` that redirects to https; can be repeated, an empty one for none (default: the settings' port, else 80, likewise)"},
			&cli.BoolFlag{Name: "ca", Usage: "print the path of the root certificate and end"},
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			layout, err := a.layout(c)
			if err != nil {
				return err
			}
			host, err := a.hostSettings(layout)
			if err != nil && !c.Bool("ca") {
				return &cliargs.HostError{Err: err}
			}
			if c.Bool("ca") {
				if mode := host.Ingress.TLS; mode != settings.TLSInternal {
					return &cliargs.UsageError{Err: fmt.Errorf("--ca: the ingress has no certificate authority of its own, because ingress.tls is %q in the settings: clients trust its certificates by what the host they run on trusts", mode)}
				}
				path, err := ingress.CARoot(layout.Ingress())
				if err != nil {
					return err
				}
				fmt.Fprintln(a.streams.Out, path)
				return nil
			}
			domain, more, err := publicDomains(c, host)
			if err != nil {
				return err
			}
			if err := acmeDomains(host.Ingress, append([]string{domain}, more...)); err != nil {
				return &cliargs.UsageError{Command: "ingress", Err: err}
			}
			https, http := listenAddresses(c, "https", domain, host.Ingress.HTTPSPort), listenAddresses(c, "http", domain, host.Ingress.HTTPPort)
			if len(https) == 0 {
				return &cliargs.UsageError{Command: "ingress", Err: errors.New("--https '': without an address for https there is nothing to serve")}
			}
			for _, address := range append(append([]string{}, https...), http...) {
				if _, err := net.ResolveTCPAddr("tcp", address); err != nil {
					return &cliargs.UsageError{Command: "ingress", Err: fmt.Errorf("%q is no ADDRESS:PORT: %w", address, err)}
				}
			}
			manager, err := a.manager(c)
			if err != nil {
				return err
			}
			if err := manager.Registry.Prepare(); err != nil {
				return err
			}
			return ingress.Run(c.Context, ingress.Config{
				Domain: domain, MoreDomains: more, HTTPSAddresses: https, HTTPAddresses: http, StateDir: layout.Ingress(),
				TLS:    ingressTLS(host.Ingress),
				Source: ingress.NewRegistrySource(manager.Registry, manager.Engine.State), Logger: a.ingressLogger(c),
			}, func(addresses ingress.Addresses) {
				fmt.Fprintf(a.streams.Err, "serving https at %s for *.%s\n", joined(addresses.HTTPS), strings.Join(append([]string{domain}, more...), " *."))
				if len(addresses.HTTP) > 0 {
					fmt.Fprintf(a.streams.Err, "redirecting http at %s\n", joined(addresses.HTTP))
				}
				a.printCertificates(layout.Ingress(), host.Ingress)
				// Where systemd started it, it waits for this.
				if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
					fmt.Fprintf(a.streams.Err, "systemd cannot be told that the ingress serves: %v\n", err)
				}
			})
		},
	}
}

// ingressLogger says what a person must know, such as that the certificate
// authority was replaced, also without --debug.
func (a *app) ingressLogger(c *cli.Context) hclog.Logger {
	logger := a.logger(c).Named("ingress")
	if !c.Bool("debug") {
		logger.SetLevel(hclog.Warn)
	}
	return logger
}

// listenAddresses are those of a flag. Without one, the ingress is reachable
// from other machines only with a domain that other machines can use.
func listenAddresses(c *cli.Context, flag, domain string, port uint16) []string {
	if c.IsSet(flag) {
		return withoutEmpty(c.StringSlice(flag))
	}
	if domain == "localhost" || strings.HasSuffix(domain, ".localhost") {
		return []string{fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("[::1]:%d", port)}
	}
	return []string{fmt.Sprintf(":%d", port)}
}

func joined(addresses []netip.AddrPort) string {
	texts := make([]string, len(addresses))
	for i, address := range addresses {
		texts[i] = address.String()
	}
	return strings.Join(texts, ", ")
}
