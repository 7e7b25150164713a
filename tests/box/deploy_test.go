package box_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"devhost/tests/box"
)

// checkout is a project on a developer's machine.
type checkout struct {
	*box.Host
	// program is devhost-deploy, temp its folder for temporary files.
	program, folder, temp string
}

// newCheckout makes a project with environments: name -> file -> text. @HOST@ in
// environment.cfg becomes the dev host for that developer.
func newCheckout(t *testing.T, h *box.Host, program, login string, files map[string]string) *checkout {
	t.Helper()
	c := &checkout{Host: h, program: program, folder: t.TempDir(), temp: t.TempDir()}
	if login == "bob" {
		// Whom no tool of ours or of ssh's may trip over.
		c.folder = filepath.Join(c.folder, "it's 100%h mine")
		if err := os.Mkdir(c.folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	common, err := os.ReadFile(h.SSHConfig())
	if err != nil {
		t.Fatal(err)
	}
	// Some people's ssh starts something of theirs on the dev host.
	c.write("ssh_config", "Host box\n  RemoteCommand echo something else\n"+string(common))
	for name, text := range files {
		c.write(filepath.Join("environments", name), strings.ReplaceAll(text, "@HOST@", login+"@box"))
	}
	return c
}

func (c *checkout) with(t *testing.T) *checkout {
	other := *c
	other.Host = c.With(t)
	return &other
}

func (c *checkout) write(name, text string) {
	c.T.Helper()
	path := filepath.Join(c.folder, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		c.T.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.T.Fatal(err)
	}
}

func (c *checkout) read(name string) string {
	c.T.Helper()
	text, err := os.ReadFile(filepath.Join(c.folder, name))
	if err != nil {
		c.T.Fatal(err)
	}
	return string(text)
}

// edit replaces a text in a file of the project.
func (c *checkout) edit(name, before, after string) {
	c.T.Helper()
	old := c.read(name)
	if !strings.Contains(old, before) {
		c.T.Fatalf("%s does not have %q", name, before)
	}
	c.write(name, strings.ReplaceAll(old, before, after))
}

// names are the containers of an environment with random names.
func (c *checkout) names(environment string) map[string]string {
	c.T.Helper()
	names := map[string]string{}
	if err := json.Unmarshal([]byte(c.read("environments/"+environment+"/hostmap.json")), &names); err != nil {
		c.T.Fatal(err)
	}
	return names
}

// deploy is devhost-deploy on the developer's machine.
func (c *checkout) deploy(arguments ...string) box.Result {
	c.T.Helper()
	ctx, cancel := context.WithTimeout(c.T.Context(), patience*4)
	defer cancel()
	return c.finish(c.command(ctx, arguments...))
}

func (c *checkout) command(ctx context.Context, arguments ...string) *exec.Cmd {
	command := c.OutsideCommand(ctx, append([]string{c.program}, arguments...)...)
	command.Dir, command.Env = c.folder, append(os.Environ(), "TMPDIR="+c.temp, "XDG_RUNTIME_DIR=")
	return command
}

func (c *checkout) finish(command *exec.Cmd) box.Result {
	c.T.Helper()
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.T.Fatalf("cannot run %v: %v", command.Args, err)
	}
	return box.Result{Stdout: stdout.String(), Stderr: stderr.String(), Status: command.ProcessState.ExitCode()}
}

// good is deploy for what shall succeed; it gives standard output.
func (c *checkout) good(arguments ...string) string {
	c.T.Helper()
	result := c.deploy(arguments...)
	if result.Status != 0 {
		c.T.Fatalf("devhost-deploy %v ended with %d:\n%s%s", arguments, result.Status, result.Stdout, result.Stderr)
	}
	return result.Stdout
}

// bad is deploy for what shall fail and say something.
func (c *checkout) bad(status int, text string, arguments ...string) box.Result {
	c.T.Helper()
	result := c.deploy(arguments...)
	if result.Status != status || !strings.Contains(result.Stderr, text) {
		c.T.Errorf("devhost-deploy %v ended with %d, not with %d and %q:\n%s%s", arguments, result.Status, status, text, result.Stdout, result.Stderr)
	}
	return result
}

// inside runs a command in a host of an environment by plain ssh.
func (c *checkout) inside(environment, host, line string) string {
	c.T.Helper()
	result := c.finish(c.OutsideCommand(c.T.Context(), "ssh", "-F", filepath.Join(c.folder, "ssh_config_"+environment), host, line))
	if result.Status != 0 {
		c.T.Fatalf("%s in %s of %s ended with %d:\n%s%s", line, host, environment, result.Status, result.Stdout, result.Stderr)
	}
	return strings.TrimSpace(result.Stdout)
}

func (c *checkout) expect(want, got, what string) {
	c.T.Helper()
	if got != want {
		c.T.Errorf("%s is %q, not %q", what, got, want)
	}
}

// buildDeploy builds devhost-deploy for a test.
func buildDeploy(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "devhost-deploy")
	build := exec.Command("go", "build", "-trimpath", "-o", program, "devhost/cmd/devhost-deploy")
	build.Dir, build.Env = box.Sources(), append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	return program
}

