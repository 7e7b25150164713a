package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"devhost/internal/execx"
	"devhost/internal/filesync"
	"devhost/internal/sshlink"
)

const (
	syncName = "sync"
	// unchangedFiles lie in folders of syncFolder files each.
	unchangedFiles, syncFolder = 20000, 100
	savedBytes                 = 10 << 10
	// savesPerRun makes a 95th percentile mean something.
	savesPerRun = 5
)

// sync: devhost-deploy's sync of many unchanged files, against plain rsync; and
// how long a saved file takes to a container.
func (b *bench) sync(ctx context.Context) error {
	if _, err := b.devhost(ctx, "ensure", syncName, "--channel", b.channel, "--provision", b.minimal); err != nil {
		return err
	}
	source := filepath.Join(b.folder, "synced")
	for i := range unchangedFiles {
		folder := filepath.Join(source, fmt.Sprintf("folder-%03d", i/syncFolder))
		if i%syncFolder == 0 {
			if err := os.MkdirAll(folder, 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("file-%02d.py", i%syncFolder)), fmt.Appendf(nil, "# %d\n", i), 0o644); err != nil {
			return err
		}
	}
	host := sshlink.Host{Config: filepath.Join(b.layout.SSH(syncName), "config"), Name: syncName}
	sockets, err := os.MkdirTemp("", "dhb-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(sockets)
	link := sshlink.Options{Folder: sockets}
	pairs := []filesync.Pair{{Source: source, Destination: "/srv/s-dev/synced"}}
	options := filesync.Options{User: "s-dev", Say: func(string) {}}
	if err := b.syncUnchanged(ctx, host, link, pairs, options); err != nil {
		return err
	}
	return b.syncSaved(ctx, host, link, pairs, options)
}

func (b *bench) syncUnchanged(ctx context.Context, host sshlink.Host, link sshlink.Options, pairs []filesync.Pair, options filesync.Options) error {
	said := ""
	options.Say = func(line string) { said = line }
	taken, err := b.alternate(ctx,
		func(ctx context.Context) (time.Duration, error) {
			began := time.Now()
			err := filesync.Run(ctx, b.runner, host, link, pairs, options)
			return time.Since(began), err
		},
		func(ctx context.Context) (time.Duration, error) {
			began := time.Now()
			err := b.runner.Run(ctx, execx.Command{Name: "rsync", Args: []string{
				"-a", "--delete", "--rsync-path=sudo -n -u s-dev rsync", "-e", "ssh -F " + host.Config, pairs[0].Source + "/", host.Name + ":" + pairs[0].Destination + "/",
			}})
			return time.Since(began), err
		})
	if err != nil {
		return err
	}
	if !strings.Contains(said, "nothing to do") {
		return fmt.Errorf("the last sync had something to do: %s", said)
	}
	const bound = 1.2
	ratio := float64(taken[0].median()) / float64(taken[1].median())
	b.table.bound("sync of 20,000 unchanged files, against plain rsync", fmt.Sprintf("%.2f x", ratio), "<= 1.2 x", len(taken[0]), ratio <= bound)
	b.table.information("  devhost-deploy's sync", taken[0].String(), len(taken[0]))
	b.table.information("  rsync -a --delete", taken[1].String(), len(taken[1]))
	return nil
}

// syncSaved saves files while the folder is watched.
func (b *bench) syncSaved(ctx context.Context, host sshlink.Host, link sshlink.Options, pairs []filesync.Pair, options filesync.Options) (err error) {
	watching, cancel := context.WithCancel(ctx)
	lines, ended := make(chan string, 16), make(chan error, 1)
	options.Say = func(line string) {
		select {
		case lines <- line:
		case <-watching.Done():
		}
	}
	go func() { ended <- filesync.Watch(watching, b.runner, host, link, pairs, options) }()
	defer func() {
		cancel()
		if ending := <-ended; !errors.Is(ending, context.Canceled) {
			err = errors.Join(err, ending)
		}
	}()
	says := func(text string) error {
		patience := time.After(bootTimeout)
		for {
			select {
			case line := <-lines:
				if strings.Contains(line, text) {
					return nil
				}
			case err := <-ended:
				ended <- err
				return err
			case <-patience:
				return fmt.Errorf("the watch never says %q", text)
			}
		}
	}
	if err := says("watching"); err != nil {
		return err
	}
	saved := filepath.Join(pairs[0].Source, "folder-100", "file-50.py")
	arrived := filepath.Join(b.layout.Root(syncName), pairs[0].Destination, "folder-100", "file-50.py")
	var taken samples
	for round := range warmUps + savesPerRun*b.runs {
		content := make([]byte, savedBytes)
		// It cannot fail.
		_, _ = rand.Read(content)
		began := time.Now()
		if err := os.WriteFile(saved, content, 0o644); err != nil {
			return err
		}
		for {
			if found, err := os.ReadFile(arrived); err == nil && bytes.Equal(found, content) {
				break
			}
			if time.Since(began) > bootTimeout {
				return errors.New("a saved file never comes")
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			time.Sleep(time.Millisecond)
		}
		if round >= warmUps {
			taken = append(taken, time.Since(began))
		}
		if err := says("sent folder-100/file-50.py"); err != nil {
			return err
		}
	}
	const share, bound = 0.95, 300 * time.Millisecond
	late := taken.at(share)
	b.table.bound("sync --watch: a saved file of 10 KiB is in the container, 95th percentile",
		fmt.Sprintf("%s (median %s)", inMilliseconds(late), inMilliseconds(taken.median())), "<= 300 ms", len(taken), late <= bound)
	return nil
}
