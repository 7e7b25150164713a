package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"devhost/internal/container"
)

// A person's login with batou installed: commands on the dev host as batou sends
// them, without a terminal and with an empty standard input.
type batou struct {
	*host
	links string
}

// defect is what batou takes for a failed fc-manage.
const defect = "__FC_MANAGE_DEFECT_INDICATOR__"

func newBatou(t *testing.T) *batou {
	t.Helper()
	needsBuildersWithUsr(t)
	b := &batou{host: newHost(t), links: t.TempDir()}
	for _, name := range []string{"fc-build-dev-container", "fc-devhost", "nixos-container"} {
		if err := os.Symlink(program, filepath.Join(b.links, name)); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// needsBuildersWithUsr skips where a container of channels/offline could not
// build: the daemon of this host shows /usr to nobody who is not trusted.
func needsBuildersWithUsr(t *testing.T) {
	t.Helper()
	command := exec.Command("nix-build", "--no-out-link", "--expr",
		`derivation { name = "usr-`+t.Name()+`"; system = builtins.currentSystem; builder = "/usr/bin/env"; args = [ "sh" "-c" "echo > $out" ]; PATH = "/usr/bin"; }`)
	command.Dir = "/"
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "NIX_REMOTE=daemon", "HOME=/nonexistent"}
	if output, err := command.CombinedOutput(); err != nil {
		t.Skipf("this host's Nix daemon shows /usr to no builder of others (see channels/offline/README.md): %v\n%s", err, output)
	}
}

// dialect runs one of the commands. What batou sees must not hold its sign of a
// failure.
func (b *batou) dialect(name string, args ...string) result {
	b.t.Helper()
	command := b.command()
	command.Args = append([]string{name}, args...)
	command.Path = filepath.Join(b.links, name)
	command.Env = append(command.Env, "DEVHOST_STATE_DIR="+b.layout.State)
	result := b.finish(command)
	if strings.Contains(result.stdout+result.stderr, defect) {
		b.t.Errorf("%s %v says batou's sign of a failure:\n%s%s", name, args, result.stdout, result.stderr)
	}
	return result
}

// expect runs one of the commands and expects an exit status.
func (b *batou) expect(status int, name string, args ...string) result {
	b.t.Helper()
	result := b.dialect(name, args...)
	if result.status != status {
		b.t.Fatalf("%s %v ended with %d, not %d:\n%s%s", name, args, result.status, status, result.stdout, result.stderr)
	}
	return result
}

// list is nixos-container list by an account without any rights.
func (b *batou) list() string {
	b.t.Helper()
	command := b.command()
	command.Path, command.Args = filepath.Join(b.links, "nixos-container"), []string{"nixos-container", "list"}
	// The links and the program lie in folders of root's.
	for _, folder := range []string{b.links, filepath.Dir(b.links), filepath.Dir(program)} {
		if err := os.Chmod(folder, 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	command.Env = []string{"PATH=/usr/bin:/bin", "DEVHOST_STATE_DIR=" + b.layout.State}
	result := b.finish(command)
	if result.status != 0 {
		b.t.Fatalf("nixos-container list ended with %d: %s", result.status, result.stderr)
	}
	return result.stdout
}

// login is ssh to a container as its human user.
type login struct {
	t            *testing.T
	config, name string
}

func (b *batou) login(name string) login {
	b.t.Helper()
	folder := filepath.Join(b.t.TempDir(), "keys")
	b.must("ssh-config", name, "--output", folder)
	return login{b.t, filepath.Join(folder, "config"), name}
}

func (l login) run(stdin io.Reader, command string) (output string, status int) {
	l.t.Helper()
	ssh := exec.Command("ssh", "-F", l.config, "-o", "BatchMode=yes", l.name, command)
	ssh.Stdin = stdin
	var both bytes.Buffer
	ssh.Stdout, ssh.Stderr = &both, &both
	err := ssh.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		l.t.Fatal(err)
	}
	return both.String(), ssh.ProcessState.ExitCode()
}

func (l login) must(command string) string {
	l.t.Helper()
	output, status := l.run(nil, command)
	if status != 0 {
		l.t.Fatalf("%s in the container ended with %d:\n%s", command, status, output)
	}
	return strings.TrimSpace(output)
}

// copy is batou's COPY: rsync by way of the service user.
func (l login) copy(source, target string) {
	l.t.Helper()
	output, err := exec.Command("rsync", "-avz", "--no-l", "--safe-links", "--rsync-path=sudo -u s-dev rsync", "-e", "ssh -F "+l.config, source, l.name+":"+target).CombinedOutput()
	if err != nil {
		l.t.Fatalf("rsync to %s: %v\n%s", target, err, output)
	}
}

func fcChannel(t *testing.T) string {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "release-2026_001")
	tool(t, filepath.Join(repository(t), "internal/channel/testdata/fc-channel/assemble"), offline(t), folder)
	archive := filepath.Join(t.TempDir(), "nixexprs.tar.xz")
	pack(t, folder, archive)
	return "file://" + archive
}

// checkSequence is what batou does in a container, in its order.
func checkSequence(t *testing.T, inside login, name string) {
	t.Helper()
	module := filepath.Join(t.TempDir(), "provision.nix")
	writeFile(t, module, `{ lib, ... }: {
  flyingcircus.roles.redis.enable = true;
  environment.etc."provisioned".text = "one";
}
`)
	inside.copy(module, "/etc/local/nixos/provision-container.nix")
	seed := t.TempDir()
	writeFile(t, filepath.Join(seed, "seed.txt"), "seed\n")
	writeFile(t, filepath.Join(seed, "deployment/appenv"), "#!/bin/sh\nexec \"$@\"\n")
	if err := os.Chmod(filepath.Join(seed, "deployment/appenv"), 0o755); err != nil {
		t.Fatal(err)
	}
	inside.copy(seed+"/", "/srv/s-dev/")
	inside.must("echo seeded > seeded; test $(id -un) = developer; sudo -n true")

	output := inside.must("sudo -i fc-manage -c")
	if strings.Contains(output, defect) {
		t.Errorf("fc-manage says batou's sign: %s", output)
	}
	for command, want := range map[string]string{
		"cat /etc/provisioned":                                              "one",
		"systemctl is-active redis.service":                                 "active",
		"python3 -c 'print(6 * 7)'":                                         "42",
		`sudo -ni -u s-dev python3 -c "import os; print(os.getcwd())"`:      "/srv/s-dev",
		"sudo -ni -u s-dev /srv/s-dev/deployment/./appenv python3 -c 'x=1'": "",
		"cat seeded":                                                 "seeded",
		"sudo cat /srv/s-dev/seed.txt":                               "seed",
		"id -u; id -gn; id -u s-dev; id -gn s-dev":                   "1000\nusers\n1001\nservice",
		"stat -c '%a %U %G' /etc/local/nixos":                        "2775 root service",
		"getent passwd developer | cut -d: -f7":                      "/run/current-system/sw/bin/bash",
		"getent passwd s-dev | cut -d: -f6":                          "/srv/s-dev",
		"command -v fc-manage rsync python3 | wc -l":                 "3",
		"sudo -i sh -c 'command -v fc-manage rsync python3' | wc -l": "3",
	} {
		if got := inside.must(command); got != want {
			t.Errorf("%s says %q, not %q", command, got, want)
		}
	}
	for _, group := range []string{"users", "service", "login"} {
		inside.must("id -nG | tr ' ' '\\n' | grep -x " + group)
	}
	if resolved := inside.must("getent ahostsv4 " + name); strings.HasPrefix(resolved, "127.") {
		t.Errorf("inside, the name leads to %s", resolved)
	}
	if again := inside.must("sudo -i fc-manage -c"); again != "fc-manage: unchanged" {
		t.Errorf("fc-manage with nothing changed says %q", again)
	}
}

func TestBatouContainers(t *testing.T) {
	needsFullRun(t)
	b := newBatou(t)
	url := fcChannel(t)
	const name = "0c3f9a1b2d7"

	if got := b.list(); got != "" {
		t.Errorf("without containers the list is %q", got)
	}
	b.expect(0, "fc-build-dev-container", "destroy", name)
	b.expect(0, "fc-build-dev-container", "ensure", name, url, "app api")
	if got := b.list(); got != name+"\n" {
		t.Errorf("the list is %q", got)
	}
	inside := b.login(name)
	inside.must("true")
	if address := strings.TrimSpace(b.must("ip", name)); !strings.HasPrefix(tool(t, "getent", "ahostsv4", name), address+" ") {
		t.Errorf("on the host %s does not lead to %s", name, address)
	}
	if got := strings.Join(b.record(name).Aliases, " "); got != "app api" {
		t.Errorf("the aliases are %q", got)
	}
	base := b.record(name).System
	checkSequence(t, inside, name)
	deployed := inside.must("readlink /run/current-system")
	if deployed == base {
		t.Fatal("fc-manage built the system that was there before")
	}

	t.Run("a second deployment switches nothing", func(t *testing.T) {
		inside.must("sudo touch /run/still-here")
		b.expect(0, "fc-build-dev-container", "ensure", name, url, "app")
		if got := inside.must("readlink /run/current-system; ls /run/still-here"); got != deployed+"\n/run/still-here" {
			t.Errorf("the container was changed: %s", got)
		}
		if got := strings.Join(b.record(name).Aliases, " "); got != "app" {
			t.Errorf("the aliases are %q", got)
		}
		b.expect(0, "fc-build-dev-container", "ensure", name, url, "")
		if got := b.record(name).Aliases; len(got) != 0 {
			t.Errorf("the aliases are %q", got)
		}
	})

	t.Run("what fc-manage built is what starts", func(t *testing.T) {
		b.expect(0, "nixos-container", "stop", name)
		if got := b.expect(0, "nixos-container", "status", name).stdout; got != "down\n" {
			t.Errorf("the status is %q", got)
		}
		b.expect(0, "fc-build-dev-container", "ensure", name, url, "app")
		if got := inside.must("readlink /run/current-system; cat /etc/provisioned"); got != deployed+"\none" {
			t.Errorf("after a restart it runs %s", got)
		}
		var status struct{ System string }
		b.decode(&status, "status", name, "--json")
		if status.System != deployed {
			t.Errorf("status says that it runs %s", status.System)
		}
		if got := b.expect(0, "nixos-container", "status", name).stdout; got != "up\n" {
			t.Errorf("the status is %q", got)
		}
		if got := b.expect(0, "nixos-container", "run", name, "--", "cat", "/etc/provisioned").stdout; got != "one" {
			t.Errorf("run says %q", got)
		}
	})

	t.Run("the collector keeps it", func(t *testing.T) {
		// Not collected here: the store is everybody's. This is what it would keep.
		roots := tool(t, "env", "NIX_REMOTE=daemon", "nix-store", "--gc", "--print-roots")
		link := filepath.Join(b.layout.Root(name), "nix/var/nix/profiles/devhost-system")
		if !strings.Contains(roots, link+" -> "+deployed) {
			t.Errorf("the system is not among what the collector keeps:\n%s", grep(roots, b.layout.State))
		}
	})

	t.Run("enc.json", func(t *testing.T) {
		var enc struct {
			Parameters map[string]string
			Devhost    map[string]any
		}
		if err := json.Unmarshal([]byte(inside.must("cat /etc/nixos/enc.json")), &enc); err != nil {
			t.Fatal(err)
		}
		if enc.Parameters["environment_url"] != url || enc.Parameters["environment"] != "container" || enc.Devhost["channel"] != b.record(name).Pin.StorePath {
			t.Errorf("enc.json is %+v", enc)
		}
	})

	t.Run("the published key", func(t *testing.T) {
		keys := filepath.Join(b.layout.Guest(name), "authorized_keys")
		if text := readFile(t, filepath.Join(keys, "developer")); !strings.Contains(text, container.BatouKey) {
			t.Errorf("developer's keys are\n%s", text)
		}
		for _, user := range []string{"root", "s-dev"} {
			if text := readFile(t, filepath.Join(keys, user)); strings.Contains(text, container.BatouKey) {
				t.Errorf("%s can be logged in to by batou's key", user)
			}
		}
		b.must("ensure", "own", "--channel", offline(t))
		for _, user := range []string{"root", "s-dev", "developer"} {
			if text := readFile(t, filepath.Join(b.layout.Guest("own"), "authorized_keys", user)); strings.Contains(text, container.BatouKey) {
				t.Errorf("%s of a container of our own can be logged in to by batou's key", user)
			}
		}
		refused := b.expect(1, "fc-build-dev-container", "ensure", "own", url, "")
		if !strings.Contains(refused.stderr, "batou's published key must not log in") {
			t.Errorf("it says %s", refused.stderr)
		}
		if said := b.run("exec", "own", "--", "fc-manage", "-c"); said.status != 6 || !strings.Contains(said.stderr, "the host decides about this container's system") {
			t.Errorf("fc-manage in a container of our own ended with %d: %s", said.status, said.stderr)
		}
		if said := b.run("exec", "own", "--", "test", "-e", "/nix/var/nix/daemon-socket/socket"); said.status != 1 {
			t.Error("a container that does not build its own system reaches the host's Nix daemon")
		}
	})

	t.Run("mistakes", func(t *testing.T) {
		for _, test := range []struct {
			status int
			says   string
			args   []string
		}{
			{2, "need to specify an action: ensure, destroy", nil},
			{2, `there is no action "build"; there are: ensure, destroy`, []string{"build", "x"}},
			{2, "need to specify container name", []string{"ensure"}},
			{2, "need to specify channel url", []string{"ensure", "x"}},
			{2, "the aliases are one argument", []string{"ensure", "x", url, "app", "api"}},
			{2, "inet_aton", []string{"ensure", "12345678901", url, ""}},
			{2, "no option --force", []string{"ensure", "--force", "x", url}},
			{1, "put the modules into /etc/local/nixos", nil},
		} {
			if test.args == nil && test.status == 1 {
				b.fails(1, []string{test.says}, "ensure", name, "--provision", provision(t, "{ }"))
				continue
			}
			said := b.expect(test.status, "fc-build-dev-container", test.args...)
			if !strings.Contains(said.stderr, test.says) || !strings.HasPrefix(said.stderr, "fc-build-dev-container: ") {
				t.Errorf("%v says %s", test.args, said.stderr)
			}
		}
	})

	t.Run("a configuration that fails", func(t *testing.T) {
		inside.must("echo '{ environment.etc.x.text = builtins.trace \"" + defect + "\" (throw \"no way\"); }' | sudo -u s-dev tee /etc/local/nixos/more.nix")
		output, status := inside.run(nil, "sudo -i fc-manage -c")
		if status != 1 || !strings.Contains(output, "no way") || !strings.Contains(output, "keeps the system that it has") {
			t.Errorf("fc-manage ended with %d: %s", status, output)
		}
		inside.must("sudo -u s-dev rm /etc/local/nixos/more.nix")
		if got := inside.must("sudo -i fc-manage -c; readlink /run/current-system"); !strings.HasSuffix(got, deployed) {
			t.Errorf("afterwards: %s", got)
		}
	})

	t.Run("developers use Nix", func(t *testing.T) {
		expression := `derivation { name = "by-developer"; system = builtins.currentSystem; builder = "/usr/bin/env"; args = [ "sh" "-c" "echo built > $out" ]; PATH = "/usr/bin"; }`
		if got := inside.must("cat $(nix-build --no-out-link --expr '" + expression + "' 2>/dev/null)"); got != "built" {
			t.Errorf("nix-build says %q", got)
		}
		inside.must("sudo nix-store --version; sudo nix-build --no-out-link --expr '" + expression + "'")
		if output, status := inside.run(nil, "nix-build --option sandbox false --no-out-link --expr '"+strings.Replace(expression, "built", "not confined $(cat /etc/shadow)", 1)+"'"); status == 0 && !strings.Contains(output, "restricted setting") {
			t.Errorf("a developer turned the sandbox off: %s", output)
		}
	})

	t.Run("going back", func(t *testing.T) {
		b.must("rollback", name)
		if got := inside.must("readlink /run/current-system"); got != base {
			t.Errorf("it runs %s", got)
		}
		if output := inside.must("sudo -i fc-manage -c; readlink /run/current-system"); !strings.HasSuffix(output, deployed) {
			t.Errorf("fc-manage afterwards says %s", output)
		}
	})

	b.expect(0, "fc-build-dev-container", "destroy", name)
	if got := b.list(); got != "own\n" {
		t.Errorf("the list is %q", got)
	}
}

func grep(text, part string) string {
	var found []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}

func TestBatouMachines(t *testing.T) {
	needsFullRun(t)
	b := newBatou(t)
	url := fcChannel(t)
	const name = "7f3a09bc"

	if got := b.expect(0, "fc-devhost", "list").stdout; got != "" {
		t.Errorf("without containers the list is %q", got)
	}
	b.expect(0, "fc-devhost", "destroy", name)
	said := b.expect(0, "fc-devhost", "ensure", "--memory", "2048", "--cpu", "2", "--aliases", "'app api'", "--image-url", "https://example.org/image.qcow2", "--channel-url", url, "--no-update-channel", name)
	if !strings.Contains(said.stderr, "--image-url is not used") {
		t.Errorf("ensure says %s", said.stderr)
	}
	if got := b.expect(0, "fc-devhost", "list").stdout; got != name+"\n" {
		t.Errorf("the list is %q", got)
	}
	record := b.record(name)
	if record.Limits.MemoryBytes != 2048<<20 || record.Limits.CPUs != 2 || strings.Join(record.Aliases, " ") != "app api" {
		t.Errorf("the limits are %+v, the aliases %q", record.Limits, record.Aliases)
	}
	var published map[string]any
	if err := json.Unmarshal([]byte(readFile(t, filepath.Join(b.layout.Published(), "vm-configs", name+".json"))), &published); err != nil {
		t.Fatal(err)
	}
	if published["srv-ip"] != strings.TrimSpace(b.must("ip", name)) {
		t.Errorf("published is %v", published)
	}
	inside := b.login(name)
	checkSequence(t, inside, name)
	deployed := inside.must("readlink /run/current-system")

	t.Run("limits, aliases and the channel", func(t *testing.T) {
		other := filepath.Join(t.TempDir(), "release-2026_002")
		tool(t, filepath.Join(repository(t), "internal/channel/testdata/fc-channel/assemble"), offline(t), other)
		mark(t, filepath.Join(other, "nixpkgs"), "newer")
		pack(t, other, strings.TrimPrefix(url, "file://"))
		ensure := func(more ...string) {
			t.Helper()
			b.expect(0, "fc-devhost", append(append([]string{"ensure", "--memory", "1G", "--cpu", "1", "--aliases", "", "--channel-url", url}, more...), name)...)
		}
		ensure()
		record := b.record(name)
		if record.Limits.MemoryBytes != 1<<30 || record.Limits.CPUs != 1 || len(record.Aliases) != 0 {
			t.Errorf("the limits are %+v, the aliases %q", record.Limits, record.Aliases)
		}
		pinned := record.Pin.StorePath
		ensure("--update-channel")
		if got := b.record(name).Pin.StorePath; got == pinned {
			t.Error("--update-channel does not resolve the channel again")
		}
		if got := inside.must("readlink /run/current-system"); got != deployed {
			t.Error("ensure switched the system")
		}
		inside.must("sudo -i fc-manage -c")
		if got := inside.must("cat /etc/channel-marker /etc/provisioned"); got != "newerone" {
			t.Errorf("fc-manage built the system of another channel: %q", got)
		}
	})

	t.Run("mistakes", func(t *testing.T) {
		for _, test := range []struct {
			says string
			args []string
		}{
			{"--channel-url is missing", []string{"ensure", "x"}},
			{"are required: name", []string{"ensure", "--channel-url", url}},
			{"not both", []string{"ensure", "--hydra-eval", "7", "--channel-url", url, "x"}},
			{`--memory "much"`, []string{"ensure", "--memory", "much", "--channel-url", url, "x"}},
			{`--cpu "-1"`, []string{"ensure", "--cpu", "-1", "--channel-url", url, "x"}},
			{"contradict", []string{"ensure", "--update-channel", "--no-update-channel", "--channel-url", url, "x"}},
			{"no option --memroy; did you mean --memory?", []string{"ensure", "--memroy", "5", "x"}},
			{"give the number of an evaluation", []string{"ensure", "--hydra-eval", "../x", "x"}},
			{"unrecognized arguments: api' x;", []string{"ensure", "--aliases", "'app", "api'", "--channel-url", url, "x"}},
		} {
			if said := b.expect(2, "fc-devhost", test.args...); !strings.Contains(said.stderr, test.says) {
				t.Errorf("%v says %s", test.args, said.stderr)
			}
		}
	})

	t.Run("turned off", func(t *testing.T) {
		writeFile(t, b.layout.Settings(), `{"version": 1, "batou": {"enable": false}}`)
		defer os.Remove(b.layout.Settings())
		if said := b.expect(6, "fc-devhost", "ensure", "--channel-url", url, name); !strings.Contains(said.stderr, "is turned off on this host") {
			t.Errorf("it says %s", said.stderr)
		}
		b.must("restart", name)
		if text := readFile(t, filepath.Join(b.layout.Guest(name), "authorized_keys", "developer")); strings.Contains(text, container.BatouKey) {
			t.Error("batou's key still counts")
		}
	})
	b.expect(0, "fc-devhost", "destroy", name)
}

// TestBatouGuestIsHostile lets a container's root make of its files what it
// wants: the host neither follows nor trusts them.
func TestBatouGuestIsHostile(t *testing.T) {
	needsFullRun(t)
	b := newBatou(t)
	const name = "hostile"
	b.expect(0, "fc-build-dev-container", "ensure", name, offline(t), "")
	base := b.record(name).System
	victim := filepath.Join(t.TempDir(), "victim")
	writeFile(t, filepath.Join(victim, "enc.json"), "untouched")
	inside := func(command string) { t.Helper(); b.must("exec", name, "--", "sh", "-c", command) }
	restart := func() {
		t.Helper()
		b.must("restart", name)
		if got := strings.TrimSpace(b.must("exec", name, "--", "readlink", "/run/booted-system")); got != base {
			t.Errorf("it started %s", got)
		}
	}

	t.Run("enc.json leads out", func(t *testing.T) {
		inside("rm -rf /etc/nixos && ln -s " + victim + " /etc/nixos")
		if said := b.dialect("fc-build-dev-container", "ensure", name, offline(t), ""); said.status == 0 || !strings.Contains(said.stderr, "/etc/nixos/enc.json") {
			t.Errorf("ensure ended with %d: %s", said.status, said.stderr)
		}
		if got := readFile(t, filepath.Join(victim, "enc.json")); got != "untouched" {
			t.Errorf("a file of the host's was written: %q", got)
		}
		inside("rm /etc/nixos && mkdir -p /etc/nixos/enc.json/x")
		if said := b.dialect("fc-build-dev-container", "ensure", name, offline(t), ""); said.status == 0 {
			t.Error("ensure wrote a file over a folder")
		}
		inside("rm -rf /etc/nixos")
		b.expect(0, "fc-build-dev-container", "ensure", name, offline(t), "")
	})

	t.Run("the system's link", func(t *testing.T) {
		link := "/nix/var/nix/profiles/devhost-system"
		for _, target := range []string{"/etc", "/nix/store", "/nix/store/../../etc", base + "/../x", "/nix/store/" + strings.Repeat("a", 32) + "-gone", strings.TrimSuffix(base, "m"), "../../../../../../../../etc"} {
			inside("ln -sfn '" + target + "' " + link)
			restart()
		}
		inside("rm " + link + " && mkfifo " + link)
		restart()
		inside("rm -rf /nix/var/nix/profiles && ln -s " + victim + " /nix/var/nix/profiles")
		restart()
	})

	t.Run("an object of the store that leads out", func(t *testing.T) {
		inside("rm -f /nix/var/nix/profiles; mkdir -p /nix/var/nix/profiles; export NIX_REMOTE=daemon; cd /tmp; ln -sfn " + victim + " evil; ln -sfn $(nix-store --add evil) /nix/var/nix/profiles/devhost-system")
		writeFile(t, filepath.Join(victim, "init"), "")
		restart()
		inside("export NIX_REMOTE=daemon; cd /tmp; mkdir -p bad; touch bad/init; ln -sfn /etc/shadow bad/devhost-system.json; ln -sfn $(nix-store --add bad) /nix/var/nix/profiles/devhost-system")
		restart()
		if log := b.must("logs", "--console", name); !strings.Contains(log, "the host's own takes its place") || strings.Contains(log, "root:") {
			t.Errorf("the console does not say why: %s", log)
		}
	})

	t.Run("the shared program", func(t *testing.T) {
		if said := b.run("exec", name, "--", "sh", "-c", "echo > /run/devhost/bin/devhost || mount -o remount,rw /run/devhost || chmod 777 /run/devhost/bin/devhost"); said.status == 0 {
			t.Error("a container changed the program that all containers have")
		}
	})
}

// TestNixosContainer hands over what is not ours to NixOS' own program.
func TestNixosContainer(t *testing.T) {
	h := newHost(t)
	h.looksKnown()
	writeFile(t, filepath.Join(h.layout.Published(), "ours.json"), `{"name": "ours"}`)
	links, folder := t.TempDir(), t.TempDir()
	for _, name := range []string{"nixos-container", "fc-devhost"} {
		if err := os.Symlink(program, filepath.Join(links, name)); err != nil {
			t.Fatal(err)
		}
	}
	run := func(path string, args ...string) result {
		t.Helper()
		command := h.command()
		command.Path, command.Args = filepath.Join(links, args[0]), args
		command.Env = append(command.Env, "DEVHOST_STATE_DIR="+h.layout.State, "PATH="+path)
		return h.finish(command)
	}
	// The link comes first, as on a host where an admin put it there.
	without, with := links+":/usr/bin:/bin", links+":"+folder+":/usr/bin:/bin"
	real := filepath.Join(folder, "nixos-container")
	writeFile(t, real, "#!/bin/sh\ncase $1 in list) echo theirs; echo ours;; *) echo \"real: $*\"; cat; exit 7;; esac\n")
	if err := os.Chmod(real, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, path     string
		args           []string
		status         int
		stdout, stderr string
	}{
		{"list", without, []string{"nixos-container", "list"}, 0, "ours\n", ""},
		{"list of both", with, []string{"nixos-container", "list"}, 0, "ours\ntheirs\n", ""},
		{"another container", with, []string{"nixos-container", "status", "theirs"}, 7, "real: status theirs\n", ""},
		{"what only NixOS has", with, []string{"nixos-container", "show-ip", "ours"}, 7, "real: show-ip ours\n", ""},
		{"help", with, []string{"nixos-container", "--help"}, 7, "real: --help\n", ""},
		{"a container that nobody has", without, []string{"nixos-container", "status", "theirs"}, 4, "", "there is no container theirs"},
		{"nothing for it", without, []string{"nixos-container", "create", "x"}, 2, "", "there is no action \"create\"; there are: list, status, start, stop, run, destroy; this host has no nixos-container"},
		{"machines", without, []string{"fc-devhost", "ls"}, 0, "ours\n", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := run(test.path, test.args...)
			if got.status != test.status || got.stdout != test.stdout || !strings.Contains(got.stderr, test.stderr) {
				t.Errorf("%v ended with %d: %q %q", test.args, got.status, got.stdout, got.stderr)
			}
		})
	}
	t.Run("the real one fails", func(t *testing.T) {
		writeFile(t, real, "#!/bin/sh\necho broken >&2; exit 1\n")
		if got := run(with, "nixos-container", "list"); got.status != 0 || got.stdout != "ours\n" || !strings.Contains(got.stderr, "broken") {
			t.Errorf("list ended with %d: %q %q", got.status, got.stdout, got.stderr)
		}
	})
	t.Run("behind a wrapper of ours", func(t *testing.T) {
		writeFile(t, real, "#!/bin/sh\nexec "+filepath.Join(links, "nixos-container")+" \"$@\"\n")
		if got := run(with, "nixos-container", "list"); got.status != 0 || got.stdout != "ours\n" {
			t.Errorf("list ended with %d: %q %q", got.status, got.stdout, got.stderr)
		}
	})
}
