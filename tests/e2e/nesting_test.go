package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// loggedIn is somebody who logs in by ssh. What is started so runs under the
// filter of system calls that the guest's PID 1 has, as exec's commands do not.
type loggedIn struct {
	h      *host
	config string
	name   string
}

func (h *host) logsIn(name string) loggedIn {
	h.t.Helper()
	folder := filepath.Join(h.t.TempDir(), "keys")
	h.must("ssh-config", name, "--output", folder)
	return loggedIn{h: h, config: filepath.Join(folder, "config"), name: name}
}

// root runs a script as root by way of sudo.
func (l loggedIn) root(script string) (stdout, stderr string, status int) {
	l.h.t.Helper()
	return plain(l.h.t, "ssh", "-F", l.config, l.name, "sudo -n sh -c '"+strings.ReplaceAll(script, "'", `'\''`)+"'")
}

func (l loggedIn) must(script string) string {
	l.h.t.Helper()
	stdout, stderr, status := l.root(script)
	if status != 0 {
		l.h.t.Fatalf("%s\nended with %d:\n%s%s", script, status, stdout, stderr)
	}
	return stdout
}

// systemCall is a script that makes a system call and prints its error number,
// 0 for none.
func systemCall(number uintptr, arguments ...int) string {
	call := fmt.Sprint(number)
	for _, argument := range arguments {
		call += fmt.Sprintf(", ctypes.c_long(%d)", argument)
	}
	return fmt.Sprintf(
		`python3 -c "import ctypes; c = ctypes.CDLL(None, use_errno=True); print(0 if c.syscall(%s) >= 0 else ctypes.get_errno(), end=\"\")"`, call)
}

// TestNestingIsASwitch: without nesting a guest gets none of what nesting
// opens, and with it nothing else. A running guest keeps what it was started
// with.
func TestNestingIsASwitch(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	h.must("ensure", "box", "--channel", offline(t))
	box := h.logsIn("box")
	const joinSessionKeyring = 1
	refused := fmt.Sprint(int(unix.EPERM))
	want := func(nested bool) {
		t.Helper()
		keyctl, said := refused, "0\n"
		if nested {
			keyctl, said = "0", "1\n"
		}
		if got := box.must(systemCall(unix.SYS_KEYCTL, joinSessionKeyring, 0)); got != keyctl {
			t.Errorf("keyctl ends with error number %s, not %s", got, keyctl)
		}
		if got := box.must(`tr "\0" "\n" < /proc/1/environ | grep -cx DEVHOST_NESTING=1 || true`); got != said {
			t.Errorf("the guest is told %q, not %q", got, said)
		}
		// What the filter refuses in any case.
		for name, number := range map[string]uintptr{"add_key": unix.SYS_ADD_KEY, "request_key": unix.SYS_REQUEST_KEY, "bpf": unix.SYS_BPF} {
			if got := box.must(systemCall(number, 0, 0, 0, 0, 0)); got != refused {
				t.Errorf("%s ends with error number %s, not %s", name, got, refused)
			}
		}
		if status := h.must("status", "box"); strings.Contains(status, "nesting") != nested {
			t.Errorf("status says\n%s", status)
		}
	}
	want(false)
	for _, test := range []struct {
		flag, verb string
		nested     bool
	}{
		{"--nesting", "gets", true},
		{"--nesting=false", "loses", false},
	} {
		began := h.status("box").StartedAt
		result := h.run("ensure", "box", test.flag)
		if result.status != 0 || !strings.Contains(result.stderr, "container box "+test.verb+" nesting when it is started next; do that now with: devhost restart box") {
			t.Errorf("ensure %s ended with %d and says\n%s", test.flag, result.status, result.stderr)
		}
		if !h.status("box").StartedAt.Equal(began) {
			t.Errorf("ensure %s started the container again", test.flag)
		}
		if result := h.run("ensure", "box", test.flag); strings.Contains(result.stderr, "nesting") {
			t.Errorf("what is as it was is told again:\n%s", result.stderr)
		}
		h.must("restart", "box")
		want(test.nested)
		if test.nested {
			t.Run("keys of the host", func(t *testing.T) { checkHostKeys(t, h.with(t), box) })
		}
	}
}

