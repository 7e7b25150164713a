package devhost

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"devhost/internal/cli/cliargs"
	"devhost/internal/container"
	"devhost/internal/disk"
	"devhost/internal/doctor"
	"devhost/internal/execx"
	"devhost/internal/network"
	"devhost/internal/registry"
	"devhost/internal/settings"
)

func (a *app) doctorCommand() *cli.Command {
	return &cli.Command{
		Name: "doctor", Usage: "say whether this host can run containers, and what to do about it",
		Flags: []cli.Flag{domainFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			stateDir, err := filepath.Abs(c.String("state-dir"))
			if err != nil {
				return err
			}
			settings, settingsErr := a.hostSettings(registry.Layout{State: stateDir})
			domain, _, err := publicDomains(c, settings)
			if err != nil {
				return err
			}
			var sockets net.ListenConfig
			runner := execx.New()
			containers := hostNetwork(registry.Layout{State: stateDir})
			host := &doctor.Host{
				Runner: runner, StateDir: stateDir, Domain: domain, Ports: []int{int(settings.Ingress.HTTPPort), int(settings.Ingress.HTTPSPort)}, Root: "/", UID: os.Geteuid(),
				Idmap:  func(ctx context.Context, folder string) error { return doctor.TryIdmap(ctx, runner, folder) },
				Listen: sockets.Listen, Free: doctor.FreeBytes, Quotas: disk.Host{}.Enforces, LookupHost: net.DefaultResolver.LookupHost,
				ForwardDrops: func() ([]network.Finding, error) {
					forwards, err := containers.Forwards()
					if err != nil {
						return nil, err
					}
					return network.ForeignForwardDrops(recordedNetwork(stateDir, settings.Network), forwards)
				},
				Containers: func() ([]network.Trouble, error) { return containers.Troubles(c.Context) },
				Resolvers:  network.ResolvConf,
				Settings:   func() error { return settingsErr },

				Certificates: func() []doctor.Finding { return certificateFindings(settings.Ingress) },
			}
			findings := host.Examine(c.Context)
			if c.Bool("json") {
				if err := a.printJSON(findings); err != nil {
					return err
				}
			} else {
				a.printFindings(findings)
			}
			if !doctor.Healthy(findings) {
				return &cliargs.StatusError{Status: cliargs.ExitHost}
			}
			return nil
		},
	}
}

// recordedNetwork is the network that this state folder uses, or would choose.
func recordedNetwork(stateDir string, wanted settings.Network) network.Host {
	layout := registry.Layout{State: stateDir}
	var host network.Host
	data, err := os.ReadFile(layout.Network())
	if err == nil && json.Unmarshal(data, &host) == nil {
		return host
	}
	// What is wrong with the wishes is said elsewhere.
	wishes, _ := container.Wishes(wanted)
	host, _ = network.ChooseHost(layout.Instance(), wishes)
	return host
}

func (a *app) printFindings(findings []doctor.Finding) {
	for _, finding := range findings {
		fmt.Fprintf(a.streams.Out, "%-8s %s: %s\n", strings.ToUpper(string(finding.Level)), finding.Check, finding.Detail)
		if finding.Remedy != "" {
			fmt.Fprintf(a.streams.Out, "         -> %s\n", finding.Remedy)
		}
	}
}
