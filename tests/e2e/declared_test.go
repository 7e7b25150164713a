package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"devhost/internal/registry"
)

// declare writes the file with the declared containers of a host.
func (h *host) declare(containers ...map[string]any) {
	h.t.Helper()
	if containers == nil {
		containers = []map[string]any{}
	}
	text, err := json.Marshal(map[string]any{"version": 1, "containers": containers})
	if err != nil {
		h.t.Fatal(err)
	}
	if err := os.MkdirAll(h.layout.State, 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(h.layout.Declarations(), text, 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// apply makes the declared containers, and returns what became of each.
func (h *host) apply() map[string]string {
	h.t.Helper()
	var rows []struct{ Name, Result string }
	h.decode(&rows, "host", "apply", "--json")
	results := map[string]string{}
	for _, row := range rows {
		results[row.Name] = row.Result
	}
	return results
}

// wantApplied applies and compares what became of each container, as NAME: RESULT.
func (h *host) wantApplied(want ...string) {
	h.t.Helper()
	got := h.apply()
	if len(got) != len(want) {
		h.t.Errorf("applied %v, not %v", got, want)
	}
	for _, line := range want {
		name, result, _ := strings.Cut(line, ": ")
		if got[name] != result {
			h.t.Errorf("%s was %q, not %q", name, got[name], result)
		}
	}
}

// newDeclaringHost removes its declared containers at the end.
func newDeclaringHost(t *testing.T) *host {
	t.Helper()
	h := newHost(t)
	t.Cleanup(func() {
		h.declare()
		if result := h.run("host", "apply"); result.status != 0 {
			t.Errorf("host apply of nothing ended with %d:\n%s", result.status, result.stderr)
		}
		if result := h.at(31*day, "prune"); result.status != 0 {
			t.Errorf("prune ended with %d:\n%s", result.status, result.stderr)
		}
	})
	return h
}

// TestDeclared: containers that the host's configuration declares are made,
// changed in place, kept from people, and removed with an archive.
func TestDeclared(t *testing.T) {
	needsFullRun(t)
	h := newDeclaringHost(t)
	instance := h.layout.Instance()
	web, idle, taken := "web"+instance, "idle"+instance, "mine"+instance
	minimal := filepath.Join(example(t, "minimal"), "provision.nix")
	one, two := withFile(t, readFile(t, minimal), "extra", "one"), withFile(t, readFile(t, minimal), "extra", "two")

	declared := map[string]any{
		"name": web, "channel": offline(t), "provision": one, "aliases": []string{"www"},
		"limits": map[string]any{"memory": "1G", "tasks": 2048},
	}
	stopped := map[string]any{"name": idle, "channel": offline(t), "provision": one, "autoStart": false, "expiry": true}
	h.declare(declared, stopped)
	h.wantApplied(web+": created", idle+": created")
	if status := h.status(web); status.Status != "running" || h.status(idle).Status != "stopped" {
		t.Errorf("%s is %s, %s is %s", web, status.Status, idle, h.status(idle).Status)
	}
	if record := h.record(web); record.Limits.MemoryBytes != 1<<30 || record.Limits.Tasks != 2048 || !record.Expiry.Off || record.Aliases[0] != "www" {
		t.Errorf("the record is %+v", record)
	}
	if h.record(idle).Expiry.Off {
		t.Errorf("%s never expires", idle)
	}

	t.Run("unchanged", func(t *testing.T) {
		h := h.with(t)
		before := h.status(web).StartedAt
		h.wantApplied(web+": unchanged", idle+": unchanged")
		if after := h.status(web).StartedAt; !after.Equal(before) {
			t.Errorf("it was started again: %v, then %v", before, after)
		}
	})
	t.Run("in place", func(t *testing.T) {
		h := h.with(t)
		before := h.status(web).StartedAt
		h.inside(web, "echo kept >/root/file")
		declared["provision"], declared["limits"] = two, map[string]any{}
		stopped["provision"] = two
		h.declare(declared, stopped)
		h.wantApplied(web+": switched to its new system", idle+": updated")
		if found := h.inside(web, "cat /etc/extra /root/file"); found != "twokept" {
			t.Errorf("inside: %q", found)
		}
		if after := h.status(web).StartedAt; !after.Equal(before) {
			t.Errorf("it was started again: %v, then %v", before, after)
		}
		if limits := h.record(web).Limits; limits != (registry.Limits{}) {
			t.Errorf("its limits are %+v", limits)
		}
		if status := h.status(idle).Status; status != "stopped" {
			t.Errorf("%s is %s", idle, status)
		}
		h.must("start", idle)
		if found := h.inside(idle, "cat /etc/extra"); found != "two" {
			t.Errorf("inside: %q", found)
		}
		h.must("stop", idle)
	})
	t.Run("people", func(t *testing.T) {
		h := h.with(t)
		says := []string{"declared by the configuration of this host", h.layout.Declarations()}
		for _, command := range [][]string{
			{"destroy", web}, {"destroy", "--force", web}, {"destroy", "--archive", web}, {"rename", web, "other" + instance}, {"ensure", web, "--memory", "2G"}, {"ensure", web},
		} {
			h.fails(7, says, command...)
		}
		// Who stops it means it, until its declaration changes its mind.
		h.must("stop", web)
		h.wantApplied(web+": unchanged", idle+": unchanged")
		declared["aliases"] = []string{"www", "api"}
		h.declare(declared, stopped)
		h.wantApplied(web+": updated", idle+": unchanged")
		if status := h.status(web).Status; status != "stopped" {
			t.Errorf("%s is %s", web, status)
		}
		h.must("start", web)
		// A copy is the person's.
		copied := "copy" + instance
		h.must("clone", web, copied)
		h.must("destroy", copied)
	})
	t.Run("taken", func(t *testing.T) {
		h := h.with(t)
		h.must("ensure", taken, "--channel", offline(t), "--provision", one)
		defer h.must("destroy", taken)
		declared["aliases"] = []string{"www"}
		h.declare(map[string]any{"name": taken, "channel": offline(t)}, declared, stopped)
		result := h.fails(1, []string{"container " + taken + " was made by", "devhost rename " + taken + " OTHER", "1 of 3"}, "host", "apply")
		if !strings.Contains(result.stdout, web+": updated") {
			t.Errorf("one that failed kept others from being done:\n%s", result.stdout)
		}
	})
	t.Run("removed", func(t *testing.T) {
		h := h.with(t)
		h.declare(declared)
		h.wantApplied(idle+": removed, and archived", web+": unchanged")
		h.fails(4, nil, "status", idle)
		// Who brings it back has one of their own.
		h.must("undelete", "--no-start", idle)
		h.must("destroy", idle)
	})
	t.Run("invalid", func(t *testing.T) {
		h := h.with(t)
		text := `{ "version": 1, "containers": [ { "name": "1234", "chanel": "/x" } ] }`
		if err := os.WriteFile(h.layout.Declarations(), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		h.fails(2, []string{"containers.json:1:51: containers[0].chanel: there is no such key", `did you mean "containers[0].channel"`, "none was changed"}, "host", "apply")
		h.fails(2, []string{"containers.json:1:51: "}, "host", "check", "--containers")
		if status := h.status(web).Status; status != "running" {
			t.Errorf("%s is %s", web, status)
		}
	})
}

// TestDeclaredSystem: a system that the host has built is started and switched to
// as it is; an ephemeral container starts with an empty root folder each time.
func TestDeclaredSystem(t *testing.T) {
	needsFullRun(t)
	h := newDeclaringHost(t)
	instance := h.layout.Instance()
	made, name := "made"+instance, "sys"+instance
	minimal := readFile(t, filepath.Join(example(t, "minimal"), "provision.nix"))
	system := func(text string) string {
		h.must("ensure", made, "--channel", offline(t), "--provision", withFile(t, minimal, "extra", text))
		return h.status(made).System
	}
	declared := map[string]any{"name": name, "system": system("one"), "ephemeral": true}
	h.declare(declared)
	h.wantApplied(name + ": created")
	if found := h.inside(name, "cat /etc/extra"); found != "one" {
		t.Errorf("inside: %q", found)
	}

	h.inside(name, "echo lost >/srv/file; mkdir -p /srv/a/b; ln -s / /srv/a/root")
	started := h.status(name).StartedAt
	declared["system"] = system("two")
	h.declare(declared)
	h.wantApplied(name + ": switched to its new system")
	if found := h.inside(name, "cat /etc/extra /srv/file"); found != "twolost" {
		t.Errorf("inside: %q", found)
	}
	if after := h.status(name).StartedAt; !after.Equal(started) {
		t.Errorf("it was started again: %v, then %v", started, after)
	}

	h.must("restart", name)
	if found := h.inside(name, "cat /etc/extra; ls /srv/file 2>&1 || true"); !strings.Contains(found, "No such file") {
		t.Errorf("after a start there is still: %q", found)
	}
	if _, err := os.Stat("/usr"); err != nil {
		t.Fatal(err)
	}
	if found := strings.TrimSpace(h.must("ssh", name, "hostname")); found != name {
		t.Errorf("by ssh it is %q", found)
	}

	declared["ephemeral"] = false
	h.declare(declared)
	if result := h.run("host", "apply"); result.status != 0 || !strings.Contains(result.stderr, "devhost restart "+name) {
		t.Errorf("host apply ended with %d:\n%s", result.status, result.stderr)
	}
	h.inside(name, "echo kept >/srv/file")
	h.must("restart", name)
	if found := h.inside(name, "cat /srv/file"); found != "kept" {
		t.Errorf("inside: %q", found)
	}

	delete(declared, "system")
	declared["channel"], declared["provision"] = offline(t), withFile(t, minimal, "extra", "three")
	h.declare(declared)
	h.wantApplied(name + ": switched to its new system")
	if found := h.inside(name, "cat /etc/extra /srv/file"); found != "threekept" {
		t.Errorf("inside: %q", found)
	}
}

// TestDeclaredBinds: folders of the host are seen, with one user inside for their
// owner, and nothing is written as root.
func TestDeclaredBinds(t *testing.T) {
	needsFullRun(t)
	h := newDeclaringHost(t)
	const alice = 54321
	// Not below a folder that only root may enter.
	folder, err := os.MkdirTemp("/var/tmp", "devhost-e2e-binds-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	shared, docs, secret := filepath.Join(folder, "shared"), filepath.Join(folder, "docs"), filepath.Join(folder, "secret")
	for _, path := range []string{shared, docs, secret} {
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path, "file"), []byte("from the host\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{folder, shared, filepath.Join(shared, "file")} {
		if err := os.Chown(path, alice, alice); err != nil {
			t.Fatal(err)
		}
	}
	name := "bind" + h.layout.Instance()
	binds := []map[string]any{
		{"guestPath": "/srv/shared", "hostPath": shared, "isReadOnly": false, "owner": 1000},
		{"guestPath": "/srv/docs", "hostPath": docs},
		{"guestPath": "/mnt/mine", "hostPath": shared, "owner": 1000},
	}
	declared := map[string]any{"name": name, "channel": offline(t), "ephemeral": true, "bindMounts": binds}
	h.declare(declared)
	h.wantApplied(name + ": created")

	for _, test := range []struct{ what, script, want string }{
		{"the owner", "stat -c %U /srv/shared /srv/shared/file /mnt/mine/file", "developer\ndeveloper\ndeveloper"},
		{"nobody's", "stat -c %U /srv/docs/file; cat /srv/docs/file", "nobody\nfrom the host"},
		{"writing", "sudo -u developer sh -c 'echo inside >/srv/shared/new; cat /srv/shared/new'", "inside"},
		{"read only", "(echo x >/srv/docs/x) 2>/dev/null || echo refused; sudo -u developer sh -c 'echo x >/mnt/mine/x' 2>/dev/null || echo refused", "refused\nrefused"},
		{"root inside", "cp /bin/true /srv/shared/tool && chmod 4755 /srv/shared/tool && stat -c %U /srv/shared/tool", "root"},
	} {
		if found := h.inside(name, test.script); found != test.want {
			t.Errorf("%s: %q, not %q", test.what, found, test.want)
		}
	}
	owner := func(file string) int {
		t.Helper()
		var status syscall.Stat_t
		if err := syscall.Stat(filepath.Join(shared, file), &status); err != nil {
			t.Fatal(err)
		}
		return int(status.Uid)
	}
	if got := owner("new"); got != alice {
		t.Errorf("on the host, what developer wrote belongs to %d", got)
	}
	if got := owner("tool"); got < 1<<16 {
		t.Errorf("on the host, what root wrote inside belongs to %d", got)
	}

	// An ephemeral root folder is emptied, and what is bound there is not.
	h.must("restart", name)
	if found := h.inside(name, "cat /srv/shared/new"); found != "inside" {
		t.Errorf("after a start: %q", found)
	}
	if found := strings.TrimSpace(h.must("ssh", name, "echo again >/srv/shared/new; cat /srv/shared/new")); found != "again" {
		t.Errorf("by ssh: %q", found)
	}

	link := filepath.Join(folder, "link")
	if err := os.Symlink(docs, link); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		bind map[string]any
		says string
	}{
		{map[string]any{"guestPath": "/srv/x", "hostPath": secret, "isReadOnly": false, "owner": 1000}, "containers must not write as root"},
		{map[string]any{"guestPath": "/srv/x", "hostPath": link}, "there is a symbolic link in its path"},
		{map[string]any{"guestPath": "/srv/x", "hostPath": filepath.Join(folder, "missing")}, "no such file"},
	} {
		other := "no" + h.layout.Instance()
		h.declare(declared, map[string]any{"name": other, "channel": offline(t), "bindMounts": []map[string]any{test.bind}})
		h.fails(1, []string{test.says, "nothing of it is left"}, "host", "apply")
	}
	h.declare(declared)
	h.wantApplied(name + ": unchanged")
}
