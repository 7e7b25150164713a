package sshlink_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"devhost/internal/execx"
	"devhost/internal/sshlink"
	"devhost/internal/sshlink/sshlinktest"
)

func run(t *testing.T, connection *sshlink.Connection, line string) (string, error) {
	t.Helper()
	argv := connection.Argv()
	output, err := execx.New().Output(t.Context(), execx.Command{Name: argv[0], Args: append(argv[1:], line)})
	return string(output), err
}

func TestConnection(t *testing.T) {
	server := sshlinktest.Start(t)
	folder := t.TempDir()
	connection, err := sshlink.Open(t.Context(), execx.New(), server.Host, sshlink.Options{Folder: folder})
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"a", "b c", "it's"} {
		if got, err := run(t, connection, execx.Quote([]string{"printf", "%s", word})); err != nil || got != word {
			t.Errorf("the host printed %q, %v", got, err)
		}
	}
	server.Cut()
	<-connection.Done()
	if !connection.Lost(nil) {
		t.Error("it is not lost")
	}
	if _, err := run(t, connection, "true"); err == nil {
		t.Error("a command runs without connection")
	}
	var lost *sshlink.Unreachable
	if !errors.As(connection.Err(), &lost) {
		t.Errorf("Err = %v", connection.Err())
	}
	connection.Close()
	if left, _ := filepath.Glob(filepath.Join(folder, "*")); len(left) > 0 {
		t.Errorf("it has left %v", left)
	}
}

func TestUnreachable(t *testing.T) {
	server := sshlinktest.Start(t)
	server.Stop()
	_, err := sshlink.Open(t.Context(), execx.New(), server.Host, sshlink.Options{Folder: t.TempDir()})
	var unreachable *sshlink.Unreachable
	if !errors.As(err, &unreachable) || !strings.Contains(err.Error(), "Connection refused") || !strings.Contains(err.Error(), "Try it by hand: ssh -F "+server.Host.Config+" guest") {
		t.Errorf("Open = %v", err)
	}
	server.Go()
	unknown := sshlink.Host{Config: server.Host.Config, Name: "-oProxyCommand=touch\thacked"}
	if _, err := sshlink.Open(t.Context(), execx.New(), unknown, sshlink.Options{Folder: t.TempDir()}); !errors.As(err, &unreachable) {
		t.Errorf("Open = %v", err)
	}
}

func TestCancelledOpen(t *testing.T) {
	server := sshlinktest.Start(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	folder := t.TempDir()
	if _, err := sshlink.Open(ctx, execx.New(), server.Host, sshlink.Options{Folder: folder}); !errors.Is(err, context.Canceled) {
		t.Errorf("Open = %v", err)
	}
	if left, _ := os.ReadDir(folder); len(left) > 0 {
		t.Errorf("it has left %v", left)
	}
}

func TestKeep(t *testing.T) {
	server := sshlinktest.Start(t)
	var said []string
	keeper := sshlink.Keeper{Runner: execx.New(), Host: server.Host, Options: sshlink.Options{Folder: t.TempDir()}, Say: func(line string) { said = append(said, line) }}
	uses := 0
	ctx, cancel := context.WithCancel(t.Context())
	err := keeper.Keep(ctx, func(ctx context.Context, connection *sshlink.Connection) error {
		uses++
		switch uses {
		case 1:
			server.Cut()
		case 2:
			server.Stop()
			server.Go()
		case 3:
			if got, err := run(t, connection, "echo x"); err != nil || got != "x\n" {
				t.Errorf("the third connection printed %q, %v", got, err)
			}
			cancel()
		}
		<-ctx.Done()
		return ctx.Err()
	})
	if !errors.Is(err, context.Canceled) || uses != 3 {
		t.Errorf("Keep = %v after %d uses", err, uses)
	}
	if len(said) != 4 || !strings.Contains(said[0], "is lost") || !strings.Contains(said[1], "is back") {
		t.Errorf("it said %q", said)
	}
	failure := errors.New("of the use itself")
	if err := keeper.Keep(t.Context(), func(context.Context, *sshlink.Connection) error { return failure }); !errors.Is(err, failure) {
		t.Errorf("Keep = %v", err)
	}
}

func TestRsyncShell(t *testing.T) {
	if got, want := sshlink.RsyncShell([]string{"ssh", "-o", `ControlPath="/a b/it's"`}), `ssh -o 'ControlPath="/a b/it''s"'`; got != want {
		t.Errorf("RsyncShell = %s, want %s", got, want)
	}
}
