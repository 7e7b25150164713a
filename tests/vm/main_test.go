package vm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// shared is the ISO of all tests, with devbox-auto-install as it is built now.
var shared struct {
	once   sync.Once
	folder string
	iso    *ISO
	err    error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.iso != nil {
		shared.iso.Forget(context.Background())
	}
	if shared.folder != "" {
		_ = os.RemoveAll(shared.folder)
	}
	os.Exit(code)
}

// sharedISO makes the ISO once for all tests that want it.
func sharedISO(t *testing.T) *ISO {
	t.Helper()
	if os.Getenv("DEVBOX_VM_TESTS") == "" {
		t.Skip("boots VMs: make e2e-vm runs it")
	}
	shared.once.Do(func() {
		if shared.folder, shared.err = os.MkdirTemp("", "devbox-vm-"); shared.err == nil {
			shared.iso, shared.err = buildShared(context.Background(), shared.folder)
		}
	})
	if shared.err != nil {
		t.Fatal("cannot make the ISO of these tests: ", shared.err)
	}
	return shared.iso
}

func buildShared(ctx context.Context, folder string) (*ISO, error) {
	installer := filepath.Join(folder, "devbox-auto-install")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", installer, "devhost/cmd/devbox-auto-install")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, output)
	}
	guest, err := filepath.Abs("guest")
	if err != nil {
		return nil, err
	}
	return BuildISO(ctx, folder, installer, guest)
}
