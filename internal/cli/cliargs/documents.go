package cliargs

import (
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"
)

// Documents are the commands completion and man of a program, which print to
// out. The man page belongs to the section given.
func Documents(program string, section int, out io.Writer) []*cli.Command {
	return []*cli.Command{
		{
			Name: "completion", Usage: "print a completion script", ArgsUsage: "bash|zsh|fish",
			Action: func(c *cli.Context) error {
				var script string
				var err error
				switch c.Args().First() {
				case "bash":
					script = fill(bashCompletion, program)
				case "zsh":
					script = fill(zshCompletion, program)
				case "fish":
					script, err = c.App.ToFishCompletion()
				default:
					return &UsageError{Command: "completion", Err: fmt.Errorf("give the shell: %s completion bash|zsh|fish", program)}
				}
				if err != nil {
					return err
				}
				_, err = fmt.Fprint(out, script)
				return err
			},
		},
		{
			Name: "man", Usage: fmt.Sprintf("print the man page (%s man | man -l -)", program),
			Action: func(c *cli.Context) error {
				page, err := c.App.ToManWithSection(section)
				if err != nil {
					return errors.Join(errors.New("cannot make the man page"), err)
				}
				_, err = fmt.Fprint(out, page)
				return err
			},
		},
	}
}
