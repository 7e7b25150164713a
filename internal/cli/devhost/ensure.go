package devhost

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"devhost/internal/cli/cliargs"
	"devhost/internal/container"
	"devhost/internal/execx"
	"devhost/internal/expiry"
	"devhost/internal/registry"
	"devhost/internal/settings"
	"devhost/internal/sshaccess"
)

const (
	defaultTimeout = 2 * time.Minute
	timeoutUsage   = "how long each of start, switch and the guest's start-up queue may take (`DURATION`, such as 90s or 5m)"
)

func (a *app) ensureCommand() *cli.Command {
	return &cli.Command{
		Name:      "ensure",
		Usage:     "make a container, or bring it up to date",
		ArgsUsage: "NAME",
		Description: `Makes the container NAME from a channel and a provision, or changes it so that
it is as asked. What is not given stays as it was; with nothing changed this
takes milliseconds and starts no Nix.

CHANNEL is a folder, a flake reference or the URL of a nixexprs.tar.xz (also
file://). It is resolved once and pinned; --update-channel resolves it again.

  devhost ensure demo --channel ./channels/offline --provision ./examples/demo
  devhost ensure demo --alias www --memory 4G --cpus 2
  tar c -C env . | devhost ensure demo --provision -`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "channel", Usage: "where NixOS comes from: `FOLDER|FLAKE|URL`"},
			&cli.BoolFlag{Name: "update-channel", Usage: "resolve the channel again"},
			&cli.StringFlag{Name: "provision", Usage: "`DIR|FILE|-`: a folder with provision.nix, a NixOS module, or a tar archive on standard input; '' removes it"},
			&cli.StringSliceFlag{Name: "alias", Usage: "`NAME` that the ingress serves; can be repeated; '' removes all"},
			&cli.StringFlag{Name: "environment", Usage: "the `NAME` of what it belongs to: containers of one owner and environment reach each other; '' for none"},
			&cli.StringFlag{Name: "memory", Usage: "limit of memory, such as `4G`; 0 for none"},
			&cli.Float64Flag{Name: "cpus", Usage: "limit of processor time, in `PROCESSORS`; 0 for none"},
			&cli.Int64Flag{Name: "tasks", Usage: "limit of processes and threads, a `NUMBER`; 0 for none"},
			&cli.Int64Flag{Name: "io-weight", Usage: "its share of the disks' time beside other containers, a `NUMBER` from 1 to 10000; 0 for the usual one, 100"},
			&cli.BoolFlag{Name: "nesting", Usage: "let container engines such as docker work inside, from the next start on; --nesting=false takes it back"},
			&cli.StringSliceFlag{Name: "forward-port", Usage: "`HOST:GUEST[/udp]`: a port of this host that leads to one of the container, for everybody; can be repeated; '' removes all"},
			&cli.StringFlag{Name: "disk-size", Usage: "limit of what its files take, such as `20G`, where the file system has project quotas; 0 for none"},
			&cli.StringSliceFlag{Name: "authorized-key", Usage: "public `KEY` or .pub file that may log in as developer; can be repeated; '' removes all"},
			&cli.StringFlag{Name: "keep", Usage: "keep it from being stopped and deleted for this `TIME` from now on, such as 14d; 0 takes that back"},
			&cli.DurationFlag{Name: "timeout", Value: defaultTimeout, Usage: timeoutUsage},
			lockTimeoutFlag(),
			jsonFlag(),
			&cli.BoolFlag{Name: "access", Usage: "with --json: print also what logs in to it, its private key among that"},
		},
		Action: a.ensure,
	}
}

func jsonFlag() cli.Flag { return &cli.BoolFlag{Name: "json", Usage: "print JSON"} }

func (a *app) ensure(c *cli.Context) error {
	name, err := oneName(c)
	if err != nil {
		return err
	}
	request := container.EnsureRequest{
		Name: name, UpdateChannel: c.Bool("update-channel"), Stdin: a.streams.In,
		Timeout: c.Duration("timeout"), LockTimeout: c.Duration("lock-timeout"),
	}
	if c.Bool("access") && !c.Bool("json") {
		return &cliargs.UsageError{Command: "ensure", Err: errors.New("--access adds to what --json prints; give --json too")}
	}
	if err := a.fillRequest(c, &request); err != nil {
		return &cliargs.UsageError{Command: "ensure", Err: err}
	}
	// Wrong input is said before the host is looked at.
	if err := request.Validate(); err != nil {
		return &cliargs.UsageError{Err: err}
	}
	manager, err := a.manager(c)
	if err != nil {
		return err
	}
	if request.Caller, request.Owner, err = caller(); err != nil {
		return err
	}
	if request.AuthorizedKeys, request.AccountKeys, err = a.memberKeys(c, request); err != nil {
		return &cliargs.UsageError{Command: "ensure", Err: err}
	}
	began, before := time.Now(), a.expiryWarnings(manager, name)
	result, err := manager.Ensure(c.Context, request)
	if err != nil {
		for _, warning := range before {
			fmt.Fprintf(a.streams.Err, "devhost: warning: %s; %s\n", warning, expiry.Remedy(name))
		}
		return err
	}
	result.Warnings = append(result.Warnings, a.expiryNews(manager, result.Container, before)...)
	return a.printEnsured(c, manager, result, time.Since(began))
}

