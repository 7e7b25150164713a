package devhost

import (
	"fmt"
	"os"
	"syscall"

	"github.com/urfave/cli/v2"

	"devhost/internal/execx"
	"devhost/internal/registry"
)

// watchScript waits for a line; where there is none, who should have written it
// was killed.
const watchScript = `read -r line || exec "$@"`

// watch starts a process that repairs a container when this one is killed before
// it calls done. A frozen container would stand still until somebody's next
// command for it.
func (a *app) watch(layout registry.Layout) func(name string) (done func(), err error) {
	return func(name string) (func(), error) {
		program, err := os.Executable()
		if err != nil {
			return nil, err
		}
		reader, writer, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		defer reader.Close()
		process, err := execx.New().Start(execx.Command{
			Name: "sh", Args: []string{"-c", watchScript, "devhost-watch", program, "--state-dir", layout.State, "repair", name},
			Env: []string{"PATH=" + os.Getenv("PATH")}, Dir: "/", Stdin: reader,
			// What ends this process and its group leaves that one.
			SysProcAttr: &syscall.SysProcAttr{Setsid: true},
		})
		if err != nil {
			_ = writer.Close()
			return nil, err
		}
		return func() {
			_, _ = fmt.Fprintln(writer)
			_ = writer.Close()
			_ = process.Wait()
		}, nil
	}
}

func (a *app) repairCommand() *cli.Command {
	return &cli.Command{
		Name: "repair", Usage: "finish or take back what a killed command left of a container (every other command does that, too)", ArgsUsage: "NAME", Hidden: true,
		Flags: []cli.Flag{lockTimeoutFlag()},
		Action: func(c *cli.Context) error {
			name, err := oneName(c)
			if err != nil {
				return err
			}
			manager, err := a.managerFor(c, name)
			if err != nil {
				return err
			}
			return manager.Repair(c.Context, name)
		},
	}
}
