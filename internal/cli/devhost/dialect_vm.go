package devhost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"devhost/internal/cli/cliargs"
	"devhost/internal/container"
	"devhost/internal/registry"
	"devhost/internal/settings"
	"devhost/internal/terminal"
)

// vmCommands is fc-devhost, which batou from 2.6 on calls.
func (a *app) vmCommands() *cli.App {
	return a.dialectApp(vmDialect, "development machines for batou", `Answers batou's provisioner for development VMs with containers: memory and
cores become limits, and an image is not needed.`,
		&cli.Command{
			Name: "ensure", Usage: "make a container, or start it and bring limits, aliases and channel up to date", ArgsUsage: "NAME",
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "memory", Usage: "limit of memory, `MEBIBYTES`, or with a unit such as 4G"},
				&cli.StringFlag{Name: "cpu", Usage: "limit of processor time, in `CORES`"},
				&cli.StringFlag{Name: "disk-size", Usage: "limit of the disk, `GIBIBYTES`, or with a unit such as 25G"},
				&cli.StringFlag{Name: "aliases", Usage: "`ALIASES` that the ingress serves, one argument, separated by spaces"},
				&cli.StringFlag{Name: "channel-url", Usage: "where NixOS comes from: `URL`"},
				&cli.StringFlag{Name: "image-url", Usage: "accepted and not used: containers need no image (`URL`)"},
				&cli.StringFlag{Name: "hydra-eval", Usage: "in place of --channel-url: the `NUMBER` of an evaluation of Flying Circus' Hydra"},
				&cli.BoolFlag{Name: "update-channel", Usage: "resolve the channel again"},
				&cli.BoolFlag{Name: "no-update-channel", Usage: "keep the channel as it was resolved (the default)"},
				&cli.StringFlag{Name: "location", Usage: "accepted and not used (`PLACE`)"},
			},
			Action: a.vmEnsure,
		},
		&cli.Command{
			Name: "destroy", Aliases: []string{"rm"}, Usage: "remove containers; they need not exist", ArgsUsage: "NAME...",
			Flags: []cli.Flag{&cli.StringFlag{Name: "location", Usage: "accepted and not used (`PLACE`)"}},
			Action: func(c *cli.Context) error {
				if !c.Args().Present() {
					return &cliargs.UsageError{Command: "destroy", Err: errors.New("the following arguments are required: name")}
				}
				for _, name := range c.Args().Slice() {
					if err := a.destroyQuietly(c, name); err != nil {
						return err
					}
				}
				return nil
			},
		},
		&cli.Command{
			Name: "list", Aliases: []string{"ls"}, Usage: "list the containers, one name a line",
			Flags: []cli.Flag{
				&cli.BoolFlag{Name: "long-format", Aliases: []string{"l"}, Usage: "show owner, address and aliases too"},
				&cli.StringFlag{Name: "user", Usage: "only those of `LOGIN`"},
				&cli.StringFlag{Name: "location", Usage: "accepted and not used (`PLACE`)"},
			},
			Action: func(c *cli.Context) error {
				if c.Args().Present() {
					return &cliargs.UsageError{Command: "list", Err: fmt.Errorf("unrecognized arguments: %s", strings.Join(c.Args().Slice(), " "))}
				}
				return a.vmList(c)
			},
		},
	)
}

func (a *app) vmEnsure(c *cli.Context) error {
	wanted := dialectRequest{channel: c.String("channel-url"), aliases: splitAliases(c.String("aliases"))}
	usage := func(format string, values ...any) error {
		return &cliargs.UsageError{Command: "ensure", Err: fmt.Errorf(format, values...)}
	}
	switch {
	case c.Args().Len() == 0:
		return usage("the following arguments are required: name")
	case c.Args().Len() > 1:
		return usage("unrecognized arguments: %s; the aliases are one argument, as --aliases 'app api'", strings.Join(c.Args().Slice(), " "))
	case c.Bool("update-channel") && c.Bool("no-update-channel"):
		return usage("--update-channel and --no-update-channel contradict each other")
	case c.IsSet("hydra-eval") && (c.IsSet("channel-url") || c.IsSet("image-url")):
		return usage("either --hydra-eval, or --image-url and --channel-url; not both")
	case !c.IsSet("hydra-eval") && wanted.channel == "":
		return usage("--channel-url is missing (or --hydra-eval)")
	}
	wanted.name = c.Args().First()
	memory, err := amount(c.String("memory"), 1<<20, settings.LeastMemory)
	if err != nil {
		return usage("--memory %q: %w", c.String("memory"), err)
	}
	disk, err := amount(c.String("disk-size"), 1<<30, settings.LeastDisk)
	if err != nil {
		return usage("--disk-size %q: %w", c.String("disk-size"), err)
	}
	cpus, err := strconv.ParseFloat(c.String("cpu"), 64)
	if c.IsSet("cpu") && (err != nil || !(cpus >= settings.LeastCPUs && cpus <= settings.MostCPUs)) {
		return usage("--cpu %q: give a number of cores, such as 2", c.String("cpu"))
	}
	wanted.more = func(request *container.EnsureRequest) {
		request.UpdateChannel = c.Bool("update-channel")
		if c.IsSet("memory") {
			request.MemoryBytes = &memory
		}
		if c.IsSet("cpu") {
			request.CPUs = &cpus
		}
		if c.IsSet("disk-size") {
			request.DiskBytes = &disk
		}
	}
	if c.IsSet("image-url") {
		fmt.Fprintln(a.streams.Err, "fc-devhost: note: containers need no image; --image-url is not used")
	}
	if c.IsSet("hydra-eval") {
		if wanted.channel, err = a.channelOfEval(c, c.String("hydra-eval")); err != nil {
			return err
		}
	}
	return a.dialectEnsure(c, wanted)
}

