package nix

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// scripts are the wrappers of lib.mkScripts, as Nix builds them.
type scripts struct {
	// paths are those of the wrappers by name, repository is the checkout that
	// they are called in.
	paths      map[string]string
	repository string
}

// fakeCLI stands in for devbox-cli: says how it is called, and ends as the
// environment says.
const fakeCLI = `#!/bin/sh
echo "in $PWD"
for argument; do echo "argument $argument"; done
echo "key $DEVBOX_SSH_KEY parent $DEVBOX_PARENT_PUBKEY"
exit "${TEST_STATUS:-0}"
`

func newScripts(t *testing.T, arguments map[string]string) *scripts {
	t.Helper()
	for _, program := range []string{"nix-build", "git", "busybox"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("builds with Nix: ", err)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: builds in the store")
	}
	folder := t.TempDir()
	git, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	shell := filepath.Join(folder, "shell")
	if output, err := exec.Command("sh", "-c", `mkdir "$1" && cp "$(command -v busybox)" "$1/busybox"`, "sh", shell).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	cli := filepath.Join(folder, "cli", "bin", "devbox-cli")
	text, err := json.Marshal(arguments)
	if err != nil {
		t.Fatal(err)
	}
	s := &scripts{paths: map[string]string{}, repository: filepath.Join(folder, "a repository")}
	if err := errors.Join(os.MkdirAll(filepath.Dir(cli), 0o755), os.WriteFile(cli, []byte(fakeCLI), 0o755),
		os.MkdirAll(filepath.Join(s.repository, "some", "folder"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if output, err := exec.Command("git", "init", "-q", s.repository).CombinedOutput(); err != nil {
		t.Fatalf("git init: %v\n%s", err, output)
	}
	build := exec.Command("nix-build", "--no-out-link", "--option", "substituters", "", "./scripts",
		"--argstr", "shell", shell, "--argstr", "git", filepath.Dir(filepath.Dir(git)), "--argstr", "cli", filepath.Join(folder, "cli"),
		"--argstr", "arguments", string(text))
	var messages strings.Builder
	build.Stderr = &messages
	output, err := build.Output()
	if err != nil {
		t.Fatalf("nix-build: %v\n%s", err, messages.String())
	}
	for _, path := range strings.Fields(string(output)) {
		_, name, _ := strings.Cut(filepath.Base(path), "-")
		s.paths[name] = filepath.Join(path, "bin", name)
	}
	t.Cleanup(func() {
		_ = exec.Command("nix-store", append([]string{"--delete"}, strings.Fields(string(output))...)...).Run()
	})
	return s
}

// run calls a wrapper in a folder, with more environment, and returns its
// output and exit code.
func (s *scripts) run(t *testing.T, folder string, environment []string, name string, arguments ...string) (string, int) {
	t.Helper()
	path, ok := s.paths[name]
	if !ok {
		t.Fatalf("there is no %s in %v", name, s.paths)
	}
	command := exec.Command(path, arguments...)
	command.Dir = folder
	command.Env = append(os.Environ(), environment...)
	output, err := command.CombinedOutput()
	if command.ProcessState == nil {
		t.Fatalf("%s: %v", name, err)
	}
	return string(output), command.ProcessState.ExitCode()
}

func TestScripts(t *testing.T) {
	s := newScripts(t, map[string]string{
		"flakeRef": "./it's a flake",
		// What shell may hold: quotes, a here-document, options, another folder, a
		// trap, a comment at the end.
		"privateKeyHook": `cat <<'END'
private key of $HOST
END
echo "of $HOST in $PWD"
export DEVBOX_SSH_KEY="/keys/$HOST's key"
trap 'echo "cleaned up after $HOST"' EXIT
sh -c 'echo "a program has $HOST"'
HOST=another
set -- other arguments
set +e
false
cd / # somewhere else`,
		"parentPubKeyHook": `[ -n "$DEVBOX_SSH_KEY" ] && echo "parent in $PWD"
export DEVBOX_PARENT_PUBKEY=parent.pub
exit_code() { return "$1"; }
if [ -n "$TEST_HOOK" ]; then exit_code "$TEST_HOOK"; fi
if [ -n "$TEST_EXIT" ]; then exit "$TEST_EXIT"; fi`,
		"preRebuildHook": `echo "before the rebuild of $HOST" \`,
	})
	below := filepath.Join(s.repository, "some", "folder")
	hooks := "private key of $HOST\nof dev in " + s.repository + "\na program has dev\nparent in " + s.repository + "\n"
	none := "key  parent \n"

	tests := []struct {
		name        string
		folder      string
		environment []string
		command     []string
		want        string
		code        int
	}{
		{
			name: "hooks, in order, with what they export", command: []string{"devbox-bootstrap", "dev", "--ssh-key", "a b"},
			want: hooks + "in " + s.repository + "\nargument init\nargument ./it's a flake#dev\nargument --ssh-key\nargument a b\n" +
				"key /keys/dev's key parent parent.pub\ncleaned up after dev\n",
		},
		{
			name: "the exit code of devbox-cli", command: []string{"devbox-bootstrap", "dev"}, environment: []string{"TEST_STATUS=5"},
			want: hooks + "in " + s.repository + "\nargument init\nargument ./it's a flake#dev\nkey /keys/dev's key parent parent.pub\ncleaned up after dev\n",
			code: 5,
		},
		{
			name: "a hook that fails", command: []string{"devbox-bootstrap", "dev"}, environment: []string{"TEST_HOOK=7"},
			want: hooks + "cleaned up after dev\n", code: 7,
		},
		{
			name: "a hook that ends all", command: []string{"devbox-bootstrap", "dev"}, environment: []string{"TEST_EXIT=9"},
			want: hooks + "cleaned up after dev\n", code: 9,
		},
		{
			name: "a host that only devbox-cli can refuse", command: []string{"devbox-start", `a "b'#$(c) *`}, environment: []string{"HOST=mine"},
			want: "in " + s.repository + "\nargument up\nargument a \"b'#$(c) *\n" + none,
		},
		{
			name: "a rebuild of it", command: []string{"devbox-rebuild", `a "b'#$(c) *`}, environment: []string{"TEST_STATUS=2"},
			want: "before the rebuild of a \"b'#$(c) *\nin " + s.repository + "\nargument update\nargument ./it's a flake#a \"b'#$(c) *\n" + none, code: 2,
		},
		{
			name: "a rebuild", command: []string{"devbox-rebuild", "dev"},
			want: "before the rebuild of dev\nin " + s.repository + "\nargument update\nargument ./it's a flake#dev\n" + none,
		},
		{name: "a start", command: []string{"devbox-start", "dev", "--nested"}, want: "in " + s.repository + "\nargument up\nargument dev\nargument --nested\n" + none},
		{name: "a stop", command: []string{"devbox-stop", "dev"}, want: "in " + s.repository + "\nargument down\nargument dev\n" + none},
		{name: "a removal", command: []string{"devbox-remove", "dev"}, environment: []string{"TEST_STATUS=2"}, want: "in " + s.repository + "\nargument rm\nargument dev\n" + none, code: 2},
		{name: "no host", command: []string{"devbox-stop"}, want: "usage: devbox-stop HOST [ARGUMENT OF devbox-cli down]...\n", code: 2},
		{name: "an option for a host", command: []string{"devbox-remove", "--yes"}, want: "usage: devbox-remove HOST [ARGUMENT OF devbox-cli rm]...\n", code: 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			output, code := s.run(t, below, test.environment, test.command[0], test.command[1:]...)
			if diff := cmp.Diff(test.want, output); diff != "" || code != test.code {
				t.Errorf("exit code %d, want %d; output (-want +got):\n%s", code, test.code, diff)
			}
		})
	}

	t.Run("no repository", func(t *testing.T) {
		output, code := s.run(t, t.TempDir(), []string{"GIT_CEILING_DIRECTORIES=/"}, "devbox-start", "dev")
		if code != 1 || !strings.HasSuffix(output, "devbox-start: call it in the git repository of the flake\n") {
			t.Errorf("exit code %d, output: %s", code, output)
		}
	})
}