const (
	devConfig = `[environment]
service_user = s-dev
platform = nixos

[provisioner:default]
method = fc-nixos-dev-container
host = @HOST@
channel = /srv/channels/offline

[host:app]
provision-dynamic-hostname = True
provision-aliases =
    www

[host:db]
provision-dynamic-hostname = True
`
	stageConfig = `[provisioner:default]
method = fc-nixos-dev-container
host = @HOST@
channel = /srv/channels/offline

[host:stage]
provision-aliases = preview
`
	emptyModule = "{ }\n"
)

// TestDeploy: from an environment folder on a developer's machine to containers on
// the dev host, over ssh from another network namespace.
func TestDeploy(t *testing.T) {
	needsFullRun(t)
	h := box.Start(t)
	program := buildDeploy(t)
	alice := newCheckout(t, h, program, "alice", map[string]string{
		"dev/environment.cfg": devConfig, "dev/provision.nix": `{ environment.etc.provisioned.text = "one"; }`,
		"stage/environment.cfg": stageConfig, "stage/provision.nix": emptyModule,
	})

	t.Run("two environments", func(t *testing.T) {
		alice := alice.with(t)
		alice.bad(4, "was not deployed from this checkout", "ssh", "dev", "app")
		output := alice.good("deploy", "dev")
		names := alice.names("dev")
		if len(names) != 2 || !regexp.MustCompile(`^[0-9a-f]{11}$`).MatchString(names["app"]) || names["app"] == names["db"] {
			t.Fatalf("the names are %v", names)
		}
		for _, text := range []string{"app: created", "db: created", "https://www." + names["app"] + ".box.example\n", "ssh -F " + filepath.Join(alice.folder, "ssh_config_dev") + " app\n", "without another deployment: stopped on "} {
			if !strings.Contains(output, text) {
				t.Errorf("deploy does not say %q but:\n%s", text, output)
			}
		}
		alice.expect("https://www."+names["app"]+".box.example\n", alice.good("urls", "dev"), "the list of URLs")
		for _, host := range []string{"app", "db"} {
			alice.expect(names[host]+"\none", alice.inside("dev", host, "hostname; cat /etc/provisioned"), host)
			alice.expect(names[host], alice.inside("dev", names[host], "hostname"), host)
		}
		// Hosts of one environment reach each other by name, and no others.
		alice.inside("dev", "app", "getent hosts "+names["db"])
		alice.good("deploy", "stage")
		alice.expect("stage", alice.inside("stage", "preview", "hostname"), "the alias")
		if got := alice.inside("stage", "stage", "getent hosts "+names["db"]+" || echo none"); got != "none" {
			t.Errorf("in another environment, the name resolves: %s", got)
		}
		if got := alice.good("deploy", "dev"); strings.Count(got, ": unchanged, ") != 2 {
			t.Errorf("deployed once more, it says:\n%s", got)
		}
		if got := alice.good("status", "dev"); strings.Count(got, "running") != 2 {
			t.Errorf("status says:\n%s", got)
		}
		alice.expect("s-dev", strings.TrimSpace(alice.good("ssh", "dev", "db", "--", "sudo -n -u s-dev id -un")), "ssh")
		alice.checkSSHFiles("dev", names["app"])
	})

	t.Run("aliases change", func(t *testing.T) {
		alice := alice.with(t)
		name := alice.names("dev")["app"]
		alice.edit("environments/dev/environment.cfg", "    www\n", "    shop\n    api\n")
		alice.good("deploy", "dev")
		alice.expect("https://shop."+name+".box.example\nhttps://api."+name+".box.example\n", alice.good("urls", "dev"), "the list of URLs")
		if got := alice.Must("alice", "sudo devhost list"); !strings.Contains(got, " shop api ") {
			t.Errorf("the dev host has other aliases:\n%s", got)
		}
	})

	t.Run("provision.sh", func(t *testing.T) { alice.with(t).provisionScript(t) })
	t.Run("failures", func(t *testing.T) { alice.with(t).failures(t) })
	t.Run("built inside", func(t *testing.T) { builtInside(t, h.With(t), program) })
	t.Run("interrupted", func(t *testing.T) { interrupted(t, h.With(t), program) })

	t.Run("stopped by expiry", func(t *testing.T) {
		alice := alice.with(t)
		alice.Must("root", `echo '{"version": 1, "publicAddress": "box.example", "expiry": {"warnAfter": "0s", "stopAfter": "1s", "deleteAfter": "1000d"}}' >/etc/devhost-settings.json`)
		eventually(t, func() string {
			alice.Must("root", "devhost expire")
			if got := alice.good("status", "dev", "--json"); strings.Count(got, `"status": "stopped"`) != 2 {
				return "not both containers are stopped:\n" + got
			}
			return ""
		})
		alice.Must("root", `echo '{"version": 1, "publicAddress": "box.example"}' >/etc/devhost-settings.json`)
		if got := alice.good("deploy", "dev"); strings.Count(got, ": started, ") != 2 {
			t.Errorf("after expiry, deploy says:\n%s", got)
		}
		alice.inside("dev", "app", "true")
	})

	t.Run("a second developer", func(t *testing.T) {
		alice := alice.with(t)
		files := map[string]string{
			"dev/environment.cfg": alice.read("environments/dev/environment.cfg"), "dev/provision.nix": emptyModule,
			"dev/provision.sh": "COPY data.txt /srv/s-dev/\nrsync data.txt \"$PROVISION_CONTAINER:/tmp/\"\nssh -F \"$SSH_CONFIG\" \"$PROVISION_CONTAINER\" true\n", "dev/data.txt": "x",
			"stage/environment.cfg": stageConfig, "stage/provision.nix": emptyModule,
		}
		files["dev/environment.cfg"] = strings.ReplaceAll(files["dev/environment.cfg"], "alice@box", "@HOST@")
		bob := newCheckout(t, alice.Host, program, "bob", files)
		var both sync.WaitGroup
		results := make([]box.Result, 2)
		for i, one := range []*checkout{alice, bob} {
			both.Go(func() { results[i] = one.deploy("deploy", "dev") })
		}
		both.Wait()
		for _, result := range results {
			if result.Status != 0 {
				t.Errorf("at the same time, one ended with %d:\n%s%s", result.Status, result.Stdout, result.Stderr)
			}
		}
		hers, his := alice.names("dev"), bob.names("dev")
		if hers["app"] == his["app"] || hers["db"] == his["db"] {
			t.Errorf("both have the same containers: %v, %v", hers, his)
		}
		alice.expect("one", alice.inside("dev", "app", "cat /etc/provisioned"), "alice's container")
		bob.good("sync", "dev", "--host", "app", "environments:/srv/s-dev/environments")
		bob.expect(emptyModule[:3], bob.inside("dev", "app", "sudo cat /srv/s-dev/environments/dev/provision.nix"), "what was synced")
		// A container with a name of its own is the same for both.
		bob.good("deploy", "stage")
		alice.expect(alice.inside("stage", "stage", "cat /etc/machine-id"), bob.inside("stage", "stage", "cat /etc/machine-id"), "the container with a name")
		bob.bad(7, "belongs to alice", "deploy", "stage", "--rebuild")
		bob.bad(7, "belongs to alice", "destroy", "stage")
		bob.good("destroy", "dev")
		bob.good("ssh", "stage", "--", "true")
	})

	t.Run("rebuilt", func(t *testing.T) {
		alice := alice.with(t)
		alice.inside("dev", "app", "touch here")
		before := alice.read(".devhost/dev/known_hosts")
		if got := alice.good("deploy", "dev", "--rebuild"); strings.Count(got, ": created, ") != 2 {
			t.Errorf("rebuilding says:\n%s", got)
		}
		alice.expect("gone", alice.inside("dev", "app", "test -e here || echo gone"), "the old file")
		if alice.read(".devhost/dev/known_hosts") == before {
			t.Error("the host keys are the old ones")
		}
	})

	t.Run("destroyed", func(t *testing.T) {
		alice := alice.with(t)
		names := alice.names("dev")
		if got := alice.good("destroy", "dev"); strings.Count(got, "is removed") != 2 {
			t.Errorf("destroy says:\n%s", got)
		}
		if got := alice.Must("alice", "sudo devhost list --names"); strings.Contains(got, names["app"]) || !strings.Contains(got, "stage") {
			t.Errorf("left are:\n%s", got)
		}
		if got := alice.good("status", "dev"); strings.Count(got, "missing") != 2 {
			t.Errorf("status says:\n%s", got)
		}
		if left, _ := filepath.Glob(filepath.Join(alice.folder, ".devhost/dev/*.key")); len(left) != 0 {
			t.Errorf("keys are left: %v", left)
		}
		alice.good("destroy", "dev")
		alice.good("deploy", "dev")
		alice.expect(names["app"], alice.names("dev")["app"], "the name after another deploy")
	})
}