// amount understands a number of units, or one with a unit of its own.
func amount(text string, unit, least int64) (int64, error) {
	if text == "" {
		return 0, nil
	}
	bytes, err := units.RAMInBytes(text)
	const most = 1 << 60
	if number, numberErr := strconv.ParseFloat(text, 64); numberErr == nil {
		bytes, err = int64(min(number*float64(unit), most)), nil
	}
	if err != nil || bytes < least || bytes >= most {
		return 0, fmt.Errorf("give an amount such as %d or 4G, of at least %s", 4096<<20/unit, units.BytesSize(float64(least)))
	}
	return bytes, nil
}

// vmList needs no root: the names are published.
func (a *app) vmList(c *cli.Context) error {
	layout, err := a.layout(c)
	if err != nil {
		return err
	}
	listed, err := publishedContainers(layout)
	if err != nil {
		return err
	}
	for _, entry := range listed {
		if user := c.String("user"); user != "" && entry.Owner != user {
			continue
		}
		line := entry.Name
		if c.Bool("long-format") {
			line = fmt.Sprintf("%s\t%s\t%s\t%s", entry.Name, cliargs.OrDash(entry.Owner), cliargs.OrDash(entry.IPv4), cliargs.OrDash(strings.Join(entry.Aliases, " ")))
		}
		fmt.Fprintln(a.streams.Out, line)
	}
	return nil
}

// hydra is where Flying Circus' platform is evaluated; the addresses below it are
// those of Hydra's API.
const hydra = "https://hydra.flyingcircus.io"

// evalResult is what is needed of Hydra's answer about a job.
type evalResult struct {
	ID int64 `json:"id"`
}

// channelOfEval is the channel of a Hydra evaluation. An evaluation never
// changes, so the answer is kept.
func (a *app) channelOfEval(c *cli.Context, eval string) (string, error) {
	number, err := strconv.ParseUint(eval, 10, 63)
	if err != nil {
		return "", &cliargs.UsageError{Command: "ensure", Err: fmt.Errorf("--hydra-eval %q: give the number of an evaluation", eval)}
	}
	if err := needRoot(os.Args); err != nil {
		return "", err
	}
	layout, err := a.layout(c)
	if err != nil {
		return "", err
	}
	path := filepath.Join(layout.Pins(), fmt.Sprintf("hydra-eval-%d.json", number))
	var known evalResult
	if data, err := os.ReadFile(path); err == nil && json.Unmarshal(data, &known) == nil && known.ID > 0 {
		return channelOfBuild(known), nil
	}
	result, err := askHydra(c.Context, http.DefaultClient, fmt.Sprintf("%s/eval/%d/job/release", hydra, number))
	if err != nil {
		return "", fmt.Errorf("the channel of Hydra evaluation %d cannot be found out: %w; name it in place of the evaluation, as --channel-url URL", number, err)
	}
	// It only saves a question.
	if err := os.MkdirAll(layout.Pins(), 0o700); err == nil {
		_ = registry.WriteJSON(path, result)
	}
	return channelOfBuild(result), nil
}

func channelOfBuild(result evalResult) string {
	return fmt.Sprintf("%s/build/%d/download/1/nixexprs.tar.xz", hydra, result.ID)
}

func askHydra(ctx context.Context, client *http.Client, address string) (evalResult, error) {
	const (
		patience   = 30 * time.Second
		mostAnswer = 4 << 20
	)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var result evalResult
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return result, err
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "devhost")
	response, err := client.Do(request)
	if err != nil {
		return result, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return result, fmt.Errorf("%s answers HTTP %s", address, terminal.Line(response.Status))
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, mostAnswer)).Decode(&result); err != nil {
		return result, fmt.Errorf("the answer of %s cannot be read: %w", address, err)
	}
	if result.ID <= 0 {
		return result, fmt.Errorf("the answer of %s names no build", address)
	}
	return result, nil
}
