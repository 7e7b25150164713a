package nix_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/execx"
	"devhost/internal/nix"
	"devhost/internal/nix/nixtest"
	"devhost/internal/person"
)

// unique makes a build that no earlier test run has made.
func unique() string { return fmt.Sprint(time.Now().UnixNano()) }

func evaluate(t *testing.T, client *nix.Client, request nix.EvalRequest) (*nix.Evaluation, error) {
	t.Helper()
	evaluation, err := client.Evaluate(context.Background(), request)
	if err == nil {
		t.Cleanup(func() {
			if err := evaluation.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return evaluation, err
}

// instantiated evaluates and returns the error text, "" if it worked.
func evaluationError(t *testing.T, client *nix.Client, request nix.EvalRequest) string {
	t.Helper()
	if _, err := evaluate(t, client, request); err != nil {
		return err.Error()
	}
	return ""
}

// unrestricted evaluates as the evaluating user too, but without restriction:
// the control of the attacks below.
func unrestricted(t *testing.T, client *nix.Client, expression string) error {
	t.Helper()
	home := t.TempDir()
	return execx.New().Run(context.Background(), execx.Command{
		Name: "nix-instantiate", Args: []string{"--eval", "--strict", "--read-write-mode", "-E", expression}, Dir: "/",
		Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "NIX_REMOTE=" + client.Remote()},
	})
}

func TestEvaluateIsRestricted(t *testing.T) {
	client := nixtest.Client(t)
	folder := nixtest.PublicDir(t)
	nixtest.Write(t, folder+"/secret.nix", `"the host's"`)
	nixtest.Write(t, folder+"/provision/provision.nix", `{ name = "x"; builder = "/bin/sh"; system = builtins.currentSystem; }`)
	if err := os.Symlink(folder+"/secret.nix", folder+"/provision/link.nix"); err != nil {
		t.Fatal(err)
	}
	provision, err := client.AddPath(context.Background(), folder+"/provision", "provision")
	if err != nil {
		t.Fatal(err)
	}
	search := []nix.SearchEntry{{Name: "provision", Path: provision}}
	t.Run("the search path is readable", func(t *testing.T) {
		if text := evaluationError(t, client, nix.EvalRequest{Expression: "derivation (import <provision/provision.nix>)", SearchPath: search}); text != "" {
			t.Error(text)
		}
	})
	for name, attack := range map[string]string{
		"absolute path":    `import ` + folder + `/secret.nix`,
		"readFile":         `builtins.readFile ` + folder + `/secret.nix`,
		"readDir":          `builtins.toJSON (builtins.readDir ` + folder + `)`,
		"link out":         `import ` + provision + `/link.nix`,
		"path into store":  `"${` + folder + `/secret.nix}"`,
		"builtins.path":    `builtins.path { path = ` + folder + `; name = "x"; }`,
		"fetchurl file":    `builtins.readFile (builtins.fetchurl "file://` + folder + `/secret.nix")`,
		"fetchTarball":     `builtins.fetchTarball "file://` + folder + `/x.tar"`,
		"fetchGit":         `(builtins.fetchGit "file://` + folder + `/repository").outPath`,
		"dotdot":           `builtins.readFile (` + provision + ` + "/../../../` + folder + `/secret.nix")`,
		"a search path":    `import <nixpkgs>`,
		"findFile":         `import (builtins.findFile [ { path = "` + folder + `"; prefix = "x"; } ] "x/secret.nix")`,
		"environment":      `if builtins.getEnv "HOME" == "" then throw "access to the environment is forbidden" else ""`,
		"other store path": `builtins.readFile (builtins.toPath "/nix/store/.links/x")`,
	} {
		t.Run(name, func(t *testing.T) {
			text := evaluationError(t, client, nix.EvalRequest{
				Expression: `derivation { name = "x"; builder = "/bin/sh"; system = builtins.currentSystem; secret = ` + attack + `; }`, SearchPath: search,
			})
			if !strings.Contains(text, "forbidden") && !strings.Contains(text, "was not found in the Nix search path") {
				t.Errorf("the attack was not refused: %q", text)
			}
		})
	}
	// The same attacks work where nothing restricts them.
	repository := folder + "/repository"
	git(t, repository)
	tarball(t, folder+"/x.tar", map[string]string{"top/file": "x"})
	for name, attack := range map[string]string{
		"absolute path": `import ` + folder + `/secret.nix`,
		"readFile":      `builtins.readFile ` + folder + `/secret.nix`,
		"link out":      `import ` + provision + `/link.nix`,
		"fetchurl file": `builtins.readFile (builtins.fetchurl "file://` + folder + `/secret.nix")`,
		"fetchTarball":  `builtins.fetchTarball "file://` + folder + `/x.tar"`,
		"fetchGit":      `(builtins.fetchGit "file://` + repository + `").outPath`,
		"environment":   `if builtins.getEnv "HOME" == "" then throw "empty" else ""`,
	} {
		t.Run("control: "+name, func(t *testing.T) {
			if err := unrestricted(t, client, attack); err != nil {
				t.Errorf("the attack fails without restriction too, so it proves nothing: %v", err)
			}
		})
	}
}

// A file that only root may read tells who evaluates.
func TestEvaluateIsUnprivileged(t *testing.T) {
	client := nixtest.Client(t)
	folder := nixtest.PublicDir(t)
	for name, mode := range map[string]os.FileMode{"root.nix": 0o600, "all.nix": 0o644} {
		nixtest.Write(t, filepath.Join(folder, name), `"x"`)
		if err := os.Chmod(filepath.Join(folder, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	request := func(file string) nix.EvalRequest {
		return nix.EvalRequest{
			SearchPath: []nix.SearchEntry{{Name: "folder", Path: folder}},
			Expression: `derivation { name = import <folder/` + file + `>; builder = "/bin/sh"; system = builtins.currentSystem; }`,
		}
	}
	if text := evaluationError(t, client, request("root.nix")); !strings.Contains(text, "Permission denied") {
		t.Errorf("root's file: got %q, want a refusal", text)
	}
	if text := evaluationError(t, client, request("all.nix")); text != "" {
		t.Errorf("control: everybody's file: %s", text)
	}
}

func TestEvaluateLimits(t *testing.T) {
	client := nixtest.Client(t)
	t.Run("memory", func(t *testing.T) {
		text := evaluationError(t, client, nix.EvalRequest{
			Memory:     768 << 20,
			Expression: `derivation { name = builtins.substring 0 1 (builtins.concatStringsSep "" (builtins.genList (n: toString n) 1000000000)); builder = "x"; system = "x"; }`,
		})
		if !strings.Contains(text, "needed more than 768 MiB of memory") {
			t.Errorf("got %q", text)
		}
	})
	t.Run("time", func(t *testing.T) {
		start := time.Now()
		text := evaluationError(t, client, nix.EvalRequest{
			Timeout:    500 * time.Millisecond,
			Expression: `let loop = n: if n == 0 then 0 else loop (n - 1); f = n: builtins.seq (loop 1000) (f (n + 1)); in builtins.foldl' (a: b: builtins.seq (loop 1000) b) 0 (builtins.genList (n: n) 100000000)`,
		})
		if !strings.Contains(text, "took longer than") {
			t.Errorf("got %q", text)
		}
		// By itself it takes days.
		if took := time.Since(start); took > 5*time.Minute {
			t.Errorf("it took %s to stop", took)
		}
	})
}

// The texts that people see, against the Nix that is installed.
func TestEvaluateErrors(t *testing.T) {
	client := nixtest.Client(t)
	ctx := context.Background()
	channel, err := client.AddPath(ctx, "testdata/fixture/channel", "channel")
	if err != nil {
		t.Fatal(err)
	}
	provision, err := client.AddPath(ctx, "testdata/fixture/provision", "provision")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{
		"undefined":  {"error: undefined variable 'foo'\n", "at ./env/undefined.nix:3:10\n"},
		"syntax":     {"error: syntax error, unexpected '=', expecting ';'\n", "at ./env/syntax.nix:4:9\n"},
		"unknown":    {"error: The option `services' does not exist.", "In `./env/unknown.nix'"},
		"throw":      {"error: my own message\n", "at ./env/throw.nix:3:"},
		"forbidden":  {"is forbidden in restricted mode\n", "at ./env/forbidden.nix:3:10\n"},
		"assertion":  {"Failed assertions:", "- my assertion text"},
		"suggestion": {"attribute 'coutn' missing\n", "at ./env/suggestion.nix:4:10\n"},
	} {
		t.Run(name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "log", "evaluation.log")
			_, err := evaluate(t, client, nix.EvalRequest{
				Expression: `(import <nixpkgs/nixos> { configuration.imports = [ <devhost-provision/` + name + `.nix> ]; }).system`,
				SearchPath: []nix.SearchEntry{{Name: "nixpkgs", Path: channel}, {Name: "devhost-provision", Path: provision}},
				Log:        log,
				Names:      []nix.PathName{{Path: provision, Name: "./env"}},
			})
			var failure *nix.EvalError
			if !errors.As(err, &failure) {
				t.Fatalf("got %T: %v", err, err)
			}
			for _, part := range append(want, "The full trace is in "+log) {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q is missing in:\n%s", part, err)
				}
			}
			if lines := strings.Count(err.Error(), "\n"); lines > 8 {
				t.Errorf("the text has %d lines:\n%s", lines, err)
			}
			full, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(full), "…") {
				t.Errorf("the log holds no trace:\n%s", full)
			}
		})
	}
}

// shell is a derivation whose builder is a script run by the host's shell.
func shell(name, script string) string {
	return fmt.Sprintf(`derivation { name = "%s"; builder = "/bin/sh"; args = [ "-c" ''%s'' ]; PATH = "/usr/bin"; unique = "%s"; system = builtins.currentSystem; }`, name, script, unique())
}

func build(t *testing.T, client *nix.Client, expression string, progress func(nix.Event)) (string, error) {
	t.Helper()
	evaluation, err := evaluate(t, client, nix.EvalRequest{Expression: expression})
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	return client.Build(context.Background(), evaluation.DrvPath, nix.BuildOptions{
		SandboxPaths: nix.HostSandboxPaths(), GCRoot: filepath.Join(folder, "root"), Log: filepath.Join(folder, "build.log"), Progress: progress,
	})
}

func TestBuild(t *testing.T) {
	client := nixtest.Client(t)
	t.Run("progress and root", func(t *testing.T) {
		var started []string
		var last nix.Event
		expression := `let first = ` + shell("test-first", "echo hello; echo x > $out") + `; in ` + strings.Replace(shell("test-second", "echo $first > $out"), `name =`, `inherit first; name =`, 1)
		path, err := build(t, client, expression, func(event nix.Event) {
			if event.Kind == nix.BuildStarted {
				started = append(started, event.Name)
			}
			last = event
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"test-first", "test-second"}, started); diff != "" {
			t.Errorf("builds (-want +got):\n%s", diff)
		}
		if last.Built != 2 || last.ToBuild != 2 {
			t.Errorf("in the end %d of %d are built", last.Built, last.ToBuild)
		}
		closure, err := client.QueryClosure(context.Background(), path)
		if err != nil || len(closure) != 2 {
			t.Errorf("closure: %v, %v", closure, err)
		}
	})
	t.Run("failure", func(t *testing.T) {
		expression := shell("test-broken", "i=0; while [ $i -lt 50 ]; do echo line $i; i=$((i+1)); done; echo the reason >&2; exit 3")
		_, err := build(t, client, expression, nil)
		var failure *nix.BuildError
		if !errors.As(err, &failure) {
			t.Fatalf("got %T: %v", err, err)
		}
		if nix.DerivationName(failure.DrvPath) != "test-broken" || failure.Reason != "failed with exit code 3" {
			t.Errorf("got %q, %q", failure.DrvPath, failure.Reason)
		}
		if len(failure.Lines) == 0 || failure.Lines[len(failure.Lines)-1] != "the reason" {
			t.Errorf("last lines: %q", failure.Lines)
		}
		if !strings.Contains(err.Error(), "nix-store --read-log "+failure.DrvPath) {
			t.Errorf("no log command in:\n%s", err)
		}
		output, err := client.Runner.Output(context.Background(), execx.Command{
			Name: "nix-store", Args: []string{"--read-log", failure.DrvPath}, Env: []string{"PATH=" + os.Getenv("PATH"), "NIX_REMOTE=" + client.Remote()},
		})
		if err != nil || !strings.Contains(string(output), "line 0\n") {
			t.Errorf("the log command does not work: %v\n%s", err, output)
		}
	})
	t.Run("the failed one is a dependency", func(t *testing.T) {
		expression := `let first = ` + shell("test-dependency", "echo no; exit 1") + `; in ` + strings.Replace(shell("test-top", "echo $first > $out"), `name =`, `inherit first; name =`, 1)
		_, err := build(t, client, expression, nil)
		var failure *nix.BuildError
		if !errors.As(err, &failure) || nix.DerivationName(failure.DrvPath) != "test-dependency" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no output", func(t *testing.T) {
		_, err := build(t, client, shell("test-nothing", "true"), nil)
		if err == nil || !strings.Contains(err.Error(), "failed to produce output path") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		evaluation, err := evaluate(t, client, nix.EvalRequest{Expression: shell("test-slow", "sleep 3600")})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		start := time.Now()
		_, err = client.Build(ctx, evaluation.DrvPath, nix.BuildOptions{
			SandboxPaths: nix.HostSandboxPaths(), GCRoot: filepath.Join(t.TempDir(), "root"),
			Progress: func(event nix.Event) {
				if event.Kind == nix.BuildStarted {
					cancel()
				}
			},
		})
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took > 5*time.Minute {
			t.Errorf("it took %s to stop", took)
		}
	})
}

func TestBuilderCannotChangeTheHost(t *testing.T) {
	client := nixtest.Client(t)
	target := fmt.Sprintf("/usr/lib/devhost-test-%d", os.Getpid())
	t.Cleanup(func() { _ = os.Remove(target) })
	attack := "echo attack > " + target
	_, err := build(t, client, shell("test-attack", attack+" && echo done > $out"), nil)
	var failure *nix.BuildError
	if !errors.As(err, &failure) || !strings.Contains(strings.Join(failure.Lines, "\n"), "ermission denied") && !strings.Contains(strings.Join(failure.Lines, "\n"), "Read-only") {
		t.Errorf("the builder was not refused: %v", err)
	}
	if _, err := os.Lstat(target); err == nil {
		t.Errorf("the builder wrote %s on the host", target)
	}
	// What keeps the builder off is that it is no root: with root's rights the
	// same command writes to the host's /usr.
	if err := execx.New().Run(context.Background(), execx.Command{Name: "/bin/sh", Args: []string{"-c", attack}}); err != nil {
		t.Skipf("control: /usr is read-only for root too: %v", err)
	}
	if _, err := os.Lstat(target); err != nil {
		t.Errorf("control: root could not write either, so the test proves nothing: %v", err)
	}
	path, err := build(t, client, shell("test-who", "id -u > $out; cat /proc/self/uid_map >> $out"), nil)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		fields := strings.Fields(line)
		// Inside and outside of its namespace a builder is not uid 0.
		if fields[0] == "0" || len(fields) > 1 && fields[1] == "0" {
			t.Errorf("the builder ran as root: %q", data)
		}
	}
}

