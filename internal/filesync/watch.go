package filesync

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"devhost/internal/execx"
	"devhost/internal/gitignore"
	"devhost/internal/sshlink"
)

const (
	// Changes are sent when nothing has changed for settle, and at the latest
	// longestSettle after the first of them.
	settle        = 15 * time.Millisecond
	longestSettle = 150 * time.Millisecond
	// After a failure, it is tried again after pauses that grow from the first to
	// the longest, and after the next change.
	firstRetry   = time.Second
	longestRetry = 30 * time.Second
)

// WatchLimit says that the system watches no more folders or files.
type WatchLimit struct {
	Path string
	Err  error
}

func (w *WatchLimit) Error() string {
	remedy := "raise the limit of open files, see: ulimit -n"
	switch limit := readNumber("/proc/sys/fs/inotify/max_user_watches"); {
	case limit == "":
	case errors.Is(w.Err, syscall.ENOSPC):
		remedy = fmt.Sprintf("the limit is %s folders of all your programs together; raise it: sudo sysctl fs.inotify.max_user_watches=1048576", limit)
	default:
		remedy = fmt.Sprintf("the limit is %s programs that watch; raise it: sudo sysctl fs.inotify.max_user_instances=1024", readNumber("/proc/sys/fs/inotify/max_user_instances"))
	}
	return fmt.Sprintf("cannot watch %s: %v; %s\nOr exclude folders that need no sync, by .gitignore or --exclude", w.Path, w.Err, remedy)
}

func (w *WatchLimit) Unwrap() error { return w.Err }

func readNumber(name string) string {
	text, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// changes collects what happens in one source.
type changes struct {
	root string
	// wake gets a value when there is something new.
	wake chan<- struct{}
	// watched is replaced when the folders are to be watched anew.
	watched *fsnotify.Watcher

	// mutex guards what follows.
	mutex sync.Mutex
	// paths have changed; the value says whether they came into being.
	paths map[string]bool
	// folders are watched.
	folders map[string]bool
	// all says that everything is to be compared, anew that the folders are also
	// to be watched anew.
	all, anew bool
}

func (c *changes) note(change func()) {
	c.mutex.Lock()
	change()
	c.mutex.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// take gives what has changed and forgets it.
func (c *changes) take() (paths map[string]bool, all, anew bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	paths, all, anew = c.paths, c.all, c.anew
	c.paths, c.all, c.anew = map[string]bool{}, false, false
	return paths, all, anew
}

// restart watches anew. Names of folders that were moved are wrong in the old
// watcher.
func (c *changes) restart(root string) error {
	c.close()
	watched, err := fsnotify.NewWatcher()
	if err != nil {
		return &WatchLimit{root, err}
	}
	c.root, c.watched = root, watched
	c.mutex.Lock()
	c.folders = map[string]bool{}
	c.mutex.Unlock()
	go c.collect(watched)
	return nil
}

func (c *changes) close() {
	if c.watched != nil {
		_ = c.watched.Close()
	}
}

// enter watches a folder before it is read, so that nothing is missed between.
func (c *changes) enter(name string) error {
	full := filepath.Join(c.root, filepath.FromSlash(name))
	err := c.watched.Add(full)
	switch {
	case err == nil:
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return &WatchLimit{full, err}
	case name != "" && errors.Is(err, fs.ErrNotExist):
		return nil
	default:
		return err
	}
	c.mutex.Lock()
	c.folders[name] = true
	c.mutex.Unlock()
	return nil
}

// collect runs until the watcher is closed.
func (c *changes) collect(watched *fsnotify.Watcher) {
	root := c.root
	for {
		select {
		case event, open := <-watched.Events:
			if !open {
				return
			}
			c.event(root, event)
		case _, open := <-watched.Errors:
			if !open {
				return
			}
			// More has happened than the system could tell.
			c.note(func() { c.all, c.anew = true, true })
		}
	}
}

func (c *changes) event(root string, event fsnotify.Event) {
	name, below := within(root, event.Name)
	gone := event.Has(fsnotify.Rename) || event.Has(fsnotify.Remove)
	switch {
	case !below || name == gitFolder || strings.HasPrefix(name, gitFolder+"/"):
	case name == "" && gone:
		c.note(func() { c.all, c.anew = true, true })
	case name == "":
	case path.Base(name) == gitignore.File:
		c.note(func() { c.all = true })
	default:
		c.note(func() {
			if gone && c.folders[name] {
				delete(c.folders, name)
				c.all = true
				c.anew = c.anew || event.Has(fsnotify.Rename)
			}
			c.paths[name] = c.paths[name] || event.Has(fsnotify.Create)
			if len(c.paths) > mostChanges {
				c.paths, c.all = map[string]bool{}, true
			}
		})
	}
}

// source is a folder that is watched.
type source struct {
	*folder
	changes *changes
	// all says that everything is to be compared, anew that the folders are also
	// to be watched anew.
	all, anew bool
}

// watcher syncs continuously.
type watcher struct {
	*syncer
	sources []*source
	wake    chan struct{}
	// started is set when both sides were equal once.
	started bool
	// told is the last failure that was told.
	told string
}

// Watch syncs, and again whenever something changes here, until the context
// ends. When the connection is lost or the container stops, it goes on when
// that is over. What fails at the beginning is an error.
func Watch(ctx context.Context, runner execx.Runner, host sshlink.Host, link sshlink.Options, pairs []Pair, options Options) error {
	s, err := newSyncer(runner, pairs, options)
	if err != nil {
		return err
	}
	w := &watcher{syncer: s, wake: make(chan struct{}, 1)}
	for _, f := range s.folders {
		c := &changes{wake: w.wake, paths: map[string]bool{}}
		f.enter = c.enter
		w.sources = append(w.sources, &source{folder: f, changes: c, anew: true})
		defer c.close()
	}
	keeper := sshlink.Keeper{Runner: runner, Host: host, Options: link, Say: options.Say}
	return keeper.Keep(ctx, w.work)
}

// work syncs while the connection stands.
func (w *watcher) work(ctx context.Context, connection *sshlink.Connection) error {
	// Whatever happened meanwhile, in the container too.
	for _, s := range w.sources {
		s.all = true
	}
	retry := firstRetry
	for {
		err := w.round(ctx, connection)
		var limit *WatchLimit
		var again <-chan time.Time
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && !w.started:
			w.started = true
			w.options.Say("watching; Ctrl-C ends it")
		case err == nil:
			retry = firstRetry
			if w.told != "" {
				w.told = ""
				w.options.Say("that is over: all is synced again")
			}
		case !w.started || errors.As(err, &limit) || connection.Lost(err):
			return err
		default:
			if err.Error() != w.told {
				w.told = err.Error()
				w.options.Say(w.told + "\n  it is tried again until it works")
			}
			again = time.After(retry)
			retry = min(2*retry, longestRetry)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again:
		case <-w.wake:
			if err := w.settle(ctx); err != nil {
				return err
			}
		}
	}
}

// settle waits until a burst of changes is over.
func (w *watcher) settle(ctx context.Context) error {
	latest := time.After(longestSettle)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-latest:
			return nil
		case <-time.After(settle):
			return nil
		case <-w.wake:
		}
	}
}

