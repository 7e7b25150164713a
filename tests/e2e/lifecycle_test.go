package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"devhost/internal/network"
	"devhost/internal/registry"
)

// TestContainer looks at one container from all sides. Making one takes
// seconds, so the subtests share it; each leaves it as it was.
func TestContainer(t *testing.T) {
	h := newHost(t)
	channel := copiedChannel(t)
	created := h.run("ensure", "trial", "--channel", channel, "--provision", example(t, "demo"), "--alias", "www")
	if created.status != 0 {
		t.Fatalf("ensure ended with %d:\n%s", created.status, created.stderr)
	}
	for _, test := range []struct {
		name string
		run  func(t *testing.T, h *host)
	}{
		{"what ensure says", func(t *testing.T, _ *host) { checkCreated(t, created) }},
		{"ssh", checkSSH},
		{"ssh: a changed host key", checkChangedHostKey},
		{"names", checkNames},
		{"exec", checkExec},
		{"exec: nothing of the host", checkExecIsClean},
		{"exec: signals", checkExecSignals},
		{"shell: a terminal", checkTerminal},
		{"list, status and ip", checkLooks},
		{"logs", checkLogs},
		{"an unchanged ensure starts nothing", func(t *testing.T, h *host) { checkUnchanged(t, h, channel) }},
		{"aliases", checkAliases},
		{"limits", checkLimits},
		{"update, diff and rollback", checkGenerations},
		{"a second container", func(t *testing.T, h *host) { checkSecond(t, h, channel) }},
		{"stop and start", checkStopAndStart},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, h.with(t)) })
	}
	if h.must("destroy", "trial") != "trial: destroyed\n" {
		t.Error("destroy says something else")
	}
	h.fails(4, []string{"there is no container trial"}, "status", "trial")
	h.fails(4, []string{"there is no container trial"}, "destroy", "trial")
	h.must("destroy", "trial", "--missing-ok")
	// The host looks at the end whether anything is left.
}

// copiedChannel is channels/offline in a folder of its own, where nobody
// changes a file or the state of a git work tree meanwhile.
func copiedChannel(t *testing.T) string {
	t.Helper()
	channel := filepath.Join(t.TempDir(), "channels/offline")
	if err := os.CopyFS(channel, os.DirFS(offline(t))); err != nil {
		t.Fatal(err)
	}
	return channel
}

func checkCreated(t *testing.T, created result) {
	if !regexp.MustCompile(`\Atrial: created \([0-9.]+m?s\)\n\z`).MatchString(created.stdout) {
		t.Errorf("standard output is %q", created.stdout)
	}
	position := 0
	for _, phase := range []string{"channel: ", "start: ", "ready: ", "services: "} {
		found := strings.Index(created.stderr[position:], phase)
		if found < 0 {
			t.Fatalf("no %q, or in another order, in:\n%s", phase, created.stderr)
		}
		position += found
	}
	if strings.ContainsRune(created.stderr, '\x1b') {
		t.Errorf("there are control sequences on a standard error that is no terminal: %q", created.stderr)
	}
}

// listed is what list and status say with --json.
type listed struct {
	Name, Status, IPv4, IPv6, Owner, System, Detail string
	Aliases                                         []string
	Limits                                          registry.Limits
	StartedAt, LastDeployment                       time.Time
	Units                                           []struct{ Name, State string }
}

func (h *host) status(name string) listed {
	h.t.Helper()
	var status listed
	h.decode(&status, "status", name, "--json")
	return status
}

func (h *host) ip(name string) string {
	h.t.Helper()
	return strings.TrimSpace(h.must("ip", name))
}

// inside runs a shell command in a container and returns its output.
func (h *host) inside(name, script string) string {
	h.t.Helper()
	return strings.TrimSpace(h.must("exec", name, "--", "sh", "-c", script))
}

