package devhost

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"
)

const bashCompletion = `# bash completion for devhost: eval "$(devhost completion bash)"
_devhost() {
  local current=${COMP_WORDS[COMP_CWORD]}
  local words=("${COMP_WORDS[@]:0:COMP_CWORD}")
  [[ $current == -* ]] && words+=("$current")
  local IFS=$'\n'
  mapfile -t COMPREPLY < <(compgen -W "$("${words[@]}" --generate-bash-completion 2>/dev/null)" -- "$current")
}
complete -o bashdefault -o default -F _devhost devhost
`

const zshCompletion = `#compdef devhost
# zsh completion for devhost: eval "$(devhost completion zsh)"
_devhost() {
  local -a words_before candidates
  words_before=("${(@)words[1,CURRENT-1]}")
  [[ ${words[CURRENT]} == -* ]] && words_before+=("${words[CURRENT]}")
  candidates=("${(@f)$("${words_before[@]}" --generate-bash-completion 2>/dev/null)}")
  compadd -- "${candidates[@]}"
  _files
}
compdef _devhost devhost
`

func (a *app) completionCommand() *cli.Command {
	return &cli.Command{
		Name: "completion", Usage: "print a completion script", ArgsUsage: "bash|zsh|fish",
		Action: func(c *cli.Context) error {
			var script string
			var err error
			switch c.Args().First() {
			case "bash":
				script = bashCompletion
			case "zsh":
				script = zshCompletion
			case "fish":
				script, err = c.App.ToFishCompletion()
			default:
				return &usageError{command: "completion", err: fmt.Errorf("give the shell: devhost completion bash|zsh|fish")}
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(a.streams.Out, script)
			return err
		},
	}
}

func (a *app) manCommand() *cli.Command {
	return &cli.Command{
		Name: "man", Usage: "print the man page (devhost man | man -l -)",
		Action: func(c *cli.Context) error {
			page, err := c.App.ToManWithSection(8)
			if err != nil {
				return errors.Join(errors.New("cannot make the man page"), err)
			}
			_, err = fmt.Fprint(a.streams.Out, page)
			return err
		},
	}
}