// round brings over what has changed.
func (w *watcher) round(ctx context.Context, connection *sshlink.Connection) error {
	var problems []error
	var whole []*source
	for _, s := range w.sources {
		err := w.follow(ctx, connection, s)
		if errors.Is(err, errFull) {
			if err = s.read(ctx, connection); err == nil {
				whole = append(whole, s)
			}
		}
		problems = append(problems, err)
	}
	if len(whole) == 0 {
		return errors.Join(problems...)
	}
	for _, s := range w.sources {
		if s.remote == "" {
			// What belongs to it there is not known yet.
			return errors.Join(problems...)
		}
	}
	if err := w.nest(); err != nil {
		return errors.Join(append(problems, err)...)
	}
	for _, s := range whole {
		err := s.apply(ctx, connection)
		s.all = err != nil
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// follow brings over single changes, or says by errFull that it takes more.
func (w *watcher) follow(ctx context.Context, connection *sshlink.Connection, s *source) error {
	paths, all, anew := s.changes.take()
	s.all, s.anew = s.all || all, s.anew || anew
	if s.all || s.anew {
		if err := s.resolve(); err != nil {
			s.anew = true
			return err
		}
	}
	if s.anew || s.root != s.changes.root {
		if err := s.changes.restart(s.root); err != nil {
			return err
		}
		s.all, s.anew = true, false
	}
	if s.all {
		return errFull
	}
	if len(paths) == 0 {
		return nil
	}
	err := s.update(ctx, connection, paths)
	s.all = err != nil
	return err
}

// read reads both sides.
func (s *source) read(ctx context.Context, connection *sshlink.Connection) error {
	s.all = true
	if err := s.scan(ctx); err != nil {
		var missing *MissingSource
		s.anew = s.anew || errors.As(err, &missing)
		return err
	}
	return s.list(ctx, connection)
}
