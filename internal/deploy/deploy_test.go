package deploy

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/environment"
	"devhost/internal/execx"
	"devhost/internal/execx/execxtest"
)

const config = `[environment]
secrets-command = cat secrets
[provisioner:default]
method = devhost
host = me@dev.example.org
[host:app]
provision-dynamic-hostname = True
provision-aliases = www shared
[host:db]
provision-aliases = shared
[component:app]
name = shop
`

// sample is an environment in a project whose path has a blank.
func sample(t *testing.T, files map[string]string) *environment.Environment {
	t.Helper()
	root := filepath.Join(t.TempDir(), "my project")
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, "environments/dev", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("environment.cfg", config)
	write("hostmap.json", `{"app": "0c3f9a1b2d7"}`)
	for name, text := range files {
		write(name, text)
	}
	e, err := environment.Load(root, "dev")
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestRenderConfig(t *testing.T) {
	e := sample(t, nil)
	got := renderConfig(e, map[string]Access{"0c3f9a1b2d7": {Port: 61001}, "db": {Batou: true}})
	want := `# Written by devhost-deploy for the environment dev of this checkout; each deploy
# writes it anew. ssh -F ssh_config_dev app

Host 0c3f9a1b2d7 app www
  HostName 0c3f9a1b2d7
  HostKeyAlias 0c3f9a1b2d7
  Port 61001
  ProxyCommand ssh -F 'ROOT/ssh_config_dev' -W '[%h]:%p' -- me@dev.example.org
  User developer
  IdentityFile "ROOT/.devhost/dev/0c3f9a1b2d7.key"
  IdentitiesOnly yes
  UserKnownHostsFile "ROOT/.devhost/dev/known_hosts"
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  UpdateHostKeys no
  CheckHostIP no

Host db
  HostName db
  HostKeyAlias db
  ProxyCommand ssh -F 'ROOT/ssh_config_dev' -W '[%h]:%p' -- me@dev.example.org
  User developer
  IdentityFile "ROOT/insecure-private.key"
  UserKnownHostsFile "ROOT/.devhost/dev/known_hosts"
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  UpdateHostKeys no
  CheckHostIP no

Host *
  Include "ROOT/ssh_config"
  Include ~/.ssh/config
  Include /etc/ssh/ssh_config
`
	if diff := cmp.Diff(strings.ReplaceAll(want, "ROOT", e.Root), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// ssh itself reads it so.
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("there is no ssh to read it")
	}
	path := filepath.Join(e.Root, "ssh_config_dev")
	if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(e.Root, "ssh_config"), []byte("Host dev.example.org\n  Port 2222\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for host, wants := range map[string][]string{
		"app":             {"hostname 0c3f9a1b2d7", "identityfile " + e.Root + "/.devhost/dev/0c3f9a1b2d7.key", "proxycommand ssh -F '" + e.Root + "/ssh_config_dev' -W '[%h]:%p' -- me@dev.example.org", "stricthostkeychecking true", "port 61001"},
		"dev.example.org": {"port 2222"},
	} {
		output, err := exec.Command("ssh", "-F", path, "-G", host).Output() //nolint:forbidigo // what reads it in the end
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			if !strings.Contains(string(output), want+"\n") {
				t.Errorf("ssh makes of host %s, without %q:\n%s", host, want, output)
			}
		}
	}
}

func TestWayIn(t *testing.T) {
	for root, want := range map[string]string{
		"/p/x-1":  "ProxyJump me@h",
		"/p q/x":  "ProxyCommand ssh -F '/p q/x/ssh_config_dev' -W '[%h]:%p' -- me@h",
		"/p/%h/x": "ProxyCommand ssh -F /p/%%h/x/ssh_config_dev -W '[%h]:%p' -- me@h",
		"/p/it's": `ProxyCommand ssh -F '/p/it'\''s/ssh_config_dev' -W '[%h]:%p' -- me@h`,
	} {
		if got := wayIn(&environment.Environment{Name: "dev", Root: root}, &environment.Host{Provisioner: &environment.Provisioner{Host: "me@h"}}); got != want {
			t.Errorf("the way in for a project in %s is %s, not %s", root, got, want)
		}
	}
}