func checkNames(t *testing.T, h *host) {
	ip := h.ip("trial")
	output, err := exec.Command("getent", "ahostsv4", "trial").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(output), ip+" ") {
		t.Errorf("on the host, trial is %s (%v), not %s", output, err, ip)
	}
	for _, name := range []string{"trial", "$(hostname)"} {
		if found := h.inside("trial", "getent ahostsv4 "+name); !strings.HasPrefix(found, ip+" ") {
			t.Errorf("inside, %s is %q, not the routable %s", name, found, ip)
		}
	}
	if found := h.inside("trial", "getent ahostsv4 localhost"); !strings.HasPrefix(found, "127.0.0.1 ") {
		t.Errorf("inside, localhost is %q", found)
	}
	if found := h.inside("trial", "cat /proc/sys/kernel/hostname"); found != "trial" {
		t.Errorf("the host name inside is %q", found)
	}
	resolvers, err := network.ResolvConf()
	if err != nil {
		t.Fatal(err)
	}
	if found := h.inside("trial", "cat /etc/resolv.conf"); found != strings.TrimSpace(resolvers.Content) {
		t.Errorf("the resolvers inside are\n%s\nnot the host's\n%s", found, resolvers.Content)
	}
}

func checkLooks(t *testing.T, h *host) {
	var all []listed
	h.decode(&all, "list", "--json")
	if len(all) != 1 || all[0].Name != "trial" || all[0].Status != "running" || len(all[0].Aliases) != 1 || all[0].Aliases[0] != "www" {
		t.Errorf("list --json says %+v", all)
	}
	one := h.status("trial")
	if one.Status != "running" || one.IPv4 != h.ip("trial") || one.System == "" || time.Since(one.StartedAt) > time.Hour || len(one.Units) != 0 {
		t.Errorf("status --json says %+v", one)
	}
	table := h.must("list")
	if !regexp.MustCompile(`(?m)^NAME +STATUS +ADDRESS +ALIASES +OWNER +DEPLOYED +EXPIRES$`).MatchString(table) ||
		!regexp.MustCompile(`(?m)^trial +running +`+regexp.QuoteMeta(one.IPv4)+` +www +`+regexp.QuoteMeta(one.Owner)+` +.* ago +stop in 7 days$`).MatchString(table) {
		t.Errorf("list says\n%s", table)
	}
	if names := h.must("list", "--names"); names != "trial\n" {
		t.Errorf("list --names says %q", names)
	}
	text := h.must("status", "trial")
	for _, line := range []string{`name +trial`, `status +running`, `addresses +` + regexp.QuoteMeta(one.IPv4), `aliases +www`, `channel +/.*/channels/offline`, `system +/nix/store/`, `limits +none`} {
		if !regexp.MustCompile(`(?m)^` + line).MatchString(text) {
			t.Errorf("status has no line %q:\n%s", line, text)
		}
	}
	var addresses struct{ IPv4, IPv6 string }
	h.decode(&addresses, "ip", "trial", "--json")
	if addresses.IPv4 != one.IPv4 || addresses.IPv6 != one.IPv6 || strings.TrimSpace(h.must("ip", "-6", "trial")) != one.IPv6 {
		t.Errorf("ip says %+v, status %s and %s", addresses, one.IPv4, one.IPv6)
	}
	// What is published on the host for the ingress and others is the record.
	if info, err := os.Stat(h.layout.Containers()); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder of the containers has mode %v (%v)", info.Mode(), err)
	}
}

func checkLogs(t *testing.T, h *host) {
	h.inside("trial", "logger -t trial first-line")
	waitFor(t, "the journal has the line", func() bool { return strings.Contains(h.must("logs", "trial", "-n", "50"), "first-line") })
	if lines := strings.Count(h.must("logs", "trial", "-n", "3"), "\n"); lines != 3 {
		t.Errorf("logs -n 3 prints %d lines", lines)
	}
	if unit := h.must("logs", "trial", "--unit", "nginx.service", "-n", "0"); !strings.Contains(unit, "nginx") || strings.Contains(unit, "first-line") {
		t.Errorf("logs --unit nginx.service says\n%s", unit)
	}
	if console := h.must("logs", "trial", "--console", "-n", "0"); !strings.Contains(console, "starting /nix/store/") {
		t.Errorf("logs --console says\n%s", console)
	}

	follow := h.command("logs", "-f", "-n", "1", "trial")
	output := &lines{}
	follow.Stdout = output
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "logs -f has begun", func() bool { return output.text() != "" })
	h.inside("trial", "logger -t trial second-line")
	waitFor(t, "logs -f shows a new line", func() bool { return strings.Contains(output.text(), "second-line") })
	if err := follow.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := follow.Wait(); err == nil {
		t.Error("an interrupted logs -f ends with exit code 0, as if the log had ended")
	}
}

