package deploy

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"devhost-deploy": func() {
			os.Exit(Main(context.Background(), os.Args, Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
		},
	})
}

// TestScripts runs what a person types: testdata/*.txtar. Where a script has
// bin/ssh, that is what devhost-deploy finds in place of ssh.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Condition: func(condition string) (bool, error) {
			return condition == "root" && os.Geteuid() == 0, nil
		},
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Join(env.WorkDir, "bin")+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("HOME", env.WorkDir)
			if _, err := os.Stat(filepath.Join(env.WorkDir, "bin/ssh")); err == nil {
				return os.Chmod(filepath.Join(env.WorkDir, "bin/ssh"), 0o755)
			}
			return nil
		},
	})
}
