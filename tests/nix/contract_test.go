// Package nix holds what the NixOS modules make of the example hosts (expected/,
// which scripts/check-nix compares with an evaluation) against the program that
// reads it.
package nix

import (
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/network"
	"devhost/internal/settings"
	"devhost/internal/sudoers"
	"devhost/packaging"
)

// host is what is compared here of a file in expected/hosts.
type host struct {
	Settings json.RawMessage `json:"settings"`
	// Containers have store paths without their hashes.
	Containers []map[string]any `json:"containers"`
	Sudo       []string         `json:"sudo"`
	Names      []string         `json:"names"`
	Units      map[string]any   `json:"units"`
}

func hosts(t *testing.T) map[string]host {
	t.Helper()
	files, err := filepath.Glob("expected/hosts/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no hosts: %v", err)
	}
	all := map[string]host{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var one host
		if err := json.Unmarshal(text, &one); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[strings.TrimSuffix(filepath.Base(file), ".json")] = one
	}
	return all
}

func parsed(t *testing.T, host host) settings.Settings {
	t.Helper()
	read, problems := settings.Parse(host.Settings)
	for _, problem := range problems {
		if !problem.Warning {
			t.Errorf("the settings: %v", problem)
		}
	}
	return read
}

// TestSettings: devhost reads what the modules write, and has the same defaults.
func TestSettings(t *testing.T) {
	for name, host := range hosts(t) {
		t.Run(name, func(t *testing.T) { parsed(t, host) })
	}
	want, err := json.Marshal(settings.Default())
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(parsed(t, hosts(t)["minimal"]))
	if err != nil {
		t.Fatal(err)
	}
	// An empty list and none are the same.
	empty := strings.NewReplacer("null", "[]")
	if diff := cmp.Diff(empty.Replace(string(want)), string(got)); diff != "" {
		t.Errorf("the defaults of the program and of the module differ (-program +module):\n%s", diff)
	}
}

