// Package cliargs is what the command lines of all our programs share: flags in
// any order, messages about them, completion.
package cliargs

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"devhost/internal/names"
)

// ExplainFlag says what is wrong with a flag of a command ("" for the program's
// own), as people write flags.
func ExplainFlag(c *cli.Context, err error, command string) error {
	known, unknown := c.App.VisibleFlags(), "there is no option "
	if command != "" {
		known, unknown = c.Command.VisibleFlags(), command+" has no option "
	}
	text := err.Error()
	if flag, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		var spelled []string
		for _, flag := range known {
			spelled = append(spelled, flag.Names()...)
		}
		text = unknown + withDashes(flag)
		if meant := names.Closest(flag, spelled); meant != "" {
			text += fmt.Sprintf("; did you mean %s?", withDashes(meant))
		}
	} else if flag, ok := strings.CutPrefix(text, "flag needs an argument: -"); ok {
		text = fmt.Sprintf("the option %s needs a value", withDashes(flag))
	} else if start, rest, ok := strings.Cut(text, " for flag -"); ok {
		flag, reason, _ := strings.Cut(rest, ": ")
		text = fmt.Sprintf("%s for %s: %s", start, withDashes(flag), reason)
	}
	return errors.New(text)
}

func withDashes(flag string) string {
	if len(flag) == 1 {
		return "-" + flag
	}
	return "--" + flag
}

// Reorder puts the flags of a command before its arguments, so that
// "devhost ensure demo --channel X" works as people type it, and global flags
// before the command. The commands named as raw end their flags at the first
// argument, as those do that parse none.
func Reorder(command *cli.App, args []string, raw ...string) []string {
	global := takesValue(command.Flags)
	position := 1
	for position < len(args) && strings.HasPrefix(args[position], "-") && args[position] != "--" {
		name, hasValue := flagName(args[position])
		position++
		if global[name] && !hasValue {
			position++
		}
	}
	if position >= len(args) {
		return args
	}
	sub, words := command.Command(args[position]), 1
	if sub != nil && len(sub.Subcommands) > 0 && position+1 < len(args) {
		// A group: its commands are two words long.
		name := args[position+1]
		words = 2
		if i := slices.IndexFunc(sub.Subcommands, func(one *cli.Command) bool { return one.HasName(name) }); i >= 0 {
			sub = sub.Subcommands[i]
		}
	}
	if sub == nil || sub.SkipFlagParsing || slices.Contains(raw, sub.Name) || len(sub.Subcommands) > 0 {
		return args
	}
	own := takesValue(sub.Flags)
	var globals, flags, arguments []string
	rest := args[position+words:]
	for i := 0; i < len(rest); i++ {
		argument := rest[i]
		if argument == "--" {
			arguments = append(arguments, rest[i:]...)
			break
		}
		if !strings.HasPrefix(argument, "-") || argument == "-" {
			arguments = append(arguments, argument)
			continue
		}
		name, hasValue := flagName(argument)
		place, valued := &flags, own[name]
		if _, isOwn := own[name]; !isOwn {
			if _, isGlobal := global[name]; isGlobal {
				place, valued = &globals, global[name]
			}
		}
		*place = append(*place, argument)
		if valued && !hasValue {
			if i++; i == len(rest) {
				// Its value is missing: an argument put behind it would become it.
				arguments = nil
				break
			}
			*place = append(*place, rest[i])
		}
	}
	reordered := append(append([]string{}, args[:position]...), globals...)
	reordered = append(append(reordered, args[position:position+words]...), flags...)
	return append(reordered, arguments...)
}

// flagName is the name of a flag as it was typed.
func flagName(argument string) (name string, hasValue bool) {
	name, _, hasValue = strings.Cut(strings.TrimLeft(argument, "-"), "=")
	return name, hasValue
}

// takesValue tells for each name of the flags whether a value follows.
func takesValue(flags []cli.Flag) map[string]bool {
	valued := map[string]bool{}
	for _, flag := range flags {
		_, isBool := flag.(*cli.BoolFlag)
		for _, name := range flag.Names() {
			valued[name] = !isBool
		}
	}
	return valued
}
