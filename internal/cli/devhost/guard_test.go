package devhost

import (
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"

	"devhost/internal/cli/cliargs"
	"devhost/internal/person"
	"devhost/internal/settings"
)

// dialects are commands that do not stand in the tree of devhost's own.
var dialects = []string{"fc-", "nixos-container"}

// TestEveryCommandHasARule: so that none can forget who may run it, and whether
// it is written down.
func TestEveryCommandHasARule(t *testing.T) {
	a := &app{streams: Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}}
	seen := map[string]bool{}
	var walk func(commands []*cli.Command, above string)
	walk = func(commands []*cli.Command, above string) {
		for _, command := range commands {
			path := above + command.Name
			seen[path] = true
			rule, known := rules[path]
			switch kind := rule & (reads | changes | uses); {
			case !known:
				t.Errorf("devhost %s has no rule in guard.go", path)
			case kind != reads && kind != changes && kind != uses:
				t.Errorf("the rule of devhost %s says not one of reads, changes, uses", path)
			case rule&open != 0 && (kind != reads || rule&forAdmins != 0):
				t.Errorf("devhost %s is open to everybody, and more than reading", path)
			}
			walk(command.Subcommands, path+" ")
		}
	}
	walk(a.command().Commands, "")
	for path := range rules {
		isDialect := false
		for _, prefix := range dialects {
			isDialect = isDialect || strings.HasPrefix(path, prefix)
		}
		if !seen[path] && !isDialect {
			t.Errorf("guard.go has a rule for %q, which is no command", path)
		}
	}
}

func TestAdmitted(t *testing.T) {
	nobody, err := person.Lookup("65534")
	if err != nil {
		t.Fatal(err)
	}
	group, err := user.LookupGroupId("65534")
	if err != nil {
		t.Skip(err)
	}
	root, err := person.Lookup("0")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		who             person.Person
		allowed, admins []string
		rule            rule
		want            string
	}{
		"root":                        {root, nil, nil, changes | forAdmins, ""},
		"member":                      {nobody, []string{"no such group", group.Name}, nil, changes, ""},
		"admin":                       {nobody, nil, []string{group.Name}, changes, ""},
		"admin's command":             {nobody, nil, []string{group.Name}, reads | forAdmins, ""},
		"admin's command by a member": {nobody, []string{group.Name}, nil, reads | forAdmins, "nobody may not run devhost x, which is for admins of this host; ask one of them"},
		"nobody":                      {nobody, []string{"root"}, []string{"root"}, reads, "nobody may not use devhost on this host; being in one of the groups root would allow it; an admin of this host sees to that with: groupadd --force --system root && usermod --append --groups root nobody"},
		"no groups":                   {nobody, nil, nil, reads, "nobody may not use devhost on this host; an admin of this host can allow it, by allowedGroups of its settings"},
		"groups that do not exist":    {nobody, []string{"no such group", ""}, []string{""}, reads, "nobody may not use devhost on this host; being in one of the groups no such group,  would allow it"},
	} {
		t.Run(name, func(t *testing.T) {
			err := admitted(test.who, settings.Settings{AllowedGroups: test.allowed, AdminGroups: test.admins}, "x", test.rule)
			if (err == nil) != (test.want == "") || (err != nil && !strings.HasPrefix(err.Error(), test.want)) {
				t.Errorf("got %v, not %q", err, test.want)
			}
			if err != nil && exitCode(t.Context(), err) != 7 {
				t.Errorf("exit code %d", exitCode(t.Context(), err))
			}
		})
	}
}

