package environment

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const sample = `# a comment
[DEFAULT]
platform = nixos
[environment]
service_user: s-app
update_method=rsync
 ; a comment inside
[provisioner:default]
method = fc-nixos-dev-container
host = me@dev.example.org
channel = https://example.org/nixexprs.tar.xz
[provisioner:other]
method = devhost
host = other.example.org
[host:app]
provision-dynamic-hostname = True
components =
    nginx,
    app
provision-aliases =
    www

    # none
    api  admin
[host:db]
provisioner = other
service_user = s-db
[component:app]
frontend = {{host.aliases.www}}:443
lines =
  a = 1
    b
Empty =
[sync]
folders = src/:/srv/s-app/src
    /abs/x:/srv/y
exclude =
    node_modules
    *.pyc
host = app
`

func project(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, "environments", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestLoad(t *testing.T) {
	root := project(t, map[string]string{"dev/environment.cfg": sample, "dev/hostmap.json": `{"app": "0c3f9a1b2d7", "gone": "1c3f9a1b2d7"}`})
	e, err := Load(root, "dev")
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Warnings) > 0 {
		t.Errorf("warnings: %v", e.Warnings)
	}
	standard := &Provisioner{Name: "default", Host: "me@dev.example.org", Channel: "https://example.org/nixexprs.tar.xz"}
	other := &Provisioner{Name: "other", Host: "other.example.org"}
	want := []*Host{
		{Key: "app", Line: 15, Dynamic: true, Name: "0c3f9a1b2d7", Aliases: []string{"www", "api", "admin"}, Provisioner: standard},
		{Key: "db", Line: 25, Name: "db", Provisioner: other, ServiceUser: "s-db"},
	}
	if diff := cmp.Diff(want, e.Hosts); diff != "" {
		t.Errorf("hosts (-want +got):\n%s", diff)
	}
	components := map[string]map[string]string{"app": {"frontend": "{{host.aliases.www}}:443", "lines": "\na = 1\nb", "Empty": "", "platform": "nixos"}}
	if diff := cmp.Diff(components, e.Components); diff != "" {
		t.Errorf("components (-want +got):\n%s", diff)
	}
	sync := Sync{
		Folders: []SyncFolder{{Source: filepath.Join(root, "src") + "/", Target: "/srv/s-app/src", Line: 35}, {Source: "/abs/x", Target: "/srv/y", Line: 36}},
		Exclude: []string{"node_modules", "*.pyc"}, Host: "app",
	}
	if diff := cmp.Diff(sync, e.Sync); diff != "" {
		t.Errorf("sync (-want +got):\n%s", diff)
	}
	if e.ServiceUserOf(e.Hosts[0]) != "s-app" || e.ServiceUserOf(e.Hosts[1]) != "s-db" || e.Hosts[0].FQDN("www") != "www.0c3f9a1b2d7.dev.example.org" {
		t.Errorf("users %q, %q; %s", e.ServiceUserOf(e.Hosts[0]), e.ServiceUserOf(e.Hosts[1]), e.Hosts[0].FQDN("www"))
	}
	for word, want := range map[string]string{"app": "app", "0c3f9a1b2d7": "app", "db": "db"} {
		if host, err := e.Host(word); err != nil || host.Key != want {
			t.Errorf("Host(%q) = %v, %v", word, host, err)
		}
	}
	for word, want := range map[string]string{"": "say which: app, db", "apq": `did you mean "app"?`, "xyzzy": "there are: app, db"} {
		if _, err := e.Host(word); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Host(%q): %v", word, err)
		}
	}
}

// TestReadsAsPython compares the reader with Python's configparser.
func TestReadsAsPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3 to compare with")
	}
	const program = `
import configparser, sys
c = configparser.RawConfigParser()
c.optionxform = lambda s: s
try:
    c.read_string(sys.stdin.buffer.read().decode())
except Exception as e:
    print("refused"); sys.exit()
for s in c.sections():
    for k, v in c.items(s):
        print("%s|%s|%s" % (s, k, v.replace("\n", "\\n")))
`
	for name, text := range map[string]string{
		"sample": sample, "no section": "a = b\n", "twice": "[a]\nx = 1\nx = 2\n", "section twice": "[a]\n[a]\n", "no value": "[a]\nkey\n",
		"deep": "[a]\n  x = 1\n    2\n  y = 3\n", "blank lines": "[a]\nx = 1\n\n  2\n\n\ny = 3\n\n\n", "colon first": "[a]\nx: 1 = 2\ny = 1:2\n",
		"inline comment": "[a]\nx = 1 # no comment\n", "windows": "[a]\r\nx = 1\r\n  2\r\n", "indented section": "[a]\nx = 1\n [b]\ny = 2\n",
		"tabs": "[a]\nx =\n\t1\n\t\t2\ny=3\n", "trailing": "[a] tail\nx = 1\n", "empty key": "[a]\n= 1\n", "comment in value": "[a]\nx = 1\n# c\n  2\n; d\n  3\n",
		"indented first key": "[a]\n    x = 1\ny = 2\n", "empty value goes on": "[a]\nx =\n  1\n\n  2\n",
	} {
		t.Run(name, func(t *testing.T) {
			command := exec.Command(python, "-c", program) //nolint:forbidigo // what we compare with
			command.Stdin = strings.NewReader(text)
			want, err := command.Output()
			if err != nil {
				t.Fatal(err)
			}
			parsed, problems := readINI([]byte(text))
			var got strings.Builder
			if len(problems) > 0 {
				got.WriteString("refused\n")
			} else {
				for _, section := range parsed.sections {
					for _, entry := range section.entries {
						got.WriteString(section.name + "|" + entry.key + "|" + strings.ReplaceAll(entry.value(), "\n", `\n`) + "\n")
					}
				}
			}
			// Python gives defaults first.
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got.String(), "\n"), unordered()); diff != "" {
				t.Errorf("(-python +ours):\n%s", diff)
			}
		})
	}
}

