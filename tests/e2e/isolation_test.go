package e2e

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// secretText stands in a file of the host that everybody may read: nothing but
// the evaluation's own restriction is in the way.
const secretText = "text-of-the-host"

// escape is an expression by which a provision may try to read the host's file
// SECRET.
type escape struct {
	name, expression string
	// refused is what Nix says; "" where it yields an empty value instead.
	refused string
	// env is the environment of devhost and of the control.
	env []string
}

const forbidden = "is forbidden in restricted mode"

func escapes(t *testing.T, folder string) []escape {
	t.Helper()
	secret := filepath.Join(folder, "secret")
	writeFile(t, secret, secretText)
	writeFile(t, filepath.Join(folder, "value.nix"), `"`+secretText+`"`)
	writeFile(t, filepath.Join(folder, "tree/"+secretText), "")
	tool(t, "tar", "-C", folder, "-czf", filepath.Join(folder, "tree.tar.gz"), "tree")
	repository := filepath.Join(folder, "repository")
	tool(t, "git", "init", "--quiet", repository)
	writeFile(t, filepath.Join(repository, "file"), secretText)
	tool(t, "git", "-C", repository, "add", "file")
	tool(t, "git", "-C", repository, "-c", "user.name=e2e", "-c", "user.email=e2e@example.org", "commit", "--quiet", "-m", "one")
	server := httptest.NewServer(http.FileServer(http.Dir(folder)))
	t.Cleanup(server.Close)
	const read = `builtins.readFile `
	list := []escape{
		{name: "absolute path", expression: read + `SECRET`, refused: forbidden},
		{name: "absolute path as text", expression: read + `"SECRET"`, refused: forbidden},
		{name: "path with ..", expression: read + `(./. + "/../../..SECRET")`, refused: forbidden},
		{name: "path into the store and out", expression: read + `"${builtins.storeDir}/../..SECRET"`, refused: forbidden},
		{name: "readDir", expression: `builtins.concatStringsSep " " (builtins.attrNames (builtins.readDir FOLDER/tree))`, refused: forbidden},
		{name: "import", expression: `import FOLDER/value.nix`, refused: forbidden},
		{name: "scopedImport", expression: `builtins.scopedImport { } FOLDER/value.nix`, refused: forbidden},
		{name: "path copied to the store", expression: read + `"${SECRET}"`, refused: forbidden},
		{name: "builtins.path", expression: read + `(builtins.path { path = SECRET; name = "copied"; })`, refused: forbidden},
		{name: "filterSource", expression: `builtins.concatStringsSep " " (builtins.attrNames (builtins.readDir (builtins.filterSource (_: _: true) FOLDER/tree)))`, refused: forbidden},
		{name: "source of a derivation", expression: read + `(derivation { name = "s"; system = "x"; builder = "b"; src = SECRET; }).src`, refused: forbidden},
		{name: "hashFile", expression: `if builtins.hashFile "sha256" SECRET == "HASH" then "` + secretText + `" else ""`, refused: forbidden},
		{name: "pathExists", expression: `if builtins.pathExists SECRET then "` + secretText + `" else ""`},
		{name: "findFile", expression: read + `(builtins.findFile [ { prefix = ""; path = "FOLDER"; } ] "secret")`, refused: forbidden},
		{name: "fetchurl", expression: read + `(builtins.fetchurl "file://SECRET")`, refused: forbidden},
		{name: "fetchTarball", expression: `builtins.concatStringsSep " " (builtins.attrNames (builtins.readDir (builtins.fetchTarball "file://FOLDER/tree.tar.gz")))`, refused: forbidden},
		{name: "fetchGit", expression: read + `(builtins.fetchGit { url = "file://FOLDER/repository"; ref = "HEAD"; } + "/file")`, refused: forbidden},
		{name: "address of the host's network", expression: read + `(builtins.fetchurl "` + server.URL + `/secret")`, refused: forbidden},
		{name: "other search path", expression: read + `<other/secret>`, refused: "was not found in the Nix search path", env: []string{"NIX_PATH=other=" + folder}},
		{name: "environment", expression: `builtins.getEnv "DEVHOST_E2E_SECRET"`, env: []string{"DEVHOST_E2E_SECRET=" + secretText}},
	}
	hash := strings.Fields(tool(t, "sha256sum", secret))[0]
	for i := range list {
		list[i].expression = strings.NewReplacer("SECRET\"", secret+"\"", "DEVHOST_E2E_SECRET", "DEVHOST_E2E_SECRET", "SECRET", secret, "FOLDER", folder, "HASH", hash).Replace(list[i].expression)
	}
	return list
}

