package e2e

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/audit"
)

// strangerGroup is the name of the stranger's group on this host.
func strangerGroup(t testing.TB) string {
	t.Helper()
	group, err := user.LookupGroupId(strangerText)
	if err != nil {
		t.Skipf("this host has no group %s: %v", strangerText, err)
	}
	return group.Name
}

// configure writes the settings of the host.
func (h *host) configure(text string) {
	h.t.Helper()
	if err := os.MkdirAll(h.layout.State, 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(h.layout.Settings(), []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// allow lets the members of a group use devhost.
func (h *host) allow(group string) {
	h.t.Helper()
	h.configure(fmt.Sprintf(`{"version": 1, "allowedGroups": [%q]}`, group))
}

// throughSudo is the host as somebody without rights uses it, who calls sudo.
func (h *host) throughSudo() *host {
	inside := *h
	inside.env = append([]string{"SUDO_UID=" + strangerText, "SUDO_GID=" + strangerText, "SUDO_USER=nobody", "SUDO_COMMAND=devhost"}, h.env...)
	return &inside
}

// written are the lines of the audit log.
func (h *host) written() []audit.Entry {
	h.t.Helper()
	text, err := os.ReadFile(h.layout.Audit())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		h.t.Fatal(err)
	}
	var entries []audit.Entry
	for line := range strings.Lines(string(text)) {
		var entry audit.Entry
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			h.t.Errorf("%q: %v", line, err)
		}
		entries = append(entries, entry)
	}
	return entries
}

// TestWhoMayUseDevhost: members of the allowed groups may use every container,
// others nothing; and each change is written down.
func TestWhoMayUseDevhost(t *testing.T) {
	h := newHost(t)
	h.must("ensure", "box", "--channel", offline(t))
	member := h.throughSudo()
	for _, args := range [][]string{
		{"list"}, {"status", "box"}, {"stop", "box"}, {"start", "box"}, {"destroy", "box", "--force"}, {"exec", "box", "--", "true"}, {"shell", "box"}, {"ssh", "box"},
		{"ssh-config", "box"}, {"logs", "box"}, {"ip", "box"}, {"generations", "box"}, {"ensure", "other", "--channel", offline(t)}, {"ingress"}, {"supervise", "box"},
	} {
		text := "nobody may not use devhost on this host; being in one of the groups devhost would allow it"
		if args[0] == "ingress" || args[0] == "supervise" {
			text = "which is for admins of this host"
		}
		result := member.fails(7, []string{text}, args...)
		if result.stdout != "" {
			t.Errorf("devhost %v says %q", args, result.stdout)
		}
		entries := h.written()
		if last := entries[len(entries)-1]; last.Operation != args[0] || last.ExitCode != 7 || last.Who != (audit.Who{Login: "nobody", UID: strangerID, Via: "sudo"}) {
			t.Errorf("devhost %v is written down as %+v", args, last)
		}
	}
	if got := h.status("box").Status; got != "running" {
		t.Errorf("afterwards box is %s", got)
	}

	// As a member, the same person may.
	h.allow(strangerGroup(t))
	began := time.Now().Add(-time.Second)
	before := len(h.written())
	member.must("list")
	member.must("exec", "box", "--", "true", "--password=secret")
	member.must("ensure", "box", "--alias", "www", "--memory", "512M")
	member.fails(7, []string{"container box belongs to root; ask them, or destroy it all the same with devhost's option --force"}, "destroy", "box")
	member.fails(7, []string{"which is for admins of this host"}, "ingress")
	h.fails(4, nil, "stop", "missing")
	// Who does not listen to what was done is written down all the same.
	unheard := member.command("restart", "box")
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	reader.Close()
	unheard.Stdout, unheard.Stderr = writer, writer
	_ = unheard.Run()
	writer.Close()
	member.must("destroy", "box", "--force")
	type line struct {
		who, operation string
		containers     []string
		options        []string
		code           int
	}
	var got []line
	for _, entry := range h.written()[before:] {
		got = append(got, line{entry.Who.Login + entry.Who.Via, entry.Operation, entry.Containers, entry.Options, entry.ExitCode})
		if entry.Time.Before(began) || entry.Time.After(time.Now()) || entry.Milliseconds < 0 {
			t.Errorf("%+v: the time is wrong", entry)
		}
		if (entry.ExitCode == 0) != (entry.Error == "") {
			t.Errorf("%+v: the error does not fit", entry)
		}
	}
	box := []string{"box"}
	want := []line{
		{"nobodysudo", "exec", box, []string{"true"}, 0},
		{"nobodysudo", "ensure", box, []string{"--alias=www", "--memory=512M"}, 0},
		{"nobodysudo", "destroy", box, nil, 7},
		{"nobodysudo", "ingress", nil, nil, 7},
		{"root", "stop", []string{"missing"}, nil, 4},
		{"nobodysudo", "restart", box, nil, 0},
		{"nobodysudo", "destroy", box, []string{"--force=true"}, 0},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(line{})); diff != "" {
		t.Errorf("written down (-want +got):\n%s", diff)
	}
	if info, err := os.Stat(h.layout.Audit()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the audit log: %v, %v", info.Mode(), err)
	}
}

// TestSettingsThatCannotBeUsed keep people from making and starting containers,
// and from nothing else.
func TestSettingsThatCannotBeUsed(t *testing.T) {
	h := newHost(t)
	h.must("ensure", "box", "--channel", offline(t))
	group := strangerGroup(t)
	h.configure(`{
  "version": 1,
  "allowedGroups": ["` + group + `"],
  "maximum": { "memory": 7 }
}`)
	member := h.throughSudo()
	problem := h.layout.Settings() + `:4:26: maximum.memory: it must be a text in quotes, not a number; for example "16G"`
	for _, args := range [][]string{{"ensure", "box"}, {"start", "box"}, {"restart", "box"}, {"rollback", "box"}} {
		member.fails(6, []string{"the settings of this host cannot be used", problem}, args...)
	}
	for _, args := range [][]string{{"list"}, {"status", "box"}, {"exec", "box", "--", "true"}, {"stop", "box"}} {
		member.must(args...)
	}
	h.fails(2, []string{problem + "\n"}, "host", "check")
	if result := h.run("doctor"); !strings.Contains(result.stdout, "PROBLEM  settings: ") || !strings.Contains(result.stdout, "maximum.memory") {
		t.Errorf("doctor says nothing of it:\n%s", result.stdout)
	}
	// A file that others can write does not count.
	h.allow(group)
	if err := os.Chmod(h.layout.Settings(), 0o666); err != nil {
		t.Fatal(err)
	}
	h.fails(6, []string{"can be written by others"}, "start", "box")
	if err := os.Chmod(h.layout.Settings(), 0o644); err != nil {
		t.Fatal(err)
	}
	h.configure(`{"version": 1, "allowedGroups": ["` + group + `"], "allowedChannels": ["https://hydra.example.org/*"], "maximum": {"memory": "1G"}}`)
	member.fails(2, []string{"channel " + offline(t) + " is none of those that are allowed; take one that matches (* stands for anything) https://hydra.example.org/*"}, "ensure", "new", "--channel", offline(t))
	member.fails(2, []string{"--memory asks for 2GiB, and no container may have more than 1GiB"}, "ensure", "box", "--memory", "2G")
	member.must("destroy", "box", "--force")
}

// TestHostCheckReadsWithTheCallersRights: what it reports would show the file.
func TestHostCheckReadsWithTheCallersRights(t *testing.T) {
	h := newHost(t)
	h.looksKnown()
	folder := openFolder(t)
	secret := filepath.Join(folder, "secret")
	writeFile(t, secret, `{"version": 1, "hunter2": 1}`)
	if err := os.Chmod(secret, 0o600); err != nil {
		t.Fatal(err)
	}
	result := h.throughSudo().fails(1, []string{"permission denied"}, "host", "check", secret)
	if strings.Contains(result.stdout+result.stderr, "hunter2") {
		t.Errorf("it shows the file:\n%s%s", result.stdout, result.stderr)
	}
	// Control.
	h.fails(2, []string{secret + `:1:16: hunter2: there is no such key`}, "host", "check", secret)
	// It needs no root.
	binary := filepath.Join(folder, "devhost")
	tool(t, "cp", program, binary)
	mine := filepath.Join(folder, "mine.json")
	writeFile(t, mine, `{"version": 1, "publicAddress": "dev.example.org"}`)
	if result := h.finish(asStranger(exec.Command(binary, "host", "check", mine))); result.status != 0 || !strings.Contains(result.stdout, mine+" is good\n  reached at     dev.example.org\n") {
		t.Errorf("it ended with %d:\n%s%s", result.status, result.stdout, result.stderr)
	}
	var printed map[string]any
	h.decode(&printed, "host", "check", "--default")
	if printed["version"] != 1.0 {
		t.Errorf("%v", printed)
	}
}

// hostileNames are names that mean something to a path, a shell, an option
// parser, a resolver or a log.
var hostileNames = []string{
	"../box", "/etc/passwd", "a/b", "$(id)",
	"..", ".", "box/../box", "a.b", "a b", "a\nb", "a;id", "`id`", "A", "1234", "0x7f", "xn--a", "a--b", "-", "a-", "*", "a\x1b[2J", "ä", "a%2fb", strings.Repeat("a", 64), strings.Repeat("a/", 2000),
}

// TestHostileNames: no command takes what is no name, wherever it stands.
func TestHostileNames(t *testing.T) {
	h := newHost(t)
	h.must("ensure", "box", "--channel", offline(t))
	h.allow(strangerGroup(t))
	member := h.throughSudo()
	files := func() string {
		return tool(t, "find", h.layout.State, "-mindepth", "1", "-maxdepth", "4", "-not", "-path", "*/root/*", "-not", "-name", "audit.log*", "-not", "-path", "*/log/*")
	}
	before := files()
	names := hostileNames
	if testing.Short() {
		names = names[:4]
	}
	for _, args := range [][]string{
		{"ensure", "NAME", "--channel", offline(t)}, {"ensure", "box", "--alias", "NAME"}, {"ensure", "box", "--environment", "NAME"},
		{"status", "NAME"}, {"ip", "NAME"}, {"start", "NAME"}, {"stop", "NAME"}, {"restart", "NAME"}, {"destroy", "NAME"}, {"destroy", "--missing-ok", "NAME"},
		{"exec", "NAME", "--", "true"}, {"shell", "NAME"}, {"ssh", "NAME"}, {"ssh-config", "NAME"}, {"logs", "NAME"},
		{"generations", "NAME"}, {"rollback", "NAME"}, {"diff", "NAME"},
		{"keep", "NAME", "--for", "1d"}, {"unkeep", "NAME"}, {"undelete", "NAME"}, {"undelete", "box", "--as", "NAME"},
		{"clone", "NAME", "new"}, {"clone", "box", "NAME"}, {"rename", "NAME", "new"}, {"rename", "box", "NAME", "--force"},
		{"snapshot", "create", "NAME", "s"}, {"snapshot", "create", "box", "NAME"}, {"snapshot", "list", "NAME"},
		{"snapshot", "restore", "NAME", "s"}, {"snapshot", "restore", "box", "NAME"}, {"snapshot", "remove", "NAME", "s"}, {"snapshot", "remove", "box", "NAME"},
		{"destroy", "NAME", "--archive"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			member := member.with(t)
			for _, name := range names {
				typed := make([]string, len(args))
				for i, argument := range args {
					typed[i] = strings.ReplaceAll(argument, "NAME", name)
				}
				result := member.run(typed...)
				if result.status != 2 || !strings.Contains(result.stderr, "cannot be a") {
					t.Errorf("devhost %q ended with %d:\n%s", typed, result.status, result.stderr)
				}
				if strings.ContainsAny(result.stderr, "\x1b") {
					t.Errorf("devhost %q drives the terminal: %q", typed, result.stderr)
				}
			}
		})
	}
	if diff := cmp.Diff(before, files()); diff != "" {
		t.Errorf("files of the state folder (-before +after):\n%s", diff)
	}
	// What is written down of all this is one line each.
	for _, entry := range h.written() {
		if entry.Operation == "" || entry.Who.Login == "" {
			t.Errorf("%+v", entry)
		}
	}
	member.must("ensure", "box", "--alias", "control")
}