// checkHostKeys: a key that everything started by a person has, other than by
// nspawn, is out of the guest's reach.
func checkHostKeys(t *testing.T, h *host, box loggedIn) {
	// Keyrings belong to threads; a process gets those of the thread that
	// starts it. Without an unlock, this thread ends with the test.
	runtime.LockOSThread()
	if _, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0); err != nil {
		t.Skipf("SKIPPED: no keyring to be had here: %v", err)
	}
	key, err := unix.AddKey("user", "devhost-e2e", []byte("secret"), unix.KEY_SPEC_SESSION_KEYRING)
	if err != nil {
		t.Fatal(err)
	}
	if length, err := unix.KeyctlInt(unix.KEYCTL_READ, key, 0, 0, 0); err != nil || length != len("secret") {
		t.Fatalf("the control cannot read the key: %d, %v", length, err)
	}
	h.must("restart", "box")
	read := systemCall(unix.SYS_KEYCTL, unix.KEYCTL_READ, key, 0, 0)
	for by, got := range map[string]string{"ssh": box.must(read), "exec": h.inside("box", read)} {
		if got != fmt.Sprint(int(unix.EACCES)) && got != fmt.Sprint(int(unix.ENOKEY)) {
			t.Errorf("reading a key of the host by %s ends with error number %s", by, got)
		}
	}
}

// rootFilesystem is an archive of a root file system that holds busybox and
// nothing else but what it is linked to.
func rootFilesystem(t *testing.T) io.Reader {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("SKIPPED: an image for podman is made of busybox; install it with: apt-get install busybox-static")
	}
	files := map[string]string{"bin/busybox": busybox}
	// It fails for a static program.
	if output, err := exec.Command("ldd", busybox).Output(); err == nil {
		for _, word := range strings.Fields(string(output)) {
			if strings.HasPrefix(word, "/") {
				files[strings.TrimPrefix(word, "/")] = word
			}
		}
	}
	return archiveOf(t, files)
}

