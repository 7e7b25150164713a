// Package vm tests devbox-cli with real QEMU and real firmware: make e2e-vm.
package vm

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"devhost/internal/seed"
	"devhost/internal/seed/seedtest"
)

// host is a state folder and the devbox-cli that works with it.
type host struct {
	t      *testing.T
	state  string
	binary string
}

func newHost(t *testing.T) *host {
	t.Helper()
	if os.Getenv("DEVBOX_VM_TESTS") == "" {
		t.Skip("boots VMs: make e2e-vm runs it")
	}
	for _, program := range []string{"qemu-system-x86_64", "qemu-img"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("needs QEMU: ", err)
		}
	}
	binary, err := filepath.Abs("../../bin/devbox-cli")
	if err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir: its paths are too long for sockets.
	state, err := os.MkdirTemp("", "devbox-")
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, state: state, binary: binary}
	t.Cleanup(func() {
		for _, one := range h.list() {
			_, _, _ = h.run("vm", "remove", one.Name)
		}
		_ = os.RemoveAll(state)
	})
	return h
}

func (h *host) command(arguments ...string) *exec.Cmd {
	// Not the test's context: a command that is cut off would leave its VM.
	command := exec.Command(h.binary, append([]string{"--state-dir", h.state}, arguments...)...)
	return command
}

func (h *host) run(arguments ...string) (stdout, stderr string, code int) {
	h.t.Helper()
	command := h.command(arguments...)
	var out, messages bytes.Buffer
	command.Stdout, command.Stderr = &out, &messages
	if err := command.Start(); err != nil {
		h.t.Fatal(err)
	}
	// A guest that hangs is waited for as long as a person likes.
	const longestCommand = 15 * time.Minute
	hangs := time.AfterFunc(longestCommand, func() { _ = command.Process.Signal(os.Interrupt) })
	defer hangs.Stop()
	_ = command.Wait()
	return out.String(), messages.String(), command.ProcessState.ExitCode()
}

func (h *host) must(arguments ...string) string {
	h.t.Helper()
	stdout, stderr, code := h.run(arguments...)
	if code != 0 {
		h.t.Fatalf("devbox-cli %s: exit code %d\n%s%s", strings.Join(arguments, " "), code, stdout, stderr)
	}
	return stdout
}

type status struct {
	Name, Status, Accelerator string
	PID, SSHPort, DiskGB      int
	Install                   *struct{ State string }
}

func (h *host) list() []status {
	h.t.Helper()
	var all []status
	if err := json.Unmarshal([]byte(h.must("list", "--json")), &all); err != nil {
		h.t.Fatal(err)
	}
	return all
}

func (h *host) status(name string) status {
	h.t.Helper()
	var one status
	if err := json.Unmarshal([]byte(h.must("status", name, "--json")), &one); err != nil {
		h.t.Fatal(err)
	}
	return one
}

// until waits for something that may take long under emulation.
func (h *host) until(what string, holds func() bool) {
	h.t.Helper()
	for limit := time.Now().Add(10 * time.Minute); time.Now().Before(limit); time.Sleep(200 * time.Millisecond) {
		if holds() {
			return
		}
	}
	h.t.Fatalf("in vain: %s", what)
}

func (h *host) console(name string) string {
	data, _ := os.ReadFile(filepath.Join(h.state, "vms", name, "console.log"))
	return string(data)
}