// TestHostileEnvironment: where sudo hands on variables, as with -E, none of
// them makes root run or read something of the person's. In the control, root's
// own variables do.
func TestHostileEnvironment(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	h.must("ensure", "anchor", "--channel", offline(t))
	h.allow(strangerGroup(t))
	theirs := filepath.Join(openFolder(t), "theirs")
	ran := filepath.Join(theirs, "ran")
	bin := filepath.Join(theirs, "bin")
	for _, name := range everyProgram {
		writeFile(t, filepath.Join(bin, name), "#!/bin/sh\necho "+name+" as $(/usr/bin/id -u) >> "+ran+"\nexit 93\n")
	}
	hook := filepath.Join(bin, "hook")
	writeFile(t, hook, "#!/bin/sh\necho hook as $(/usr/bin/id -u) >> "+ran+"\n")
	writeFile(t, filepath.Join(theirs, ".config/nix/nix.conf"), "post-build-hook = "+hook+"\nsandbox = false\n")
	writeFile(t, filepath.Join(theirs, ".ssh/config"), "Host *\n  ProxyCommand "+hook+"\n")
	writeFile(t, filepath.Join(theirs, ".gitconfig"), "[core]\n  fsmonitor = "+hook+"\n")
	tool(t, "chmod", "-R", "u=rwx,go=rx", theirs)
	tool(t, "chown", "-R", strangerText+":"+strangerText, theirs)
	evil := []string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + theirs, "XDG_CONFIG_HOME=" + theirs + "/.config", "TMPDIR=" + theirs,
		"NIX_CONFIG=post-build-hook = " + hook + "\nsandbox = false", "NIX_USER_CONF_FILES=" + theirs + "/.config/nix/nix.conf", "NIX_CONF_DIR=" + theirs + "/.config/nix",
		"NIX_PATH=nixpkgs=" + theirs, "NIX_REMOTE=unix://" + theirs + "/socket", "NIX_SSHOPTS=-oProxyCommand=" + hook, "NIX_STORE_DIR=" + theirs, "NIX_STATE_DIR=" + theirs, "NIX_DAEMON_SOCKET_PATH=" + theirs + "/socket",
		"GIT_SSH_COMMAND=" + hook, "GIT_CONFIG_GLOBAL=" + theirs + "/.gitconfig", "GIT_EXEC_PATH=" + bin, "GIT_DIR=" + theirs,
		"LD_PRELOAD=" + theirs + "/evil.so", "LD_LIBRARY_PATH=" + theirs, "BASH_ENV=" + hook, "ENV=" + hook, "SHELL=" + hook, "PAGER=" + hook, "EDITOR=" + hook,
		"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1", "SYSTEMD_LOG_TARGET=console", "DEVHOST_ENGINE=none", "SSH_AUTH_SOCK=" + theirs + "/socket", "GODEBUG=netdns=cgo",
	}
	module := func(marker string) string {
		folder := openFolder(t)
		writeFile(t, filepath.Join(folder, "provision.nix"), `{ environment.etc.marker.text = "`+marker+`"; }`)
		return folder
	}
	channel := filepath.Join(openFolder(t), "channel")
	ownChannel(t, channel, "environment")
	member := h.throughSudo()
	member.env = append(member.env, evil...)
	member.must("ensure", "box", "--channel", channel, "--provision", module("evil"))
	if got := member.must("exec", "box", "--", "cat", "/etc/marker"); got != "evil" {
		t.Errorf("the marker is %q", got)
	}
	if got := member.must("exec", "box", "--", "env"); strings.Contains(got, theirs) {
		t.Errorf("inside there is something of the environment:\n%s", got)
	}
	member.must("restart", "box")
	member.must("destroy", "box")
	if text, err := os.ReadFile(ran); err == nil {
		t.Errorf("programs of the person's ran:\n%s", text)
	}

	// Control: for root itself, PATH means what it says.
	root := *h
	root.env = []string{"PATH=" + bin + ":" + os.Getenv("PATH")}
	root.fails(1, nil, "ensure", "box", "--channel", channel, "--provision", module("control"))
	if text, err := os.ReadFile(ran); err != nil || !strings.Contains(string(text), " as 0\n") {
		t.Errorf("the control shows nothing: %q, %v", text, err)
	}
}

