package e2e

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"devhost/internal/registry"
)

// The uid and gid of somebody without any rights.
const (
	strangerID   = 65534
	strangerText = "65534"
)

// asStranger makes a command run with no rights.
func asStranger(command *exec.Cmd) *exec.Cmd {
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: strangerID, Gid: strangerID}}
	return command
}

// openFolder is a folder that everybody can enter, unlike t.TempDir.
func openFolder(t testing.TB) string {
	t.Helper()
	folder, err := os.MkdirTemp("/var/tmp", "devhost-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	return folder
}

// archive makes a tar archive: the members, then what fill adds.
func archive(t testing.TB, members ...tar.Header) *bytes.Buffer {
	t.Helper()
	var buffer bytes.Buffer
	writer := tar.NewWriter(&buffer)
	for _, member := range members {
		content := []byte(nil)
		if member.Typeflag == tar.TypeReg {
			content = []byte("{ }\n")
			member.Size = int64(len(content))
		}
		member.Mode = 0o644
		if err := writer.WriteHeader(&member); err != nil {
			t.Fatal(err)
		}
		if _, err := writer.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return &buffer
}

// TestProvisionRefusals: what a provision must not hold is refused by name.
func TestProvisionRefusals(t *testing.T) {
	h := newHost(t)
	module := tar.Header{Name: "provision.nix", Typeflag: tar.TypeReg}
	t.Run("folder", func(t *testing.T) {
		for _, test := range []struct {
			name  string
			fill  func(t *testing.T, folder string) error
			texts []string
		}{
			{"link out", func(_ *testing.T, folder string) error {
				return os.Symlink("../../etc/shadow", filepath.Join(folder, "shadow"))
			}, []string{`"shadow" is a link to "../../etc/shadow", which is outside of the provision`}},
			{"absolute link", func(_ *testing.T, folder string) error {
				return os.Symlink("/etc/shadow", filepath.Join(folder, "shadow"))
			}, []string{`"shadow" is a link to "/etc/shadow", which is outside of the provision`}},
			{"link out by way of another", func(_ *testing.T, folder string) error {
				if err := os.Mkdir(filepath.Join(folder, "a"), 0o755); err != nil {
					return err
				}
				if err := os.Symlink("a", filepath.Join(folder, "b")); err != nil {
					return err
				}
				return os.Symlink("b/../../x", filepath.Join(folder, "c"))
			}, []string{`"c" is a link to "b/../../x", which is outside`}},
			{"pipe", func(_ *testing.T, folder string) error { return syscall.Mkfifo(filepath.Join(folder, "pipe"), 0o644) },
				[]string{`"pipe" is a device, socket or pipe`}},
			{"device", func(_ *testing.T, folder string) error {
				return syscall.Mknod(filepath.Join(folder, "null"), syscall.S_IFCHR|0o666, 1<<8|3)
			}, []string{`"null" is a device, socket or pipe`}},
			{"socket", func(t *testing.T, folder string) error {
				listener, err := net.Listen("unix", filepath.Join(folder, "s"))
				if err == nil {
					t.Cleanup(func() { listener.Close() })
				}
				return err
			}, []string{`"s" is a device, socket or pipe`}},
			{"too large", func(_ *testing.T, folder string) error {
				file, err := os.Create(filepath.Join(folder, "data"))
				if err != nil {
					return err
				}
				defer file.Close()
				return file.Truncate(65 << 20)
			}, []string{"its files have more than 64 MiB"}},
			{"no module", func(_ *testing.T, folder string) error { return os.Remove(filepath.Join(folder, "provision.nix")) },
				[]string{"it holds neither provision.nix nor default.nix"}},
		} {
			t.Run(test.name, func(t *testing.T) {
				folder := t.TempDir()
				writeFile(t, filepath.Join(folder, "provision.nix"), "{ }\n")
				if err := test.fill(t, folder); err != nil {
					t.Fatal(err)
				}
				h.with(t).fails(2, append(test.texts, "the provision is refused: ", "container box was not made; nothing of it is left"),
					"ensure", "box", "--channel", offline(t), "--provision", folder)
			})
		}
	})
	t.Run("archive", func(t *testing.T) {
		for _, test := range []struct {
			name    string
			archive *bytes.Buffer
			texts   []string
		}{
			{"parent", archive(t, module, tar.Header{Name: "../outside", Typeflag: tar.TypeReg}), []string{`"../outside" lies outside`}},
			{"parent in the middle", archive(t, module, tar.Header{Name: "a/../../outside", Typeflag: tar.TypeReg}), []string{`"a/../../outside" has a name with . or .. or // in it`}},
			{"absolute", archive(t, module, tar.Header{Name: "/etc/passwd", Typeflag: tar.TypeReg}), []string{`"/etc/passwd" has an absolute name`}},
			{"below a link", archive(t, module, tar.Header{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, tar.Header{Name: "a/passwd", Typeflag: tar.TypeReg}),
				[]string{`"a/passwd" lies below "a", which is no folder`}},
			{"link out", archive(t, module, tar.Header{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "../x"}), []string{`"a" is a link to "../x"`}},
			{"hard link out", archive(t, module, tar.Header{Name: "a", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}), []string{`"a" is a hard link to "/etc/passwd", which is not in the archive`}},
			{"device", archive(t, module, tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}), []string{`"null" is a device, socket or pipe`}},
			{"pipe", archive(t, module, tar.Header{Name: "pipe", Typeflag: tar.TypeFifo}), []string{`"pipe" is a device, socket or pipe`}},
			{"twice", archive(t, module, module), []string{`"provision.nix" comes twice`}},
			{"truncated", bytes.NewBuffer(archive(t, module).Bytes()[:514]), []string{"standard input is no good tar archive: it ends too early"}},
			{"text", bytes.NewBufferString(strings.Repeat("no archive\n", 100)), []string{"standard input is no good tar archive"}},
			{"empty", &bytes.Buffer{}, []string{"standard input is empty"}},
		} {
			t.Run(test.name, func(t *testing.T) {
				h := h.with(t)
				command := h.command("ensure", "box", "--channel", offline(t), "--provision", "-")
				command.Stdin = test.archive
				result := h.finish(command)
				if result.status != 2 {
					t.Errorf("ensure ended with %d, not 2", result.status)
				}
				for _, text := range append(test.texts, "the provision is refused: ", "container box was not made") {
					if !strings.Contains(result.stderr, text) {
						t.Errorf("it does not say %q but:\n%s", text, result.stderr)
					}
				}
			})
		}
	})
	h.fails(1, []string{"cannot read the provision /nonexistent: no such file or directory"}, "ensure", "box", "--channel", offline(t), "--provision", "/nonexistent")
	if entries, err := os.ReadDir(h.layout.Temporary()); err != nil || len(entries) > 0 {
		t.Errorf("temporary files are left: %v (%v)", entries, err)
	}
}

// TestProvisionErrors: what does not evaluate or build is explained with the
// person's own file, and the container stays as it was.
func TestProvisionErrors(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	h.must("ensure", "box", "--channel", offline(t))
	for _, test := range []struct {
		name, text string
		texts      []string
	}{
		{"syntax", "{\n  environment.etc.a.text = \"a\"\n}\n", []string{"error: syntax error, unexpected '}'", "at FILE:3:1"}},
		{"undefined variable", "{ ... }:\n{ environment.etc.a.text = pgks.hello; }\n", []string{"error: undefined variable 'pgks'", "at FILE:2:28"}},
		{"unknown option", "{\n  services.nosuchservice.enable = true;\n}\n", []string{"services.nosuchservice", "FILE"}},
		{"unknown package", "{ pkgs, ... }: {\n  environment.systemPackages = [ pkgs.nosuchpackage ];\n}\n", []string{"nosuchpackage", "FILE"}},
		{"wrong type", "{\n  services.nginx.enable = \"yes\";\n}\n", []string{"services.nginx.enable", "FILE"}},
		{"missing import", "{\n  imports = [ ./missing.nix ];\n}\n", []string{"missing.nix"}},
		{"assertion", "{\n  assertions = [ { assertion = false; message = \"never so\"; } ];\n}\n", []string{"never so"}},
		{"endless recursion", "let f = n: f (n + 1) + 1; in { environment.etc.a.text = toString (f 0); }\n", []string{"does not evaluate"}},
		{"failing builder", "{ pkgs, ... }: { environment.etc.a.source = pkgs.runCommand \"broken-thing\" { } \"echo the reason; exit 9\"; }\n",
			[]string{"the build of broken-thing failed with exit code 9", "> the reason", "All of its log: "}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := h.with(t)
			file := filepath.Join(t.TempDir(), "mine.nix")
			folder := t.TempDir()
			writeFile(t, file, test.text)
			writeFile(t, filepath.Join(folder, "provision.nix"), test.text)
			for given, shown := range map[string]string{file: file, folder: filepath.Join(folder, "provision.nix")} {
				texts := []string{"container box is as it was (running)"}
				for _, text := range test.texts {
					texts = append(texts, strings.ReplaceAll(text, "FILE", shown))
				}
				result := h.fails(1, texts, "ensure", "box", "--provision", given)
				if strings.Contains(result.stderr, "-provision/provision.nix") {
					t.Errorf("it names a store path in place of the person's file:\n%s", result.stderr)
				}
			}
		})
	}
	if got := h.must("ensure", "box"); !strings.Contains(got, "unchanged") {
		t.Errorf("afterwards ensure says %q", got)
	}
}

// TestProvisionForms: a folder, a file, an archive, and none.
func TestProvisionForms(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	folder := t.TempDir()
	writeFile(t, filepath.Join(folder, "provision.nix"), `{ imports = [ ./parts ]; environment.etc.form.text = "folder"; environment.etc.linked.text = builtins.readFile ./link; }`)
	writeFile(t, filepath.Join(folder, "parts/default.nix"), `{ environment.etc.part.text = "part"; }`)
	writeFile(t, filepath.Join(folder, "file"), "linked content")
	if err := os.Symlink("file", filepath.Join(folder, "link")); err != nil {
		t.Fatal(err)
	}
	want := func(file, text string) {
		t.Helper()
		if got := h.must("exec", "box", "--", "cat", "/etc/"+file); got != text {
			t.Errorf("/etc/%s holds %q, not %q", file, got, text)
		}
	}
	h.must("ensure", "box", "--channel", offline(t), "--provision", folder)
	want("form", "folder")
	want("part", "part")
	want("linked", "linked content")
	if got := h.must("ensure", "box", "--provision", folder); !strings.Contains(got, "unchanged") {
		t.Errorf("the same provision again: %q", got)
	}
	// The same content is the same provision, however it comes.
	pipe := func(text string) {
		t.Helper()
		command := h.command("ensure", "box", "--provision", "-")
		tarring := exec.Command("tar", "-C", folder, "-cf", "-", ".")
		output, err := tarring.Output()
		if err != nil {
			t.Fatal(err)
		}
		command.Stdin = bytes.NewReader(output)
		if result := h.finish(command); result.status != 0 || !strings.Contains(result.stdout, text) {
			t.Errorf("an archive ended with %d: %s%s", result.status, result.stdout, result.stderr)
		}
	}
	pipe("unchanged")
	writeFile(t, filepath.Join(folder, "parts/default.nix"), `{ environment.etc.part.text = "piped"; }`)
	pipe("switched")
	want("part", "piped")
	h.must("ensure", "box", "--provision", provision(t, `{ environment.etc.form.text = "file"; }`))
	want("form", "file")
	h.must("ensure", "box", "--provision", "")
	if got := h.run("exec", "box", "--", "test", "-e", "/etc/form"); got.status != 1 {
		t.Errorf("without a provision /etc/form is still there (%d)", got.status)
	}
	if got := h.must("ensure", "box", "--provision", ""); !strings.Contains(got, "unchanged") {
		t.Errorf("without a provision again: %q", got)
	}
}

func TestSecretsAreWarnedAbout(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	folder := t.TempDir()
	writeFile(t, filepath.Join(folder, "provision.nix"), "{\n  environment.etc.app.text = \"x\";\n  environment.variables = let\n    password = \"hunter2-of-the-test\";\n  in { };\n}\n")
	writeFile(t, filepath.Join(folder, "id_ed25519"), "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAAmaterial-of-the-test\n")
	result := h.fails(0, []string{"warning: ", "provision.nix:4: a password or token in clear text", "id_ed25519:1: a private key"}, "ensure", "box", "--channel", offline(t), "--provision", folder)
	for _, secret := range []string{"hunter2-of-the-test", "material-of-the-test"} {
		if strings.Contains(result.stdout+result.stderr, secret) {
			t.Errorf("the secret itself is printed:\n%s%s", result.stdout, result.stderr)
		}
	}
	// Control: nothing is said about what is none.
	result = h.fails(0, nil, "ensure", "box", "--provision", provision(t, `{ environment.etc.app.text = "passwords are elsewhere"; }`))
	if strings.Contains(result.stderr, "warning") {
		t.Errorf("a warning without a secret:\n%s", result.stderr)
	}
}

// TestSudoReadsWithTheCallersRights: who may run "sudo devhost" can hand in what
// they may read themselves, and nothing else.
func TestSudoReadsWithTheCallersRights(t *testing.T) {
	h := newHost(t)
	// Only a folder that root has used may be used by way of sudo.
	h.must("ensure", "anchor", "--channel", offline(t))
	h.allow(strangerGroup(t))
	sudo := *h
	sudo.env = []string{"SUDO_UID=" + strangerText, "SUDO_GID=" + strangerText, "SUDO_USER=nobody"}
	open := openFolder(t)
	private := filepath.Join(open, "private")
	if err := os.Mkdir(private, 0o700); err != nil {
		t.Fatal(err)
	}
	module := filepath.Join(private, "provision.nix")
	writeFile(t, module, "{ }\n")
	key := filepath.Join(private, "id.pub")
	writeFile(t, key, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl somebody\n")
	channel := filepath.Join(private, "channel")
	tool(t, "cp", "-R", offline(t), channel)
	archive := filepath.Join(private, "nixexprs.tar.xz")
	pack(t, channel, archive)
	hidden := filepath.Join(open, "half-readable")
	tool(t, "cp", "-R", offline(t), hidden)
	if err := os.Chmod(filepath.Join(hidden, "nixos/default.nix"), 0o600); err != nil {
		t.Fatal(err)
	}
	seen := filepath.Join(open, "channel")
	tool(t, "cp", "-R", offline(t), seen)
	for _, test := range []struct {
		name   string
		status int
		text   string
		args   []string
	}{
		{"provision folder", 1, "cannot read the provision " + private, []string{"--channel", seen, "--provision", private}},
		{"provision file", 1, "cannot read the provision " + module, []string{"--channel", seen, "--provision", module}},
		{"key", 2, "--authorized-key: open " + key + ": permission denied", []string{"--channel", seen, "--authorized-key", key}},
		{"channel folder", 1, "channel " + channel + ": ", []string{"--channel", channel}},
		{"unreadable file in a channel", 1, "channel " + hidden + ": ", []string{"--channel", hidden}},
		{"channel archive", 1, "channel file://" + archive + ": ", []string{"--channel", "file://" + archive}},
		{"flake", 1, "channel " + channel + ": ", []string{"--channel", "path:" + channel}},
	} {
		t.Run(test.name, func(t *testing.T) {
			sudo.with(t).fails(test.status, []string{test.text}, append([]string{"ensure", "box"}, test.args...)...)
		})
	}
	// Controls: the caller can hand in what they may read, and root can hand in
	// all of the above.
	sudo.must("ensure", "seen", "--channel", seen)
	if got := h.record("seen").Owner; got != "nobody" {
		t.Errorf("the owner is %q", got)
	}
	h.must("ensure", "box", "--channel", channel, "--provision", private, "--authorized-key", key)
	// What is written for the caller is written with their rights, too.
	forbidden := filepath.Join(private, "written")
	sudo.fails(1, []string{"permission denied"}, "ssh-config", "box", "--output", forbidden)
	if _, err := os.Lstat(forbidden); err == nil {
		t.Errorf("%s was made for somebody who may not write there", forbidden)
	}
	h.must("ssh-config", "box", "--output", forbidden)
	theirs := filepath.Join(open, "theirs")
	if err := errors.Join(os.Mkdir(theirs, 0o700), os.Chown(theirs, strangerID, strangerID)); err != nil {
		t.Fatal(err)
	}
	sudo.must("ssh-config", "box", "--output", filepath.Join(theirs, "box"))
	for _, name := range []string{"config", "id_ed25519"} {
		info, err := os.Stat(filepath.Join(theirs, "box", name))
		if err != nil {
			t.Error(err)
		} else if owner := info.Sys().(*syscall.Stat_t).Uid; owner != strangerID {
			t.Errorf("%s belongs to uid %d", name, owner)
		}
	}
	if testing.Short() {
		return
	}
	h.must("ensure", "box", "--channel", "file://"+archive, "--provision", module)
	h.must("ensure", "box", "--channel", "path:"+channel)
	h.must("ensure", "box", "--channel", hidden)
}

// TestGitOfAChannelNeverRunsAsRoot: the settings of a repository name programs
// that git runs. They run with the rights of who owns the folder.
func TestGitOfAChannelNeverRunsAsRoot(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	theirs := filepath.Join(openFolder(t), "theirs")
	folder, ran := filepath.Join(theirs, "channel"), filepath.Join(theirs, "ran")
	if err := os.Mkdir(theirs, 0o755); err != nil {
		t.Fatal(err)
	}
	ownChannel(t, folder, "git")
	tool(t, "git", "-C", folder, "init", "--quiet")
	tool(t, "git", "-C", folder, "add", ".")
	tool(t, "git", "-C", folder, "-c", "user.name=e2e", "-c", "user.email=e2e@example.org", "commit", "--quiet", "-m", "one")
	tool(t, "git", "-C", folder, "config", "filter.evil.clean", "sh -c 'id -u >> "+ran+"; cat'")
	writeFile(t, filepath.Join(folder, ".gitattributes"), "* filter=evil\n")
	tool(t, "touch", filepath.Join(folder, "default.nix"))
	tool(t, "chown", "-R", strangerText+":"+strangerText, theirs)
	h.must("ensure", "anchor", "--channel", offline(t))
	h.allow(strangerGroup(t))
	for name, env := range map[string][]string{"root": nil, "sudo": {"SUDO_UID=" + strangerText, "SUDO_GID=" + strangerText}} {
		t.Run(name, func(t *testing.T) {
			h := h.with(t)
			h.env = env
			h.must("ensure", name, "--channel", folder)
			content, err := os.ReadFile(ran)
			if err != nil {
				t.Fatalf("the test shows nothing, the filter did not run: %v", err)
			}
			if strings.Contains("\n"+string(content), "\n0\n") {
				t.Errorf("a program of somebody's repository ran as root: %q", content)
			}
			if err := os.Remove(ran); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestStateFolderMustBeRoots: a folder of somebody else could lead root
// anywhere by a link. The control is the same link in a folder of root's.
func TestStateFolderMustBeRoots(t *testing.T) {
	open := openFolder(t)
	victim, evil := filepath.Join(open, "victim"), filepath.Join(open, "evil")
	for _, folder := range []string{victim, evil} {
		if err := os.Mkdir(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(victim, filepath.Join(evil, "containers")); err != nil {
		t.Fatal(err)
	}
	marker := registry.Layout{State: evil}.Marker()
	if err := os.WriteFile(marker, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(evil, strangerID, strangerID); err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, layout: registry.Layout{State: evil}, env: []string{"SUDO_UID=" + strangerText, "SUDO_GID=" + strangerText}}
	mode := func() os.FileMode {
		info, err := os.Stat(victim)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	for _, args := range [][]string{{"list"}, {"status", "box"}, {"destroy", "box"}, {"ensure", "box", "--channel", offline(t)}, {"ingress"}, {"supervise", "box"}} {
		h.fails(2, []string{"the state folder " + evil + " cannot be used: " + evil + " belongs to uid 65534"}, args...)
	}
	if mode() != 0o755 {
		t.Errorf("the folder behind the link has mode %o now", mode())
	}
	if err := os.Chown(evil, 0, 0); err != nil {
		t.Fatal(err)
	}
	// A folder of root's that looks like a state folder may be a guest's work.
	h.fails(2, []string{"the state folder " + evil + " cannot be used by way of sudo"}, "destroy", "box")
	if mode() != 0o755 {
		t.Errorf("the folder behind the link has mode %o now", mode())
	}
	h.looksKnown()
	h.allow(strangerGroup(t))
	// Also root's folder is left alone when devhost did not make it.
	if err := os.Remove(marker); err != nil {
		t.Fatal(err)
	}
	h.fails(1, []string{evil + " is no state folder of devhost: it holds containers"}, "destroy", "box")
	if mode() != 0o755 {
		t.Errorf("the folder behind the link has mode %o now", mode())
	}
	if err := os.WriteFile(marker, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.fails(1, []string{"is no folder of its own, maybe a link"}, "destroy", "box")
	if err := os.Remove(filepath.Join(evil, "containers")); err != nil {
		t.Fatal(err)
	}
	// Control: the same folder without the link is good.
	h.fails(4, []string{"there is no container box"}, "destroy", "box")
}

func TestWithoutRoot(t *testing.T) {
	h := newHost(t)
	folder := openFolder(t)
	binary := filepath.Join(folder, "devhost")
	tool(t, "cp", program, binary)
	for _, args := range [][]string{
		{"ensure", "box", "--channel", "./it's"}, {"list"}, {"status", "box"}, {"start", "box"}, {"stop", "box"}, {"restart", "box"}, {"destroy", "box"},
		{"exec", "box", "ls"}, {"shell", "box"}, {"ssh", "box"}, {"ssh-config", "box"}, {"logs", "box"}, {"ip", "box"},
		{"generations", "box"}, {"rollback", "box"}, {"diff", "box"}, {"ingress"}, {"supervise", "box"},
	} {
		t.Run(args[0], func(t *testing.T) {
			h := h.with(t)
			command := exec.Command(binary, args...)
			result := h.finish(asStranger(command))
			want := "devhost: this needs root; run: sudo " + binary + " " + strings.Join(args, " ") + "\n"
			want = strings.ReplaceAll(want, "./it's", `'./it'\''s'`)
			if result.status != 6 || result.stderr != want {
				t.Errorf("it ended with %d and said %q, not %q", result.status, result.stderr, want)
			}
		})
	}
	t.Run("doctor", func(t *testing.T) {
		h := h.with(t)
		// As after su, HOME is a folder that may not be looked into.
		command := exec.Command(binary, "doctor")
		command.Env = append(os.Environ(), "HOME=/root")
		result := h.finish(asStranger(command))
		if result.status != 0 || !strings.Contains(result.stdout, "WARNING  root: not running as root") || strings.Contains(result.stdout, "PROBLEM") {
			t.Errorf("it ended with %d:\n%s%s", result.status, result.stdout, result.stderr)
		}
	})
}

// TestWithoutBuildUsers hides the group of the build users from devhost alone.
func TestWithoutBuildUsers(t *testing.T) {
	h := newHost(t)
	groups, err := os.ReadFile("/etc/group")
	if err != nil {
		t.Fatal(err)
	}
	var without, empty strings.Builder
	for line := range strings.Lines(string(groups)) {
		if !strings.HasPrefix(line, "nixbld:") {
			without.WriteString(line)
		}
	}
	empty.WriteString(without.String() + "nixbld:x:30000:\n")
	for name, test := range map[string]struct{ groups, text string }{
		"no group":   {without.String(), "there is no group nixbld: "},
		"no members": {empty.String(), "the group nixbld has no members: "},
	} {
		t.Run(name, func(t *testing.T) {
			h := h.with(t)
			file := filepath.Join(t.TempDir(), "group")
			writeFile(t, file, test.groups)
			hidden := func(args ...string) result {
				command := h.command(args...)
				return h.finish(exec.Command("unshare", append([]string{"--mount", "--propagation", "private", "sh", "-c",
					`mount --bind "$0" /etc/group && exec "$@"`, file}, command.Args...)...))
			}
			got := hidden("ensure", "box", "--channel", offline(t))
			for _, text := range []string{test.text + "builders would be root on this host, sandbox or not; make the build users with:\n", "useradd --system", "container box was not made"} {
				if !strings.Contains(got.stderr, text) {
					t.Errorf("it does not say %q but:\n%s", text, got.stderr)
				}
			}
			if got.status != 6 {
				t.Errorf("ensure ended with %d, not 6", got.status)
			}
			got = hidden("doctor")
			if got.status != 6 || !strings.Contains(got.stdout, "PROBLEM  build users: ") || !strings.Contains(got.stdout, "groupadd --system nixbld") {
				t.Errorf("doctor ended with %d:\n%s", got.status, got.stdout)
			}
		})
	}
	if _, err := os.Stat(h.layout.Daemon()); err == nil {
		t.Error("a daemon was prepared although it must not build")
	}
}

func TestPortIsTaken(t *testing.T) {
	h := newHost(t)
	holder, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	address := holder.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	result := h.fails(6, []string{
		fmt.Sprintf("cannot listen on %s: port %s is taken by %s (pid %d); stop that, or choose another port, for example --https 127.0.0.1:8443", address, port, comm(t), os.Getpid()),
	}, "ingress", "--https", address, "--http", "")
	if strings.Contains(result.stderr, "serving") {
		t.Errorf("it claims to serve:\n%s", result.stderr)
	}
}

func comm(t *testing.T) string {
	name, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(name))
}
