package tart

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"devhost/internal/execx"
	"devhost/internal/hypervisor"
	"devhost/internal/hypervisor/hypervisortest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"tart": hypervisortest.Tart,
		"keeper": func() {
			status, ok := KeepConsole(os.Args)
			if !ok {
				status = 2
			}
			os.Exit(status)
		},
		"arp": func() {
			_, _ = os.Stdout.WriteString(os.Getenv("FAKE_ARP"))
		},
	})
}

func machine(t *testing.T, behaviour string) (*Tart, hypervisor.VM) {
	t.Helper()
	home := t.TempDir()
	t.Setenv("TART_HOME", home)
	t.Setenv(hypervisortest.FakeTart, behaviour)
	tart := &Tart{Runner: execx.New(), Getenv: os.Getenv, Keeper: "keeper", Appear: time.Minute}
	vm := hypervisor.VM{Name: "box", System: "aarch64-linux", DiskGB: 50, Files: hypervisor.Files{Folder: filepath.Join(t.TempDir(), "box")}}
	return tart, vm
}

// calls are what tart was called with.
func calls(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(os.Getenv("TART_HOME"), "calls"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "list ") {
			if line != "list --source local --format json" {
				t.Errorf("call %q", line)
			}
			continue
		}
		if before, after, found := strings.Cut(line, "--serial-path /dev/"); found {
			_, after, _ = strings.Cut(after, " ")
			line = before + "--serial-path TTY " + after
		}
		lines = append(lines, line)
	}
	return lines
}

func run(t *testing.T, tart *Tart, vm hypervisor.VM, options hypervisor.StartOptions) error {
	t.Helper()
	options.Note = func(text string) { t.Error("note: ", text) }
	err := tart.Start(t.Context(), vm, options)
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Join(os.Getenv("TART_HOME"), "vms")) })
	return err
}

func TestLife(t *testing.T) {
	tart, vm := machine(t, "")
	vm.MemoryMB, vm.CPUs, vm.DiskGB = 32768, 8, 150
	steps := func() {
		if err := tart.Create(t.Context(), vm); err != nil {
			t.Fatal(err)
		}
		if err := run(t, tart, vm, hypervisor.StartOptions{Nested: true, ISO: "/tmp/i.iso", Seed: "/tmp/seed.img"}); err != nil {
			t.Fatal(err)
		}
		if state, err := tart.State(t.Context(), vm); err != nil || state.Status != hypervisor.Running {
			t.Errorf("state: %v, %v", state, err)
		}
		if endpoint, err := tart.Endpoint(t.Context(), vm); err != nil || endpoint != (hypervisor.Endpoint{Address: "192.168.64.3", Port: 22}) {
			t.Errorf("endpoint: %v, %v", endpoint, err)
		}
		if clean, err := tart.Stop(t.Context(), vm, time.Minute); !clean || err != nil {
			t.Errorf("stop: %v, %v", clean, err)
		}
		if state, err := tart.State(t.Context(), vm); err != nil || state.Status != hypervisor.Stopped {
			t.Errorf("state: %v, %v", state, err)
		}
		if err := run(t, tart, vm, hypervisor.StartOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := tart.Stop(t.Context(), vm, time.Minute); err != nil {
			t.Error(err)
		}
		vm.DiskGB = 200
		if err := tart.Resize(t.Context(), vm); err != nil {
			t.Error(err)
		}
		if err := tart.Remove(t.Context(), vm); err != nil {
			t.Error(err)
		}
		if state, err := tart.State(t.Context(), vm); err != nil || state.Status != hypervisor.Missing {
			t.Errorf("state: %v, %v", state, err)
		}
		if err := tart.Remove(t.Context(), vm); err != nil {
			t.Errorf("twice: %v", err)
		}
	}
	steps()
	want := []string{
		"create --linux box --disk-size 150",
		"set box --cpu 8 --memory 32768",
		"run --nested --no-graphics --serial-path TTY --disk /tmp/i.iso:ro --disk /tmp/seed.img box",
		"ip box",
		"stop box --timeout 60",
		"run --no-graphics --serial-path TTY box",
		"stop box --timeout 60",
		"set box --cpu 8 --memory 32768 --disk-size 200",
		"delete box",
	}
	if diff := cmp.Diff(want, calls(t)); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestDefaultsAreLeftToTart(t *testing.T) {
	tart, vm := machine(t, "")
	if err := tart.Create(t.Context(), vm); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"create --linux box --disk-size 50"}, calls(t)); diff != "" {
		t.Error(diff)
	}
}