func TestScriptIsForTheInside(t *testing.T) {
	for text, want := range map[string]bool{
		"RUN true\n":                      false,
		"# fc-manage and provision.nix\n": false,
		"RUN true # fc-manage\n":          false,
		"RUN sudo -i fc-manage -c\n":      true,
		"COPY provision.nix /etc/local/nixos/provision-container.nix\n": true,
		"ECHO x /etc/local/nixos/more.nix\n":                            true,
		"ECHO x /etc/local/nixos/password\n":                            false,
	} {
		t.Run(text, func(t *testing.T) {
			e := sample(t, map[string]string{"provision.sh": text})
			script, err := readScript(t.Context(), execxtest.New(t), e)
			if err != nil || script.inside != want {
				t.Errorf("readScript = %+v, %v", script, err)
			}
		})
	}
}

func TestScriptOfOtherSystems(t *testing.T) {
	for text, want := range map[string]string{
		"\ufeffRUN true\n":        "environments/dev/provision.sh:1: it begins with a byte order mark, which bash takes for a part of the first word; save it as UTF-8 without one",
		"RUN true\r\nRUN x\r\n":   `environments/dev/provision.sh:1: its lines end as on Windows (CR LF), and bash takes the CR for a part of the last word; convert it: sed -i 's/\r$//' environments/dev/provision.sh, and write "*.sh text eol=lf" into .gitattributes`,
		"RUN true\nRUN 'a\r\n'\n": "",
	} {
		t.Run(text, func(t *testing.T) {
			_, err := readScript(t.Context(), execxtest.New(t), sample(t, map[string]string{"provision.sh": text}))
			if got := fmt.Sprint(err); want != "" && got != want || want == "" && err != nil {
				t.Errorf("the error is %s", got)
			}
		})
	}
}

func TestProvisionArchive(t *testing.T) {
	e := sample(t, map[string]string{"provision.nix": "{ }", "more.nix": "{ }", ".hidden.nix": "", "provision/page/index.html": "hi", "secret.txt": "", "provision.sh": ""})
	packed, err := provisionArchive(e)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	archive := tar.NewReader(bytes.NewReader(packed))
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
	}
	if diff := cmp.Diff([]string{"more.nix", "provision.nix", "provision/page/index.html"}, names); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	again, err := provisionArchive(e)
	if err != nil || !bytes.Equal(packed, again) {
		t.Error("the same files give another archive")
	}
	if none, err := provisionArchive(sample(t, nil)); err != nil || none != nil {
		t.Errorf("without provision.nix: %v, %v", none, err)
	}
	dangling := sample(t, map[string]string{"provision.nix": "{ }"})
	if err := os.Symlink("/no/such", filepath.Join(dangling.Folder, "x.nix")); err != nil {
		t.Fatal(err)
	}
	if _, err := provisionArchive(dangling); err == nil || err.Error() != "environments/dev/x.nix: it cannot be read: no such file or directory" {
		t.Errorf("the error is %v", err)
	}
}

func TestCollect(t *testing.T) {
	for name, test := range map[string]struct {
		secrets string
		want    map[string]string
		masked  map[string]string
		fails   string
	}{
		"ini":      {"[app]\npassword = s3cret!\n", map[string]string{"COMPONENT_APP_NAME": "shop", "COMPONENT_APP_PASSWORD": "s3cret!"}, map[string]string{"a s3cret! b": "a *** b"}, ""},
		"json":     {`{"app": {"pin": 17, "on": true, "key": "line one\nline two"}}`, map[string]string{"COMPONENT_APP_NAME": "shop", "COMPONENT_APP_PIN": "17", "COMPONENT_APP_ON": "true", "COMPONENT_APP_KEY": "line one\nline two"}, map[string]string{"line two 17": "*** 17"}, ""},
		"override": {"[app]\nname = other\n", map[string]string{"COMPONENT_APP_NAME": "other"}, map[string]string{"other": "***"}, ""},
		"nested":   {`{"app": {"a": ["s3cret"]}}`, nil, nil, `the value of "a" in "app" is no text, number or truth value`},
		"no JSON":  {`{"app": s3cret`, nil, nil, "it is no JSON object"},
		"no INI":   {"s3cret", nil, nil, "something is wrong in its line 1"},
		"traced":   {`{"app": {"key": "it's \\my"}}`, map[string]string{"COMPONENT_APP_NAME": "shop", "COMPONENT_APP_KEY": `it's \my`}, map[string]string{`+ RUN 'it'\''s \my'`: "+ RUN '***'", `+ RUN $'it\'s \\my'`: "+ RUN $'***'"}, ""},
		"trailing": {`{"app": {}} s3cret`, nil, nil, "it is no JSON object"},
		"endless":  {strings.Repeat("s3cret\n", 1<<18), nil, nil, "the secrets-command of environments/dev/environment.cfg (cat secrets) prints more than 1024 KiB; secrets are smaller"},
		"zero":     {`{"app": {"a": "x\u0000s3cret"}}`, nil, nil, "the value of COMPONENT_APP_A has a zero byte"},
		"meet":     {"[app]\na-b = 1\na.b = 2\n", nil, nil, `the attributes "app a-b" and "app a.b" would both be the variable COMPONENT_APP_A_B`},
	} {
		t.Run(name, func(t *testing.T) {
			e := sample(t, map[string]string{"secrets": test.secrets})
			got, err := collect(t.Context(), e, Streams{In: os.Stdin, Err: os.Stderr}, execx.New())
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) || strings.Contains(err.Error(), "s3cret") {
					t.Errorf("the error is %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got.variables); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for text, want := range test.masked {
				if masked := got.mask.Replace(text); masked != want {
					t.Errorf("%q is shown as %q, not %q", text, masked, want)
				}
			}
		})
	}
	e := sample(t, nil)
	if _, err := collect(t.Context(), e, Streams{In: os.Stdin}, execx.New()); err == nil || !strings.Contains(err.Error(), "the secrets-command of environments/dev/environment.cfg (cat secrets) ended with exit code 1") {
		t.Errorf("without secrets the error is %v", err)
	}
}