// archiveOf is a tar archive of the host's programs and files, by their names
// in it.
func archiveOf(t *testing.T, files map[string]string) io.Reader {
	t.Helper()
	var buffer bytes.Buffer
	writer := tar.NewWriter(&buffer)
	for name, path := range files {
		content, err := os.ReadFile(path)
		if err == nil {
			err = writer.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg})
		}
		if err == nil {
			_, err = writer.Write(content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return &buffer
}

// unpack unpacks an archive in a folder of the guest.
func (h *host) unpack(name, folder string, archive io.Reader) {
	h.t.Helper()
	command := h.command("exec", name, "--", "sh", "-c", `mkdir -p "$1" && tar -x -C "$1"`, "sh", folder)
	command.Stdin = archive
	if result := h.finish(command); result.status != 0 {
		h.t.Fatalf("an archive could not be unpacked in %s: %d\n%s", folder, result.status, result.stderr)
	}
}

// baseImage is what the Containerfiles of examples/compose start from. There
// is no registry to have it from.
const baseImage = "docker.io/library/busybox:stable"

// containerfile makes the base image of the root file system beside it.
const containerfile = `FROM scratch
COPY root /
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /tmp /built && echo built > /built/index.html
`

// wantAnswer fetches a page until it is as wanted.
func wantAnswer(t *testing.T, url, body string) {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	var got string
	var err error
	deadline := time.Now().Add(5 * time.Minute)
	for time.Now().Before(deadline) {
		var response *http.Response
		if response, err = client.Get(url); err == nil {
			var content []byte
			content, err = io.ReadAll(response.Body)
			response.Body.Close()
			if got = string(content); err == nil && got == body {
				return
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("%s answers %q (%v), not %q", url, got, err, body)
}

// TestNesting: podman builds and runs images inside, publishes ports, and
// brings up examples/compose.
func TestNesting(t *testing.T) {
	needsFullRun(t)
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skip("SKIPPED: this host has no podman, whose program the offline channel's containers use; run: make setup")
	}
	h := newHost(t)
	h.must("ensure", "pods", "--channel", offline(t), "--provision", example(t, "compose"), "--nesting", "--alias", "www")
	if status := h.status("pods"); len(status.Units) > 0 {
		t.Errorf("units are not up: %+v", status.Units)
	}
	pods := h.logsIn("pods")
	h.unpack("pods", "/root/base/root", rootFilesystem(t))
	pods.must("cat > /root/base/Containerfile <<END\n" + containerfile + "END\npodman build --quiet --tag " + baseImage + " /root/base")

	checkPublishedPort(t, h, pods)
	checkOuterLimits(t, h, pods)
	checkCompose(t, h, pods)
	checkSocket(t, pods)
}

func checkPublishedPort(t *testing.T, h *host, pods loggedIn) {
	if got := pods.must("podman run --rm " + baseImage + " cat /built/index.html"); got != "built\n" {
		t.Errorf("a container says %q", got)
	}
	pods.must("podman run --detach --name single --publish 9000:80 " + baseImage + " httpd -f -h /built")
	// From the host, and from inside.
	wantAnswer(t, "http://"+h.ip("pods")+":9000/", "built\n")
	if got := pods.must(`python3 -c "import urllib.request as u; print(u.urlopen(\"http://127.0.0.1:9000/\", timeout=10).read().decode(), end=\"\")"`); got != "built\n" {
		t.Errorf("inside, the published port answers %q", got)
	}
	// The other driver, where the kernel can put it on idmapped mounts.
	storage := "--storage-driver overlay --root /var/lib/overlay --runroot /run/overlay"
	stdout, stderr, status := pods.root("podman save " + baseImage + " | podman " + storage + " load --quiet && podman " + storage + " run --rm " + baseImage + " cat /built/index.html")
	if kernelHas(t, 5, 19) && (status != 0 || !strings.HasSuffix(stdout, "built\n")) {
		t.Errorf("with overlay, podman ended with %d: %s%s", status, stdout, stderr)
	}
	pods.must("podman rm --force --time 1 single")
}

// kernelHas tells whether the kernel has a version.
func kernelHas(t *testing.T, major, minor int) bool {
	t.Helper()
	var name unix.Utsname
	var m, n int
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &m, &n); err != nil {
		t.Fatal(err)
	}
	return m > major || m == major && n >= minor
}

// checkOuterLimits: a limit inside is not enforced, which the documentation
// says; that of the container is, for all that runs in it.
func checkOuterLimits(t *testing.T, h *host, pods loggedIn) {
	const hog = "podman run --rm --memory 64m " + baseImage + " dd if=/dev/zero of=/dev/null bs=300M count=2"
	if _, stderr, status := pods.root(hog); status != 0 {
		t.Errorf("a limit of podman is enforced, other than docs/nesting.md says: %d %s", status, stderr)
	}
	h.must("ensure", "pods", "--memory", "200M")
	const killed = 128 + int(unix.SIGKILL)
	if _, stderr, status := pods.root(hog); status != killed {
		t.Errorf("a program inside that needs more than its container may have ended with %d, not %d: %s", status, killed, stderr)
	}
	h.must("ensure", "pods", "--memory", "0")
}

func checkCompose(t *testing.T, h *host, pods loggedIn) {
	const greeting = "The greeter says: Hello from the greeter\n"
	pods.must("podman-compose -f /etc/compose/compose.yaml up -d")
	wantAnswer(t, "http://"+h.ip("pods")+":8080/", greeting)
	ingress := startIngress(h)
	ingress.wantPage("https://www.pods.devhost.localhost/", greeting)
	// They come back with the next boot, and do not hold up the end of this one.
	h.must("restart", "pods")
	if log := readFile(t, h.layout.Log("pods")); strings.Contains(log, "is killed") {
		t.Errorf("containers inside kept the guest from powering off:\n%s", log)
	}
	ingress.wantPage("https://www.pods.devhost.localhost/", greeting)
	pods.must("podman-compose -f /etc/compose/compose.yaml down --timeout 1")
	if got := pods.must("podman ps --all --quiet"); got != "" {
		t.Errorf("after down there are %s", got)
	}
}

// checkSocket: clients of docker can use podman's socket.
func checkSocket(t *testing.T, pods loggedIn) {
	got := pods.must(`python3 -c "
import http.client, socket
connection = http.client.HTTPConnection(\"podman\")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(\"/run/podman/podman.sock\")
connection.request(\"GET\", \"/v1.40/images/json\")
print(connection.getresponse().read().decode())"`)
	if !strings.Contains(got, baseImage) {
		t.Errorf("podman's socket says %s", got)
	}
}

// dockerFolder is where the guest of TestDocker has docker.
const dockerFolder = "/opt/docker"

// dockerProvision stands in for virtualisation.docker, which the offline
// channel does not have: the guest module sees to its unit all the same.
const dockerProvision = `{ lib, pkgs, ... }: {
  options.virtualisation.docker.enable = lib.mkEnableOption "docker";
  config = {
    virtualisation.docker.enable = true;
    systemd.services.docker = {
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      path = [ pkgs.iptables ];
      serviceConfig = {
        Type = "notify";
        Delegate = true;
        Environment = "PATH=` + dockerFolder + `:${lib.makeBinPath [ pkgs.coreutils pkgs.gnugrep pkgs.iptables ]}";
        ExecStart = "` + dockerFolder + `/dockerd";
      };
    };
    environment.systemPackages = [ pkgs.iptables ];
  };
}
`

// dockerPrograms are the host's, or those of the distribution's packages,
// which are only unpacked: they would start a service here.
func dockerPrograms(t *testing.T) map[string]string {
	t.Helper()
	needed := []string{"dockerd", "docker", "docker-proxy", "containerd", "containerd-shim-runc-v2", "runc"}
	find := func(folders ...string) map[string]string {
		found := map[string]string{}
		for _, name := range needed {
			for _, folder := range folders {
				path := filepath.Join(folder, name)
				if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
					found[name] = path
				}
			}
		}
		return found
	}
	if found := find("/usr/bin", "/usr/sbin"); len(found) == len(needed) {
		return found
	}
	folder := t.TempDir()
	download := func(packages ...string) error {
		command := exec.Command("apt-get", append([]string{"download"}, packages...)...)
		command.Dir = folder
		output, err := command.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, output)
		}
		return nil
	}
	if err := download("docker.io", "containerd", "runc"); err != nil {
		t.Skipf("SKIPPED: this host has no docker, and its packages cannot be had: %v", err)
	}
	// Newer releases have the client in a package of its own.
	_ = download("docker-cli")
	archives, _ := filepath.Glob(filepath.Join(folder, "*.deb"))
	for _, archive := range archives {
		tool(t, "dpkg-deb", "--extract", archive, filepath.Join(folder, "root"))
	}
	found := find(filepath.Join(folder, "root/usr/bin"), filepath.Join(folder, "root/usr/sbin"))
	if len(found) != len(needed) {
		t.Fatalf("the packages of docker hold only %v", found)
	}
	return found
}