func TestBuilderCannotReadTheHost(t *testing.T) {
	client := nixtest.Client(t)
	folder := nixtest.PublicDir(t)
	content := unique() + "\n"
	nixtest.Write(t, folder+"/secret", content)
	read := shell("test-read", "read x < "+folder+"/secret && echo \"$x\" > $out")
	for name, expression := range map[string]string{
		"a builder":      read,
		"without chroot": strings.Replace(read, "name =", "__noChroot = true; name =", 1),
		"fetchurl":       fmt.Sprintf(`import <nix/fetchurl.nix> { url = "file://%s/secret"; name = "test-fetched"; sha256 = "%x"; }`, folder, sha256.Sum256([]byte(content))),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := build(t, client, expression, nil)
			var failure *nix.BuildError
			if !errors.As(err, &failure) {
				t.Errorf("the builder read a file of the host: %v", err)
			}
		})
	}
	// With the folder in the sandbox the same builder reads it.
	evaluation, err := evaluate(t, client, nix.EvalRequest{Expression: read})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Build(context.Background(), evaluation.DrvPath, nix.BuildOptions{
		SandboxPaths: append(nix.HostSandboxPaths(), folder), GCRoot: filepath.Join(t.TempDir(), "root"),
	})
	if err != nil {
		t.Errorf("control: %v", err)
	}
}

