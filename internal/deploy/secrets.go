package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strconv"
	"strings"

	"devhost/internal/environment"
	"devhost/internal/execx"
)

// values are the COMPONENT_ variables of an environment.
type values struct {
	variables map[string]string
	mask      *strings.Replacer
}

// hidden is what is shown in place of a secret.
const hidden = "***"

// shortestMasked is how long a secret is at least, in bytes, to be looked for in
// output: shorter ones would hide half of it.
const shortestMasked = 4

// mostSecrets bounds what the secrets-command prints, in bytes.
const mostSecrets = 1 << 20

// collect gathers overrides and what the secrets-command prints. The secrets are
// only ever in memory.
func collect(ctx context.Context, e *environment.Environment, streams Streams, runner execx.Runner) (*values, error) {
	collected := &values{variables: map[string]string{}, mask: strings.NewReplacer()}
	origin := map[string]string{}
	set := func(component, attribute, value string) error {
		name := environment.Variable(component, attribute)
		from := component + " " + attribute
		if other, taken := origin[name]; taken && other != from {
			return fmt.Errorf("the attributes %q and %q would both be the variable %s; rename one of them", other, from, name)
		}
		if strings.IndexByte(value, 0) >= 0 {
			return fmt.Errorf("the value of %s has a zero byte, which no variable can hold", name)
		}
		origin[name], collected.variables[name] = from, value
		return nil
	}
	for _, component := range sorted(e.Components) {
		for _, attribute := range sorted(e.Components[component]) {
			if err := set(component, attribute, e.Components[component][attribute]); err != nil {
				return nil, err
			}
		}
	}
	if e.SecretsCommand == "" {
		return collected, nil
	}
	secrets, err := runSecrets(ctx, e, streams, runner)
	if err != nil {
		return nil, err
	}
	var masked []string
	for _, component := range sorted(secrets) {
		for _, attribute := range sorted(secrets[component]) {
			value := secrets[component][attribute]
			if err := set(component, attribute, value); err != nil {
				return nil, err
			}
			// Output is looked at line by line.
			for line := range strings.Lines(value) {
				if line = strings.TrimSpace(line); len(line) >= shortestMasked {
					masked = append(masked, line)
					masked = append(masked, traced(line)...)
				}
			}
		}
	}
	// The longest first: one may be a part of another.
	sort.Slice(masked, func(i, j int) bool { return len(masked[i]) > len(masked[j]) })
	var pairs []string
	for _, value := range masked {
		pairs = append(pairs, value, hidden)
	}
	collected.mask = strings.NewReplacer(pairs...)
	return collected, nil
}

// traced are the ways in which set -x of bash writes a value that has to be quoted.
func traced(value string) []string {
	var ways []string
	for _, way := range []string{
		strings.ReplaceAll(value, `'`, `'\''`),
		strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value),
	} {
		if way != value {
			ways = append(ways, way)
		}
	}
	return ways
}

func sorted[V any](values map[string]V) []string {
	keys := make([]string, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}

// runSecrets runs the secrets-command in the environment's folder. It may ask for
// a passphrase: it has the terminal.
func runSecrets(ctx context.Context, e *environment.Environment, streams Streams, runner execx.Runner) (map[string]map[string]string, error) {
	output := &limited{most: mostSecrets}
	err := runner.Run(ctx, execx.Command{
		Name: "sh", Args: []string{"-c", e.SecretsCommand}, Dir: e.Folder, Env: append(os.Environ(), "ENVIRONMENT="+e.Name),
		Stdin: streams.In, Stdout: output, Stderr: streams.Err, Passthrough: true,
	})
	var failed *execx.Error
	switch {
	case output.full && ctx.Err() == nil:
		return nil, fmt.Errorf("the secrets-command of %s (%s) prints more than %d KiB; secrets are smaller", e.Shown(e.File), e.SecretsCommand, mostSecrets>>10)
	case errors.As(err, &failed) && !failed.Cancelled:
		return nil, fmt.Errorf("the secrets-command of %s (%s) %s", e.Shown(e.File), e.SecretsCommand, failed.Reason())
	case err != nil:
		return nil, err
	}
	secrets, err := parseSecrets(output.Bytes())
	if err != nil {
		return nil, fmt.Errorf("the secrets-command of %s (%s) prints neither JSON nor INI: %w", e.Shown(e.File), e.SecretsCommand, err)
	}
	return secrets, nil
}

// parseSecrets reads component -> attribute -> value, as JSON or as INI. Errors
// have nothing of the values.
func parseSecrets(data []byte) (map[string]map[string]string, error) {
	if text := bytes.TrimSpace(data); len(text) == 0 || text[0] != '{' {
		return environment.ParseSecrets(data)
	}
	raw := map[string]map[string]any{}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	err := decoder.Decode(&raw)
	if _, end := decoder.Token(); err != nil || !errors.Is(end, io.EOF) {
		return nil, fmt.Errorf(`it is no JSON object such as {"component": {"attribute": "value"}}`)
	}
	secrets := map[string]map[string]string{}
	for component, attributes := range raw {
		secrets[component] = map[string]string{}
		for attribute, value := range attributes {
			switch value := value.(type) {
			case string:
				secrets[component][attribute] = value
			case json.Number:
				secrets[component][attribute] = value.String()
			case bool:
				secrets[component][attribute] = strconv.FormatBool(value)
			default:
				return nil, fmt.Errorf("the value of %q in %q is no text, number or truth value", attribute, component)
			}
		}
	}
	return secrets, nil
}