// TestDocker: what docs/nesting.md says about docker. It needs nesting and says
// so; with it, it builds and runs images and publishes ports.
func TestDocker(t *testing.T) {
	needsFullRun(t)
	programs := dockerPrograms(t)
	h := newHost(t)
	const advice = "docker needs nesting; run on the host: devhost ensure box --nesting && devhost restart box"
	const degraded = 3
	h.fails(degraded, []string{"docker.service", advice}, "ensure", "box", "--channel", offline(t), "--provision", provision(t, dockerProvision))
	h.unpack("box", dockerFolder, archiveOf(t, programs))
	h.unpack("box", "/root/base/root", rootFilesystem(t))
	h.fails(degraded, []string{advice}, "ensure", "box", "--nesting")
	h.must("restart", "box")
	if result := h.run("ensure", "box"); result.status != 0 {
		t.Fatalf("with nesting, ensure ended with %d:\n%s%s", result.status, result.stderr, h.run("logs", "box", "--unit", "docker.service").stdout)
	}
	box := h.logsIn("box")
	docker := func(arguments string) string {
		t.Helper()
		return box.must("DOCKER_BUILDKIT=0 " + dockerFolder + "/docker " + arguments)
	}
	box.must("cat > /root/base/Dockerfile <<END\n" + containerfile + "END\n")
	docker("build --quiet --tag built /root/base")
	if got := docker("run --rm built cat /built/index.html"); got != "built\n" {
		t.Errorf("a container says %q", got)
	}
	docker("run --detach --name single --publish 9000:80 built httpd -f -h /built")
	wantAnswer(t, "http://"+h.ip("box")+":9000/", "built\n")
	docker("rm --force single")
}
