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

	"devhost/internal/doctor"
	"devhost/internal/execx"
	"devhost/internal/network"
	"devhost/internal/registry"
)

func (a *app) doctorCommand() *cli.Command {
	return &cli.Command{
		Name: "doctor", Usage: "say whether this host can run containers, and what to do about it",
		Flags: []cli.Flag{domainFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			domain, err := publicDomain(c)
			if err != nil {
				return err
			}
			stateDir, err := filepath.Abs(c.String("state-dir"))
			if err != nil {
				return err
			}
			var sockets net.ListenConfig
			runner := execx.New()
			host := &doctor.Host{
				Runner: runner, StateDir: stateDir, Domain: domain, Ports: []int{80, 443}, Root: "/", UID: os.Geteuid(),
				Idmap:  func(ctx context.Context, folder string) error { return doctor.TryIdmap(ctx, runner, folder) },
				Listen: sockets.Listen, Free: doctor.FreeBytes, LookupHost: net.DefaultResolver.LookupHost,
				ForwardDrops: func() ([]network.Finding, error) { return network.ForeignForwardDrops(recordedNetwork(stateDir)) },
				Resolvers:    network.ResolvConf,
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
				return &statusError{status: exitHost}
			}
			return nil
		},
	}
}

// recordedNetwork is the network that this state folder uses, or would choose.
func recordedNetwork(stateDir string) network.Host {
	layout := registry.Layout{State: stateDir}
	var host network.Host
	data, err := os.ReadFile(layout.Network())
	if err == nil && json.Unmarshal(data, &host) == nil {
		return host
	}
	host, _ = network.ChooseHost(layout.Instance())
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