// TestEvaluationIsRestricted: a provision reads nothing of the host but itself
// and its channel. Each attempt has its control: unrestricted, as nix-instantiate
// evaluates for root, the same expression yields the host's text.
func TestEvaluationIsRestricted(t *testing.T) {
	h := newHost(t)
	folder := openFolder(t)
	attempt := func(h *host, expression string) result {
		provision := t.TempDir()
		writeFile(t, filepath.Join(provision, "provision.nix"), `{ environment.etc.leak.text = throw "the value is [${`+expression+`}]"; }`)
		writeFile(t, filepath.Join(provision, "own"), "own text")
		return h.run("ensure", "box", "--channel", offline(t), "--provision", provision)
	}
	quick := map[string]bool{"absolute path": true, "builtins.path": true, "fetchurl": true, "other search path": true, "environment": true}
	for _, escape := range escapes(t, folder) {
		if testing.Short() && !quick[escape.name] {
			continue
		}
		t.Run(escape.name, func(t *testing.T) {
			control := exec.Command("nix-instantiate", "--eval", "--option", "restrict-eval", "false", "--read-write-mode", "-E", escape.expression)
			control.Env = append(append(os.Environ(), "NIX_CONFIG=experimental-features = nix-command flakes", "NIX_REMOTE=daemon"), escape.env...)
			control.Dir = "/"
			if output, err := control.CombinedOutput(); err != nil || !bytes.Contains(output, []byte(secretText)) {
				t.Fatalf("the control does not show the host's text: %v\n%s", err, output)
			}
			h := h.with(t)
			h.env = escape.env
			result := attempt(h, escape.expression)
			wanted := escape.refused
			if wanted == "" {
				wanted = "error: the value is []"
			}
			if result.status != 1 || !strings.Contains(result.stderr, wanted) {
				t.Errorf("ensure ended with %d and does not say %q:\n%s", result.status, wanted, result.stderr)
			}
			if strings.Contains(result.stderr, secretText) {
				t.Errorf("the host's text comes out:\n%s", result.stderr)
			}
		})
	}
	// What it may read: itself, and its channel.
	for _, expression := range []string{`builtins.readFile ./own`, `builtins.substring 0 8 (builtins.readFile "${<nixpkgs>}/nixos/default.nix" + "own text") + "own text"`} {
		if result := attempt(h, expression); result.status != 1 || !strings.Contains(result.stderr, "error: the value is [") || !strings.Contains(result.stderr, "own text]") {
			t.Errorf("%s cannot be read: %d\n%s", expression, result.status, result.stderr)
		}
	}
}