// checkSSHFiles: every tool works with the ssh_config, and nobody else reads what
// it needs.
func (c *checkout) checkSSHFiles(environment, name string) {
	c.T.Helper()
	config := filepath.Join(c.folder, "ssh_config_"+environment)
	target := filepath.Join(c.T.TempDir(), "copied")
	for _, argv := range [][]string{
		{"scp", "-q", "-F", config, "app:/etc/provisioned", target},
		{"rsync", "-e", "ssh -F " + config, "--rsync-path=sudo -n -u s-dev rsync", target, name + ":/srv/s-dev/copied"},
	} {
		if result := c.finish(c.OutsideCommand(c.T.Context(), argv...)); result.Status != 0 {
			c.T.Errorf("%v ended with %d:\n%s", argv, result.Status, result.Stderr)
		}
	}
	c.expect("s-dev", c.inside(environment, "app", "stat -c %U /srv/s-dev/copied"), "the owner of what rsync brought")
	for _, path := range []string{".devhost/" + environment + "/" + name + ".key", "ssh_config_" + environment} {
		if info, err := os.Stat(filepath.Join(c.folder, path)); err != nil || info.Mode().Perm() != 0o600 {
			c.T.Errorf("%s: %v, %v", path, info, err)
		}
	}
	// Another host key is noticed.
	known := c.read(".devhost/" + environment + "/known_hosts")
	lines := strings.Fields(known)
	lines[2], lines[5] = lines[5], lines[2]
	c.write(".devhost/"+environment+"/known_hosts", strings.Join(lines[:3], " ")+"\n"+strings.Join(lines[3:], " ")+"\n")
	if result := c.finish(c.OutsideCommand(c.T.Context(), "ssh", "-F", config, "app", "true")); result.Status == 0 {
		c.T.Error("ssh accepts a wrong host key")
	}
	c.write(".devhost/"+environment+"/known_hosts", known)
}

