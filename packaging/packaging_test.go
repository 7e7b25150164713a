package packaging_test

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"devhost/internal/execx"
	"devhost/packaging"
)

// files writes the units, for a program that exists, and gives their folder.
func files(t *testing.T) string {
	t.Helper()
	units, err := packaging.Units()
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	for _, unit := range units {
		if err := os.WriteFile(filepath.Join(folder, unit.Name), []byte(unit.For("/bin/true")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func analyze(t *testing.T, args ...string) (output string, err error) {
	t.Helper()
	var text strings.Builder
	err = execx.New().Run(t.Context(), execx.Command{Name: "systemd-analyze", Args: args, Stdout: &text, Stderr: &text})
	var failure *execx.Error
	if errors.As(err, &failure) && failure.NotFound {
		t.Skip("there is no systemd-analyze here")
	}
	return text.String(), err
}

// mostExposed is what systemd-analyze security may say of a unit: 0 to 10.
const mostExposed = 3.0

// notHardened are the units that are not: devhost@ runs systemd-nspawn, whose
// guests have a sandbox of their own.
var notHardened = []string{"devhost@.service"}

var overall = regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)

func exposure(t *testing.T, path string) float64 {
	t.Helper()
	output, err := analyze(t, "security", "--offline=true", "--no-pager", path)
	match := overall.FindStringSubmatch(output)
	if match == nil {
		t.Skipf("this systemd-analyze cannot judge files: %v\n%s", err, output)
	}
	level, err := strconv.ParseFloat(match[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return level
}

func TestExposure(t *testing.T) {
	folder := files(t)
	services, err := filepath.Glob(filepath.Join(folder, "*.service"))
	if err != nil || len(services) == 0 {
		t.Fatalf("there are no services: %v", err)
	}
	for _, path := range services {
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			level := exposure(t, path)
			t.Logf("%s: %.1f", name, level)
			for _, other := range notHardened {
				if name == other {
					// This shows that the measure can fail.
					if level <= mostExposed {
						t.Errorf("the measure finds %s well protected: %.1f", name, level)
					}
					return
				}
			}
			if level > mostExposed {
				t.Errorf("%s is exposed by %.1f, more than %.1f; see: systemd-analyze security --offline=true", name, level, mostExposed)
			}
		})
	}
}

// TestVerify has systemd read the units.
func TestVerify(t *testing.T) {
	folder := files(t)
	paths, err := filepath.Glob(filepath.Join(folder, "devhost-*"))
	if err != nil {
		t.Fatal(err)
	}
	output, _ := analyze(t, append([]string{"verify", "--man=no", "--recursive-errors=no"}, paths...)...)
	lines := bufio.NewScanner(strings.NewReader(output))
	for lines.Scan() {
		// It also tells about units of this machine.
		if strings.Contains(lines.Text(), folder) || strings.HasPrefix(lines.Text(), "devhost") {
			t.Error(lines.Text())
		}
	}
}

// TestNoDistribution: the same files serve all.
func TestNoDistribution(t *testing.T) {
	units, err := packaging.Units()
	if err != nil {
		t.Fatal(err)
	}
	for _, unit := range units {
		t.Run(unit.Name, func(t *testing.T) {
			for line := range strings.Lines(unit.Text) {
				key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
				if !strings.HasPrefix(key, "Exec") {
					continue
				}
				if !strings.HasPrefix(value, packaging.Marker+" ") {
					t.Errorf("it runs something else than %s: %s", packaging.Marker, line)
				}
			}
			if text := unit.For("/opt/devhost"); strings.Contains(text, packaging.Marker) {
				t.Errorf("the marker is left:\n%s", text)
			}
		})
	}
}