// TestImportFromDerivation: a builder that the evaluation starts does not see
// the host's file either. In the control the sandbox shows it that one file.
func TestImportFromDerivation(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	folder := openFolder(t)
	secret := filepath.Join(folder, "secret")
	writeFile(t, secret, secretText)
	built := fmt.Sprintf(`(derivation { name = "reader-%s"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "read line < %s; [ -n \"$line\" ] && echo \"$line\" > $out" ]; })`, filepath.Base(folder), secret)
	attack := `builtins.readFile ` + built
	result := h.run("ensure", "box", "--channel", offline(t), "--provision", provision(t, `{ environment.etc.leak.text = throw "the value is [${`+attack+`}]"; }`))
	if result.status != 1 || !strings.Contains(result.stderr, secret+": No such file or directory") && !strings.Contains(result.stderr, "nonexistent directory") && !strings.Contains(result.stderr, "failed with exit code") {
		t.Errorf("ensure ended with %d:\n%s", result.status, result.stderr)
	}
	if strings.Contains(result.stderr, secretText) {
		t.Errorf("the host's text comes out:\n%s", result.stderr)
	}
	control := exec.Command("nix-instantiate", "--eval", "--read-write-mode", "--option", "sandbox", "true",
		"--option", "sandbox-paths", "/usr /bin=/usr/bin /lib=/usr/lib /lib64=/usr/lib64 "+secret, "-E", attack)
	control.Env = append(os.Environ(), "NIX_REMOTE=daemon")
	if output, err := control.CombinedOutput(); err != nil || !bytes.Contains(output, []byte(secretText)) {
		t.Errorf("the control does not show the host's text: %v\n%s", err, output)
	}
}

// builderAttack tries to change files of the host and to read one. Its words
// are looked for in its findings. $1 and so on are targets, $out the findings.
const builderAttack = `
{
  echo "uid $(id -u)"
  grep -E '^(NoNewPrivs|CapEff):' /proc/self/status
  for target in $targets; do
    if ( echo changed >> "$target" ) 2> /dev/null; then echo "wrote $target"; else echo "could not write $target"; fi
  done
  for folder in $folders; do
    if ( : > "$folder/made-by-a-builder" ) 2> /dev/null; then echo "made a file in $folder"; else echo "could not make a file in $folder"; fi
  done
  if ( read -r line < "$secret" && echo "read $line" ) 2> /dev/null; then :; else echo "could not read the file"; fi
  echo "interfaces $(sed 1,2d /proc/net/dev | cut -d: -f1 | tr -d ' ' | tr '\n' ' ')"
  if cp /usr/bin/id "$TMPDIR/suid" && chmod 4755 "$TMPDIR/suid" 2> /dev/null; then echo "made a setuid file"; else echo "could not make a setuid file"; fi
  if mount -t tmpfs none /usr/local > /dev/null 2>&1; then echo "mounted"; else echo "could not mount"; fi
} > "$out"
`