// planted is a secret that must be nowhere but in the container: quotes, dollars,
// semicolons, blanks, a newline, UTF-8.
const planted = "-plänted'\"$HOME;`id`  \\ se€ret\nsecond planted line"

func (c *checkout) provisionScript(t *testing.T) {
	c.write("secrets.json", `{"database": {"password": `+quoteJSON(t, planted)+`}}`)
	c.edit("environments/dev/environment.cfg", "[environment]\n", "[environment]\nsecrets-command = cat ../../secrets.json\n")
	c.write("environments/dev/environment.cfg", c.read("environments/dev/environment.cfg")+"\n[component:database]\nname = shop\nuser-name = me\n")
	c.write("environments/dev/data/-odd name", "data\n")
	c.write("environments/dev/provision.sh", `
[[ $PROVISION_ALIASES == "shop api" || -z $PROVISION_ALIASES ]]
[[ $PROVISION_HOST == *@box && $PROVISION_CHANNEL == /srv/channels/offline && -z ${PROVISION_REBUILD-} ]]
ssh -F "$SSH_CONFIG" "$PROVISION_CONTAINER" true
RUN 'id -un > /root/who'
COPY data /srv/s-dev/
COPY "data/-odd name" "/srv/s-dev/a b"
COPY data/ /srv/s-dev/flat
ECHO "$COMPONENT_DATABASE_PASSWORD" /srv/s-dev/password
RUN sudo install -d -o s-dev /srv/out
RUN_AS s-dev sh -c 'printf "%s|" "$@" > /srv/out/arguments' sh "$COMPONENT_DATABASE_PASSWORD" -n '$(id)' '' '*' "$COMPONENT_DATABASE_NAME" "$COMPONENT_DATABASE_USER_NAME"
RUN A=b sh -c 'echo $A > /srv/out/assigned'
for i in 1 2 3; do ( RUN sh -c 'echo $0 > /srv/out/$0' $i ) & done
wait
where=$(RUN_AS s-dev pwd)
ECHO "$where" /srv/out/pwd
echo "shown: $COMPONENT_DATABASE_PASSWORD"
RUN sh -c 'sleep 2; test -s /srv/s-dev/password'
`)
	stop := make(chan struct{})
	watched := c.watchProcesses(stop)
	result := c.deploy("deploy", "dev", "--debug")
	// The watch sees what there is to see.
	if err := exec.Command("sh", "-c", "sleep 3; true", "control plänted").Run(); err != nil {
		t.Error(err)
	}
	close(stop)
	if result.Status != 0 {
		t.Fatalf("deploy ended with %d:\n%s%s", result.Status, result.Stdout, result.Stderr)
	}
	for _, host := range []string{"app", "db"} {
		for path, want := range map[string]string{
			"/srv/s-dev/password":       planted,
			"/srv/out/arguments":        planted + "|-n|$(id)||*|shop|me|",
			"/root/who":                 "root",
			"/srv/s-dev/data/-odd name": "data", "/srv/s-dev/flat/-odd name": "data", "/srv/s-dev/a b": "data",
			"/srv/out/assigned": "b", "/srv/out/1": "1", "/srv/out/2": "2", "/srv/out/3": "3", "/srv/out/pwd": "/srv/s-dev",
		} {
			c.expect(want, c.inside("dev", host, "sudo cat "+box.Quote(path)), path)
		}
		c.expect("s-dev", c.inside("dev", host, "stat -c %U /srv/s-dev/password"), "the owner")
	}
	// The secret is where it was sent to, and nowhere else.
	if !strings.Contains(result.Stderr, "shown: ***") {
		t.Errorf("the output of the script is not shown, or not masked:\n%s", result.Stderr)
	}
	if strings.Contains(result.Stderr+result.Stdout, "plänted") || strings.Contains(result.Stderr, "second planted") {
		t.Errorf("the output has the secret:\n%s", result.Stderr)
	}
	seen := <-watched
	for line := range seen {
		if !strings.Contains(line, "control plänted") {
			t.Errorf("the secret was in the arguments of %q", line)
		}
	}
	if len(seen) == 0 {
		t.Error("the watch does not see the secret in arguments")
	}
	c.Must("root", "! journalctl --no-pager | grep -q plänted && ! grep -rq plänted /var/lib/devhost/audit.log /tmp /var/tmp")
	// The search finds it where it has to be.
	output, err := exec.Command("grep", "-rl", "plänted", c.folder, c.temp).Output()
	if err != nil || string(output) != filepath.Join(c.folder, "secrets.json")+"\n" {
		t.Errorf("files with the secret are %q, %v", output, err)
	}
	c.edit("environments/dev/environment.cfg", "secrets-command = cat ../../secrets.json\n", "")
	if err := os.Remove(filepath.Join(c.folder, "environments/dev/provision.sh")); err != nil {
		t.Error(err)
	}
}

