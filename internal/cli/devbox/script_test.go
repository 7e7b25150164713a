package devbox

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"devhost/internal/cli/cliargs"
	"devhost/internal/hypervisor/hypervisortest"
)

func TestMain(m *testing.M) {
	// The scripts wait more than they work.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){
		"devbox-cli": func() {
			ctx, stop := signal.NotifyContext(context.Background(), cliargs.EndSignals()...)
			context.AfterFunc(ctx, stop)
			os.Exit(Main(ctx, os.Args, Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
		},
		"qemu-system-x86_64":  hypervisortest.QEMU,
		"qemu-system-aarch64": hypervisortest.QEMU,
		"qemu-img":            hypervisortest.QEMUImg,
		"ssh":                 hypervisortest.SSH,
	})
}

// nixWorks says whether there is a Nix that can build: root needs no daemon.
func nixWorks() bool {
	_, err := exec.LookPath("nix")
	return err == nil && os.Geteuid() == 0
}

// TestScripts runs what a person types, with a QEMU and a ssh that are played:
// testdata/*.txtar.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Condition: func(condition string) (bool, error) {
			return condition == "nix" && nixWorks(), nil
		},
		Setup: func(env *testscript.Env) error {
			// Its own path is too long for sockets.
			state, err := os.MkdirTemp("", "devbox-")
			if err != nil {
				return err
			}
			env.Defer(func() {
				endAll(state)
				_ = os.RemoveAll(state)
			})
			firmware := filepath.Join(state, "firmware.fd")
			if err := os.WriteFile(firmware, nil, 0o600); err != nil {
				return err
			}
			home := filepath.Join(state, "home")
			if err := os.Mkdir(home, 0o700); err != nil {
				return err
			}
			env.Setenv("HOME", home)
			env.Setenv("DEVBOX_STATE_DIR", filepath.Join(state, "s"))
			env.Setenv("DEVBOX_FIRMWARE_CODE", firmware)
			env.Setenv("DEVBOX_FIRMWARE_VARS", firmware)
			// Without a network, Nix asks binary caches in vain for seconds.
			env.Setenv("NIX_CONFIG", "substituters =")
			env.Setenv("PATH", env.Getenv("PATH")+":/nix/var/nix/profiles/default/bin")
			return nil
		},
	})
}

// endAll ends the VMs that a script has left running.
func endAll(state string) {
	runs, _ := filepath.Glob(filepath.Join(state, "s", "vms", "*", "qemu-run.json"))
	for _, path := range runs {
		name := filepath.Base(filepath.Dir(path))
		_ = Main(context.Background(), []string{"devbox-cli", "--state-dir", strings.TrimSuffix(filepath.Dir(filepath.Dir(path)), "/vms"), "-q", "vm", "stop", name, "--timeout=0"}, Streams{In: os.Stdin, Out: os.Stderr, Err: os.Stderr})
	}
}