func (a *app) fillRequest(c *cli.Context, request *container.EnsureRequest) error {
	if c.IsSet("channel") {
		channel := c.String("channel")
		request.Channel = &channel
	}
	if c.IsSet("provision") {
		provision := c.String("provision")
		request.Provision = &provision
	}
	if c.IsSet("alias") {
		aliases := withoutEmpty(c.StringSlice("alias"))
		request.Aliases = &aliases
	}
	if c.IsSet("environment") {
		environment := c.String("environment")
		request.Environment = &environment
	}
	if c.IsSet("memory") {
		bytes, err := units.RAMInBytes(c.String("memory"))
		if err != nil || bytes < 0 || (bytes > 0 && bytes < settings.LeastMemory) {
			return fmt.Errorf("--memory %q: give an amount of at least 64M, such as 512M or 4G, or 0 for no limit", c.String("memory"))
		}
		request.MemoryBytes = &bytes
	}
	if c.IsSet("keep") {
		var keep time.Duration
		if text := c.String("keep"); text != "0" && text != "" {
			var err error
			if keep, err = parseDuration("keep", text); err != nil {
				return err
			}
		}
		request.Keep = &keep
	}
	if c.IsSet("cpus") {
		cpus := c.Float64("cpus")
		if cpus < 0 || (cpus > 0 && cpus < settings.LeastCPUs) || cpus > settings.MostCPUs || cpus != cpus {
			return fmt.Errorf("--cpus %v: give a number of processors such as 0.5 or 2, or 0 for no limit", cpus)
		}
		request.CPUs = &cpus
	}
	if c.IsSet("tasks") {
		tasks := c.Int64("tasks")
		if tasks < 0 || (tasks > 0 && tasks < settings.LeastTasks) {
			return fmt.Errorf("--tasks %d: give a number of at least %d, or 0 for no limit", tasks, settings.LeastTasks)
		}
		request.Tasks = &tasks
	}
	if c.IsSet("forward-port") {
		ports := []registry.ForwardPort{}
		for _, text := range withoutEmpty(c.StringSlice("forward-port")) {
			port, err := container.ParseForwardPort(text)
			if err != nil {
				return fmt.Errorf("--forward-port: %w", err)
			}
			ports = append(ports, port)
		}
		request.ForwardPorts = &ports
	}
	if c.IsSet("io-weight") {
		weight := c.Int64("io-weight")
		if weight < 0 || weight > settings.MostIO {
			return fmt.Errorf("--io-weight %d: give a number from 1 to %d, or 0 for the usual one", weight, settings.MostIO)
		}
		request.IOWeight = &weight
	}
	if c.IsSet("nesting") {
		nesting := c.Bool("nesting")
		request.Nesting = &nesting
	}
	if c.IsSet("disk-size") {
		bytes, err := units.RAMInBytes(c.String("disk-size"))
		if err != nil || bytes < 0 || (bytes > 0 && bytes < settings.LeastDisk) {
			return fmt.Errorf("--disk-size %q: give an amount of at least 64M, such as 20G, or 0 for no limit", c.String("disk-size"))
		}
		request.DiskBytes = &bytes
	}
	if request.Timeout <= 0 || request.LockTimeout < 0 {
		return errors.New("--timeout must be positive and --lock-timeout must not be negative")
	}
	return nil
}

func withoutEmpty(values []string) []string {
	kept := []string{}
	for _, value := range values {
		if value != "" {
			kept = append(kept, value)
		}
	}
	return kept
}

// mostKeys bounds files with public keys, in bytes.
const mostKeys = 1 << 20

// memberKeys are the keys given by --authorized-key, nil without that, and
// those that may log in to the caller's account on the host.
func (a *app) memberKeys(c *cli.Context, request container.EnsureRequest) (given *[]string, account []string, err error) {
	if c.IsSet("authorized-key") {
		given = &[]string{}
	}
	for _, value := range withoutEmpty(c.StringSlice("authorized-key")) {
		if !strings.ContainsAny(value, " \t") {
			content, err := request.Caller.ReadFile(value, mostKeys)
			if err != nil {
				return nil, nil, fmt.Errorf("--authorized-key: %w", err)
			}
			value = string(bytes.TrimSpace(content))
		}
		key, err := sshaccess.ParseKey(value)
		if err != nil {
			return nil, nil, fmt.Errorf("--authorized-key: %w", err)
		}
		*given = append(*given, key)
	}
	if request.Caller.Home != "" {
		// Without such a file there are no such keys.
		content, err := request.Caller.ReadFile(request.Caller.Home+"/.ssh/authorized_keys", mostKeys)
		if err == nil {
			account = sshaccess.KeysOf(content)
		}
	}
	return given, account, nil
}

func (a *app) printEnsured(c *cli.Context, manager *container.Manager, result *container.EnsureResult, took time.Duration) error {
	for _, warning := range result.Warnings {
		fmt.Fprintf(a.streams.Err, "devhost: warning: %s\n", warning)
	}
	if c.Bool("json") {
		if result.Warnings == nil {
			result.Warnings = []string{}
		}
		ensured, err := a.ensured(c, manager, result)
		if err != nil {
			return err
		}
		if err := a.printJSON(ensured); err != nil {
			return err
		}
	} else {
		what := "unchanged"
		switch {
		case result.Created:
			what = "created"
		case result.Switched:
			what = "switched to its new system"
		case result.Started:
			what = "started"
		}
		fmt.Fprintf(a.streams.Out, "%s: %s (%s)\n", result.Container.Name, what, took.Round(time.Millisecond))
	}
	if len(result.Units) == 0 {
		return nil
	}
	printUnits(a.streams.Err, result.Container.Name, result.Units)
	return degradedError{}
}

func (a *app) printJSON(value any) error {
	encoder := json.NewEncoder(a.streams.Out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// needRoot says how to get root.
func needRoot(args []string) error {
	if os.Geteuid() == 0 {
		return nil
	}
	return &cliargs.HostError{Err: fmt.Errorf("this needs root; run: sudo %s", execx.Quote(args))}
}