func quoteJSON(t *testing.T, text string) string {
	t.Helper()
	quoted, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(quoted)
}

// watchProcesses looks for the secret in the arguments of all processes of this
// machine but those in containers, until it is stopped.
func (c *checkout) watchProcesses(stop <-chan struct{}) <-chan map[string]bool {
	own, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		c.T.Fatal(err)
	}
	found := make(chan map[string]bool, 1)
	go func() {
		seen := map[string]bool{}
		for {
			select {
			case <-stop:
				found <- seen
				return
			default:
			}
			lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, line := range lines {
				arguments, err := os.ReadFile(line)
				if err != nil || !bytes.Contains(arguments, []byte("plänted")) {
					continue
				}
				// In the container, the command that was asked for has it.
				if space, err := os.Readlink(filepath.Join(filepath.Dir(line), "ns/user")); err == nil && space == own {
					seen[strings.ReplaceAll(string(arguments), "\x00", " ")] = true
				}
			}
			time.Sleep(time.Millisecond)
		}
	}()
	return found
}

func (c *checkout) failures(t *testing.T) {
	script := "environments/dev/provision.sh"
	c.write(script, "RUN true\nf() {\n  RUN sh -c 'echo why >&2; exit 9'\n}\nf\n")
	result := c.bad(1, script+":3: RUN sh -c 'echo why >&2; exit 9': ended with exit status 9\n  why\n", "deploy", "dev")
	if !strings.Contains(result.Stderr, "is up; the lines before took effect") {
		t.Errorf("it does not say what holds now:\n%s", result.Stderr)
	}
	before := c.Must("root", "cat /var/lib/devhost/audit.log | wc -l")
	c.write(script, "RUN echo hi > /etc/motd\n")
	c.bad(2, script+`:1: RUN echo hi >/etc/motd: a redirection in RUN works on this machine, not in the container; write ECHO "..." /etc/motd`, "deploy", "dev")
	c.expect(before, c.Must("root", "cat /var/lib/devhost/audit.log | wc -l"), "the number of changes")
	if err := os.Remove(filepath.Join(c.folder, script)); err != nil {
		t.Error(err)
	}

	// A unit that fails is partial provisioning; what provision.sh brings mends it.
	picky := func(file string) string {
		return `{ environment.etc.provisioned.text = "one";
  systemd.services.picky = { wantedBy = [ "multi-user.target" ]; serviceConfig = { Type = "oneshot"; RemainAfterExit = true; }; script = "echo wants ` + file + `; test -e ` + file + `"; };
}`
	}
	c.write("environments/picky/environment.cfg", strings.ReplaceAll(c.read("environments/stage/environment.cfg"), "stage", "picky"))
	c.write("environments/picky/provision.nix", picky("/srv/s-dev/needed"))
	c.bad(0, "unit picky.service failed", "deploy", "picky")
	c.bad(3, "not all of the provisioning worked, and --strict makes that a failure", "deploy", "picky", "--strict")
	c.write("environments/picky/provision.sh", "ECHO yes /srv/s-dev/needed\n")
	c.good("deploy", "picky", "--strict")
	c.expect("active", c.inside("picky", "picky", "systemctl is-active picky.service"), "the unit")
	// A running container goes back to its previous system, gets what provision.sh
	// brings, and is switched then.
	c.write("environments/picky/provision.nix", picky("/srv/s-dev/other"))
	c.bad(1, "could not switch to its new system", "deploy", "picky")
	c.write("environments/picky/provision.sh", "ECHO yes /srv/s-dev/other\n")
	c.good("deploy", "picky", "--strict")
	c.expect("active", c.inside("picky", "picky", "systemctl is-active picky.service"), "the unit")
	c.good("destroy", "picky")

	mallory := newCheckout(t, c.Host, c.program, "mallory", map[string]string{"dev/environment.cfg": devConfig})
	mallory.bad(7, "app, db: on mallory@box: you may not use devhost there (sudo: a password is required); an admin of box allows it by adding you to its group devhost\n", "deploy", "dev")
}

