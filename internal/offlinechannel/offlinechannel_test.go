package offlinechannel

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/execx"
)

// testsDir holds the cases, see its default.nix.
const testsDir = "../../channels/offline/tests"

var update = flag.Bool("update", false, "write the values of channels/offline's own library as the expected ones")

// untested are names of the library that no case can use.
var untested = map[string]string{
	"toDerivation": "needs a path that is in the store, and the cases are evaluated without one",
}

// newerThanReference are names that nixpkgs got after the oldest release whose
// lib is compared with.
var newerThanReference = map[string]bool{
	"concatMapAttrsStringSep":         true,
	"strings.concatMapAttrsStringSep": true,
}

// TestValues evaluates every case of a value with our library, and with
// nixpkgs' own where that can be had.
func TestValues(t *testing.T) {
	t.Parallel()
	nix := newEvaluator(t)
	ours := nix.values(t)

	t.Run("expected", func(t *testing.T) {
		if *update {
			writeExpected(t, ours)
		}
		if diff := cmp.Diff(readExpected(t), ours); diff != "" {
			t.Errorf("channels/offline's library differs from the expected values (-want +got; `go test ./internal/offlinechannel -update` accepts them):\n%s", diff)
		}
	})
	t.Run("nixpkgs", func(t *testing.T) {
		want := nix.nixpkgs(t).values(t)
		got := map[string]any{}
		for name := range want {
			got[name] = ours[name]
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("channels/offline's library differs from nixpkgs' (-nixpkgs +ours):\n%s", diff)
		}
	})
}

// TestErrors evaluates every case that must fail, and looks for its parts in
// the message. Each needs a process of its own.
func TestErrors(t *testing.T) {
	t.Parallel()
	nix := newEvaluator(t)
	t.Run("ours", func(t *testing.T) { nix.errors(t) })
	t.Run("nixpkgs", func(t *testing.T) { nix.nixpkgs(t).errors(t) })
}

// TestNames checks that the library has nothing that nixpkgs has not (a
// provision.nix that uses it would fail on real NixOS), and no function without
// a case.
func TestNames(t *testing.T) {
	t.Parallel()
	nix := newEvaluator(t)

	t.Run("nixpkgs", func(t *testing.T) {
		var unknown []string
		nix.nixpkgs(t).evaluate(t, &unknown, "-A", "unknown", "--arg", "reference", "import "+nixpkgsLib(t), filepath.Join(testsDir, "names.nix"))
		for _, name := range unknown {
			if !newerThanReference[name] {
				t.Errorf("lib.%s is not in nixpkgs' lib", name)
			}
		}
		for name := range newerThanReference {
			if !slices.Contains(unknown, name) {
				t.Logf("lib.%s is in this nixpkgs' lib", name)
			}
		}
	})
	t.Run("cases", func(t *testing.T) {
		var names map[string][]string
		nix.evaluate(t, &names, "-A", "names", filepath.Join(testsDir, "names.nix"))
		var text strings.Builder
		for _, file := range caseFiles(t) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text.Write(content)
		}
		used := map[string]bool{}
		for _, word := range regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_'-]*`).FindAllString(text.String(), -1) {
			used[word] = true
		}
		for set, members := range names {
			for _, name := range members {
				if _, isSet := names[name]; !isSet && !used[name] && untested[name] == "" {
					t.Errorf("no case uses lib.%s", strings.TrimPrefix(set+"."+name, "."))
				}
			}
		}
	})
}

// TestNixOS evaluates a system of real NixOS modules with nixpkgs' module
// system and with ours.
func TestNixOS(t *testing.T) {
	t.Parallel()
	nix := newEvaluator(t)
	tree := filepath.Dir(nixpkgsLib(t))
	if _, err := os.Stat(filepath.Join(tree, "nixos", "lib", "eval-config.nix")); err != nil {
		t.Skipf("SKIPPED: this nixpkgs has no NixOS: %v", err)
	}
	system := func(ours string) (derivation string) {
		nix.evaluate(t, &derivation, "--arg", "nixpkgs", tree, "--arg", "ours", ours, filepath.Join(testsDir, "nixos.nix"))
		return derivation
	}
	if theirs, ours := system("false"), system("true"); theirs != ours {
		t.Errorf("NixOS is %s with our module system and %s with its own", ours, theirs)
	}
}

// evaluator runs the cases with one library.
type evaluator struct {
	runner execx.Runner
	// arguments choose the library for default.nix.
	arguments []string
	// slots bounds how many Nix processes run at a time.
	slots chan struct{}
}

func newEvaluator(t *testing.T) evaluator {
	t.Helper()
	runner := execx.New()
	if _, err := runner.Output(t.Context(), execx.Command{Name: "nix-instantiate", Args: []string{"--version"}}); err != nil {
		t.Skipf("SKIPPED: nix-instantiate cannot be run, so nothing can be evaluated: %v", err)
	}
	return evaluator{runner: runner, slots: make(chan struct{}, 2)}
}

func (e evaluator) nixpkgs(t *testing.T) evaluator {
	t.Helper()
	e.arguments = []string{"--arg", "lib", "import " + nixpkgsLib(t), "--arg", "reference", "true"}
	return e
}