// unordered compares lines as sets.
func unordered() cmp.Option {
	return cmp.Transformer("set", func(lines []string) map[string]int {
		set := map[string]int{}
		for _, line := range lines {
			set[line]++
		}
		return set
	})
}

func FuzzReadINI(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("[a\nb\n = c\n\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		parsed, problems := readINI(data)
		lines := strings.Count(strings.ReplaceAll(string(data), "\r", "\n"), "\n") + 1
		for _, problem := range problems {
			if problem.Line < 1 || problem.Line > lines {
				t.Errorf("a problem in line %d of %d", problem.Line, lines)
			}
		}
		for _, section := range parsed.sections {
			for _, entry := range section.entries {
				if entry.key == "" {
					t.Errorf("an entry without a key in %q", section.name)
				}
			}
		}
	})
}

func TestPickNames(t *testing.T) {
	root := project(t, map[string]string{"dev/environment.cfg": sample, "dev/hostmap.json": `{"gone": "1c3f9a1b2d7"}`})
	e, err := Load(root, "dev")
	if err != nil {
		t.Fatal(err)
	}
	picked, err := e.PickNames()
	if err != nil || !picked || !regexp.MustCompile(`^[0-9a-f]{11}$`).MatchString(e.Hosts[0].Name) {
		t.Fatalf("PickNames = %v, %v; the name is %q", picked, err, e.Hosts[0].Name)
	}
	again, err := Load(root, "dev")
	if err != nil || again.Hosts[0].Name != e.Hosts[0].Name {
		t.Errorf("the name was not kept: %q, %v", again.Hosts[0].Name, err)
	}
	if again.hostmap["gone"] != "1c3f9a1b2d7" {
		t.Error("the name of a host that is not there now is lost")
	}
	if picked, err := again.PickNames(); err != nil || picked {
		t.Errorf("a second PickNames = %v, %v", picked, err)
	}
	// Names that could never resolve, or are taken, are not picked.
	random := []string{"12345678901", "0x123456789", "aaaaaaaaaaa", "bbbbbbbbbbb"}
	if name := pickName(map[string]bool{"aaaaaaaaaaa": true}, func() string { next := random[0]; random = random[1:]; return next }); name != "bbbbbbbbbbb" {
		t.Errorf("picked is %s", name)
	}
}

func TestWords(t *testing.T) {
	root := project(t, map[string]string{"dev/environment.cfg": `[provisioner:default]
method = devhost
host = me@dev
[host:app]
provision-dynamic-hostname = True
provision-aliases = www dev shared db
[host:db]
provision-aliases = shared only
`, "dev/hostmap.json": `{"app": "1c3f9a1b2d7"}`})
	e, err := Load(root, "dev")
	if err != nil {
		t.Fatal(err)
	}
	// dev is the way to the dev host.
	if diff := cmp.Diff([][]string{{"1c3f9a1b2d7", "app", "www"}, {"db", "only"}}, [][]string{e.Words(e.Hosts[0]), e.Words(e.Hosts[1])}); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestVariable(t *testing.T) {
	for want, of := range map[string][2]string{
		"COMPONENT_MANAGEDMYSQL_ADMIN_PASSWORD": {"managedmysql", "admin_password"}, "COMPONENT_MY_APP_A_B": {"my-app", "a.b"},
	} {
		if got := Variable(of[0], of[1]); got != want {
			t.Errorf("Variable(%v) = %s, want %s", of, got, want)
		}
	}
}

func TestParseSecrets(t *testing.T) {
	got, err := ParseSecrets([]byte("[batou]\nmembers = me\n[app]\npassword = p = q; 'x'\n[component:db]\nkey =\n  a\n  b\n"))
	want := map[string]map[string]string{"app": {"password": "p = q; 'x'"}, "db": {"key": "\na\nb"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err := ParseSecrets([]byte("[app]\nsecretvalue\n")); err == nil || strings.Contains(err.Error(), "secretvalue") {
		t.Errorf("the error is %v", err)
	}
}

func TestUnreadable(t *testing.T) {
	for name, test := range map[string]struct {
		make func(path string) error
		want string
	}{
		"folder": {func(path string) error { return os.Mkdir(path, 0o755) }, "it cannot be read: it is a folder"},
		"loop":   {func(path string) error { return os.Symlink("environment.cfg", path) }, "it cannot be read: too many levels of symbolic links"},
		"binary": {func(path string) error { return os.WriteFile(path, []byte("[a]\nx = \xff\n"), 0o644) }, ":2: it is no text in UTF-8"},
		"large":  {func(path string) error { return os.WriteFile(path, make([]byte, largestFile+1), 0o644) }, "it cannot be read: it has more than 1024 KiB"},
		"empty":  {func(path string) error { return os.WriteFile(path, nil, 0o644) }, "environments/dev/environment.cfg: it has no host to provision; a section such as [host:app] was expected"},
	} {
		t.Run(name, func(t *testing.T) {
			root := project(t, map[string]string{"dev/x": ""})
			if err := test.make(filepath.Join(root, "environments/dev/environment.cfg")); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(root, "dev"); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the error is %v, without %q", err, test.want)
			}
		})
	}
}