// lines collects output that is looked at while it is written.
type lines struct {
	mutex sync.Mutex
	data  []byte
}

func (l *lines) Write(data []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.data = append(l.data, data...)
	return len(data), nil
}

func (l *lines) text() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return string(l.data)
}

// waitFor waits until a condition holds. The limit is for tests that fail.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	const limit, poll = 5 * time.Minute, 20 * time.Millisecond
	for deadline := time.Now().Add(limit); !holds(); time.Sleep(poll) {
		if time.Now().After(deadline) {
			t.Fatalf("this did not come true within %s: %s", limit, what)
		}
	}
}

// poisoned is a PATH of one folder, whose programs write down that they were
// called. It returns the PATH and what was called until then.
func poisoned(t *testing.T, names ...string) (path string, called func() string) {
	t.Helper()
	folder := t.TempDir()
	record := filepath.Join(folder, "called")
	for _, name := range names {
		script := fmt.Sprintf("#!/bin/sh\necho \"%s $*\" >>%s\nexit 93\n", name, record)
		if err := os.WriteFile(filepath.Join(folder, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return folder, func() string {
		data, _ := os.ReadFile(record)
		return string(data)
	}
}

// everyProgram are the programs that devhost knows how to run.
var everyProgram = []string{
	"nix", "nix-build", "nix-daemon", "nix-env", "nix-hash", "nix-instantiate", "nix-prefetch-url", "nix-store",
	"systemd-nspawn", "nsenter", "ssh", "ssh-keygen", "git", "prlimit", "tar", "cat", "setpriv", "sh", "ip", "nft", "mount", "sysctl",
}

func checkUnchanged(t *testing.T, h *host, channel string) {
	path, called := poisoned(t, everyProgram...)
	poisonedHost := h.with(t)
	// Nothing else is on PATH: no program that is not in the list runs either.
	poisonedHost.env = []string{"PATH=" + path}
	before := h.status("trial")
	same := []string{"ensure", "trial", "--channel", channel, "--provision", example(t, "demo"), "--alias", "www"}
	for _, args := range [][]string{{"ensure", "trial"}, same} {
		if output := poisonedHost.must(args...); !strings.HasPrefix(output, "trial: unchanged (") {
			t.Errorf("%v says %q", args, output)
		}
	}
	var result struct {
		Unchanged bool
		Container registry.Container
	}
	poisonedHost.decode(&result, "ensure", "trial", "--json")
	if !result.Unchanged || !result.Container.LastDeployment.After(before.LastDeployment) {
		t.Errorf("ensure --json says %+v; the deployment before was at %s", result, before.LastDeployment)
	}
	if calls := called(); calls != "" {
		t.Errorf("an unchanged ensure called:\n%s", calls)
	}
	// The control: when there is something to do, the poison is found.
	if result := poisonedHost.run("ensure", "trial", "--provision", example(t, "redis")); result.status == 0 || called() == "" {
		t.Errorf("the control ended with %d and called %q", result.status, called())
	}
	if after := h.status("trial"); after.System != before.System || after.Status != "running" {
		t.Errorf("the failed control changed the container: %+v", after)
	}
}

func checkAliases(t *testing.T, h *host) {
	before := h.status("trial").StartedAt
	path, called := poisoned(t, everyProgram...)
	quick := h.with(t)
	quick.env = []string{"PATH=" + path}
	quick.must("ensure", "trial", "--alias", "shop", "--alias", "api")
	if aliases := strings.Join(h.status("trial").Aliases, " "); aliases != "shop api" {
		t.Errorf("the aliases are %q", aliases)
	}
	quick.must("ensure", "trial", "--alias", "")
	if aliases := h.status("trial").Aliases; len(aliases) != 0 {
		t.Errorf("the aliases are %q", aliases)
	}
	quick.must("ensure", "trial", "--alias", "www")
	h.fails(2, []string{"alias www is given twice"}, "ensure", "trial", "--alias", "www", "--alias", "www")
	if after := h.status("trial"); strings.Join(after.Aliases, " ") != "www" || !after.StartedAt.Equal(before) {
		t.Errorf("the aliases are %q; started at %s, before at %s", after.Aliases, after.StartedAt, before)
	}
	if calls := called(); calls != "" {
		t.Errorf("a change of aliases called:\n%s", calls)
	}
}

// generation is what generations says with --json.
type generation struct {
	Number  int
	Path    string
	Current bool
}

func (h *host) generations(name string) (all []generation, current int) {
	h.t.Helper()
	h.decode(&all, "generations", name, "--json")
	for _, one := range all {
		if one.Current {
			current = one.Number
		}
	}
	return all, current
}

// withFile is a provision that adds one small file to another.
func withFile(t *testing.T, base, name, text string) string {
	t.Helper()
	return provision(t, fmt.Sprintf("{ pkgs, ... }: { imports = [ (%s) ];\n  environment.etc.%q.text = %q;\n  environment.systemPackages = [ pkgs.jq ];\n}\n", base, name, text))
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func checkGenerations(t *testing.T, h *host) {
	sql := func(query string) string {
		return strings.TrimSpace(h.must("exec", "--user", "s-dev", "trial", "--", "psql", "-Atc", query))
	}
	sql("CREATE TABLE survivors (n int); INSERT INTO survivors VALUES (7)")
	h.inside("trial", "echo kept >/srv/s-dev/file")
	before := h.status("trial")
	if output := h.fails(1, []string{"has no generation before its current one"}, "rollback", "trial"); output.stdout != "" {
		t.Errorf("rollback says %q", output.stdout)
	}
	h.fails(1, []string{"has no generation before its current one"}, "diff", "trial")

	text := readFile(t, filepath.Join(example(t, "demo"), "provision.nix"))
	output := h.must("ensure", "trial", "--provision", withFile(t, text, "extra", "one\n"))
	if !strings.HasPrefix(output, "trial: switched to its new system (") {
		t.Errorf("ensure says %q", output)
	}
	after := h.status("trial")
	if after.System == before.System || !after.StartedAt.Equal(before.StartedAt) {
		t.Errorf("after the switch: %+v, before: %+v", after, before)
	}
	if found := h.inside("trial", "cat /etc/extra; readlink -f /run/current-system"); found != "one\n"+after.System {
		t.Errorf("inside, there is %q", found)
	}
	if all, current := h.generations("trial"); len(all) != 2 || current != 2 || all[1].Path != after.System || all[0].Path != before.System {
		t.Errorf("the generations are %+v", all)
	}
	if table := h.must("generations", "trial"); !regexp.MustCompile(`(?m)^2 +\S+ \S+ +/nix/store/\S+ +\(current\)$`).MatchString(table) {
		t.Errorf("generations says\n%s", table)
	}

	if text := h.must("diff", "trial"); !strings.HasPrefix(text, "generation 1 -> 2\n") || !regexp.MustCompile(`(?m)^jq .*\+`).MatchString(text) || !strings.Contains(text, "total") {
		t.Errorf("diff says\n%s", text)
	}
	if text := h.must("diff", "trial", "2", "1"); !strings.HasPrefix(text, "generation 2 -> 1\n") || !regexp.MustCompile(`(?m)^jq .*-`).MatchString(text) {
		t.Errorf("diff 2 1 says\n%s", text)
	}
	var changes []any
	h.decode(&changes, "diff", "trial", "1", "1", "--json")
	if len(changes) != 0 {
		t.Errorf("a generation differs from itself: %v", changes)
	}
	h.fails(2, []string{"has no generation 9"}, "diff", "trial", "9")

	if output := h.must("rollback", "trial"); output != "trial: back at generation 1\n" {
		t.Errorf("rollback says %q", output)
	}
	if _, current := h.generations("trial"); current != 1 || h.status("trial").System != before.System {
		t.Errorf("after rollback: generation %d, %+v", current, h.status("trial"))
	}
	if found := h.inside("trial", "ls /etc/extra 2>/dev/null; readlink -f /run/current-system"); found != before.System {
		t.Errorf("after rollback there is %q inside", found)
	}
	h.must("rollback", "trial", "--to", "2")
	if found := h.inside("trial", "cat /etc/extra"); found != "one" {
		t.Errorf("after rollback --to 2, /etc/extra holds %q", found)
	}
	h.fails(1, []string{"has no generation 9", "devhost generations trial"}, "rollback", "trial", "--to", "9")
	if rows := sql("SELECT n FROM survivors"); rows != "7" {
		t.Errorf("the database's row is %q now", rows)
	}
	if kept := h.inside("trial", "cat /srv/s-dev/file"); kept != "kept" {
		t.Errorf("the file holds %q now", kept)
	}
	// What ensure is asked for, it builds, also after a rollback.
	h.must("ensure", "trial", "--provision", example(t, "demo"))
	if now := h.status("trial").System; now != before.System {
		t.Errorf("the system is %s, not %s", now, before.System)
	}
}

// watched puts a program before the real one that writes down how it was
// called.
func watched(t *testing.T, folder, record, name string) {
	t.Helper()
	real, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\necho \"%s $*\" >>%s\nexec %s \"$@\"\n", name, record, real)
	if err := os.WriteFile(filepath.Join(folder, name), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
}

func checkSecond(t *testing.T, h *host, channel string) {
	folder := t.TempDir()
	record := filepath.Join(folder, "called")
	for _, name := range []string{"nix", "nix-build", "nix-env", "nix-instantiate", "nix-store"} {
		watched(t, folder, record, name)
	}
	second := h.with(t)
	second.env = []string{"PATH=" + folder + ":" + os.Getenv("PATH")}
	second.must("ensure", "second", "--channel", channel, "--provision", example(t, "demo"))
	// Without a call there is no record.
	calls, _ := os.ReadFile(record)
	// nix-store --realise of a path that is there makes a gc root; that of a
	// derivation would build.
	if regexp.MustCompile(`(?m)^(nix|nix-build|nix-instantiate) |^nix-store .*--realise .*\.drv`).Match(calls) {
		t.Errorf("a second container of the same channel and provision evaluated or built:\n%s", calls)
	}
	if h.status("second").System != h.status("trial").System {
		t.Error("the two containers do not share their system")
	}
	// The control: with another provision, an evaluation is seen.
	second.must("ensure", "second", "--provision", withFile(t, "{ ... }: { }", "control", "x"))
	if calls := readFile(t, record); !regexp.MustCompile(`(?m)^nix-instantiate |^nix `).MatchString(calls) {
		t.Errorf("the control saw no evaluation:\n%s", calls)
	}
	if one, other := h.ip("trial"), h.ip("second"); one == other {
		t.Errorf("both have the address %s", one)
	}
	if found := h.inside("second", "hostname"); found != "second" {
		t.Errorf("the second container calls itself %q", found)
	}
	h.must("destroy", "second")
	if names := h.must("list", "--names"); names != "trial\n" {
		t.Errorf("after destroy, list --names says %q", names)
	}
	if output, err := exec.Command("getent", "hosts", "second").CombinedOutput(); err == nil {
		t.Errorf("the destroyed container's name still resolves: %s", output)
	}
}

func checkStopAndStart(t *testing.T, h *host) {
	h.inside("trial", "echo kept >/root/file; echo lost >/run/file")
	key := h.inside("trial", "cat /run/devhost/ssh/*.pub 2>/dev/null | head -n 1")
	ip := h.ip("trial")
	if output := h.must("stop", "trial"); output != "trial: stopped\n" {
		t.Errorf("stop says %q", output)
	}
	if output := h.must("stop", "trial"); output != "trial: was not running\n" {
		t.Errorf("a second stop says %q", output)
	}
	if status := h.status("trial"); status.Status != "stopped" || status.Detail != "" {
		t.Errorf("status says %+v", status)
	}
	// The name of a stopped container resolves: the ingress may wake it.
	if output, err := exec.Command("getent", "ahostsv4", "trial").CombinedOutput(); err != nil || !strings.HasPrefix(string(output), ip+" ") {
		t.Errorf("the name of a stopped container is %s (%v)", output, err)
	}
	const hint = "devhost start trial"
	h.fails(125, []string{"container trial is not running", hint}, "exec", "trial", "--", "true")
	h.fails(125, []string{"container trial is not running", hint}, "shell", "trial")
	h.fails(1, []string{"container trial is stopped", hint}, "logs", "trial", "--unit", "nginx.service")
	logs := h.run("logs", "trial")
	if logs.status != 0 || !strings.Contains(logs.stderr, "container trial is stopped: this is its console log") || !strings.Contains(logs.stdout, "Powering off") {
		t.Errorf("logs of a stopped container ended with %d:\n%s%s", logs.status, logs.stderr, logs.stdout)
	}
	if output := h.must("start", "trial"); output != "trial: started\n" {
		t.Errorf("start says %q", output)
	}
	if output := h.must("start", "trial"); output != "trial: runs already\n" {
		t.Errorf("a second start says %q", output)
	}
	if found := h.inside("trial", "cat /root/file; ls /run/file 2>/dev/null; true"); found != "kept" {
		t.Errorf("after stop and start there is %q", found)
	}
	started := h.status("trial").StartedAt
	if output := h.must("restart", "trial"); output != "trial: restarted\n" {
		t.Errorf("restart says %q", output)
	}
	after := h.status("trial")
	if after.Status != "running" || !after.StartedAt.After(started) || after.IPv4 != ip {
		t.Errorf("after restart: %+v", after)
	}
	if found := h.inside("trial", "cat /root/file; cat /run/devhost/ssh/*.pub 2>/dev/null | head -n 1"); found != strings.TrimSpace("kept\n"+key) {
		t.Errorf("after restart there is %q", found)
	}
	// ensure starts a stopped container, and says so.
	h.must("stop", "trial")
	if output := h.must("ensure", "trial"); !strings.HasPrefix(output, "trial: started (") {
		t.Errorf("ensure of a stopped container says %q", output)
	}
}

// TestLongAndDigitFirstNames makes containers with names that other tools
// find hard.
func TestLongAndDigitFirstNames(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	long := strings.Repeat("a1b2c3d4e5", 6) + "xyz" // 63 characters
	other := strings.Repeat("a1b2c3d4e5", 6) + "xyw"
	for _, name := range []string{long, other, "0badc0ffee1", "1a2b3c4d5e6"} {
		t.Run(name, func(t *testing.T) {
			h := h.with(t)
			h.must("ensure", name, "--channel", offline(t), "--provision", example(t, "minimal"), "--alias", "www")
			ip := h.ip(name)
			if output, err := exec.Command("getent", "ahostsv4", name).CombinedOutput(); err != nil || !strings.HasPrefix(string(output), ip+" ") {
				t.Errorf("on the host, %s is %s (%v)", name, output, err)
			}
			if found := h.inside(name, "hostname; getent ahostsv4 $(hostname) | head -n 1"); !strings.HasPrefix(found, name+"\n"+ip+" ") {
				t.Errorf("inside, the name is %q", found)
			}
			if output := h.must("ssh", name, "hostname"); output != name+"\n" {
				t.Errorf("ssh reaches %q", output)
			}
			if output := h.must("restart", name); output != name+": restarted\n" {
				t.Errorf("restart says %q", output)
			}
		})
	}
	addresses := map[string]bool{}
	var all []listed
	h.decode(&all, "list", "--json")
	for _, one := range all {
		addresses[one.IPv4] = true
	}
	if len(all) != 4 || len(addresses) != 4 {
		t.Errorf("%d containers have %d addresses", len(all), len(addresses))
	}
	h.must("destroy", long, "0badc0ffee1", "1a2b3c4d5e6", other)
}

// TestPowerOffAndReboot: reboot and poweroff inside behave as on a server.
func TestPowerOffAndReboot(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	h.must("ensure", "box", "--channel", offline(t), "--provision", example(t, "minimal"))
	h.inside("box", "echo kept >/root/file")
	before := h.status("box").StartedAt

	// ssh loses its connection, or not: both are right.
	asked := h.run("ssh", "box", "sudo", "systemctl", "reboot")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("asking for the reboot ended with %d: %s%s\n%s", asked.status, asked.stdout, asked.stderr, h.run("logs", "box", "--console").stdout)
		}
	})
	waitFor(t, "the guest has rebooted", func() bool {
		status := h.status("box")
		return status.StartedAt.After(before) && status.Status == "running"
	})
	waitFor(t, "its sshd answers", func() bool { return h.run("ssh", "box", "true").status == 0 })
	if found := h.inside("box", "cat /root/file"); found != "kept" {
		t.Errorf("after the reboot the file holds %q", found)
	}
	if output := h.must("ensure", "box"); !strings.HasPrefix(output, "box: unchanged (") {
		t.Errorf("after the reboot, ensure says %q", output)
	}

	h.run("exec", "box", "--", "systemctl", "poweroff")
	waitFor(t, "the guest is off", func() bool { return h.status("box").Status == "stopped" })
	if status := h.status("box"); status.Detail != "" {
		t.Errorf("a guest that powered off is explained: %q", status.Detail)
	}
	h.fails(125, []string{"devhost start box"}, "exec", "box", "--", "true")
	if output := h.must("start", "box"); output != "box: started\n" {
		t.Errorf("start says %q", output)
	}
	if found := h.inside("box", "cat /root/file"); found != "kept" {
		t.Errorf("after the power-off the file holds %q", found)
	}
}

// TestPinWithoutNetwork: a pinned channel needs its source only once.
func TestPinWithoutNetwork(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	channel := copiedChannel(t)
	h.must("ensure", "pinned", "--channel", channel, "--provision", example(t, "minimal"))
	if err := os.RemoveAll(channel); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"ensure", "pinned"}, {"ensure", "pinned", "--channel", channel}} {
		if output := h.must(args...); !strings.HasPrefix(output, "pinned: unchanged (") {
			t.Errorf("%v says %q", args, output)
		}
	}
	if output := h.must("ensure", "pinned", "--provision", withFile(t, "{ ... }: { }", "extra", "one")); !strings.HasPrefix(output, "pinned: switched") {
		t.Errorf("without its channel's source, ensure says %q", output)
	}
	// The control: the source is needed where it is asked for.
	h.fails(1, []string{channel}, "ensure", "pinned", "--update-channel")
	if found := h.inside("pinned", "cat /etc/extra"); found != "one" {
		t.Errorf("/etc/extra holds %q", found)
	}
}

