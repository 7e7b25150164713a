package nix

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/execx"
)

// The captures in testdata are what nix-instantiate --show-trace of that
// version wrote about the files in testdata/fixture.
func TestParseEvalOutput(t *testing.T) {
	const provision = "/nix/store/11111111111111111111111111111111-provision"
	names := []PathName{{Path: provision, Name: "./env"}}
	type result struct{ Message, Position string }
	at := func(rest string) string { return provision + "/" + rest }
	both := func(want result) map[string]result { return map[string]result{"2.8": want, "2.26": want} }
	for name, want := range map[string]map[string]result{
		"type": {
			"2.8":  {"A definition for option `name' is not of type `string'. Definition values:\n- In `provision.nix': 5", ""},
			"2.26": {"A definition for option `name' is not of type `string'. Definition values:\n- In `provision.nix': 5", ""},
		},
		"unknown": {
			"2.8":  {"The option `services' does not exist. Definition values:\n- In `" + at("unknown.nix") + "': true", ""},
			"2.26": {"The option `services' does not exist. Definition values:\n- In `" + at("unknown.nix") + "': true", ""},
		},
		"undefined": both(result{"undefined variable 'foo'", at("undefined.nix:3:10")}),
		"throw":     {"2.8": {"my own message", at("throw.nix:3:3")}, "2.26": {"my own message", at("throw.nix:3:10")}},
		"multiline": {
			"2.8":  {"first line\nerror: second line\n  third line", at("multiline.nix:3:3")},
			"2.26": {"first line\nerror: second line\n  third line", at("multiline.nix:3:10")},
		},
		"assertion":  both(result{"Failed assertions:\n- my assertion text", ""}),
		"syntax":     both(result{"syntax error, unexpected '=', expecting ';'", at("syntax.nix:4:9")}),
		"missing":    both(result{"attribute 'nope' missing", at("missing.nix:3:13")}),
		"suggestion": both(result{"attribute 'coutn' missing\nDid you mean count?", at("suggestion.nix:4:10")}),
		"forbidden": {
			"2.8":  {"access to absolute path '/etc/hostname' is forbidden in restricted mode", at("forbidden.nix:3:10")},
			"2.26": {"access to absolute path '/etc' is forbidden in restricted mode", at("forbidden.nix:3:10")},
			"2.34": {"access to absolute path '/etc/hostname' is forbidden in restricted mode", at("forbidden.nix:3:10")},
		},
		"recursion":  {"2.8": {"stack overflow (possible infinite recursion)", ""}, "2.26": {"stack overflow; max-call-depth exceeded", at("recursion.nix:2:12")}},
		"int":        both(result{"expression does not evaluate to a derivation (or a set or list of those)", ""}),
		"expression": both(result{"attribute 'a' missing", ""}),
		"nofile":     {"2.8": {"getting status of '/nonexistent': No such file or directory", ""}, "2.26": {"path '/nonexistent' does not exist", ""}},
	} {
		if _, ok := want["2.34"]; !ok {
			want["2.34"] = want["2.26"]
		}
		for version, want := range want {
			t.Run(name+"/"+version, func(t *testing.T) {
				data, err := os.ReadFile(filepath.Join("testdata", version, "eval-"+name+".txt"))
				if err != nil {
					t.Fatal(err)
				}
				var got result
				got.Message, got.Position = parseEvalOutput(string(data), names)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("parseEvalOutput (-want +got):\n%s", diff)
				}
			})
		}
	}
}

func TestEvalFailure(t *testing.T) {
	request := EvalRequest{
		Timeout: 90 * time.Second, Memory: 1 << 30, Log: "/var/log/eval.log",
		Names: []PathName{{Path: "/nix/store/11111111111111111111111111111111-provision", Name: "./env"}},
	}
	failed := &execx.Error{Argv: []string{"prlimit"}, ExitCode: 1}
	for name, test := range map[string]struct {
		err    *execx.Error
		output string
		want   string
	}{
		"names and log": {
			failed, "error: undefined variable 'x'\n\n       at /nix/store/11111111111111111111111111111111-provision/provision.nix:3:1:\n",
			"the configuration does not evaluate:\nerror: undefined variable 'x'\n       at ./env/provision.nix:3:1\nThe full trace is in /var/log/eval.log",
		},
		"time": {
			&execx.Error{Argv: []string{"prlimit"}, TimedOut: true, ExitCode: -1}, "",
			"the configuration does not evaluate:\nerror: the evaluation took longer than 1m30s and was stopped; does it recurse without end?\nThe full trace is in /var/log/eval.log",
		},
		"memory 2.8": {
			&execx.Error{Argv: []string{"prlimit"}, ExitCode: -1, Signal: 6}, "GC Warning: Failed to expand heap by 4 MiB\nToo many heap sections: Out of Memory\n",
			"the configuration does not evaluate:\nerror: the evaluation needed more than 1024 MiB of memory and was stopped; does it recurse without end?\nThe full trace is in /var/log/eval.log",
		},
		"memory": {
			failed, "error: std::bad_alloc\n",
			"the configuration does not evaluate:\nerror: the evaluation needed more than 1024 MiB of memory and was stopped; does it recurse without end?\nThe full trace is in /var/log/eval.log",
		},
		"nothing said": {
			&execx.Error{Argv: []string{"prlimit"}, ExitCode: -1, Signal: 9}, "",
			"the configuration does not evaluate:\nerror: was ended by signal 9 (killed)\nThe full trace is in /var/log/eval.log",
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := evalFailure(context.Background(), test.err, test.output, request)
			if diff := cmp.Diff(test.want, err.Error()); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
			var evalError *EvalError
			if !errors.As(err, &evalError) || !errors.Is(err, error(test.err)) {
				t.Errorf("%T does not hold the cause", err)
			}
		})
	}
	t.Run("Ctrl-C is no evaluation error", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		err := evalFailure(ctx, &execx.Error{Argv: []string{"prlimit"}, Cancelled: true}, "", request)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		var evalError *EvalError
		if errors.As(err, &evalError) {
			t.Errorf("got an EvalError: %v", err)
		}
	})
	t.Run("no Nix", func(t *testing.T) {
		err := evalFailure(context.Background(), &execx.Error{Argv: []string{"prlimit"}, ExitCode: 127}, "", request)
		var missing *NotInstalled
		if !errors.As(err, &missing) {
			t.Errorf("got %T: %v", err, err)
		}
	})
}
