package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"

	"devhost/internal/disk"
	"devhost/internal/execx"
	"devhost/internal/registry"
)

// devhost runs the program on the state folder of the measurements, to its
// end, and says how long that took as a whole.
func (b *bench) devhost(ctx context.Context, args ...string) (time.Duration, error) {
	return b.devhostIn(ctx, b.layout, nil, args...)
}

// devhostIn is devhost with another state folder and an addition to the
// environment.
func (b *bench) devhostIn(ctx context.Context, layout registry.Layout, env []string, args ...string) (time.Duration, error) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	// Its output goes nowhere: reading it would take the time of ours.
	var said bytes.Buffer
	command := execx.Command{
		Name: b.program, Args: append([]string{"--state-dir", layout.State}, args...), Dir: "/",
		Passthrough: true, Stdout: null, Stderr: &said,
	}
	if env != nil {
		command.Env = append(os.Environ(), env...)
	}
	began := time.Now()
	err = b.runner.Run(ctx, command)
	took := time.Since(began)
	if err != nil {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
	}
	return took, err
}

func (b *bench) destroy(ctx context.Context, names ...string) error {
	_, err := b.devhost(ctx, append([]string{"destroy", "--missing-ok"}, names...)...)
	return err
}

// destroyAll destroys whatever containers there are.
func (b *bench) destroyAll(ctx context.Context) error {
	folders, err := os.ReadDir(b.layout.Containers())
	if errors.Is(err, fs.ErrNotExist) || len(folders) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	var names []string
	for _, folder := range folders {
		names = append(names, folder.Name())
	}
	return b.destroy(ctx, names...)
}

// clear removes everything but the folder itself.
func (b *bench) clear(ctx context.Context) error {
	if _, err := os.Stat(b.program); err == nil {
		if err := b.destroyAll(ctx); err != nil {
			return err
		}
	}
	if err := errors.Join(b.bare.clear(ctx), b.clearClones(ctx), unmountAt(filepath.Join(b.folder, clones))); err != nil {
		return err
	}
	if err := os.RemoveAll(b.listLayout().Runtime()); err != nil {
		return err
	}
	// It stays where another devhost uses it.
	_ = unix.Rmdir(filepath.Dir(b.listLayout().Runtime()))
	entries, err := os.ReadDir(b.folder)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Name() == lockFile {
			continue
		}
		if err := disk.RemoveFolder(filepath.Join(b.folder, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) close(ctx context.Context) error {
	if err := b.clear(ctx); err != nil {
		return err
	}
	defer b.unlock()
	return os.RemoveAll(b.folder)
}

const lockFile = "lock"

// lockFolder keeps two runs from removing each other's containers.
func lockFolder(folder string) (func(), error) {
	lock := flock.New(filepath.Join(folder, lockFile))
	held, err := lock.TryLock()
	if err == nil && !held {
		err = errors.New("another run uses it; choose another folder with -folder")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", folder, err)
	}
	return func() { _ = lock.Unlock() }, nil
}

func copyFile(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}

// tarball packs channels/offline as a channel server would, and returns its
// URL.
func (b *bench) tarball(ctx context.Context) (string, error) {
	path := filepath.Join(b.folder, "nixexprs.tar.xz")
	err := b.runner.Run(ctx, execx.Command{
		Name: "tar", Args: []string{"--create", "--xz", "--file", path, "--directory", filepath.Dir(b.channel), filepath.Base(b.channel)}, Dir: "/",
	})
	return "file://" + path, err
}

// nixRecorder is a folder of programs that note that they were called and
// become the real ones.
type nixRecorder struct{ env, log string }

// recordNix makes a recorder for all programs of Nix.
func (b *bench) recordNix(ctx context.Context) (nixRecorder, error) {
	folder := filepath.Join(b.folder, "recorder")
	log := filepath.Join(b.folder, "recorded")
	recorder := nixRecorder{env: "PATH=" + folder + ":" + os.Getenv("PATH"), log: log}
	// A figure before this one may have made it.
	if err := errors.Join(os.RemoveAll(folder), os.MkdirAll(folder, 0o755)); err != nil {
		return recorder, err
	}
	if err := os.WriteFile(log, nil, 0o600); err != nil {
		return recorder, err
	}
	// Evaluation runs as another user.
	if err := errors.Join(os.Chmod(log, 0o666), os.Chmod(b.folder, 0o711)); err != nil {
		return recorder, err
	}
	found := 0
	for _, place := range filepath.SplitList(os.Getenv("PATH")) {
		programs, err := filepath.Glob(filepath.Join(place, "nix*"))
		if err != nil {
			return recorder, err
		}
		for _, program := range programs {
			name := filepath.Base(program)
			script := fmt.Sprintf("#!/bin/sh\necho %s \"$@\" | tr '\\n' ' ' >>%[2]s\necho >>%[2]s\nexec %[3]s \"$@\"\n", execx.Quote([]string{name}), execx.Quote([]string{log}), execx.Quote([]string{program}))
			file, err := os.OpenFile(filepath.Join(folder, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
			if errors.Is(err, fs.ErrExist) {
				// An earlier folder of PATH wins.
				continue
			}
			if err != nil {
				return recorder, err
			}
			_, err = file.WriteString(script)
			if err := errors.Join(err, file.Close()); err != nil {
				return recorder, err
			}
			found++
		}
	}
	if found == 0 {
		return recorder, errors.New("there is no Nix on PATH, so nothing could be recorded")
	}
	return recorder, b.checkRecorder(ctx, recorder, folder)
}

// checkRecorder makes sure that a recorder does not find nothing in any case.
func (b *bench) checkRecorder(ctx context.Context, recorder nixRecorder, folder string) error {
	if err := b.runner.Run(ctx, execx.Command{Name: filepath.Join(folder, "nix-instantiate"), Args: []string{"--version"}, Dir: "/"}); err != nil {
		return err
	}
	calls, err := recorder.calls()
	if err == nil && len(builds(calls)) != 1 {
		err = fmt.Errorf("the recorder does not record: %q", calls)
	}
	return err
}

// calls are the command lines since the last call.
func (r nixRecorder) calls() ([]string, error) {
	text, err := os.ReadFile(r.log)
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines, os.Truncate(r.log, 0)
}

// builds are those calls that evaluate or build.
func builds(calls []string) []string {
	var found []string
	for _, call := range calls {
		words := strings.Fields(call)
		realises := words[0] == "nix-store" && strings.Contains(call, ".drv") && (strings.Contains(call, " -r ") || strings.Contains(call, " --realise "))
		command := ""
		for _, word := range words[1:] {
			if !strings.HasPrefix(word, "-") {
				command = word
				break
			}
		}
		if realises || words[0] == "nix-instantiate" || words[0] == "nix-build" || (words[0] == "nix" && (command == "eval" || command == "build")) {
			found = append(found, call)
		}
	}
	return found
}

// describeMachine says what was measured on, without names.
func (b *bench) describeMachine() {
	read := func(path string) string {
		text, _ := os.ReadFile(path)
		return strings.TrimSpace(string(text))
	}
	var memory unix.Sysinfo_t
	_ = unix.Sysinfo(&memory)
	var kernel unix.Utsname
	_ = unix.Uname(&kernel)
	b.say("%d processors, %d GiB of memory, Linux %s; load %s", runtime.NumCPU(),
		(memory.Totalram*uint64(memory.Unit)+1<<29)>>30, string(bytes.TrimRight(kernel.Release[:], "\x00")), read("/proc/loadavg"))
}