func TestProfiles(t *testing.T) {
	client := nixtest.Client(t)
	ctx := context.Background()
	folder := t.TempDir()
	add := func(name, content string) string {
		nixtest.Write(t, filepath.Join(folder, name), content)
		path, err := client.AddPath(ctx, filepath.Join(folder, name), "renamed-"+name)
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	first, second := add("one", unique()), add("two", unique())
	profile := filepath.Join(folder, "profiles", "demo")
	set := func(path string, want bool) {
		t.Helper()
		changed, err := client.SetProfile(ctx, profile, path)
		if err != nil || changed != want {
			t.Fatalf("SetProfile: %v, %v", changed, err)
		}
	}
	check := func(want ...string) {
		t.Helper()
		generations, err := nix.Generations(profile)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, generation := range generations {
			text := fmt.Sprint(generation.Number, " ", generation.Path)
			if generation.Current {
				text += " current"
			}
			got = append(got, text)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("generations (-want +got):\n%s", diff)
		}
	}
	if generations, err := nix.Generations(profile); err != nil || generations != nil {
		t.Errorf("a profile that is not there: %v, %v", generations, err)
	}
	set(first, true)
	set(first, false)
	set(second, true)
	check("1 "+first, "2 "+second+" current")
	if generation, err := client.Rollback(ctx, profile); err != nil || generation.Path != first {
		t.Errorf("Rollback: %v, %v", generation, err)
	}
	check("1 "+first+" current", "2 "+second)
	_, err := client.Rollback(ctx, profile)
	var none *nix.NoGeneration
	if !errors.As(err, &none) {
		t.Errorf("Rollback of the first: %v", err)
	}
	set(second, true)
	check("1 "+first, "2 "+second+" current")
	if _, err := client.SwitchGeneration(ctx, profile, 7); !errors.As(err, &none) || none.Number != 7 {
		t.Errorf("SwitchGeneration 7: %v", err)
	}
	if err := nix.DeleteProfile(profile); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Dir(profile)); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := nix.DeleteProfile(profile); err != nil {
		t.Errorf("deleting it again: %v", err)
	}
}

