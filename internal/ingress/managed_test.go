package ingress

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/caddyserver/certmagic"
	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"
)

// TestCleanUpWhileCertificatesAreStored: the clean-up removes folders that it has
// seen empty, and the first file of a new certificate comes into such a one.
func TestCleanUpWhileCertificatesAreStored(t *testing.T) {
	storage := certificateStorage{&certmagic.FileStorage{Path: t.TempDir()}, hclog.NewNullLogger()}
	ctx, giveUp := context.WithCancelCause(t.Context())
	making := context.WithValue(ctx, giveUpKey{}, giveUp)
	stop := make(chan struct{})
	var cleaning sync.WaitGroup
	cleaning.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			// It says so where a folder vanishes under it, and goes on.
			_ = certmagic.CleanStorage(t.Context(), storage, certmagic.CleanStorageOptions{Logger: zap.NewNop(), ExpiredCerts: true})
		}
	})
	defer cleaning.Wait()
	defer close(stop)
	for n := range 200 {
		key := fmt.Sprintf("certificates/internal/shop%d.test/shop%d.test.key", n, n)
		if err := storage.Store(making, key, []byte("key")); err != nil {
			t.Fatalf("certificate %d cannot be stored: %v", n, err)
		}
		if !storage.Exists(ctx, key) {
			t.Fatalf("certificate %d is gone", n)
		}
	}
	if err := context.Cause(ctx); err != nil {
		t.Errorf("the making of a certificate was given up: %v", err)
	}
}

// TestDeleteOfFolders: only empty ones go.
func TestDeleteOfFolders(t *testing.T) {
	storage := certificateStorage{&certmagic.FileStorage{Path: t.TempDir()}, hclog.NewNullLogger()}
	if err := storage.Store(t.Context(), "site/file", nil); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		key  string
		left bool
	}{{"site", true}, {"site/file", true}, {"site", false}, {"site", false}} {
		if err := storage.Delete(t.Context(), step.key); err != nil {
			t.Errorf("%s: %v", step.key, err)
		}
		if _, err := os.Stat(filepath.Join(storage.Path, "site")); (err == nil) != step.left {
			t.Errorf("after the removal of %s, the folder: %v", step.key, err)
		}
	}
}