func TestEachCallCanFail(t *testing.T) {
	tests := []struct {
		verb string
		do   func(*Tart, hypervisor.VM) error
	}{
		{"create", func(tart *Tart, vm hypervisor.VM) error { return tart.Create(t.Context(), vm) }},
		{"set", func(tart *Tart, vm hypervisor.VM) error { return tart.Create(t.Context(), vm) }},
		{"run", func(tart *Tart, vm hypervisor.VM) error { return run(t, tart, vm, hypervisor.StartOptions{}) }},
		{"list", func(tart *Tart, vm hypervisor.VM) error { _, err := tart.State(t.Context(), vm); return err }},
		{"stop", func(tart *Tart, vm hypervisor.VM) error {
			if err := run(t, tart, vm, hypervisor.StartOptions{}); err != nil {
				return err
			}
			_, err := tart.Stop(t.Context(), vm, time.Second)
			return err
		}},
		{"delete", func(tart *Tart, vm hypervisor.VM) error { return tart.Remove(t.Context(), vm) }},
	}
	for _, test := range tests {
		t.Run(test.verb, func(t *testing.T) {
			tart, vm := machine(t, "")
			vm.MemoryMB = 4096
			if test.verb != "create" && test.verb != "set" {
				if err := tart.Create(t.Context(), vm); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv(hypervisortest.FakeTart, "fail="+test.verb)
			err := test.do(tart, vm)
			if err == nil || !strings.Contains(err.Error(), "tart: "+test.verb+" failed as asked") {
				t.Errorf("error: %v", err)
			}
		})
	}
}

func TestNeverListedAsRunning(t *testing.T) {
	tart, vm := machine(t, "")
	if err := tart.Create(t.Context(), vm); err != nil {
		t.Fatal(err)
	}
	t.Setenv(hypervisortest.FakeTart, "fail=list")
	tart.Appear = 0
	err := run(t, tart, vm, hypervisor.StartOptions{})
	var failed *hypervisor.StartError
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), "does not list it as running") {
		t.Errorf("error: %v", err)
	}
}

func TestAddresses(t *testing.T) {
	// As arp -an prints it on macOS.
	const table = "? (192.168.64.1) at 3e:22:fb:ff:ff:64 on bridge100 ifscope permanent [bridge]\n" +
		"? (192.168.64.7) at 2a:1:f:0:3:9 on bridge100 ifscope [bridge]\n? (192.168.64.9) at (incomplete) on bridge100 ifscope [bridge]\n"
	tests := []struct{ name, behaviour, arp, want string }{
		{"tart ip first", "print=10.0.0.5", table, "192.168.64.3"},
		{"then arp", "noip print=10.0.0.5", table, "192.168.64.7"},
		{"then the console", "noip print=10.0.0.5", "", "10.0.0.5"},
		{"no loopback", "noip print=127.0.0.1", "", ""},
		{"no option of ssh", "noip print=-oProxyCommand=true", "", ""},
		{"nowhere", "noip", "", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tart, vm := machine(t, test.behaviour)
			t.Setenv("FAKE_ARP", test.arp)
			if err := tart.Create(t.Context(), vm); err != nil {
				t.Fatal(err)
			}
			if err := run(t, tart, vm, hypervisor.StartOptions{}); err != nil {
				t.Fatal(err)
			}
			if !printed(vm, "the guest boots") {
				t.Error("the keeper wrote no console log")
			}
			if word := strings.TrimPrefix(test.behaviour, "noip "); strings.HasPrefix(word, "print=") && !printed(vm, `"address":"`+strings.TrimPrefix(word, "print=")) {
				t.Error("the keeper wrote no address")
			}
			endpoint, err := tart.Endpoint(t.Context(), vm)
			var nowhere *hypervisor.NoAddress
			if endpoint.Address != test.want || (test.want == "") != errors.As(err, &nowhere) {
				t.Errorf("%v, %v", endpoint, err)
			}
		})
	}
}

// printed waits until the guest's console log holds a text.
func printed(vm hypervisor.VM, text string) bool {
	for range 3000 {
		if data, _ := os.ReadFile(vm.Files.Console()); strings.Contains(string(data), text) {
			return true
		}
		time.Sleep(20 * time.Millisecond)
	}
	return false
}

func TestCheck(t *testing.T) {
	tart, _ := machine(t, "")
	if err := tart.Check(t.Context(), "x86_64-linux"); err == nil || !strings.Contains(err.Error(), "it runs guests of aarch64-linux, and this one is x86_64-linux") {
		t.Errorf("foreign guest: %v", err)
	}
	if err := tart.Check(t.Context(), "aarch64-linux"); err != nil {
		t.Error(err)
	}
	t.Setenv("PATH", t.TempDir())
	var unsupported *hypervisor.Unsupported
	if err := tart.Check(t.Context(), "aarch64-linux"); !errors.As(err, &unsupported) || !strings.Contains(err.Error(), "--hypervisor=qemu") {
		t.Errorf("missing: %v", err)
	}
}
