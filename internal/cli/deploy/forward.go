package deploy

import (
	"errors"

	"github.com/urfave/cli/v2"

	"devhost/internal/cli/cliargs"
	"devhost/internal/forward"
	"devhost/internal/sshlink"
)

func (a *app) forwardCommand() *cli.Command {
	return &cli.Command{
		Name: "forward", Usage: "reach ports of a container at localhost, until Ctrl-C", ArgsUsage: "ENV [LOCAL:][HOST:]PORT ...",
		Description: `localhost:PORT of this machine leads to PORT at localhost of the container; with
LOCAL, localhost:LOCAL does. HOST is a host of the environment, needed where there
are several. A number before PORT is a LOCAL:

  devhost-deploy forward dev 5432            PostgreSQL
  devhost-deploy forward dev 15432:5432      the same, where 5432 is in use here
  devhost-deploy forward dev db:5432 web:9229

When the connection is lost or the container stops, it tries again until it is
back; programs that connect meanwhile wait.`,
		Action: a.forward,
	}
}

func (a *app) forward(c *cli.Context) error {
	e, err := a.deployed(c)
	if err != nil {
		return err
	}
	if c.Args().Len() < 2 {
		return &cliargs.UsageError{Command: "forward", Err: errors.New("give a port, such as: devhost-deploy forward " + e.Name + " 5432")}
	}
	var hosts []forward.Host
	index := map[string]int{}
	for _, word := range c.Args().Tail() {
		port, err := forward.ParsePort(word)
		if err != nil {
			return &cliargs.UsageError{Command: "forward", Err: err}
		}
		host, err := e.Host(port.Host)
		if err != nil {
			return err
		}
		at, known := index[host.Name]
		if !known {
			at = len(hosts)
			index[host.Name] = at
			hosts = append(hosts, forward.Host{Host: sshlink.Host{Config: e.SSHConfig(), Name: host.Name}})
		}
		hosts[at].Ports = append(hosts[at].Ports, port)
	}
	return a.withSockets(c, e, func(folder string) error {
		return usualEnd(c, forward.Run(c.Context, a.loggedRunner(c), hosts, forward.Options{Folder: folder, Say: a.say(c)}))
	})
}