// TestFunctions runs provision.sh with real bash and, in place of ssh, a program
// that runs the container's part here, and one for sudo.
func TestFunctions(t *testing.T) {
	bin := t.TempDir()
	for name, text := range map[string]string{
		"ssh":  "#!/bin/sh\nprintf '%s\\n' \"$*\" >>\"$CALLS\"\nwhile [ \"$1\" != 0c3f9a1b2d7 ]; do shift; done\nshift\nexec sh -c \"$*\"\n",
		"sudo": "#!/bin/sh\nwhile [ \"${1#-}\" != \"$1\" ]; do [ \"$1\" = -u ] && shift; shift; done\nexec \"$@\"\n",
	} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	for name, test := range map[string]struct {
		script string
		// said are the lines that it writes, line and status where it fails.
		said         []string
		line, status int
		// last is the line of its last word, where that matters.
		last int
	}{
		"arguments":      {script: `RUN printf '<%s>\n' a 'b c' "it's" '"$HOME;*"' -n '' $'ü\x01\x7f'`, said: []string{"<a>", "<b c>", "<it's>", `<"$HOME;*">`, "<-n>", "<>", "<ü>"}},
		"command line":   {script: `RUN 'echo a b | tr a-z A-Z && echo "$0"'`, said: []string{"A B", "bash"}},
		"assignment":     {script: "RUN A='b c' sh -c 'echo \"$A\"'", said: []string{"b c"}},
		"captured":       {script: "x=$(RUN_AS me echo hi)\necho \"<$x>\"", said: []string{"<hi>"}},
		"echo":           {script: "ECHO 'a  $b' \"$OUT/e f\"\nRUN cat \"$OUT/e f\"", said: []string{"a  $b"}},
		"no input eaten": {script: "while read -r x; do RUN echo \"$x\"; done <<<$'1\\n2\\n3'", said: []string{"1", "2", "3"}},
		"fails":          {script: "RUN true\n\nRUN sh -c 'exit 7'\necho no", line: 3, status: 7},
		"in a function":  {script: "f() {\n  RUN false\n}\nf", line: 2, status: 1},
		"captured fails": {script: "RUN true\nx=$(RUN sh -c 'exit 3')\necho no", line: 2, status: 3},
		"tolerated":      {script: "RUN false || echo went on", said: []string{"went on"}},
		"exit":           {script: "RUN true\nif true; then\n  exit 5\nfi", line: 3, status: 5},
		"own command":    {script: "true\nfalse", line: 2, status: 1},
		"unset":          {script: "set -u\ntrue\necho \"$NOT_THERE\"", said: []string{"./provision.sh: line 3: NOT_THERE: unbound variable"}, status: 1},
		"no command":     {script: "RUN", said: []string{"RUN needs a command: RUN cmd arg1 arg2"}, line: 1, status: 2},
		"relative":       {script: "ECHO x y", said: []string{`ECHO: the remote path "y" must be absolute`}, line: 1, status: 2},
		"unquoted":       {script: "ECHO a b /c", said: []string{`ECHO needs a value and a path, and was given 3 arguments; quote the value: ECHO "$VALUE" /remote/path`}, line: 1, status: 2},
		"bad user":       {script: "RUN_AS -x id", said: []string{`RUN_AS: "-x" is no name of a user`}, line: 1, status: 2},
		"nothing there":  {script: "COPY nope /x", line: 1, status: 2, said: []string{`COPY: there is no "nope" in FOLDER`}},
		"readonly":       {script: "readonly line=3 user=me status=x from=1 to=2 i=9\nRUN echo a\nRUN_AS me echo b\nECHO c \"$OUT/c\"\nCOPY data \"$OUT/\"\nRUN sh -c 'exit 4'", said: []string{"a", "b"}, line: 6, status: 4},
		"traced":         {script: "set -x\nRUN echo a\nRUN false || true\nECHO c \"$OUT/c\"\nexit 0", said: []string{"++ RUN echo a", "a", "++ RUN false", "++ true", "++ ECHO c OUT/c", "++ exit 0", "++ builtin exit 0"}},
		"left running":   {script: "sleep 600 & echo $! > \"$OUT/pid\"\necho on", said: []string{"on"}},
		"left, failed":   {script: "sleep 600 & echo $! > \"$OUT/pid\"\nRUN false", line: 2, status: 1},
		"own trap":       {script: "trap 'echo mine' ERR\nRUN true\nRUN false", said: []string{"mine"}, status: 1, last: 3},
		"links":          {script: "COPY link \"$OUT/file\"\nCOPY folder \"$OUT/\"\nRUN cat \"$OUT/file\" \"$OUT/folder/out\"\nRUN readlink \"$OUT/folder/in\" || echo no", said: []string{"data", "outside", "here"}},
		"in order":       {script: "echo 1; echo 2 >&2; echo 3; echo 4 >&2", said: []string{"1", "2", "3", "4"}},
		"masked":         {script: "echo my s3cret here", said: []string{"my *** here"}},
		"variables":      {script: "echo $PROVISION_CONTAINER $PROVISION_HOST \"$PROVISION_ALIASES\" ${PROVISION_REBUILD-none} $COMPONENT_APP_NAME; test -f ./environment.cfg", said: []string{"0c3f9a1b2d7 me@dev.example.org www shared none shop"}},
	} {
		t.Run(name, func(t *testing.T) {
			e := sample(t, map[string]string{"provision.sh": test.script + "\n", "data": "data\n", "folder/here": "here\n"})
			out := t.TempDir()
			outside := filepath.Join(t.TempDir(), "outside")
			if err := errors.Join(os.WriteFile(outside, []byte("outside\n"), 0o600), os.Symlink("data", filepath.Join(e.Folder, "link")),
				os.Symlink("here", filepath.Join(e.Folder, "folder/in")), os.Symlink(outside, filepath.Join(e.Folder, "folder/out"))); err != nil {
				t.Fatal(err)
			}
			defer endLeft(t, filepath.Join(out, "pid"))
			t.Setenv("OUT", out)
			t.Setenv("CALLS", filepath.Join(out, "calls"))
			var said []string
			p := &provisioning{
				runner: execx.New(), e: e, host: e.Hosts[0], control: "/no/such/socket", mask: strings.NewReplacer("s3cret", hidden),
				variables: variablesOf(e, e.Hosts[0], map[string]string{"COMPONENT_APP_NAME": "shop"}, false),
				step:      func(int) {}, line: func(text string) { said = append(said, strings.TrimSpace(text)) },
			}
			failed, err := p.run(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			for i := range test.said {
				test.said[i] = strings.NewReplacer("FOLDER", e.Folder, "OUT/", out+"/").Replace(test.said[i])
			}
			if diff := cmp.Diff(test.said, said); diff != "" {
				t.Errorf("it says (-want +got):\n%s", diff)
			}
			switch {
			case (failed == nil) != (test.status == 0):
				t.Errorf("it failed with %+v", failed)
			case failed != nil && (failed.Status != test.status || failed.Line != test.line):
				t.Errorf("it failed in line %d with %d, not in line %d with %d", failed.Line, failed.Status, test.line, test.status)
			}
			if failed != nil && test.last != 0 && !strings.Contains(failed.Error(), fmt.Sprintf("; the last of COPY, RUN, RUN_AS and ECHO was in line %d\n", test.last)) {
				t.Errorf("the error is %v", failed)
			}
			// What was to run is in no argument vector.
			if calls, err := os.ReadFile(filepath.Join(out, "calls")); err == nil && (strings.Contains(string(calls), "printf '<") || strings.Contains(string(calls), "a  $b")) {
				t.Errorf("arguments of ssh are:\n%s", calls)
			}
		})
	}
}

// endLeft ends what a script has left running.
func endLeft(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		return
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("what the script left running does not run: %v", err)
	}
}