// TestSettingsAreAll: the modules know every key.
func TestSettingsAreAll(t *testing.T) {
	whole, err := json.Marshal(settings.Default())
	if err != nil {
		t.Fatal(err)
	}
	var want, got any
	if err := json.Unmarshal(whole, &want); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(hosts(t)["minimal"].Settings, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(keys("", want), keys("", got)); diff != "" {
		t.Errorf("-program +module:\n%s", diff)
	}
}

// TestContainers: devhost reads the declared containers that the modules write,
// and they know every key.
func TestContainers(t *testing.T) {
	read := 0
	for name, host := range hosts(t) {
		t.Run(name, func(t *testing.T) {
			for _, container := range host.Containers {
				for _, key := range []string{"system", "provision"} {
					if object, _ := container[key].(string); object != "" && !strings.HasPrefix(object, "/") {
						container[key] = "/nix/store/" + strings.Repeat("0", 32) + "-" + object
					}
				}
			}
			text, err := json.Marshal(map[string]any{"version": 1, "containers": host.Containers})
			if err != nil {
				t.Fatal(err)
			}
			ofHost := parsed(t, host)
			declared, problems := settings.ParseDeclarations(text, &ofHost)
			for _, problem := range problems {
				t.Errorf("the containers: %v", problem)
			}
			read += len(declared.Containers)
		})
	}
	if read == 0 {
		t.Error("no host declares a container")
	}

	// What the containers of that host say together.
	said := map[string]bool{}
	for _, container := range hosts(t)["declared"].Containers {
		for key := range keysOfAll("", container) {
			said[key] = true
		}
	}
	whole, err := json.Marshal(settings.Declaration{ForwardPorts: make([]settings.DeclaredPort, 1), BindMounts: make([]settings.BindMount, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var declaration any
	if err := json.Unmarshal(whole, &declaration); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(keysOfAll("", declaration), said); diff != "" {
		t.Errorf("keys of a container, -program +module:\n%s", diff)
	}
}

// keysOfAll is keys, with those of objects in lists.
func keysOfAll(path string, value any) map[string]bool {
	all := map[string]bool{}
	switch value := value.(type) {
	case map[string]any:
		for key, inner := range value {
			all[path+"."+key] = true
			for found := range keysOfAll(path+"."+key, inner) {
				all[found] = true
			}
		}
	case []any:
		for _, inner := range value {
			for found := range keysOfAll(path+"[]", inner) {
				all[found] = true
			}
		}
	}
	return all
}

func keys(path string, value any) map[string]bool {
	object, ok := value.(map[string]any)
	if !ok {
		return map[string]bool{path: true}
	}
	all := map[string]bool{}
	for key, inner := range object {
		for found := range keys(path+"."+key, inner) {
			all[found] = true
		}
	}
	return all
}

// TestSudo: the rules are those that devhost host install would write, with
// NixOS' paths.
func TestSudo(t *testing.T) {
	const folder = "/run/current-system/sw/bin"
	for name, host := range hosts(t) {
		t.Run(name, func(t *testing.T) {
			programs := []string{folder + "/devhost"}
			read := parsed(t, host)
			if read.Batou.Enable {
				for _, dialect := range []string{"fc-build-dev-container", "fc-devhost", "nixos-container"} {
					programs = append(programs, folder+"/"+dialect)
				}
			}
			want, err := sudoers.Rules(read, programs, "/run/wrappers/bin:"+folder)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, strings.Join(host.Sudo, "\n")+"\n"); diff != "" {
				t.Errorf("-program +module:\n%s", diff)
			}
		})
	}
}

// TestUnits: what the modules add to units is for units that there are.
func TestUnits(t *testing.T) {
	units, err := packaging.Units()
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{"devhost-names.service": true, "devhost-apply.service": true} // the module's own
	for _, unit := range units {
		there[unit.Name] = true
	}
	for name, host := range hosts(t) {
		for unit := range host.Units {
			if !there[unit] {
				t.Errorf("%s: packaging/systemd has no %s", name, unit)
			}
		}
	}
}

// TestNames runs the script of devhost-names.service between and beside changes
// of devhost: the file behind /etc/hosts holds NixOS' names and devhost's.
func TestNames(t *testing.T) {
	for _, program := range []string{"bash", "flock", "grep"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is missing", program)
		}
	}
	const (
		folder  = "/run/devhost-names"
		demo    = "10.231.0.2 demo # devhost 1a2b3c4d\n"
		block   = "# devhost 1a2b3c4d begin\n" + demo + "# devhost 1a2b3c4d end\n"
		foreign = "10.9.9.9 other # devhost ffff0000\n"
	)
	etc, run := t.TempDir(), filepath.Join(t.TempDir(), "names")
	script := strings.ReplaceAll(strings.Join(hosts(t)["minimal"].Names, "\n"), folder, run)
	source := regexp.MustCompile(`cat localhost-hosts string-hosts extra-hosts`)
	static := filepath.Join(t.TempDir(), "static")
	if !source.MatchString(script) || !strings.Contains(script, run) {
		t.Fatalf("the script is another one:\n%s", script)
	}
	script = source.ReplaceAllLiteralString(script, "cat "+static)
	renew := func(names string) {
		t.Helper()
		if err := os.WriteFile(static, []byte(names), 0o600); err != nil {
			t.Fatal(err)
		}
		if output, err := exec.CommandContext(t.Context(), "bash", "-ec", script).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, output)
		}
	}
	// As on NixOS: /etc/hosts leads to /etc/static/hosts, and that elsewhere.
	path := filepath.Join(etc, "hosts")
	for link, target := range map[string]string{path: filepath.Join(etc, "static"), filepath.Join(etc, "static"): filepath.Join(run, "hosts")} {
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	publish := func(entries ...network.HostEntry) {
		t.Helper()
		if err := network.PublishHosts(t.Context(), path, "1a2b3c4d", entries); err != nil {
			t.Fatal(err)
		}
	}
	check := func(want string) {
		t.Helper()
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, string(content)); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
	entry := network.HostEntry{Name: "demo", IPv4: netip.MustParseAddr("10.231.0.2")}

	renew("127.0.0.1 localhost\n")
	check("127.0.0.1 localhost\n")
	publish(entry)
	check("127.0.0.1 localhost\n" + block)
	renew("127.0.0.1 localhost\n192.0.2.7 printer\n")
	check("127.0.0.1 localhost\n192.0.2.7 printer\n" + block)
	if err := network.PublishHosts(t.Context(), path, "ffff0000", []network.HostEntry{{Name: "other", IPv4: netip.MustParseAddr("10.9.9.9")}}); err != nil {
		t.Fatal(err)
	}
	renew("127.0.0.1 localhost\n")
	check("127.0.0.1 localhost\n" + block + "# devhost ffff0000 begin\n" + foreign + "# devhost ffff0000 end\n")
	if err := network.PublishHosts(t.Context(), path, "ffff0000", nil); err != nil {
		t.Fatal(err)
	}

	// Neither loses what the other writes.
	var group sync.WaitGroup
	group.Go(func() {
		for range 20 {
			if output, err := exec.CommandContext(t.Context(), "bash", "-ec", script).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, output)
			}
		}
	})
	for i := range 200 {
		if i%2 == 0 {
			publish()
		} else {
			publish(entry)
		}
	}
	group.Wait()
	check("127.0.0.1 localhost\n" + block)

	publish()
	check("127.0.0.1 localhost\n")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o644 {
		t.Errorf("it has mode %v", info.Mode().Perm())
	}
	if target, err := os.Readlink(path); err != nil || target != filepath.Join(etc, "static") {
		t.Errorf("/etc/hosts leads to %q, %v", target, err)
	}
}
