package nix_test

import (
	"archive/tar"
	"context"
	"os"
	"strings"
	"testing"

	"devhost/internal/execx"
	"devhost/internal/nix/nixtest"
)

// git makes a repository with one commit and returns its revision.
func git(t *testing.T, folder string) string {
	t.Helper()
	nixtest.Write(t, folder+"/nixos/default.nix", "{ }: { }")
	run := func(arguments ...string) string {
		output, err := execx.New().Output(context.Background(), execx.Command{
			Name: "git", Dir: folder, Args: append([]string{"-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main"}, arguments...),
			Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + folder, "GIT_CONFIG_NOSYSTEM=1"},
		})
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(output))
	}
	run("init", "--quiet")
	run("add", ".")
	run("commit", "--quiet", "--message", "first")
	return run("rev-parse", "HEAD")
}

// tarball writes an archive of files.
func tarball(t *testing.T, path string, files map[string]string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	archive := tar.NewWriter(file)
	for name, content := range files {
		if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}