func TestScriptFailed(t *testing.T) {
	for want, failed := range map[string]ScriptFailed{
		"p:3: RUN x: ended with exit status 7\n  why\nContainer c is up; the lines before took effect, this one may have in part, and the next deploy runs all of p again.":                                                              {Path: "p", Line: 3, Source: "RUN x", Last: 3, Status: 7, Tail: []string{"why"}, Container: "c"},
		"p: ended with exit status 1; the last of COPY, RUN, RUN_AS and ECHO was in line 4\nContainer c is up; the lines before took effect, this one may have in part, and the next deploy runs all of p again.":                        {Path: "p", Last: 4, Status: 1, Container: "c"},
		"p:3: RUN x: ended with exit status 255 (as ssh does when it loses the connection)\nContainer c was up when the script began; the lines before took effect, this one may have in part, and the next deploy runs all of p again.": {Path: "p", Line: 3, Source: "RUN x", Status: lost, Container: "c"},
	} {
		if got := failed.Error(); got != want {
			t.Errorf("the error is\n%s\nand not\n%s", got, want)
		}
	}
}

func TestInterruptedScript(t *testing.T) {
	e := sample(t, map[string]string{"provision.sh": "echo started\nsleep 600\n"})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := &provisioning{
		runner: execx.New(), e: e, host: e.Hosts[0], mask: strings.NewReplacer(), variables: map[string]string{},
		step: func(int) {}, line: func(string) { cancel() },
	}
	began := time.Now()
	if _, err := p.run(ctx, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("run = %v after %s", err, time.Since(began))
	}
}

