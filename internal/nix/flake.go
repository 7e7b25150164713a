package nix

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"devhost/internal/execx"
)

// Own runs Nix as the person who calls does: with their environment, their
// configuration and their rights to read. It is for what people do on their own
// machine; Client is for what one does for others.
type Own struct {
	Runner execx.Runner
	// Substituters and TrustedPublicKeys are binary caches in addition to those
	// of the machine.
	Substituters, TrustedPublicKeys []string
	// Dir is the working folder, which a reference such as "." is about; "" for
	// that of this process. Up to 2.19 or so, Nix takes no path with blanks.
	Dir string
}

func (o *Own) command(name string, arguments ...string) execx.Command {
	arguments = append(arguments, features...)
	if len(o.Substituters) > 0 {
		arguments = append(arguments, "--option", "extra-substituters", strings.Join(o.Substituters, " "))
	}
	if len(o.TrustedPublicKeys) > 0 {
		arguments = append(arguments, "--option", "extra-trusted-public-keys", strings.Join(o.TrustedPublicKeys, " "))
	}
	return execx.Command{Name: program(name), Args: arguments, Dir: o.Dir}
}

// EvaluateFlake evaluates an attribute of a flake, applies a function (a Nix
// expression) to it, and decodes the result's JSON. All that Nix says goes to
// the file log. The error is *EvalError or *NotInstalled.
func (o *Own) EvaluateFlake(ctx context.Context, installable, function, log string, result any) error {
	output, closeLog, err := logFile(log)
	if err != nil {
		return err
	}
	// Without a lock file in a folder that cannot be written, Nix makes do.
	command := o.command("nix", "eval", "--json", "--show-trace", installable, "--apply", function)
	command.Stderr, command.Grace = output, evalGrace
	data, err := o.Runner.Output(ctx, command)
	if closeErr := closeLog(); err == nil && closeErr != nil {
		return fmt.Errorf("cannot write %s: %w", log, closeErr)
	}
	var failure *execx.Error
	if errors.As(err, &failure) && failure.NotFound {
		// Without the function, which would hide what is missing.
		return &NotInstalled{Err: errors.New(failure.Reason())}
	}
	if err != nil {
		return evalFailure(ctx, err, output.String(), EvalRequest{Log: log})
	}
	if err := json.Unmarshal(data, result); err != nil {
		return fmt.Errorf("nix eval printed no JSON for %s: %w", installable, err)
	}
	return nil
}

// Build builds a derivation and returns the path of its first output. The error
// is *BuildError or *NotInstalled.
func (o *Own) Build(ctx context.Context, drvPath string, options BuildOptions) (string, error) {
	if err := CheckStorePath(drvPath); err != nil {
		return "", err
	}
	root, err := filepath.Abs(options.GCRoot)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(root), 0o755); err != nil {
		return "", fmt.Errorf("cannot make the folder of the result: %w", err)
	}
	log, closeLog, err := logFile(options.Log)
	if err != nil {
		return "", err
	}
	parser := newLogParser(options.Progress, func(line string) { fmt.Fprintln(log, line) })
	lines := &execx.LineWriter{Line: parser.Line}
	command := o.command("nix-store", "--realise", drvPath, "--add-root", root, "--log-format", "internal-json", "-v")
	command.Stderr = lines
	err = o.Runner.Run(ctx, command)
	if closeErr := errors.Join(lines.Close(), closeLog()); err == nil && closeErr != nil {
		return "", fmt.Errorf("cannot write %s: %w", options.Log, closeErr)
	}
	if err != nil {
		return "", buildFailure(ctx, err, drvPath, parser, options)
	}
	result, err := os.Readlink(root)
	if err != nil {
		return "", fmt.Errorf("the build ended well and yet left no result: %w", err)
	}
	return result, CheckStorePath(result)
}

// FlakeSource is where the source of a flake is: its folder in the store, and
// the folder of its flake.nix below that, "" for the source itself.
func (o *Own) FlakeSource(ctx context.Context, flake string) (path, folder string, err error) {
	data, err := o.Runner.Output(ctx, o.command("nix", "flake", "metadata", "--json", flake))
	if err != nil {
		return "", "", fmt.Errorf("cannot read the flake %s: %w", flake, explain(err))
	}
	var metadata struct {
		Path     string `json:"path"`
		Resolved struct {
			Dir string `json:"dir"`
		} `json:"resolved"`
	}
	if err := json.Unmarshal(data, &metadata); err != nil {
		return "", "", fmt.Errorf("nix flake metadata printed no JSON for %s: %w", flake, err)
	}
	return metadata.Path, metadata.Resolved.Dir, CheckStorePath(metadata.Path)
}

// Copy copies a store path and all that it needs to another store by ssh.
// sshOptions are those of ssh(1), as the variable NIX_SSHOPTS takes them.
func (o *Own) Copy(ctx context.Context, path, store, sshOptions string, line func(string)) error {
	if err := CheckStorePath(path); err != nil {
		return err
	}
	// What was built here is signed by nobody; the other side takes that from who
	// is trusted there.
	command := o.command("nix", "copy", "--no-check-sigs", "--to", store, path)
	command.Env = append(os.Environ(), "NIX_SSHOPTS="+sshOptions)
	lines := &execx.LineWriter{Line: line}
	command.Stderr = lines
	err := errors.Join(o.Runner.Run(ctx, command), lines.Close())
	if err != nil {
		return fmt.Errorf("cannot copy %s to %s: %w", DerivationName(path), store, explain(err))
	}
	return nil
}