// TestProvisionComesAndGoes: the snapshot that belongs to the record is used,
// whatever was tried meanwhile.
func TestProvisionComesAndGoes(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	file := func() string { return h.inside("snap", "cat /etc/extra 2>/dev/null || echo none") }
	one := withFile(t, "{ ... }: { }", "extra", "one")
	h.must("ensure", "snap", "--channel", offline(t), "--provision", one)
	first := h.status("snap").System
	h.fails(1, []string{"does-not-exist"}, "ensure", "snap", "--provision", provision(t, `{ environment.etc.extra.source = throw "does-not-exist"; }`))
	if err := os.Remove(one); err != nil {
		t.Fatal(err)
	}
	// The recorded snapshot is built again: the failed one has left no trace.
	if err := os.RemoveAll(h.layout.Systems()); err != nil {
		t.Fatal(err)
	}
	h.must("ensure", "snap", "--update-channel")
	if now := h.status("snap").System; now != first || file() != "one" {
		t.Errorf("the system is %s with %q, not %s", now, file(), first)
	}
	h.must("ensure", "snap", "--provision", "")
	if got := file(); got != "none" {
		t.Errorf("without a provision, /etc/extra holds %q", got)
	}
	left, err := os.ReadDir(h.layout.Provision("snap"))
	if err != nil || len(left) != 0 {
		t.Errorf("snapshots are left: %v (%v)", left, err)
	}
	tmp, err := os.ReadDir(h.layout.Temporary())
	if err != nil || len(tmp) != 0 {
		t.Errorf("the temporary folder holds %v (%v)", tmp, err)
	}
	var record registry.Container
	if err := json.Unmarshal([]byte(readFile(t, h.layout.Record("snap"))), &record); err != nil || record.ProvisionHash != "" {
		t.Errorf("the record has provision %q (%v)", record.ProvisionHash, err)
	}
}
