package direct_test

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/hashicorp/go-hclog"

	"devhost/internal/engine/cgroup"
	"devhost/internal/engine/direct"
	"devhost/internal/engine/enginetest"
	"devhost/internal/engine/supervisor"
	"devhost/internal/execx"
	"devhost/internal/registry"
)

// TestMain lets the test program be the supervisor and the session, which are
// processes of their own.
func TestMain(m *testing.M) {
	enginetest.Main(m, func(layout registry.Layout, name string, flags []string) error {
		if len(flags) > 0 {
			return errors.New("a supervisor takes no flags")
		}
		return supervisor.Run(context.Background(), supervisor.Options{
			Layout: layout, Name: name, Load: enginetest.Load(layout), Runner: execx.New(),
			Network: enginetest.Cable(layout), Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Debug}),
		})
	})
}

func host(layout registry.Layout, load func(string) (*registry.Container, error), network supervisor.Network) enginetest.Engine {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return &direct.Engine{
		Layout: layout, Load: load, Runner: execx.New(), Network: network,
		Supervise: func(name string) []string {
			return append([]string{self}, enginetest.SuperviseArguments(layout.State, name)...)
		},
	}
}

// guest is a container of this engine.
type guest struct{ *enginetest.Guest }

func newGuest(t *testing.T, name string) *guest {
	t.Helper()
	return &guest{enginetest.NewGuest(t, host, name)}
}

// in is the same guest, of a part of its test.
func (g *guest) in(t *testing.T) *guest {
	same := *g.Guest
	same.T = t
	return &guest{&same}
}

func (g *guest) group() *cgroup.Group {
	g.T.Helper()
	tree, err := cgroup.Discover()
	if err != nil {
		g.T.Fatal(err)
	}
	return tree.Group(g.Layout.Instance(), g.Name)
}