// TestHostileLimits: a shell's umask and ulimit do not change what root writes.
// In the control, root's own do.
func TestHostileLimits(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	h.must("ensure", "box", "--channel", offline(t))
	h.allow(strangerGroup(t))
	member := h.throughSudo()
	limited := func(h *host, args ...string) result {
		command := h.command(args...)
		command.Args = append([]string{"sh", "-c", `umask 0777; ulimit -S -f 0; exec "$0" "$@"`}, command.Args...)
		command.Path = "/bin/sh"
		return h.finish(command)
	}
	hosts, err := os.Stat("/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	before := len(h.written())
	for _, args := range [][]string{{"ensure", "box", "--alias", "www"}, {"exec", "box", "--", "true"}, {"ensure", "other", "--channel", offline(t)}} {
		if result := limited(member, args...); result.status != 0 {
			t.Errorf("devhost %v ended with %d:\n%s", args, result.status, result.stderr)
		}
	}
	if got := len(h.written()) - before; got != 3 {
		t.Errorf("%d of 3 commands are written down", got)
	}
	for path, want := range map[string]os.FileMode{"/etc/hosts": hosts.Mode().Perm(), filepath.Join(h.layout.Published(), "other.json"): 0o644, filepath.Join(h.layout.Guest("other"), "hosts"): 0o644, h.layout.Audit(): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if result := limited(h, "ensure", "box", "--alias", "control"); result.status == 0 {
		t.Error("the control shows nothing: the limit is none")
	}
	h.must("ensure", "box", "--alias", "again")
}

// TestChannelArchiveStaysInItsFolder: an archive can name files anywhere, and go
// through links of its own. In the control, tar follows it.
func TestChannelArchiveStaysInItsFolder(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	h.must("ensure", "anchor", "--channel", offline(t))
	h.allow(strangerGroup(t))
	folder := openFolder(t)
	victims := filepath.Join(folder, "victims")
	if err := os.Mkdir(victims, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(victims, 0o777); err != nil {
		t.Fatal(err)
	}
	parents := strings.Repeat("../", 12) + strings.TrimPrefix(victims, "/")
	expression := tar.Header{Name: "top/nixos/default.nix", Typeflag: tar.TypeReg}
	for name, members := range map[string][]tar.Header{
		"parents":       {expression, {Name: "top/" + parents + "/parents", Typeflag: tar.TypeReg}},
		"absolute":      {expression, {Name: victims + "/absolute", Typeflag: tar.TypeReg}},
		"through-link":  {expression, {Name: "top/link", Typeflag: tar.TypeSymlink, Linkname: victims}, {Name: "top/link/through-link", Typeflag: tar.TypeReg}},
		"relative-link": {expression, {Name: "top/link", Typeflag: tar.TypeSymlink, Linkname: "../" + parents}, {Name: "top/link/relative-link", Typeflag: tar.TypeReg}},
	} {
		t.Run(name, func(t *testing.T) {
			packed := filepath.Join(folder, name+".tar")
			if err := os.WriteFile(packed, archive(t, members...).Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
			result := h.with(t).throughSudo().fails(1, []string{"channel file://" + packed + ": "}, "ensure", "box", "--channel", "file://"+packed)
			t.Log(result.stderr)
			if found, _ := filepath.Glob(victims + "/*"); len(found) > 0 {
				t.Errorf("it made %v", found)
			}
			unpacked := filepath.Join(t.TempDir(), "unpacked")
			if err := os.Mkdir(unpacked, 0o755); err != nil {
				t.Fatal(err)
			}
			control := exec.Command("tar", "-C", unpacked, "-P", "-xf", packed)
			if output, err := control.CombinedOutput(); err != nil {
				t.Errorf("the control: %v\n%s", err, output)
			}
			if _, err := os.Stat(filepath.Join(victims, name)); err != nil {
				t.Errorf("the control shows nothing: %v", err)
			}
			_ = os.Remove(filepath.Join(victims, name))
		})
	}
}

// TestChannelLinksAreNotFollowed: what a channel links to is not read for it:
// neither when it is copied, nor by the evaluation, also not a hard link to
// what the person may not read.
func TestChannelLinksAreNotFollowed(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	h.must("ensure", "anchor", "--channel", offline(t))
	h.allow(strangerGroup(t))
	folder := openFolder(t)
	secret := filepath.Join(folder, "secret")
	writeFile(t, secret, secretText)
	if err := os.Chmod(secret, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, link := range map[string]func(old, path string) error{"symbolic": os.Symlink, "hard": os.Link} {
		t.Run(name, func(t *testing.T) {
			channel := filepath.Join(folder, name)
			tool(t, "cp", "-R", offline(t), channel)
			if err := link(secret, filepath.Join(channel, "stolen")); err != nil {
				t.Fatal(err)
			}
			provision := filepath.Join(folder, name+"-provision")
			writeFile(t, filepath.Join(provision, "provision.nix"), `{ environment.etc.stolen.text = builtins.readFile <nixpkgs/stolen>; }`)
			result := h.with(t).throughSudo().run("ensure", "box", "--channel", channel, "--provision", provision)
			if result.status == 0 {
				t.Errorf("it worked: %s", h.must("exec", "box", "--", "cat", "/etc/stolen"))
			}
			if strings.Contains(result.stderr+result.stdout, secretText) {
				t.Errorf("the secret comes out:\n%s", result.stderr)
			}
			// The same in a provision.
			if err := link(secret, filepath.Join(provision, "stolen")); err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(provision, "provision.nix"), `{ environment.etc.stolen.text = builtins.readFile ./stolen; }`)
			result = h.with(t).throughSudo().run("ensure", "box", "--channel", offline(t), "--provision", provision)
			if result.status == 0 || strings.Contains(result.stderr+result.stdout, secretText) {
				t.Errorf("a provision ended with %d:\n%s", result.status, result.stderr)
			}
			// Control: what the person may read arrives.
			if err := os.Chmod(secret, 0o644); err != nil {
				t.Fatal(err)
			}
			defer os.Chmod(secret, 0o600)
			if name == "hard" {
				h.with(t).throughSudo().must("ensure", "control", "--channel", offline(t), "--provision", provision)
				if got := h.must("exec", "control", "--", "cat", "/etc/stolen"); got != secretText {
					t.Errorf("the control holds %q", got)
				}
			}
		})
	}
}

// TestFlakeSettingsDoNotCount: a flake's nixConfig is what its author wants of
// Nix, such as a program to run after builds. Here its source is taken, and
// nothing else of it.
func TestFlakeSettingsDoNotCount(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	h.must("ensure", "anchor", "--channel", offline(t))
	h.allow(strangerGroup(t))
	theirs := filepath.Join(openFolder(t), "theirs")
	channel, ran := filepath.Join(theirs, "channel"), filepath.Join(theirs, "ran")
	if err := os.Mkdir(theirs, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(theirs, 0o777); err != nil {
		t.Fatal(err)
	}
	hook := filepath.Join(theirs, "hook")
	writeFile(t, hook, "#!/bin/sh\n/usr/bin/id -u >> "+ran+"\n")
	if err := os.Chmod(hook, 0o755); err != nil {
		t.Fatal(err)
	}
	ownChannel(t, channel, "flake")
	writeFile(t, filepath.Join(channel, "flake.nix"), `{
  nixConfig.post-build-hook = "`+hook+`";
  nixConfig.sandbox = false;
  outputs = _: { x = "reached"; };
}
`)
	tool(t, "git", "-C", channel, "init", "--quiet")
	tool(t, "git", "-C", channel, "add", ".")
	tool(t, "git", "-C", channel, "-c", "user.name=e2e", "-c", "user.email=e2e@example.org", "commit", "--quiet", "-m", "one")
	tool(t, "chown", "-R", strangerText+":"+strangerText, theirs)
	for name, reference := range map[string]string{"path": "path:" + channel, "git": "git+file://" + channel} {
		t.Run(name, func(t *testing.T) {
			h := h.with(t)
			h.throughSudo().must("ensure", name, "--channel", reference)
			h.wantMarker(name, "flake")
			if text, err := os.ReadFile(ran); err == nil {
				t.Errorf("its program ran as %q", text)
			}
		})
	}
	// Control: Nix itself sees these settings, and takes them where told to.
	control := exec.Command("nix", "--extra-experimental-features", "nix-command flakes", "eval", "--raw", "--no-write-lock-file", "path:"+channel+"#x")
	control.Env = append(os.Environ(), "HOME="+t.TempDir(), "NIX_REMOTE=daemon")
	output, err := control.CombinedOutput()
	if err != nil || !strings.Contains(string(output), "post-build-hook") {
		t.Errorf("the control: %v\n%s", err, output)
	}
}

// TestExchangedWhileItIsRead: somebody exchanges a file of the provision for a
// link to what they may not read, again and again, while root reads it.
func TestExchangedWhileItIsRead(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	h.must("ensure", "box", "--channel", offline(t))
	h.allow(strangerGroup(t))
	folder := openFolder(t)
	secret := filepath.Join(folder, "root/secret")
	writeFile(t, secret, secretText)
	if err := errors.Join(os.Chmod(secret, 0o600), os.Chmod(filepath.Dir(secret), 0o755)); err != nil {
		t.Fatal(err)
	}
	provision := filepath.Join(folder, "provision")
	writeFile(t, filepath.Join(provision, "provision.nix"), `{ environment.etc.data.text = builtins.readFile ./sub/data; }`)
	writeFile(t, filepath.Join(provision, "sub/data"), "harmless")
	writeFile(t, filepath.Join(folder, "good/data"), "harmless")
	if err := os.Symlink(secret, filepath.Join(folder, "data-link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(secret), filepath.Join(folder, "folder-link")); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var swapping sync.WaitGroup
	swapping.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			next := filepath.Join(folder, "next")
			if i%2 == 0 {
				_ = os.Symlink(secret, next)
			} else {
				_ = os.WriteFile(next, fmt.Appendf(nil, "harmless %d", i), 0o644)
			}
			_ = os.Rename(next, filepath.Join(provision, "sub/data"))
			time.Sleep(50 * time.Microsecond)
		}
	})
	outcomes := map[int]int{}
	for range 15 {
		result := h.throughSudo().run("ensure", "box", "--provision", provision)
		outcomes[result.status]++
		if strings.Contains(result.stdout+result.stderr, secretText) {
			t.Errorf("the secret comes out:\n%s", result.stderr)
		}
		if got := h.must("exec", "box", "--", "sh", "-c", "cat /etc/data 2>/dev/null || true"); strings.Contains(got, secretText) {
			t.Error("the secret is in the container")
		}
		snapshot := exec.Command("grep", "-rqs", secretText, filepath.Join(h.layout.Container("box"), "provision"), h.layout.Temporary())
		if snapshot.Run() == nil {
			t.Error("the secret is in the snapshot")
		}
	}
	close(stop)
	swapping.Wait()
	t.Logf("exit codes: %v", outcomes)
	// Control: when nobody exchanges anything, it is read.
	_ = os.Remove(filepath.Join(provision, "sub/data"))
	writeFile(t, filepath.Join(provision, "sub/data"), "harmless at last")
	h.throughSudo().must("ensure", "box", "--provision", provision)
	if got := h.must("exec", "box", "--", "cat", "/etc/data"); got != "harmless at last" {
		t.Errorf("the control holds %q", got)
	}
}

// TestSSHRunsWithTheCallersRights: its arguments name programs and files of the
// host.
func TestSSHRunsWithTheCallersRights(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	h.must("ensure", "box", "--channel", offline(t))
	h.allow(strangerGroup(t))
	folder := openFolder(t)
	if err := os.Chmod(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	report := filepath.Join(folder, "report")
	command := "ProxyCommand=sh -c '{ id -u; id -G; cat /proc/self/status; env; } > " + report + "; exit 1'"
	read := func() string {
		t.Helper()
		text, err := os.ReadFile(report)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	h.throughSudo().run("ssh", "box", "-o", command, "true")
	got := read()
	if !strings.HasPrefix(got, strangerText+"\n"+strangerText+"\n") || !strings.Contains(got, "CapEff:\t0000000000000000") {
		t.Errorf("a program of the person's ran with other rights:\n%s", got)
	}
	secret := filepath.Join(folder, "secret")
	writeFile(t, secret, secretText)
	if err := os.Chmod(secret, 0o600); err != nil {
		t.Fatal(err)
	}
	result := h.throughSudo().run("ssh", "box", "-F", secret, "true")
	if strings.Contains(result.stderr, secretText) {
		t.Errorf("it reads what the person may not:\n%s", result.stderr)
	}
	if err := os.Remove(report); err != nil {
		t.Fatal(err)
	}
	// Control: for root it runs as root.
	h.run("ssh", "box", "-o", command, "true")
	if got := read(); !strings.HasPrefix(got, "0\n") {
		t.Errorf("the control shows nothing:\n%s", got)
	}
	if got := h.throughSudo().must("ssh", "box", "id", "-un"); got != "developer\n" {
		t.Errorf("inside one is %q", got)
	}
}

// TestOutputGoesNowhereElse: a link in the person's folder does not lead root's
// hand.
func TestOutputGoesNowhereElse(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	h.must("ensure", "box", "--channel", offline(t))
	h.allow(strangerGroup(t))
	folder := openFolder(t)
	victim, theirs := filepath.Join(folder, "victim"), filepath.Join(folder, "theirs")
	if err := errors.Join(os.Mkdir(victim, 0o755), os.Mkdir(theirs, 0o755)); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(victim, "config"), "original")
	if err := errors.Join(os.Symlink(victim, filepath.Join(theirs, "link")), os.Chown(theirs, strangerID, strangerID)); err != nil {
		t.Fatal(err)
	}
	h.throughSudo().fails(1, []string{"permission denied"}, "ssh-config", "box", "--output", filepath.Join(theirs, "link"))
	if entries, err := os.ReadDir(victim); err != nil || len(entries) != 1 || readFile(t, filepath.Join(victim, "config")) != "original" {
		t.Errorf("root's folder was written: %v, %v", entries, err)
	}
	// Control.
	h.must("ssh-config", "box", "--output", filepath.Join(theirs, "link"))
	if entries, _ := os.ReadDir(victim); len(entries) < 3 {
		t.Errorf("root itself writes there: %v", entries)
	}
}

// TestKeysThatAreNoFiles: what a key's name leads to is neither waited for nor
// shown.
func TestKeysThatAreNoFiles(t *testing.T) {
	h := newHost(t)
	h.looksKnown()
	h.allow(strangerGroup(t))
	if err := os.WriteFile(h.layout.Marker(), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(openFolder(t), "fifo")
	tool(t, "mkfifo", "-m", "0666", fifo)
	for _, path := range []string{fifo, "/dev/zero", "/proc/self/mem", "/", "/etc/shadow", "/proc/1/environ"} {
		result := h.throughSudo().fails(2, []string{"--authorized-key: "}, "ensure", "box", "--channel", offline(t), "--authorized-key", path)
		if bytes.Contains([]byte(result.stderr), []byte("root:")) {
			t.Errorf("it shows %s:\n%s", path, result.stderr)
		}
	}
}