// nixpkgsLib is the folder of nixpkgs' own lib. It skips the test where there
// is none.
func nixpkgsLib(t *testing.T) string {
	t.Helper()
	tree := os.Getenv("DEVHOST_NIXPKGS")
	if tree == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			t.Skipf("SKIPPED: no nixpkgs to compare with: %v", err)
		}
		tree = filepath.Join(home, ".cache", "devhost", "nixpkgs")
	}
	lib := filepath.Join(tree, "lib")
	if _, err := os.Stat(filepath.Join(lib, "default.nix")); err != nil {
		t.Skipf("SKIPPED: no nixpkgs to compare with (set DEVHOST_NIXPKGS to a copy): %v", err)
	}
	return lib
}

// output is what nix-instantiate prints. The dummy store keeps the evaluation
// from reading or writing any store.
func (e evaluator) output(t *testing.T, arguments ...string) ([]byte, string, error) {
	t.Helper()
	e.slots <- struct{}{}
	defer func() { <-e.slots }()
	var stderr bytes.Buffer
	stdout, err := e.runner.Output(t.Context(), execx.Command{
		Name:    "nix-instantiate",
		Args:    append([]string{"--eval", "--strict", "--json", "--store", "dummy://"}, arguments...),
		Stderr:  &stderr,
		Timeout: time.Minute,
	})
	return stdout, stderr.String(), err
}

// evaluate evaluates to JSON.
func (e evaluator) evaluate(t *testing.T, result any, arguments ...string) {
	t.Helper()
	stdout, _, err := e.output(t, arguments...)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(stdout, result); err != nil {
		t.Fatalf("reading what nix-instantiate printed: %v\n%s", err, stdout)
	}
}

// attribute evaluates an attribute of the cases.
func (e evaluator) attribute(path string) []string {
	return append(slices.Clone(e.arguments), "-A", path, testsDir)
}

// values are the values of all cases, by name.
func (e evaluator) values(t *testing.T) map[string]any {
	t.Helper()
	values := map[string]any{}
	stdout, message, err := e.output(t, e.attribute("values")...)
	if err != nil {
		t.Fatalf("a case fails to evaluate:\n%s\nTo find it: nix-instantiate --eval --strict --json --store dummy:// --show-trace %s", message, execx.Quote(e.attribute("values")))
	}
	if err := json.Unmarshal(stdout, &values); err != nil {
		t.Fatal(err)
	}
	if len(values) == 0 {
		t.Fatal("there are no cases")
	}
	return values
}

// errors runs all cases that must fail.
func (e evaluator) errors(t *testing.T) {
	t.Helper()
	var matches map[string][]string
	e.evaluate(t, &matches, e.attribute("matches")...)
	for _, name := range slices.Sorted(maps.Keys(matches)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stdout, message, err := e.output(t, e.attribute(fmt.Sprintf("errors.%q", name))...)
			if err == nil {
				t.Fatalf("must fail, and is %s", stdout)
			}
			if len(matches[name]) == 0 {
				t.Fatal("the case says nothing about the message")
			}
			for _, part := range matches[name] {
				if !strings.Contains(unwrapped(message), unwrapped(part)) {
					t.Errorf("the message lacks %q:\n%s", part, message)
				}
			}
		})
	}
}

var colour = regexp.MustCompile("\x1b\\[[0-9;]*m")

// unwrapped is a text without the line breaks, indentation and colours that
// Nix versions lay out differently.
func unwrapped(text string) string {
	return strings.Join(strings.Fields(colour.ReplaceAllString(text, "")), " ")
}

// caseFiles are the paths of all files of cases.
func caseFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(testsDir, "cases", "*.nix"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases in %s: %v", testsDir, err)
	}
	return files
}

// expectedFile is where the values of one file of cases are.
func expectedFile(caseFile string) string { return strings.TrimSuffix(caseFile, ".nix") + ".json" }

func readExpected(t *testing.T) map[string]any {
	t.Helper()
	all := map[string]any{}
	for _, file := range caseFiles(t) {
		content, err := os.ReadFile(expectedFile(file))
		if os.IsNotExist(err) {
			continue // a file of errors only
		}
		if err != nil {
			t.Fatal(err)
		}
		var values map[string]any
		if err := json.Unmarshal(content, &values); err != nil {
			t.Fatalf("%s: %v", expectedFile(file), err)
		}
		for name, value := range values {
			all[strings.TrimSuffix(filepath.Base(file), ".nix")+"."+name] = value
		}
	}
	return all
}

func writeExpected(t *testing.T, values map[string]any) {
	t.Helper()
	for _, file := range caseFiles(t) {
		ofFile := map[string]any{}
		for name, value := range values {
			if rest, found := strings.CutPrefix(name, strings.TrimSuffix(filepath.Base(file), ".nix")+"."); found {
				ofFile[rest] = value
			}
		}
		if len(ofFile) == 0 {
			continue
		}
		var content bytes.Buffer
		encoder := json.NewEncoder(&content)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(ofFile); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(expectedFile(file), content.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