// TestWhatIsWrittenDown: containers, options and arguments, without secrets.
func TestWhatIsWrittenDown(t *testing.T) {
	a := &app{streams: Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}}
	for name, test := range map[string]struct {
		typed               []string
		containers, options []string
	}{
		"ensure": {[]string{"ensure", "box", "--channel", "https://a:secret@example.org/x.tar.xz?token=secret", "--alias", "www", "--alias", "api", "--memory", "4G", "--update-channel"},
			[]string{"box"}, []string{"--alias=www api", "--channel=https://***example.org/x.tar.xz?token=***", "--memory=4G", "--update-channel=true"}},
		"destroy":        {[]string{"destroy", "one", "two"}, []string{"one", "two"}, nil},
		"no name":        {[]string{"start"}, nil, nil},
		"exec":           {[]string{"exec", "-u", "developer", "-e", "PASSWORD=secret", "box", "--", "psql", "password=secret"}, []string{"box"}, []string{"--user=developer", "psql"}},
		"shell":          {[]string{"shell", "box"}, []string{"box"}, nil},
		"ssh":            {[]string{"ssh", "box", "-o", "ProxyCommand=secret"}, []string{"box"}, []string{"-o"}},
		"rollback":       {[]string{"rollback", "box", "--to", "3"}, []string{"box"}, []string{"--to=3"}},
		"too many names": {[]string{"stop", "box", "other"}, []string{"box"}, []string{"other"}},
	} {
		t.Run(name, func(t *testing.T) {
			ran := false
			command := a.command()
			for _, sub := range command.Commands {
				sub.Action = func(c *cli.Context) error {
					ran = true
					if diff := cmp.Diff(test.containers, containersOf(c)); diff != "" && len(test.containers)+len(containersOf(c)) > 0 {
						t.Errorf("containers (-want +got):\n%s", diff)
					}
					if diff := cmp.Diff(test.options, optionsOf(c, rules[c.Command.Name])); diff != "" && len(test.options)+len(optionsOf(c, rules[c.Command.Name])) > 0 {
						t.Errorf("options (-want +got):\n%s", diff)
					}
					return nil
				}
			}
			if err := command.Run(a.reorder(command, append([]string{"devhost"}, test.typed...))); err != nil || !ran {
				t.Fatalf("ran %v: %v", ran, err)
			}
		})
	}
}

func TestFirstLine(t *testing.T) {
	if got := firstLine(errors.New("one\ntwo")); got != "one" {
		t.Errorf("got %q", got)
	}
	if got := firstLine(&cliargs.StatusError{Status: 3}); got != "" {
		t.Errorf("a command's own status: %q", got)
	}
}

func TestCleanedEnvironment(t *testing.T) {
	got := cleaned([]string{
		"PATH=/usr/bin:relative::/tmp:/no/such/folder:/bin", "HOME=/home/alice", "LD_PRELOAD=/tmp/x.so", "NIX_CONFIG=sandbox = false", "NIX_REMOTE=daemon",
		"TMPDIR=/tmp/x", "GIT_SSH_COMMAND=x", "DEVHOST_STATE_DIR=/s", "DEVHOST_ENGINE=x", "LC_ALL=C", "LCX=1", "TERM=vt100", "SUDO_UID=1", "BASH_FUNC_x%%=() { :; }", "GODEBUG=x", "http_proxy=x", "=weird", "",
	}, "/root")
	want := map[string]string{
		"PATH": "/usr/bin:/bin", "HOME": "/root", "USER": "root", "LOGNAME": "root",
		"DEVHOST_STATE_DIR": "/s", "LC_ALL": "C", "TERM": "vt100", "SUDO_UID": "1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := rootsFolders("/tmp:."); got != usualPath {
		t.Errorf("without a folder of root's: %q", got)
	}
}

func TestOnlyRoots(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("makes folders of root's and of others")
	}
	folder, err := os.MkdirTemp("/usr/local", "devhost-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	folderOf := func(name string, mode os.FileMode, uid int) string {
		path := filepath.Join(folder, name)
		if err := errors.Join(os.MkdirAll(path, 0o755), os.Chmod(path, mode), os.Chown(path, uid, uid)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	link := func(name, target string) string {
		path := filepath.Join(folder, name)
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, theirs, shared := folderOf("good", 0o755, 0), folderOf("theirs", 0o755, 65534), folderOf("shared", 0o777, 0)
	sticky := folderOf("sticky", os.ModeSticky|0o777, 0)
	for path, want := range map[string]bool{
		good: true, theirs: false, shared: false, sticky: false,
		folderOf("shared/inside", 0o755, 0): false, folderOf("sticky/inside", 0o755, 0): true, folderOf("theirs/inside", 0o755, 0): false,
		link("to-good", good): true, link("to-theirs", theirs): false, link("theirs/to-good", good): false, "/": true, "/no/such": false,
	} {
		if got := onlyRoots(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}