// builtInside: a project that batou deploys too, whose provision.sh hands modules
// to the container; with devhost on the dev host, and with batou's command alone.
func builtInside(t *testing.T, h *box.Host, program string) {
	batouChannel(t, h, "/srv/channels/offline")
	config := strings.ReplaceAll(stageConfig, "/srv/channels/offline", channelURL)
	config = strings.ReplaceAll(config, "[host:stage]", "[host:inside]")
	c := newCheckout(t, h, program, "alice", map[string]string{
		"old/environment.cfg": config, "old/provision.nix": `{ flyingcircus.roles.redis.enable = true; environment.etc.provisioned.text = "inside"; }`,
		"old/provision.sh": "ECHO secret /etc/local/nixos/password\nECHO '{ environment.etc.more.text = \"more\"; }' /etc/local/nixos/more.nix\n",
	})
	check := func() {
		t.Helper()
		c.expect("insidemore", c.inside("old", "inside", "cat /etc/provisioned /etc/more"), "what was built inside")
		c.expect("active", c.inside("old", "inside", "systemctl is-active redis.service"), "redis")
	}
	if got := c.good("deploy", "old"); !strings.Contains(got, "inside: created") {
		t.Errorf("deploy says:\n%s", got)
	}
	check()
	if got := c.good("deploy", "old"); !strings.Contains(got, "inside: unchanged") {
		t.Errorf("deployed once more, it says:\n%s", got)
	}
	// A module that is no good is reported, as batou does, and an error with
	// --strict.
	c.write("environments/old/provision.nix", "{ services.nonsense.enable = true; }")
	c.bad(0, "fc-manage -c in the container ended with exit status 1", "deploy", "old")
	c.bad(3, "fc-manage -c in the container ended with exit status 1", "deploy", "old", "--strict")
	c.write("environments/old/provision.nix", `{ flyingcircus.roles.redis.enable = true; environment.etc.provisioned.text = "inside"; }`)
	// Without devhost, as on a host of Flying Circus: the person's key logs in.
	h.Must("root", "cd /usr/local/bin && rm fc-build-dev-container && cp devhost fc-build-dev-container && chmod 0700 devhost")
	defer h.Must("root", "cd /usr/local/bin && chmod 0755 devhost && ln -sf devhost fc-build-dev-container")
	key, err := os.ReadFile(h.Key("alice"))
	if err != nil {
		t.Fatal(err)
	}
	c.write("insecure-private.key", string(key))
	if got := c.good("deploy", "old", "--rebuild"); !strings.Contains(got, "inside: up, container inside on alice@box\n  https://preview.inside.box\n") {
		t.Errorf("with batou's command alone, deploy says:\n%s", got)
	}
	check()
	c.good("deploy", "old")
	c.good("destroy", "old")
	if got := c.good("status", "old"); !strings.Contains(got, "missing") {
		t.Errorf("status says:\n%s", got)
	}
}

