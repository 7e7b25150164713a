package qemu

import (
	"context"
	"errors"
	"flag"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"devhost/internal/execx"
	"devhost/internal/hypervisor"
	"devhost/internal/hypervisor/hypervisortest"
	"devhost/internal/process"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"qemu-system-x86_64":  hypervisortest.QEMU,
		"qemu-system-aarch64": hypervisortest.QEMU,
		"qemu-img":            hypervisortest.QEMUImg,
	})
}

func TestArguments(t *testing.T) {
	files := hypervisor.Files{Folder: "/state/vms/box", Sockets: "/state/run"}
	plain := hypervisor.VM{Name: "box", Files: files, System: "x86_64-linux", DiskGB: 50, SSHPort: 22001}
	large := plain
	large.CPUs, large.MemoryMB = 8, 32768
	arm := plain
	arm.System = "aarch64-linux"
	comma := plain
	comma.Files.Folder = "/state/a,b"
	firmware := Firmware{Code: "/fw/CODE.fd", Variables: "/fw/VARS.fd"}
	installer := hypervisor.StartOptions{ISO: "/tmp/in,staller.iso", Seed: "/state/vms/box/seed.img"}
	tests := []struct {
		name        string
		vm          hypervisor.VM
		options     hypervisor.StartOptions
		accelerator string
	}{
		{"kvm", plain, hypervisor.StartOptions{}, "kvm"},
		{"kvm-nested", large, hypervisor.StartOptions{Nested: true}, "kvm"},
		{"tcg", plain, hypervisor.StartOptions{}, "tcg"},
		{"tcg-nested", plain, hypervisor.StartOptions{Nested: true}, "tcg"},
		{"installer", plain, installer, "kvm"},
		{"aarch64-hvf", arm, hypervisor.StartOptions{}, "hvf"},
		{"aarch64-tcg-nested", arm, hypervisor.StartOptions{Nested: true}, "tcg"},
		{"comma", comma, hypervisor.StartOptions{}, "kvm"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := strings.Join(arguments(test.vm, test.options, test.accelerator, firmware), "\n") + "\n"
			golden := filepath.Join("testdata", test.name+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("arguments (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFindFirmware(t *testing.T) {
	root := t.TempDir()
	touch := func(paths ...string) {
		for _, path := range paths {
			path = filepath.Join(root, path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	program := filepath.Join(root, "opt/homebrew/bin/qemu-system-x86_64")
	find := func(environment map[string]string) (string, error) {
		found, err := findFirmware("x86_64-linux", program, root, func(name string) string { return environment[name] })
		return strings.TrimPrefix(found.Code, root) + " " + strings.TrimPrefix(found.Variables, root), err
	}
	if _, err := find(nil); err == nil || !strings.Contains(err.Error(), "no UEFI firmware for x86_64-linux was found") || !strings.Contains(err.Error(), "Debian: ovmf") {
		t.Errorf("none: %v", err)
	}
	steps := []struct {
		name  string
		files []string
		want  string
	}{
		{"Homebrew and Nix", []string{"opt/homebrew/share/qemu/edk2-x86_64-code.fd", "opt/homebrew/share/qemu/edk2-i386-vars.fd"}, "/opt/homebrew/share/qemu/edk2-x86_64-code.fd /opt/homebrew/share/qemu/edk2-i386-vars.fd"},
		{"code alone is not enough", []string{"usr/share/OVMF/OVMF_CODE_4M.fd"}, "/opt/homebrew/share/qemu/edk2-x86_64-code.fd /opt/homebrew/share/qemu/edk2-i386-vars.fd"},
		{"Fedora", []string{"usr/share/edk2/ovmf/OVMF_CODE.fd", "usr/share/edk2/ovmf/OVMF_VARS.fd"}, "/usr/share/edk2/ovmf/OVMF_CODE.fd /usr/share/edk2/ovmf/OVMF_VARS.fd"},
		{"Debian", []string{"usr/share/OVMF/OVMF_VARS_4M.fd"}, "/usr/share/OVMF/OVMF_CODE_4M.fd /usr/share/OVMF/OVMF_VARS_4M.fd"},
	}
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			touch(step.files...)
			if got, err := find(nil); err != nil || got != step.want {
				t.Errorf("%s, %v", got, err)
			}
		})
	}
	own := filepath.Join(root, "usr/share/OVMF/OVMF_VARS_4M.fd")
	if got, err := find(map[string]string{firmwareCode: own, firmwareVariables: own}); err != nil || !strings.HasPrefix(got, "/usr/share/OVMF/OVMF_VARS_4M.fd ") {
		t.Errorf("named: %s, %v", got, err)
	}
	if _, err := find(map[string]string{firmwareCode: own}); err == nil || !strings.Contains(err.Error(), "DEVBOX_FIRMWARE_VARS is not set") {
		t.Errorf("half: %v", err)
	}
	if _, err := find(map[string]string{firmwareCode: own, firmwareVariables: "/nowhere"}); err == nil || !strings.Contains(err.Error(), "DEVBOX_FIRMWARE_VARS names no file") {
		t.Errorf("missing: %v", err)
	}
}

// machine is a VM of the QEMU that hypervisortest plays, which is there.
func machine(t *testing.T, behaviour string) (*QEMU, hypervisor.VM) {
	t.Helper()
	// Not t.TempDir: its paths are too long for sockets.
	folder, err := os.MkdirTemp("", "qemu-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	firmware := filepath.Join(folder, "firmware.fd")
	if err := os.WriteFile(firmware, []byte("firmware"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv(hypervisortest.FakeQEMU, behaviour)
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	vm := hypervisor.VM{
		Name: "box", System: "x86_64-linux", DiskGB: 5, SSHPort: port.Addr().(*net.TCPAddr).Port,
		Files: hypervisor.Files{Folder: filepath.Join(folder, "box"), Sockets: filepath.Join(folder, "run")},
	}
	if err := os.Mkdir(vm.Files.Folder, 0o700); err != nil {
		t.Fatal(err)
	}
	qemu := &QEMU{Runner: execx.New(), Machine: "linux/amd64", Getenv: func(name string) string {
		return map[string]string{firmwareCode: firmware, firmwareVariables: firmware}[name]
	}}
	if err := qemu.Create(t.Context(), vm); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = qemu.Stop(context.Background(), vm, 0) })
	return qemu, vm
}

func start(t *testing.T, qemu *QEMU, vm hypervisor.VM) ([]string, error) {
	t.Helper()
	var notes []string
	err := qemu.Start(t.Context(), vm, hypervisor.StartOptions{Note: func(text string) { notes = append(notes, text) }})
	return notes, err
}

func state(t *testing.T, qemu *QEMU, vm hypervisor.VM) hypervisor.State {
	t.Helper()
	state, err := qemu.State(t.Context(), vm)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func TestLife(t *testing.T) {
	qemu, vm := machine(t, "")
	if got := state(t, qemu, vm).Status; got != hypervisor.Stopped {
		t.Errorf("created: %s", got)
	}
	if notes, err := start(t, qemu, vm); err != nil || notes != nil {
		t.Fatalf("start: %v, %v", notes, err)
	}
	running := state(t, qemu, vm)
	if running.Status != hypervisor.Running || running.Accelerator != "kvm" || running.PID == 0 || running.StartedAt.IsZero() {
		t.Errorf("running: %+v", running)
	}
	if endpoint, err := qemu.Endpoint(t.Context(), vm); err != nil || endpoint != (hypervisor.Endpoint{Address: "127.0.0.1", Port: vm.SSHPort}) {
		t.Errorf("endpoint: %v, %v", endpoint, err)
	}
	if err := qemu.Remove(t.Context(), vm); err == nil {
		t.Error("removed while it runs")
	}
	if clean, err := qemu.Stop(t.Context(), vm, time.Minute); !clean || err != nil {
		t.Errorf("stop: %v, %v", clean, err)
	}
	if (process.ID{PID: running.PID}).Alive() {
		t.Error("its process is still there")
	}
	if got := state(t, qemu, vm).Status; got != hypervisor.Stopped {
		t.Errorf("stopped: %s", got)
	}
	var nowhere *hypervisor.NoAddress
	if _, err := qemu.Endpoint(t.Context(), vm); !errors.As(err, &nowhere) {
		t.Errorf("endpoint of a stopped one: %v", err)
	}
	larger := vm
	larger.DiskGB = 9
	if err := qemu.Resize(t.Context(), larger); err != nil {
		t.Error(err)
	}
	if size, _ := os.ReadFile(disk(vm)); string(size) != "9" {
		t.Errorf("size %s", size)
	}
	if err := qemu.Remove(t.Context(), vm); err != nil {
		t.Error(err)
	}
	if got := state(t, qemu, vm).Status; got != hypervisor.Missing {
		t.Errorf("removed: %s", got)
	}
}

func TestAccelerators(t *testing.T) {
	tests := []struct {
		name, behaviour, asked, machine string
		want, note                      string
	}{
		{"kvm works", "", "", "linux/amd64", "kvm", ""},
		{"kvm ends early", "kvm=exit", "", "linux/amd64", "tcg", "KVM does not work here (ended with exit code 1: qemu: failed to initialize kvm: Operation not permitted); box runs with TCG, which emulates and is slow"},
		{"kvm fails inside", "kvm=internal-error", "", "linux/amd64", "tcg", "KVM does not work here (the guest stopped with an internal error); box runs with TCG, which emulates and is slow"},
		{"foreign guest", "", "", "linux/arm64", "tcg", ""},
		{"macOS", "", "", "darwin/amd64", "hvf", ""},
		{"macOS without", "hvf=exit", "", "darwin/amd64", "tcg", "HVF does not work here (ended with exit code 1: qemu: failed to initialize hvf: Operation not permitted); box runs with TCG, which emulates and is slow"},
		{"asked", "", "tcg", "linux/amd64", "tcg", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			qemu, vm := machine(t, test.behaviour)
			qemu.Machine = test.machine
			getenv := qemu.Getenv
			qemu.Getenv = func(name string) string {
				if name == accelerators {
					return test.asked
				}
				return getenv(name)
			}
			notes, err := start(t, qemu, vm)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(notes, "\n"); got != test.note {
				t.Errorf("note %q", got)
			}
			if got := state(t, qemu, vm); got.Status != hypervisor.Running || got.Accelerator != test.want {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestNoAccelerator(t *testing.T) {
	qemu, vm := machine(t, "kvm=internal-error tcg=exit")
	notes, err := start(t, qemu, vm)
	var failed *hypervisor.StartError
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), "failed to initialize tcg") || !strings.Contains(err.Error(), vm.Files.Log()) {
		t.Errorf("error: %v", err)
	}
	if notes != nil {
		t.Errorf("notes of what does not run: %v", notes)
	}
	if got := state(t, qemu, vm).Status; got != hypervisor.Stopped {
		t.Errorf("left: %s", got)
	}
}

func TestPortTaken(t *testing.T) {
	qemu, vm := machine(t, "")
	other, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(vm.SSHPort))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	_, err = start(t, qemu, vm)
	var taken *hypervisor.PortTaken
	if !errors.As(err, &taken) || !strings.Contains(err.Error(), "devbox-cli vm start box --ssh-port=PORT") {
		t.Errorf("error: %v", err)
	}
}

func TestStopOfDeafAndHung(t *testing.T) {
	for _, behaviour := range []string{"deaf", "io-error", "kvm=internal-error"} {
		t.Run(behaviour, func(t *testing.T) {
			qemu, vm := machine(t, behaviour)
			if behaviour == "kvm=internal-error" {
				// It failed after the trial.
				t.Setenv(hypervisortest.FakeQEMU, "")
			}
			if _, err := start(t, qemu, vm); err != nil {
				t.Fatal(err)
			}
			if behaviour == "io-error" {
				if got := state(t, qemu, vm); got.Status != hypervisor.Failed || !strings.Contains(got.Detail, "disk full") {
					t.Errorf("state: %+v", got)
				}
			}
			clean, err := qemu.Stop(t.Context(), vm, 100*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			if behaviour != "kvm=internal-error" && clean {
				t.Error("said to be clean")
			}
			if got := state(t, qemu, vm).Status; got != hypervisor.Stopped {
				t.Errorf("state: %s", got)
			}
		})
	}
}

// TestStopOfBusy: a monitor that is late with its answer does not make a guest
// end hard that has its time to power off.
func TestStopOfBusy(t *testing.T) {
	qemu, vm := machine(t, "busy")
	if _, err := start(t, qemu, vm); err != nil {
		t.Fatal(err)
	}
	saved := monitorPatience
	monitorPatience = 100 * time.Millisecond
	defer func() { monitorPatience = saved }()
	clean, err := qemu.Stop(t.Context(), vm, time.Minute)
	if err != nil || !clean {
		t.Errorf("said to be clean: %t; %v", clean, err)
	}
	if got := state(t, qemu, vm).Status; got != hypervisor.Stopped {
		t.Errorf("state: %s", got)
	}
}

// A command that is killed while it starts QEMU leaves no record of it.
func TestLostRecord(t *testing.T) {
	qemu, vm := machine(t, "")
	if _, err := start(t, qemu, vm); err != nil {
		t.Fatal(err)
	}
	pid := state(t, qemu, vm).PID
	if err := os.Remove(runFile(vm)); err != nil {
		t.Fatal(err)
	}
	if got := state(t, qemu, vm); got.Status != hypervisor.Running || got.PID != pid {
		t.Errorf("state: %+v", got)
	}
	if clean, err := qemu.Stop(t.Context(), vm, time.Minute); !clean || err != nil {
		t.Errorf("stop: %v, %v", clean, err)
	}
}

func TestKilledQEMU(t *testing.T) {
	qemu, vm := machine(t, "")
	if _, err := start(t, qemu, vm); err != nil {
		t.Fatal(err)
	}
	id, err := process.Of(state(t, qemu, vm).PID)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := id.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := state(t, qemu, vm).Status; got != hypervisor.Stopped {
		t.Errorf("state: %s", got)
	}
	if _, err := start(t, qemu, vm); err != nil {
		t.Errorf("start again: %v", err)
	}
}

func TestUnsupported(t *testing.T) {
	qemu, _ := machine(t, "")
	err := qemu.Check(t.Context(), "riscv64-linux")
	var unsupported *hypervisor.Unsupported
	if !errors.As(err, &unsupported) || !strings.Contains(err.Error(), `guests of the system "riscv64-linux" are not supported`) {
		t.Errorf("error: %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	err = qemu.Check(t.Context(), "x86_64-linux")
	if !errors.As(err, &unsupported) || !strings.Contains(err.Error(), "the program qemu-system-x86_64 was not found on PATH") || !strings.Contains(err.Error(), "apt-get install qemu-system-x86 qemu-utils ovmf") {
		t.Errorf("error: %v", err)
	}
}

func TestFullDisk(t *testing.T) {
	qemu, vm := machine(t, "")
	t.Setenv("FAKE_QEMU_IMG", "full")
	if err := qemu.Create(t.Context(), vm); err == nil || !strings.Contains(err.Error(), "No space left on device") {
		t.Errorf("error: %v", err)
	}
}

func TestLongSocketPath(t *testing.T) {
	qemu, vm := machine(t, "")
	vm.Files.Sockets = "/" + strings.Repeat("x", 90)
	if err := qemu.Create(t.Context(), vm); err == nil || !strings.Contains(err.Error(), "name a shorter state folder with --state-dir") {
		t.Errorf("error: %v", err)
	}
}