// TestBuilderCannotChangeTheHost runs the attack as a builder of a provision,
// and then as root on the host: there it succeeds.
func TestBuilderCannotChangeTheHost(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	open := openFolder(t)
	secret := filepath.Join(open, "secret")
	writeFile(t, secret, secretText+"\n")
	var targets, folders []string
	for _, parent := range []string{"/usr/local/share", "/etc", "/nix/var/nix", "/nix/store"} {
		folder, err := os.MkdirTemp(parent, "devhost-e2e-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(folder) })
		if err := os.Chmod(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(folder, "target"), "original\n")
		targets, folders = append(targets, filepath.Join(folder, "target")), append(folders, folder)
	}
	script := filepath.Join(t.TempDir(), "attack")
	writeFile(t, script, builderAttack)
	folder := t.TempDir()
	writeFile(t, filepath.Join(folder, "attack"), builderAttack)
	writeFile(t, filepath.Join(folder, "provision.nix"), fmt.Sprintf(`{
  environment.etc.findings.source = derivation {
    name = "attack"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ ./attack ];
    PATH = "/usr/bin:/bin"; targets = %q; folders = %q; secret = %q;
  };
}`, strings.Join(targets, " "), strings.Join(folders, " "), secret))
	h.must("ensure", "box", "--channel", offline(t), "--provision", folder)
	findings := h.must("exec", "box", "--", "cat", "/etc/findings")
	var wanted []string
	for _, target := range targets {
		wanted = append(wanted, "could not write "+target)
		if content, err := os.ReadFile(target); err != nil || string(content) != "original\n" {
			t.Errorf("%s holds %q now (%v)", target, content, err)
		}
	}
	for _, folder := range folders {
		wanted = append(wanted, "could not make a file in "+folder)
	}
	wanted = append(wanted, "could not read the file", "could not mount", "interfaces lo", "NoNewPrivs:\t1", "CapEff:\t0000000000000000", "could not make a setuid file")
	for _, text := range wanted {
		if !strings.Contains(findings, text+"\n") && !strings.Contains(findings, text+" \n") {
			t.Errorf("the builder does not say %q but:\n%s", text, findings)
		}
	}
	if strings.Contains(findings, "uid 0\n") {
		t.Errorf("the builder is root:\n%s", findings)
	}

	// Control: where the guards are missing, each of these attempts works.
	out := filepath.Join(t.TempDir(), "findings")
	control := exec.Command("unshare", "--mount", "--propagation", "private", "sh", script)
	control.Env = append(os.Environ(), "out="+out, "targets="+strings.Join(targets, " "), "folders="+strings.Join(folders, " "), "secret="+secret, "TMPDIR="+t.TempDir())
	if output, err := control.CombinedOutput(); err != nil {
		t.Fatalf("the control: %v\n%s", err, output)
	}
	content, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, denied := range regexp.MustCompile(`could not .*`).FindAllString(string(content), -1) {
		t.Errorf("the control shows nothing: as root it %s", denied)
	}
	if !strings.Contains(string(content), "read "+secretText) || strings.Contains(string(content), "interfaces lo \n") {
		t.Errorf("the control does not see the host:\n%s", content)
	}
}

// TestBuilderCannotLeaveTheSandbox: a derivation may ask to be built without it.
func TestBuilderCannotLeaveTheSandbox(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	module := `{ environment.etc.free.source = derivation {
  name = "free"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo free > $out" ]; ATTRIBUTE
}; }`
	h.fails(1, []string{"free", "has '__noChroot' set, but that's not allowed when 'sandbox' is 'true'", "container box was not made"},
		"ensure", "box", "--channel", offline(t), "--provision", provision(t, strings.Replace(module, "ATTRIBUTE", "__noChroot = true;", 1)))
	// Control: without its wish it is built.
	h.must("ensure", "box", "--channel", offline(t), "--provision", provision(t, strings.Replace(module, "ATTRIBUTE", "", 1)))
}

// TestSetuidFileIsOutOfReach: on disk guest root is uid 0, so a setuid file made
// inside would make any user of the host root who can reach it.
func TestSetuidFileIsOutOfReach(t *testing.T) {
	needsFullRun(t)
	// The folders above the state folder are open, so that it is the state
	// folder's own that guard.
	open := openFolder(t)
	h := hostAt(t, filepath.Join(open, "state"))
	h.must("ensure", "box", "--channel", offline(t))
	h.must("exec", "box", "--", "sh", "-c", "cp /usr/bin/id /root/suid && chmod 4755 /root/suid && chmod 755 /root")
	inside := filepath.Join(h.layout.Root("box"), "root/suid")
	info, err := os.Stat(inside)
	if err != nil || info.Mode()&os.ModeSetuid == 0 {
		t.Fatalf("the setuid file is not there: %v %v", info, err)
	}
	output, err := asStranger(exec.Command(inside)).CombinedOutput()
	if err == nil {
		t.Errorf("a stranger runs the setuid file of a container: %s", output)
	}
	for _, path := range []string{h.layout.Containers(), h.layout.Container("box"), filepath.Dir(h.layout.Lock("box"))} {
		if output, err := asStranger(exec.Command("ls", path)).CombinedOutput(); err == nil || !strings.Contains(string(output), "Permission denied") {
			t.Errorf("a stranger lists %s: %v\n%s", path, err, output)
		}
	}

	// Control: in a copy with the guarding folder open, the attack works.
	guard := filepath.Join(open, "copy")
	copied := filepath.Join(guard, "root/suid")
	if err := os.MkdirAll(filepath.Dir(copied), 0o755); err != nil {
		t.Fatal(err)
	}
	tool(t, "cp", "--preserve=all", inside, copied)
	if err := os.Chmod(guard, 0o700); err != nil {
		t.Fatal(err)
	}
	if output, err := asStranger(exec.Command(copied)).CombinedOutput(); err == nil {
		t.Errorf("the copy is not guarded by its folder: %s", output)
	}
	if err := os.Chmod(guard, 0o755); err != nil {
		t.Fatal(err)
	}
	output, err = asStranger(exec.Command(copied)).CombinedOutput()
	if err != nil || !strings.Contains(string(output), "euid=0(root)") {
		t.Errorf("the control shows nothing: %v\n%s", err, output)
	}
}

// TestGuestRootIsNobodyOutside: what root inside cannot do.
func TestGuestRootIsNobodyOutside(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	h.must("ensure", "box", "--channel", offline(t))
	fields := strings.Fields(h.must("exec", "box", "--", "cat", "/proc/self/uid_map"))
	if len(fields) != 3 || fields[0] != "0" || fields[1] == "0" || fields[2] != "65536" {
		t.Errorf("the map of user ids is %v", fields)
	}
	for _, test := range []struct{ name, command, text string }{
		{"guest folder", "touch /run/devhost/x", "Read-only file system"},
		{"host key", "echo x > /run/devhost/ssh_host_ed25519_key", "Read-only file system"},
		{"store", "touch /nix/store/x", "Read-only file system"},
		{"usr", "touch /usr/x", "Read-only file system"},
		{"writable usr", "mount -o remount,bind,rw /usr", "permission denied"},
		{"writable store", "mount -o remount,bind,rw /nix/store", "permission denied"},
		{"host's disk", "mknod /root/disk b 254 0 && head -c 1 /root/disk", "Operation not permitted"},
		{"kernel settings", "echo 1 > /proc/sys/kernel/panic", "Read-only file system"},
		{"file of the host's root by hand", "chown 4000000 /root", "Invalid argument"},
	} {
		t.Run(test.name, func(t *testing.T) {
			result := h.with(t).run("exec", "box", "--", "sh", "-c", "LC_ALL=C; export LC_ALL; "+test.command)
			if !strings.Contains(result.stderr, test.text) {
				t.Errorf("%s does not say %q but ended with %d: %s%s", test.command, test.text, result.status, result.stdout, result.stderr)
			}
		})
	}
	// The control for the read-only places: they are those of the host.
	if got := h.must("exec", "box", "--", "sh", "-c", "ls /run/devhost && test -x /usr/bin/env && ls /nix/store | head -1"); got == "" {
		t.Error("the folders that cannot be written are empty")
	}
	// Nobody outside: neither host processes nor the host's files are there.
	if got := h.run("exec", "box", "--", "test", "-e", h.layout.State); got.status != 1 {
		t.Errorf("the state folder is seen inside (%d)", got.status)
	}
	if got := strings.TrimSpace(h.must("exec", "box", "--", "cat", "/proc/1/comm")); got != "systemd" {
		t.Errorf("process 1 inside is %q", got)
	}
	outside := fmt.Sprintf("/proc/%d", os.Getpid())
	if got := h.run("exec", "box", "--", "grep", "-aq", "e2e.test", outside+"/cmdline"); got.status == 0 {
		t.Error("the test's own process is seen inside")
	}
}

// hostAddress is an address of the host that is not of devhost, "" if it has
// none.
func hostAddress(t *testing.T) string {
	t.Helper()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range interfaces {
		if link.Flags&net.FlagLoopback != 0 || link.Flags&net.FlagUp == 0 || regexp.MustCompile(`^(dh-|v)`).MatchString(link.Name) {
			continue
		}
		addresses, _ := link.Addrs()
		for _, address := range addresses {
			if prefix, ok := address.(*net.IPNet); ok && prefix.IP.To4() != nil {
				return prefix.IP.String()
			}
		}
	}
	return ""
}
