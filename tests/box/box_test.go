package box_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"devhost/tests/box"
)

func TestMain(m *testing.M) { os.Exit(box.Main(m)) }

func needsFullRun(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("in the long set: make e2e")
	}
}

const (
	offline = "--channel /srv/channels/offline"
	demo    = offline + " --provision /srv/examples/demo"
	minimal = offline + " --provision /srv/examples/minimal"
)

// patience bounds waiting for what takes a second or two.
const patience = 5 * time.Minute

// eventually tries until the check says "", and fails the test with what it
// says last.
func eventually(t testing.TB, check func() string) {
	t.Helper()
	began := time.Now()
	for {
		problem := check()
		if problem == "" {
			return
		}
		if time.Since(began) > patience {
			t.Fatal(problem)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// client trusts the certificate authority of the box, as a user who has
// fetched it.
func client(h *box.Host, address string) *http.Client {
	h.T.Helper()
	authority := h.Must("alice", "cat /var/lib/devhost/ingress/ca/root.crt")
	client, err := h.HTTPClient([]byte(authority), address)
	if err != nil {
		h.T.Fatal(err)
	}
	return client
}

// wantPage fetches a page until it holds a text.
func wantPage(h *box.Host, client *http.Client, url, text string) {
	h.T.Helper()
	eventually(h.T, func() string {
		response, err := client.Get(url)
		if err != nil {
			return err.Error()
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusOK || !strings.Contains(string(body), text) {
			return fmt.Sprintf("%s answers %d %q (%v), and not %q", url, response.StatusCode, body, err, text)
		}
		return ""
	})
}

// pageOf is a text of the page of examples/demo in a container.
func pageOf(name string) string { return "<b>" + name + "</b>" }

// status gives the status of each container, as devhost has it.
func status(h *box.Host) map[string]string {
	h.T.Helper()
	var containers []struct{ Name, Status string }
	output := h.Must("alice", "sudo devhost list --json")
	if err := json.Unmarshal([]byte(output), &containers); err != nil {
		h.T.Fatalf("devhost list --json: %v\n%s", err, output)
	}
	all := map[string]string{}
	for _, one := range containers {
		all[one.Name] = one.Status
	}
	return all
}

// machines are the names that machinectl lists.
func machines(h *box.Host) []string {
	h.T.Helper()
	var names []string
	for line := range strings.Lines(h.Must("root", "machinectl list --no-legend")) {
		if fields := strings.Fields(line); len(fields) > 1 {
			names = append(names, fields[0])
		}
	}
	slices.Sort(names)
	return names
}

// TestDeveloper is a day of a developer: from another machine, over ssh,
// through sudo, over https.
func TestDeveloper(t *testing.T) {
	h := box.Start(t)
	h.Must("alice", "sudo devhost ensure demo --alias www "+demo)
	for _, address := range []string{box.Address4, box.Address6} {
		wantPage(h, client(h, address), "https://www.demo."+box.Domain+"/", pageOf("demo"))
	}
	if diff := cmp.Diff([]string{"demo"}, machines(h)); diff != "" {
		t.Errorf("machinectl lists other machines (-want +got):\n%s", diff)
	}
	for _, login := range []string{"alice", "bob", "mallory"} {
		if got := h.Must(login, "getent ahosts demo"); !strings.Contains(got, "10.") {
			t.Errorf("%s finds demo at %q", login, got)
		}
	}
	h.Fails("mallory", "sudo -n devhost list", 1, "a password is required")
	h.Fails("mallory", "/usr/local/bin/devhost list", 6, "root")
	// Her own key lets her in, by way of the box.
	jump := h.OutsideCommand(t.Context(), "ssh", "-F", h.SSHConfig(), "-i", h.Key("alice"), "-o", "StrictHostKeyChecking=accept-new",
		"-o", "UserKnownHostsFile="+t.TempDir()+"/known", "-o", "ProxyCommand=ssh -F "+h.SSHConfig()+" -W %h:%p alice@box", "developer@demo", "id -un; hostname")
	output, err := jump.CombinedOutput()
	if err != nil || string(output) != "developer\ndemo\n" {
		t.Errorf("ssh to the container says %q: %v", output, err)
	}
}

func TestReboot(t *testing.T) {
	needsFullRun(t)
	h := box.Start(t)
	for _, name := range []string{"runs", "stopped", "again"} {
		h.Must("alice", "sudo devhost ensure "+name+" --alias www "+demo)
	}
	h.Must("alice", "sudo devhost stop stopped")
	h.Must("bob", "sudo devhost restart again")
	addresses := h.Must("alice", "getent hosts runs stopped again")
	wanted := map[string]string{"runs": "running", "stopped": "stopped", "again": "running"}
	h.RestartBox()
	if diff := cmp.Diff(wanted, status(h)); diff != "" {
		t.Errorf("after the reboot of the host, containers are otherwise (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"again", "runs"}, machines(h)); diff != "" {
		t.Errorf("machinectl lists other machines (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(addresses, h.Must("mallory", "getent hosts runs stopped again")); diff != "" {
		t.Errorf("names resolve otherwise after the reboot (-want +got):\n%s", diff)
	}
	https := client(h, box.Address4)
	for _, name := range []string{"runs", "again"} {
		wantPage(h, https, "https://www."+name+"."+box.Domain+"/", pageOf(name))
	}
	h.Must("bob", "sudo devhost start stopped")
	wantPage(h, https, "https://www.stopped."+box.Domain+"/", pageOf("stopped"))
}

func TestServices(t *testing.T) {
	needsFullRun(t)
	h := box.Start(t)
	h.Must("alice", "sudo devhost ensure demo --alias www "+demo)
	https := client(h, box.Address4)
	page := "https://www.demo." + box.Domain + "/"
	t.Run("the ingress comes back when it is killed", func(t *testing.T) {
		h := h.With(t)
		wantPage(h, https, page, pageOf("demo"))
		before := h.Must("root", "systemctl show --property MainPID --value devhost-ingress")
		h.Must("root", "kill -9 "+before)
		eventually(t, func() string {
			if after := h.Must("root", "systemctl show --property MainPID --value devhost-ingress"); after == before || after == "0\n" {
				return "the ingress is not started again"
			}
			return ""
		})
		wantPage(h, https, page, pageOf("demo"))
	})
	t.Run("the ingress can do what it needs alone", func(t *testing.T) {
		h := h.With(t)
		pid := strings.TrimSpace(h.Must("root", "systemctl show --property MainPID --value devhost-ingress"))
		const bindService = 1 << 10
		for line := range strings.Lines(h.Must("root", "cat /proc/"+pid+"/status")) {
			if set, ok := strings.CutPrefix(line, "CapEff:"); ok {
				if mask, err := strconv.ParseUint(strings.TrimSpace(set), 16, 64); err != nil || mask != bindService {
					t.Errorf("the ingress has the capabilities %s", set)
				}
			}
		}
	})
	t.Run("exposure", func(t *testing.T) {
		h := h.With(t)
		for _, unit := range []string{"devhost-ingress.service", "devhost-boot.service", "devhost-expire.service", "devhost-refresh.service"} {
			// Systemd counts in tenths of what it prints.
			const most = 30
			result := h.Run("root", fmt.Sprintf("systemd-analyze security --no-pager --threshold=%d %s | tail -1; exit ${PIPESTATUS[0]}", most, unit))
			t.Log(strings.TrimSpace(result.Stdout))
			if result.Status != 0 {
				t.Errorf("%s is exposed more than %d tenths: %s%s", unit, most, result.Stdout, result.Stderr)
			}
		}
	})
	t.Run("the journal has the guest's console and the services", func(t *testing.T) {
		h := h.With(t)
		for _, unit := range []string{"devhost@demo.service", "devhost-ingress.service", "devhost-boot.service"} {
			if lines := h.Must("root", "journalctl --quiet --no-pager --lines 5 --unit "+unit); lines == "" {
				t.Errorf("the journal has nothing of %s", unit)
			}
		}
	})
	t.Run("the timer is set", func(t *testing.T) {
		h := h.With(t)
		if timers := h.Must("root", "systemctl list-timers --no-legend devhost-expire.timer"); !strings.Contains(timers, "devhost-expire.service") {
			t.Errorf("systemd has the timers %q", timers)
		}
	})
	t.Run("a start of the packet filter costs no container its network", func(t *testing.T) {
		h := h.With(t)
		h.Must("root", "nft flush ruleset && systemctl reload-or-restart devhost-boot.service")
		wantPage(h, https, page, pageOf("demo"))
		if tables := h.Must("root", "nft list tables"); !strings.Contains(tables, "devhost") {
			t.Errorf("the rules of devhost are not there again: %q", tables)
		}
		if diff := cmp.Diff(map[string]string{"demo": "running"}, status(h)); diff != "" {
			t.Errorf("containers are otherwise (-want +got):\n%s", diff)
		}
	})
}

// TestExpiryService shows that the unit's sandbox leaves what expiry needs.
func TestExpiryService(t *testing.T) {
	needsFullRun(t)
	h := box.Start(t)
	h.Must("root", `echo '{"version": 1, "expiry": {"warnAfter": "1s", "stopAfter": "2s", "deleteAfter": "3s"}}' >/etc/devhost-settings.json`)
	h.Must("alice", "sudo devhost ensure old "+minimal)
	h.Must("alice", "sudo devhost ensure other "+minimal)
	h.Must("alice", "sudo devhost keep other --for 7d")
	expire := func() {
		t.Helper()
		time.Sleep(4 * time.Second)
		h.Must("root", "systemctl start devhost-expire.service || { journalctl --unit devhost-expire.service --no-pager; false; }")
	}
	for range 6 {
		expire()
		if _, there := status(h)["old"]; !there {
			break
		}
	}
	if diff := cmp.Diff(map[string]string{"other": "running"}, status(h)); diff != "" {
		t.Fatalf("after its time, containers are otherwise (-want +got):\n%s\n%s", diff, h.Must("root", "journalctl --unit devhost-expire.service --no-pager"))
	}
	if archives := h.Must("root", "ls -R /var/lib/devhost/archives"); !strings.Contains(archives, "old") {
		t.Errorf("there is no archive of what was deleted: %q", archives)
	}
	h.Must("alice", "sudo devhost undelete old")
	if diff := cmp.Diff("running", status(h)["old"]); diff != "" {
		t.Errorf("it is not back (-want +got):\n%s", diff)
	}
}

func TestSecondDeveloper(t *testing.T) {
	needsFullRun(t)
	h := box.Start(t)
	h.Must("alice", "sudo devhost ensure demo "+minimal)
	if got := h.Must("bob", "sudo devhost exec demo -- id -un"); got != "root\n" {
		t.Errorf("bob's command says %q", got)
	}
	h.Must("bob", "sudo devhost restart demo")
	h.Must("bob", "sudo devhost ensure demo --alias www "+minimal)
	if result := h.Run("bob", "sudo devhost destroy demo"); result.Status == 0 || !strings.Contains(result.Stderr, "alice") || !strings.Contains(result.Stderr, "--force") {
		t.Errorf("bob destroys alice's container without --force: %+v", result)
	}
	h.Must("bob", "sudo devhost destroy demo --force")
	audit := h.Must("root", "cat /var/lib/devhost/audit.log")
	for _, wanted := range []string{`"login":"alice"`, `"login":"bob"`, `"destroy"`} {
		if !strings.Contains(audit, wanted) {
			t.Errorf("the audit log lacks %s:\n%s", wanted, audit)
		}
	}
	for _, line := range []string{"host install", "host uninstall --keep", "boot", "expire", "ingress"} {
		if result := h.Run("alice", "sudo devhost "+line); result.Status == 0 || !strings.Contains(result.Stderr, "alice") {
			t.Errorf("a developer may run %s: %+v", line, result)
		}
	}
}

func TestParallelEnsures(t *testing.T) {
	needsFullRun(t)
	h := box.Start(t)
	// The system is built once; then all of them come at once.
	h.Must("alice", "sudo devhost ensure first "+demo)
	const count = 20
	var names []string
	var group sync.WaitGroup
	results := make([]box.Result, count)
	for n := range count {
		name := fmt.Sprintf("p%d", n)
		names = append(names, name)
		login := []string{"alice", "bob"}[n%2]
		group.Go(func() { results[n] = h.Run(login, "sudo devhost ensure "+name+" --alias www "+demo) })
	}
	group.Wait()
	for n, result := range results {
		if result.Status != 0 {
			t.Errorf("ensure of %s ended with %d:\n%s", names[n], result.Status, result.Stderr)
		}
	}
	if t.Failed() {
		return
	}
	https := client(h, box.Address4)
	addresses := map[string]string{}
	for _, name := range names {
		wantPage(h, https, "https://www."+name+"."+box.Domain+"/", pageOf(name))
		for _, database := range []string{"ahostsv4", "ahostsv6"} {
			address, _, _ := strings.Cut(h.Must("mallory", "getent "+database+" "+name), " ")
			if other, taken := addresses[address]; taken || address == "" {
				t.Errorf("%s has the address %q, as %s", name, address, other)
			}
			addresses[address] = name
		}
		h.Must("mallory", "cat /etc/devhost/"+name+".json >/dev/null")
	}
	if got := len(machines(h)); got != count+1 {
		t.Errorf("machinectl lists %d machines, not %d", got, count+1)
	}
}

func TestInstallation(t *testing.T) {
	needsFullRun(t)
	h := box.StartBare(t)
	everything := func() string {
		return h.Must("root", "find /etc /usr/local -not -path '/etc/devhost*' -not -name '*-' -not -path '/etc/.pwd.lock' -printf '%p %M %u:%g %l\n' | sort; sha256sum /etc/passwd /etc/group")
	}
	before := everything()
	h.Must("root", "/root/devhost host install --dry-run")
	if diff := cmp.Diff(before, everything()); diff != "" {
		t.Errorf("--dry-run changes something (-want +got):\n%s", diff)
	}
	h.Fails("root", "/root/devhost host status", 6)
	if err := h.Install(context.Background()); err != nil {
		t.Fatal(err)
	}
	installed := everything()
	if got := h.Must("root", "devhost host install"); got != "everything is installed already\n" {
		t.Errorf("the second installation says %q", got)
	}
	if diff := cmp.Diff(installed, everything()); diff != "" {
		t.Errorf("the second installation changes something (-want +got):\n%s", diff)
	}
	h.Must("root", "devhost host status")
	h.Must("root", "echo >>/etc/systemd/system/devhost-ingress.service; rm /usr/local/bin/fc-devhost")
	result := h.Fails("root", "devhost host status", 6)
	for _, wanted := range []string{"differs    /etc/systemd/system/devhost-ingress.service", "missing    /usr/local/bin/fc-devhost"} {
		if !strings.Contains(result.Stdout, wanted) {
			t.Errorf("status does not say %q but:\n%s", wanted, result.Stdout)
		}
	}
	h.Must("root", "devhost host install")
	h.Must("root", "devhost host status")

	h.Must("alice", "sudo devhost ensure demo "+minimal)
	h.Fails("root", "devhost host uninstall", 1, "demo", "--keep")
	h.Must("root", "/root/devhost host uninstall --keep")
	// What is published about containers stays with them.
	if got := h.Must("root", "find /etc -path '/etc/devhost*' -not -path '/etc/devhost/*'"); got != "/etc/devhost\n" {
		t.Errorf("after uninstall there are still %q", got)
	}
	if diff := cmp.Diff(before, everything()); diff != "" {
		t.Errorf("after uninstall, files are otherwise than before install (-want +got):\n%s", diff)
	}
	if got := machines(h); len(got) > 0 {
		t.Errorf("there are still machines: %v", got)
	}
	if err := h.Install(context.Background()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"demo": "running"}, status(h)); diff != "" {
		t.Errorf("what was kept is not back (-want +got):\n%s", diff)
	}
}

// TestKilled is about the harness: what a box is made of is gone when its
// process was killed, with the start of the next one.
func TestKilled(t *testing.T) {
	needsFullRun(t)
	folder, program := t.TempDir()+"/box", t.TempDir()+"/host-in-a-box"
	build := exec.Command("go", "build", "-o", program, "devhost/tests/box/host-in-a-box")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	var said strings.Builder
	command := exec.Command(program, "-bare", "-folder", folder, "-program", program)
	command.Dir, command.Stderr = box.Sources(), &said
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = command.Wait()
	}()
	defer func() {
		_ = command.Process.Kill()
		<-ended
	}()
	eventually(t, func() string {
		if _, err := os.Stat(folder + "/READY"); err != nil {
			return "the box is not ready: " + said.String()
		}
		return ""
	})
	if err := command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
	id := box.IDOf(folder)
	if left := box.Leftovers(id, folder); len(left) == 0 {
		t.Fatal("a killed box leaves nothing: this test tests nothing")
	}
	box.StartBare(t)
	if left := box.Leftovers(id, folder); len(left) > 0 {
		t.Errorf("the killed box has left %v", left)
	}
}