// interrupted: wherever a deploy is ended, the next one completes, with the same
// container.
func interrupted(t *testing.T, h *box.Host, program string) {
	config := strings.ReplaceAll(devConfig, "\n[host:db]\nprovision-dynamic-hostname = True\n", "")
	c := newCheckout(t, h, program, "alice", map[string]string{
		"dev/environment.cfg": config, "dev/provision.nix": emptyModule,
		"dev/provision.sh": "RUN sleep 5\nECHO done /srv/s-dev/done\n",
	})
	name := ""
	for _, end := range []struct {
		at     string
		signal os.Signal
		status int
	}{
		{"connecting", os.Interrupt, 130}, {"bringing up", os.Interrupt, 130}, {"bringing up", syscall.SIGKILL, -1}, {"logging in", os.Interrupt, 130},
		{"provision.sh:1:", os.Interrupt, 130}, {"provision.sh:1:", syscall.SIGTERM, 130}, {"provision.sh:1:", syscall.SIGKILL, -1},
	} {
		command := c.command(t.Context(), "deploy", "dev")
		stderr, err := command.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		var said []byte
		part := make([]byte, 4096)
		sent := false
		for {
			n, err := stderr.Read(part)
			said = append(said, part[:n]...)
			if !sent && bytes.Contains(said, []byte(end.at)) {
				sent = true
				// nsenter has become devhost-deploy.
				if err := command.Process.Signal(end.signal); err != nil {
					t.Error(err)
				}
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Error(err)
				}
				break
			}
		}
		_ = command.Wait()
		if got := command.ProcessState.ExitCode(); !sent || got != end.status {
			t.Errorf("ended at %q by %s, the exit status is %d, not %d:\n%s", end.at, end.signal, got, end.status, said)
		}
		if now := c.names("dev")["app"]; name == "" {
			name = now
		} else {
			c.expect(name, now, "the name")
		}
	}
	c.good("deploy", "dev")
	c.expect("done", c.inside("dev", "app", "cat /srv/s-dev/done"), "what provision.sh wrote")
	c.expect(name, c.inside("dev", "app", "hostname"), "the container")
	c.good("destroy", "dev")
	// What killed runs left is gone, too.
	if left, _ := filepath.Glob(filepath.Join(c.temp, "dhd-*")); len(left) != 0 {
		t.Errorf("runtime folders are left: %v", left)
	}
}
