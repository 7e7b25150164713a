package deploy

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"devhost/internal/cli/cliargs"
	"devhost/internal/deploy"
)

func (a *app) printStatus(c *cli.Context, hosts []*deploy.HostStatus) error {
	if c.Bool("json") {
		encoder := json.NewEncoder(a.streams.Out)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(hosts); err != nil {
			return err
		}
	} else {
		table := tabwriter.NewWriter(a.streams.Out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "HOST\tCONTAINER\tSTATUS\tADDRESS\tDEV HOST\tURLS")
		for _, host := range hosts {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", host.Host, cliargs.OrDash(host.Container), host.Status, cliargs.OrDash(host.IPv4), host.DevHost, cliargs.OrDash(strings.Join(host.URLs, " ")))
		}
		if err := table.Flush(); err != nil {
			return err
		}
		for _, host := range hosts {
			if host.Status == "running" || host.Status == "stopped" {
				fmt.Fprintf(a.streams.Out, "%s: %s\n", host.Host, expiry(host.ExpiresStop, host.ExpiresDelete))
			}
			for _, unit := range host.Units {
				fmt.Fprintf(a.streams.Err, "%s: unit %s is %s (%s)\n", host.Host, unit.Name, unit.State, unit.Description)
			}
		}
	}
	code := cliargs.ExitDone
	for _, host := range hosts {
		if host.Err != nil {
			fmt.Fprintf(a.streams.Err, "devhost-deploy: %s: %v\n", host.Host, host.Err)
			code = max(code, exitCode(c.Context, host.Err))
		}
	}
	if code != cliargs.ExitDone {
		return &explained{code: code}
	}
	return nil
}