func TestNetworkName(t *testing.T) {
	for name, want := range map[string]string{"dev": "dev", "My_Env.2": "my-env-2", "__": "environment", strings.Repeat("x", 60): strings.Repeat("x", 40)} {
		if got := label(name); got != want {
			t.Errorf("label(%q) = %q, want %q", name, got, want)
		}
	}
	a, b := sample(t, nil), sample(t, nil)
	if networkName(a) != networkName(b) || !strings.HasPrefix(networkName(a), "dev-") {
		t.Errorf("%s, %s", networkName(a), networkName(b))
	}
	b.Hosts[0].Name = "1c3f9a1b2d7"
	if networkName(a) == networkName(b) {
		t.Error("two checkouts share a network")
	}
}

func TestURLs(t *testing.T) {
	host := &environment.Host{Name: "n", Aliases: []string{"a"}, Provisioner: &environment.Provisioner{Host: "me@dev.example.org"}}
	for want, domains := range map[string][]string{
		"https://a.n.dev.example.org": {"x.example.org", "dev.example.org"}, "https://a.n.x.example.org": {"x.example.org", "y.example.org"},
	} {
		if got := urls(host, domains); len(got) != 1 || got[0] != want {
			t.Errorf("urls(%v) = %v, want %s", domains, got, want)
		}
	}
	if got := urls(host, nil); got[0] != "https://a.n.dev.example.org" {
		t.Errorf("urls = %v", got)
	}
}

func TestBusy(t *testing.T) {
	f := files{sample(t, nil)}
	if err := f.prepare(); err != nil {
		t.Fatal(err)
	}
	unlock, err := lock(f)
	if err != nil {
		t.Fatal(err)
	}
	var busy *Busy
	if _, err := lock(f); !errors.As(err, &busy) || busy.Error() != "another devhost-deploy works on the environment dev of this checkout (it holds .devhost/dev/lock); run this again when that is done" {
		t.Errorf("a second lock gives %v", err)
	}
	unlock()
	again, err := lock(f)
	if err != nil {
		t.Fatal(err)
	}
	again()
}
