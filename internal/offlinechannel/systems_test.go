package offlinechannel

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/execx"
)

// systemsFile holds the systems, checks and refusals, see its first lines.
const systemsFile = testsDir + "/systems.nix"

// TestSystems evaluates whole systems of the channel.
func TestSystems(t *testing.T) {
	t.Parallel()
	nix := newEvaluator(t)

	var paths map[string]string
	nix.derivations(t, &paths, "-A", "systems", systemsFile)
	for name, path := range paths {
		if !strings.HasSuffix(path, ".drv") {
			t.Errorf("the system %s is %q, want the path of a derivation", name, path)
		}
	}
	for _, example := range examples(t) {
		if paths[example] == "" {
			t.Errorf("%s has no system for examples/%s", systemsFile, example)
		}
	}

	for _, name := range []string{"bare", "accepted"} {
		var path string
		nix.derivations(t, &path, "-A", name, systemsFile)
	}
}

// TestSystemChecks compares values of evaluated systems.
func TestSystemChecks(t *testing.T) {
	t.Parallel()
	nix := newEvaluator(t)
	var checks map[string]struct{ Got, Want any }
	nix.derivations(t, &checks, "-A", "checks", systemsFile)
	if len(checks) == 0 {
		t.Fatal("there are no checks")
	}
	for name, check := range checks {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(check.Want, check.Got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestRefusals looks for the parts of the messages by which provisions are
// refused. Each needs a process of its own.
func TestRefusals(t *testing.T) {
	t.Parallel()
	nix := newEvaluator(t)
	var matches map[string][]string
	nix.derivations(t, &matches, "-A", "matches", systemsFile)
	for _, name := range slices.Sorted(maps.Keys(matches)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stdout, message, err := nix.output(t, "--readonly-mode", "-A", "refusals."+name, systemsFile)
			if err == nil {
				t.Fatalf("must be refused, and is %s", stdout)
			}
			for _, part := range matches[name] {
				if !strings.Contains(unwrapped(message), unwrapped(part)) {
					t.Errorf("the message lacks %q:\n%s", part, message)
				}
			}
		})
	}
}

// TestReadme looks for all options and packages in the channel's README, which
// the message about an unknown option points to.
func TestReadme(t *testing.T) {
	t.Parallel()
	nix := newEvaluator(t)
	var documented struct{ Options, Packages []string }
	nix.derivations(t, &documented, "-A", "documented", systemsFile)
	content, err := os.ReadFile(filepath.Join(filepath.Dir(testsDir), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if len(documented.Options) == 0 || len(documented.Packages) == 0 {
		t.Fatal("there are no options or no packages")
	}
	for _, name := range slices.Concat(documented.Options, documented.Packages) {
		if !strings.Contains(string(content), "`"+name+"`") {
			t.Errorf("channels/offline/README.md lacks `%s`", name)
		}
	}
}

// TestProgramsOfSystems runs the unit tests of the programs that activate and
// switch systems.
func TestProgramsOfSystems(t *testing.T) {
	t.Parallel()
	runner := execx.New()
	if _, err := runner.Output(t.Context(), execx.Command{Name: "python3", Args: []string{"--version"}}); err != nil {
		t.Skipf("SKIPPED: python3 cannot be run: %v", err)
	}
	// -B: no compiled files in the channel, whose files are its pin.
	var output strings.Builder
	err := runner.Run(t.Context(), execx.Command{
		Name: "python3", Args: []string{"-B", "-m", "unittest", "discover", "-s", filepath.Join(testsDir, "system")},
		Stderr: &output, Timeout: time.Minute,
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, output.String())
	}
}

// TestExamplesOnNixOS evaluates the examples with NixOS' own modules where
// those can be had.
func TestExamplesOnNixOS(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("SKIPPED: evaluating NixOS takes seconds")
	}
	nix := newEvaluator(t)
	nixpkgs := filepath.Dir(nixpkgsLib(t))
	nixos := filepath.Join(nixpkgs, "nixos")
	if _, err := os.Stat(filepath.Join(nixos, "default.nix")); err != nil {
		t.Skipf("SKIPPED: no NixOS to evaluate the examples with: %v", err)
	}
	var paths map[string]string
	nix.derivations(t, &paths, "--arg", "nixos", "import "+nixos, "-A", "systems", systemsFile)
	for name, path := range paths {
		if !strings.Contains(path, "nixos-system") {
			t.Errorf("%s is %q, want the path of a NixOS system", name, path)
		}
	}
}

// TestFlyingCircusShape evaluates the fixture channel, whose platform makes
// the accounts itself.
func TestFlyingCircusShape(t *testing.T) {
	t.Parallel()
	nix := newEvaluator(t)
	channel := filepath.Join(t.TempDir(), "channel")
	err := execx.New().Run(t.Context(), execx.Command{
		Name: "../channel/testdata/fc-channel/assemble", Args: []string{filepath.Dir(testsDir), channel},
	})
	if err != nil {
		t.Fatal(err)
	}
	guest, err := filepath.Abs("../../modules/container-guest")
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	nix.derivations(t, &got, "-I", channel, "-E", fmt.Sprintf(`
		let
		  result = import <nixpkgs/nixos> {
		    configuration = {
		      imports = [ %s/flyingcircus.nix ];
		      flyingcircus.roles = { postgresql15.enable = true; redis.enable = true; webgateway.enable = true; };
		    };
		  };
		  inherit (result) config;
		in
		{
		  isSystem = result.system ? drvPath && result.system.drvPath != "";
		  hostName = config.networking.hostName;
		  keys = toString config.services.openssh.authorizedKeysFiles;
		  groups = config.users.users.developer.extraGroups;
		  homes = map (name: config.users.users.${name}.home) [ "developer" "s-dev" ];
		  bind = config.services.redis.servers."".bind;
		}`, guest))
	want := map[string]any{
		"isSystem": true,
		// The platform's own name for it is not an input of the system.
		"hostName": "",
		// Nor does the platform's key count.
		"keys":   "/run/devhost/authorized_keys/%u",
		"groups": []any{"service", "login"},
		"homes":  []any{"/home/developer", "/srv/s-dev"},
		"bind":   "0.0.0.0 ::",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// examples are the names of the folders in examples/ that hold a provision.
func examples(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../examples/*/provision.nix")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no examples: %v", err)
	}
	var names []string
	for _, file := range files {
		names = append(names, filepath.Base(filepath.Dir(file)))
	}
	return names
}

// derivations evaluates to JSON what refers to derivations: the read-only mode
// computes their paths and writes none.
func (e evaluator) derivations(t *testing.T, result any, arguments ...string) {
	t.Helper()
	e.evaluate(t, result, append([]string{"--readonly-mode"}, arguments...)...)
}
