package deploy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"devhost/internal/cli/cliargs"
	"devhost/internal/deploy"
	"devhost/internal/environment"
	"devhost/internal/execx"
)

func (a *app) deployCommand() *cli.Command {
	return &cli.Command{
		Name: "deploy", Usage: "make the containers of an environment, or bring them up to date", ArgsUsage: "ENV",
		Description: `Makes each container of the environment on its dev host, or starts it and brings
it up to date: the channel, provision.nix and aliases. Then provision.sh runs
here, and what it says of COPY, RUN, RUN_AS and ECHO happens in the container.
Several hosts are worked on at the same time.

When something fails or is interrupted, the next deploy goes on from there.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "rebuild", Usage: "remove the containers first, with all their files"},
			&cli.BoolFlag{Name: "strict", Usage: "fail, with exit code 3, when the containers are up and not all of the provisioning worked"},
			forceFlag(),
		},
		Action: a.deploy,
	}
}

func forceFlag() cli.Flag {
	return &cli.BoolFlag{Name: "force", Usage: "remove also what another person has made"}
}

func (a *app) deploy(c *cli.Context) error {
	if c.Bool("force") && !c.Bool("rebuild") {
		return &cliargs.UsageError{Command: "deploy", Err: errors.New("--force is about removing containers; give --rebuild too")}
	}
	e, err := a.onlyEnvironment(c)
	if err != nil {
		return err
	}
	options := a.options(c)
	options.Rebuild, options.Force = c.Bool("rebuild"), c.Bool("force")
	results, err := deploy.Deploy(c.Context, e, options)
	if err != nil {
		return err
	}
	return a.printResults(c, e, results)
}

// printResults says what became of each host: what people and scripts look for on
// standard output, what went wrong on standard error.
func (a *app) printResults(c *cli.Context, e *environment.Environment, results []*deploy.Result) error {
	code, partial, failures := cliargs.ExitDone, false, 0
	for _, result := range results {
		if result.Err != nil {
			continue
		}
		a.printResult(e, result)
		for _, text := range result.Partial {
			partial = true
			fmt.Fprintf(a.streams.Err, "devhost-deploy: warning: %s: %s\n", result.Host.Key, text)
		}
	}
	var texts []string
	failed := map[string][]string{}
	for _, result := range results {
		if result.Err == nil {
			continue
		}
		failures++
		if one := exitCode(c.Context, result.Err); code == cliargs.ExitDone || one == cliargs.ExitInterrupted {
			code = one
		}
		if c.Err() != nil && errors.Is(result.Err, context.Canceled) {
			continue
		}
		// What is wrong with a dev host is said once for all of its containers.
		text := result.Err.Error()
		if failed[text] == nil {
			texts = append(texts, text)
		}
		failed[text] = append(failed[text], result.Host.Key)
	}
	for _, text := range texts {
		fmt.Fprintf(a.streams.Err, "devhost-deploy: %s: %s\n", strings.Join(failed[text], ", "), text)
	}
	switch {
	case code == cliargs.ExitInterrupted:
		return context.Canceled
	case failures > 0 && failures < len(results):
		fmt.Fprintf(a.streams.Err, "devhost-deploy: %d of %d hosts failed; the others are up to date\n", failures, len(results))
	case partial && c.Bool("strict"):
		fmt.Fprintln(a.streams.Err, "devhost-deploy: not all of the provisioning worked, and --strict makes that a failure")
		code = cliargs.ExitDegraded
	case partial && failures == 0:
		fmt.Fprintln(a.streams.Err, "devhost-deploy: not all of the provisioning worked; the containers are up, and what you deploy to them next may mend it")
	}
	if code != cliargs.ExitDone {
		return &explained{code: code}
	}
	return nil
}

func (a *app) printResult(e *environment.Environment, result *deploy.Result) {
	fmt.Fprintf(a.streams.Out, "%s: %s, container %s on %s\n", result.Host.Key, result.What, result.Host.Name, result.Host.Provisioner.Host)
	for _, url := range result.URLs {
		fmt.Fprintf(a.streams.Out, "  %s\n", url)
	}
	fmt.Fprintf(a.streams.Out, "  %s\n", execx.Quote([]string{"ssh", "-F", e.SSHConfig(), result.Host.Key}))
	fmt.Fprintf(a.streams.Out, "  %s\n", expiry(result.ExpiresStop, result.ExpiresDelete))
}

// expiry says when a container is stopped and deleted.
func expiry(stop, remove *time.Time) string {
	var parts []string
	for _, one := range []struct {
		at   *time.Time
		what string
	}{{stop, "stopped"}, {remove, "deleted"}} {
		if one.at != nil {
			parts = append(parts, one.what+" on "+one.at.Local().Format("Mon 2006-01-02 15:04 MST"))
		}
	}
	if len(parts) == 0 {
		return "does not expire"
	}
	return "without another deployment: " + strings.Join(parts, ", ")
}

func (a *app) destroyCommand() *cli.Command {
	return &cli.Command{
		Name: "destroy", Usage: "remove the containers of an environment with all their files", ArgsUsage: "ENV",
		Description: `Removes the containers, and what this checkout keeps of them. Random names stay
in hostmap.json, so that the next deploy makes containers with the same names.`,
		Flags: []cli.Flag{forceFlag()},
		Action: func(c *cli.Context) error {
			e, err := a.onlyEnvironment(c)
			if err != nil {
				return err
			}
			options := a.options(c)
			options.Force = c.Bool("force")
			results, err := deploy.Destroy(c.Context, e, options)
			if err != nil {
				return err
			}
			code := cliargs.ExitDone
			for _, result := range results {
				if result.Err != nil {
					fmt.Fprintf(a.streams.Err, "devhost-deploy: %s: %v\n", result.Host.Key, result.Err)
					code = max(code, exitCode(c.Context, result.Err))
					continue
				}
				fmt.Fprintf(a.streams.Out, "%s: %s\n", result.Host.Key, result.What)
			}
			if code != cliargs.ExitDone {
				return &explained{code: code}
			}
			return nil
		},
	}
}

func (a *app) statusCommand() *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "show the containers of an environment as their dev hosts see them", ArgsUsage: "ENV",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON"}},
		Action: func(c *cli.Context) error {
			e, err := a.onlyEnvironment(c)
			if err != nil {
				return err
			}
			hosts, err := deploy.Status(c.Context, e, a.options(c))
			if err != nil {
				return err
			}
			return a.printStatus(c, hosts)
		},
	}
}

func (a *app) urlsCommand() *cli.Command {
	return &cli.Command{
		Name: "urls", Usage: "print the URLs of an environment, one a line", ArgsUsage: "ENV",
		Action: func(c *cli.Context) error {
			e, err := a.onlyEnvironment(c)
			if err != nil {
				return err
			}
			if err := deploy.Named(e); err != nil {
				return err
			}
			for _, host := range e.Hosts {
				for _, url := range deploy.URLs(e, host) {
					fmt.Fprintln(a.streams.Out, url)
				}
			}
			return nil
		},
	}
}

func (a *app) validateCommand() *cli.Command {
	return &cli.Command{
		Name: "validate", Usage: "check the files of an environment, without the dev host", ArgsUsage: "ENV",
		Action: func(c *cli.Context) error {
			e, err := a.onlyEnvironment(c)
			if err != nil {
				return err
			}
			warnings, err := deploy.Validate(c.Context, e, a.options(c))
			if err != nil {
				return err
			}
			for _, warning := range warnings {
				fmt.Fprintf(a.streams.Err, "devhost-deploy: warning: %s\n", warning)
			}
			fmt.Fprintf(a.streams.Out, "%s: good, with %d host(s)\n", e.Shown(e.File), len(e.Hosts))
			return nil
		},
	}
}

func (a *app) sshCommand() *cli.Command {
	return &cli.Command{
		Name: "ssh", Usage: "log in to a host of an environment", ArgsUsage: "ENV [HOST] [-- COMMAND...]",
		Description: `Runs ssh with the environment's ssh_config. HOST is a host of the environment, and
not needed where there is one; what follows -- goes to ssh:

  devhost-deploy ssh dev
  devhost-deploy ssh dev app -- systemctl status nginx`,
		Action: func(c *cli.Context) error {
			e, err := a.deployed(c)
			if err != nil {
				return err
			}
			words := c.Args().Tail()
			word := ""
			if len(words) > 0 && words[0] != "--" {
				word, words = words[0], words[1:]
			}
			if len(words) > 0 && words[0] == "--" {
				words = words[1:]
			}
			host, err := e.Host(word)
			if err != nil {
				return &cliargs.UsageError{Command: "ssh", Err: err}
			}
			return cliargs.PassStatus(a.loggedRunner(c).Run(c.Context, execx.Command{
				Name: "ssh", Args: append([]string{"-F", e.SSHConfig(), "--", host.Name}, words...), Passthrough: true,
				Stdin: a.streams.In, Stdout: a.streams.Out, Stderr: a.streams.Err,
			}))
		},
	}
}