func TestTwoAtOnce(t *testing.T) {
	h := newHost(t)
	names := []string{"one", "two"}
	for _, name := range names {
		h.must("vm", "create", name, "--hypervisor=qemu", "--disk=3", "--memory=512", "--cpus=1")
	}
	for _, name := range names {
		h.must("vm", "start", name)
	}
	one, two := h.status("one"), h.status("two")
	if one.Status != "running" || two.Status != "running" || one.SSHPort == two.SSHPort || one.PID == two.PID {
		t.Errorf("%+v, %+v", one, two)
	}
	for _, name := range names {
		// Its own firmware found nothing to boot.
		h.until("the firmware's shell of "+name, func() bool { return strings.Contains(h.console(name), "Shell>") })
	}
	// The end of one is not that of the other.
	if err := syscall.Kill(one.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.until("the end of one", func() bool { return h.status("one").Status == "stopped" })
	if h.status("two").Status != "running" {
		t.Error("two has ended too")
	}
	h.must("vm", "start", "one")
	// The firmware's shell has no use for the power button.
	_, stderr, code := h.run("vm", "stop", "two", "--timeout=1")
	if code != 0 || !strings.Contains(stderr, "was ended hard") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
	h.must("vm", "resize", "two", "--disk=4")
	info, err := exec.Command("qemu-img", "info", filepath.Join(h.state, "vms", "two", "disk.qcow2")).Output()
	if err != nil || !strings.Contains(string(info), "virtual size: 4 GiB") {
		t.Errorf("%v: %s", err, info)
	}
	for _, name := range names {
		h.must("vm", "remove", name)
	}
	if left := h.list(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// image is a disk that the firmware's shell finds and whose script it runs: it
// plays the installer.
func image(t *testing.T, script string, files map[string]string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "installer.iso")
	settings := seed.Settings{Mode: seed.Direct, Disk: "/dev/vda", Login: "alice"}
	if err := seed.Create(path, seed.Contents{Settings: settings}); err != nil {
		t.Fatal(err)
	}
	files["startup.nsh"] = strings.ReplaceAll(script, "\n", "\r\n")
	for name, text := range files {
		if err := seedtest.Write(path, name, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// report is a script that copies a report to the seed disk, fs0 once all disks
// are looked at, and powers off.
const report = "connect -r\nmap -r\ncp fs1:\\report.txt fs0:\\report.jsonl\nreset -s\n"

const (
	failed    = `{"version":1,"kind":"verdict","verdict":"failed","phase":"mkfs","message":"no space\nmake some"}` + "\n"
	installed = `{"version":1,"kind":"hostKey","hostKey":"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDmxVNLDMAXXpYWzFkm9T4hLm9Yk0b8mUuFtUhPz4o3A"}` + "\n" +
		`{"version":1,"kind":"verdict","verdict":"installed"}` + "\n"
)

func TestBootISO(t *testing.T) {
	h := newHost(t)
	h.must("vm", "create", "box", "--hypervisor=qemu", "--disk=3", "--memory=512")
	h.must("vm", "boot-iso", "box", image(t, "reset -s\n", map[string]string{}))
	if got := h.status("box").Status; got != "stopped" {
		t.Errorf("status %s", got)
	}
	// A command that is killed leaves the VM running.
	command := h.command("vm", "boot-iso", "box", image(t, "echo the ISO has booted\n", map[string]string{}))
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	h.until("the ISO", func() bool { return strings.Contains(h.console("box"), "the ISO has booted") })
	if err := command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = command.Wait()
	if got := h.status("box").Status; got != "running" {
		t.Errorf("status %s", got)
	}
	h.must("vm", "stop", "box", "--timeout=0")
}

func TestInit(t *testing.T) {
	h := newHost(t)
	flake := h.flake(image(t, report, map[string]string{"report.txt": failed}))
	_, stderr, code := h.run("init", flake+"#box", "--timeout=5")
	if code != 1 || !strings.Contains(stderr, "the installation of VM box failed (mkfs): no space\n  make some\n") {
		t.Fatalf("exit code %d, %s", code, stderr)
	}
	if got := h.status("box"); got.Install == nil || got.Install.State != "failed" || got.Status != "stopped" {
		t.Errorf("%+v", got)
	}
	// This disk has nothing to boot, so nothing answers.
	flake = h.flake(image(t, report, map[string]string{"report.txt": installed}))
	_, stderr, code = h.run("init", flake+"#box", "--timeout=5")
	if code != 1 || !strings.Contains(stderr, "VM box did not answer within 5s, still waiting for sshd at 127.0.0.1:") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
	if got := h.status("box"); got.Install == nil || got.Install.State != "installed" || got.Status != "running" {
		t.Errorf("%+v", got)
	}
	if known, err := os.ReadFile(filepath.Join(h.state, "vms", "box", "ssh", "known_hosts")); err != nil || !strings.HasPrefix(string(known), "box ssh-ed25519 AAAAC3") {
		t.Errorf("known_hosts: %s, %v", known, err)
	}
	if _, err := os.Stat(filepath.Join(h.state, "vms", "box", "seed.img")); err == nil {
		t.Error("the seed disk is still there")
	}
	h.must("rm", "box", "--yes")
}

// The whole life of a machine, with the real installer and a system that boots
// because the installer installed it.
func TestLife(t *testing.T) {
	iso := sharedISO(t)
	h := newHost(t)
	own, public := newKey(t)
	key := filepath.Join(t.TempDir(), "key")
	parent := filepath.Join(t.TempDir(), "parent.pub")
	for path, data := range map[string][]byte{key: own, parent: []byte(public + " you@laptop\n")} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := stored(t)
	_, stderr, code := h.run("init", h.flake(iso.Path)+"#box", "--ssh-key="+key, "--parent-pubkey="+parent, "--timeout=12m")
	if code != 0 {
		t.Fatalf("init: exit code %d\n%s\n%s", code, stderr, h.console("box"))
	}
	h.nothingSecret(before, "box", own)
	for _, phase := range []string{"build: 1 of 1, installer", "installer 1 of ", "ready: "} {
		if !strings.Contains(stderr, phase) {
			t.Errorf("init did not show %q:\n%s", phase, stderr)
		}
	}
	if got := h.status("box"); got.Status != "running" || got.Install.State != "installed" {
		t.Errorf("%+v", got)
	}
	if got := h.must("ssh", "box", "id -un; cat .ssh/id_ed25519"); got != "alice\n"+string(own) {
		t.Errorf("ssh: %s", got)
	}
	if _, _, code := h.run("ssh", "box", "exit 7"); code != 7 {
		t.Errorf("exit code of ssh: %d", code)
	}
	// A machine that shows another host key is refused.
	known := filepath.Join(h.state, "vms", "box", "ssh", "known_hosts")
	pinned, err := os.ReadFile(known)
	if err != nil {
		t.Fatal(err)
	}
	_, foreign := newKey(t)
	if err := os.WriteFile(known, []byte("box "+foreign+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := h.run("vm", "wait-ssh", "box", "--timeout=600"); code != 1 || !strings.Contains(stderr, "shows another host key than the pinned one") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
	if err := os.WriteFile(known, pinned, 0o600); err != nil {
		t.Fatal(err)
	}
	// ssh-config is enough for plain ssh, with the key that was given too.
	config := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(config, []byte(h.must("ssh-config", "box")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, identity := range []string{"", key} {
		arguments := []string{"-F", config, "-o", "BatchMode=yes"}
		if identity != "" {
			arguments = []string{"-F", config, "-o", "BatchMode=yes", "-i", identity}
		}
		if output, err := exec.Command("ssh", append(arguments, "box", "id", "-un")...).CombinedOutput(); err != nil || !strings.HasSuffix(string(output), "alice\n") {
			t.Errorf("ssh: %v, %s", err, output)
		}
	}
	stdout, stderr, code := h.run("vm", "stop", "box", "--timeout=600")
	if code != 0 || stdout != "box: stopped\n" || strings.Contains(stderr, "ended hard") {
		t.Errorf("stop: %d, %s%s", code, stdout, stderr)
	}
	h.must("vm", "resize", "box", "--disk=4", "--memory=768")
	h.must("up", "box", "--timeout=12m")
	if got := strings.TrimSpace(h.must("ssh", "box", "cat /sys/class/block/vda/size")); got != "8388608" {
		t.Errorf("sectors of the disk: %s", got)
	}
	if got := h.must("vm", "wait-ssh", "box", "--user=alice", "--timeout=600"); got != "127.0.0.1\n" {
		t.Errorf("wait-ssh: %s", got)
	}
	h.must("rm", "box", "--yes")
	if left := h.list(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// flake is one with the host box, whose installer is an image.
func (h *host) flake(image string) string {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	ping := exec.CommandContext(ctx, "nix-store", "--version")
	if err := ping.Run(); err != nil {
		h.t.Skip("needs Nix: ", err)
	}
	folder := h.t.TempDir()
	data, err := os.ReadFile(image)
	if err != nil {
		h.t.Fatal(err)
	}
	var archive bytes.Buffer
	compressed := gzip.NewWriter(&archive)
	writer := tar.NewWriter(compressed)
	for _, step := range []error{
		writer.WriteHeader(&tar.Header{Name: "installer/", Typeflag: tar.TypeDir, Mode: 0o755}),
		writer.WriteHeader(&tar.Header{Name: "installer/nixos.iso", Mode: 0o644, Size: int64(len(data))}),
	} {
		if step != nil {
			h.t.Fatal(step)
		}
	}
	if _, err := writer.Write(data); err != nil {
		h.t.Fatal(err)
	}
	writer.Close()
	compressed.Close()
	for name, content := range map[string][]byte{"installer.tar.gz": archive.Bytes(), "flake.nix": []byte(flakeNix)} {
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o644); err != nil {
			h.t.Fatal(err)
		}
	}
	return folder
}

const flakeNix = `{
  outputs = { self }: {
    nixosConfigurations.box = {
      pkgs.stdenv.hostPlatform.system = "x86_64-linux";
      config = {
        networking.hostName = "box";
        system.build.devboxInstaller = derivation {
          name = "installer"; system = "builtin"; builder = "builtin:unpack-channel";
          channelName = "iso"; src = ./installer.tar.gz;
        };
        devbox = {
          hypervisor = "qemu";
          user.login = "alice";
          vm = { nested = false; memoryMB = 1024; diskGB = 3; cpus = 2; };
          nix = { substituters = [ ]; trustedPublicKeys = [ ]; };
          install = { mode = "direct"; disk = "/dev/vda"; };
        };
      };
    };
  };
}
`

func TestAarch64(t *testing.T) {
	h := newHost(t)
	if _, err := exec.LookPath("qemu-system-aarch64"); err != nil {
		t.Skip("needs QEMU for aarch64: ", err)
	}
	h.must("vm", "create", "arm", "--hypervisor=qemu", "--system=aarch64-linux", "--disk=3", "--memory=512")
	h.must("vm", "start", "arm")
	h.until("the firmware's shell", func() bool { return strings.Contains(h.console("arm"), "Shell>") })
	h.must("vm", "stop", "arm", "--timeout=0")
}