func TestFetch(t *testing.T) {
	client := nixtest.Client(t)
	ctx := context.Background()
	folder := nixtest.PublicDir(t)
	nixtest.Write(t, folder+"/tree/nixos/default.nix", "{ }: { }")
	nixtest.Write(t, folder+"/tree/.git/config", "left out")
	tree, err := client.CopyFolder(ctx, nixtest.Nobody(), folder+"/tree")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(tree.StorePath)
	if err != nil || len(entries) != 1 || entries[0].Name() != "nixos" {
		t.Errorf("the copy holds %v, %v", entries, err)
	}
	tarball(t, folder+"/x.tar", map[string]string{"top/nixos/default.nix": "{ }: { }"})
	unpacked, err := client.FetchTarball(ctx, nixtest.Nobody(), "file://"+folder+"/x.tar", nil)
	if err != nil {
		t.Fatal(err)
	}
	// The same content has the same path, however it came.
	if diff := cmp.Diff(tree, unpacked); diff != "" {
		t.Errorf("folder and tarball differ (-folder +tarball):\n%s", diff)
	}
	t.Run("with the caller's rights", func(t *testing.T) {
		if err := os.Chmod(folder+"/tree/nixos/default.nix", 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := client.CopyFolder(ctx, nixtest.Nobody(), folder+"/tree")
		if err == nil || !strings.Contains(err.Error(), "ermission denied") {
			t.Errorf("nobody read root's file: %v", err)
		}
		if _, err := client.CopyFolder(ctx, person.Person{Home: "/root"}, folder+"/tree"); err != nil {
			t.Errorf("control: root: %v", err)
		}
	})
	t.Run("git", func(t *testing.T) {
		revision := git(t, folder+"/repository")
		tree, err := client.FetchTree(ctx, person.Person{Home: "/root"}, map[string]any{"type": "git", "url": "file://" + folder + "/repository"})
		if err != nil || tree.Revision != revision {
			t.Errorf("got %+v, %v; want revision %s", tree, err, revision)
		}
	})
}
