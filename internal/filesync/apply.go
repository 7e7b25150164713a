package filesync

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"

	"devhost/internal/execx"
	"devhost/internal/sshlink"
	"devhost/internal/terminal"
)

// Blocked says that files could not be sent.
type Blocked struct {
	Pair  Pair
	Names []string
}

func (b *Blocked) Error() string {
	return fmt.Sprintf("%s: cannot send %s: in the container there is a folder or file of another kind that holds what an exclude protects; move it away there", b.Pair, namesOf(b.Names))
}

// apply makes the container equal. Both sides have been read.
func (f *folder) apply(ctx context.Context, connection *sshlink.Connection) error {
	began := time.Now()
	if f.single {
		return f.applyFile(ctx, connection, began)
	}
	p := makePlan(f.here, f.there, f.foreign, f.kept)
	if len(f.here.entries) == 0 && len(p.remove) > 0 {
		return &EmptySource{f.pair, len(p.remove)}
	}
	if f.s.options.DryRun {
		f.sayPlan(p)
		return nil
	}
	if err := f.change(ctx, connection, p); err != nil {
		return f.wrap(err)
	}
	if len(p.blocked) > 0 {
		return &Blocked{f.pair, p.blocked}
	}
	f.sayDone(p, began)
	return nil
}

// change does what a plan says. What goes away is removed last.
func (f *folder) change(ctx context.Context, connection *sshlink.Connection, p plan) error {
	runner, user, at := f.s.runner, f.s.options.User, f.remote
	if err := remove(ctx, runner, connection, user, at, p.clear); err != nil {
		return err
	}
	if err := send(ctx, runner, connection, user, f.root, at, p.send); err != nil {
		return err
	}
	return remove(ctx, runner, connection, user, at, p.remove)
}

// plainName is a name that no shell and no version of rsync takes for anything
// else.
var plainName = regexp.MustCompile(`^[A-Za-z0-9_+=@%,][A-Za-z0-9_+=@%,.-]*$`)

func (f *folder) applyFile(ctx context.Context, connection *sshlink.Connection, began time.Time) error {
	source, target := f.here.order[0], f.target()
	wanted := f.here.entries[source]
	found, exists := f.there.entries[target]
	var p plan
	switch {
	case exists && found.kind == dir:
		return &BadDestination{f.pair, "it is a folder; with a slash at its end, the file goes into it"}
	case exists && wanted.same(found):
	case source != target && !plainName.MatchString(target):
		return &BadDestination{f.pair, "a file that gets another name can have letters, digits and _ + = @ % , . - in that"}
	default:
		p.send = []string{source}
	}
	if f.s.options.DryRun {
		f.sayPlan(p)
		return nil
	}
	var err error
	switch {
	case len(p.send) == 0:
	case source == target:
		err = send(ctx, f.s.runner, connection, f.s.options.User, f.root, f.remote, p.send)
	default:
		err = rsyncError(f.s.runner.Run(ctx, execx.Command{Name: "rsync", Args: []string{
			"-lptI", "--rsync-path=" + rsyncPath(f.s.options.User, f.remote), "-e", sshlink.RsyncShell(connection.Shell()),
			"--", filepath.Join(f.root, source), connection.Host().Name + ":./" + target,
		}}))
	}
	if err != nil {
		return f.wrap(err)
	}
	f.sayDone(p, began)
	return nil
}

// sayDone says in one line what was done.
func (f *folder) sayDone(p plan, began time.Time) {
	took := fmt.Sprintf("in %.2f s", time.Since(began).Seconds())
	removed := append(slices.Clone(p.clear), p.remove...)
	switch {
	case p.empty():
		f.say(fmt.Sprintf("nothing to do for %s", count(len(f.here.entries), "file or folder", "files and folders")))
	case len(removed) == 0:
		f.say(fmt.Sprintf("sent %s %s", f.sent(p.send), took))
	case len(p.send) == 0:
		f.say(fmt.Sprintf("removed %s %s", namesOf(removed), took))
	default:
		f.say(fmt.Sprintf("sent %s, removed %s %s", f.sent(p.send), namesOf(removed), took))
	}
}

// sent names what was sent, and how much there is in it.
func (f *folder) sent(names []string) string {
	var size int64
	for _, name := range names {
		size += f.here.entries[name].size
	}
	return fmt.Sprintf("%s (%s)", namesOf(names), units.BytesSize(float64(size)))
}

func (f *folder) sayPlan(p plan) {
	for _, part := range []struct {
		what  string
		names []string
	}{{"would remove", append(slices.Clone(p.clear), p.remove...)}, {"would send", p.send}, {"cannot send", p.blocked}} {
		for _, name := range part.names {
			f.say(part.what + " " + shown(name))
		}
	}
	if p.empty() {
		f.say("nothing to do")
	}
}

// namesOf names a few paths and counts many.
func namesOf(names []string) string {
	const most = 3
	if len(names) > most {
		return fmt.Sprintf("%d files and folders", len(names))
	}
	var all []string
	for _, name := range names {
		all = append(all, shown(name))
	}
	return strings.Join(all, ", ")
}

// shown is a path that cannot drive a terminal.
func shown(name string) string { return terminal.Line(name) }

func count(number int, one, many string) string {
	if number == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", number, many)
}

// errFull says that a change cannot be followed alone: everything has to be
// compared.
var errFull = errors.New("everything is to be compared")

// mostChanges is how many changed paths are followed one by one.
const mostChanges = 2000

// update follows changes since the last time that both sides were equal.
func (f *folder) update(ctx context.Context, connection *sshlink.Connection, changed map[string]bool) error {
	began := time.Now()
	if len(changed) > mostChanges || f.single {
		return errFull
	}
	p, fresh, err := f.follow(ctx, changed)
	if err != nil || p.empty() {
		return err
	}
	if len(p.remove) > 0 && len(p.remove) >= len(f.here.entries) {
		// It is empty now: whether that is meant is asked in one place.
		return errFull
	}
	if err := f.change(ctx, connection, p); err != nil {
		// Both sides are compared; if that fails too, it is told then.
		return errFull
	}
	for name, e := range fresh.entries {
		f.here.entries[name] = e
	}
	f.sayDone(p, began)
	for _, name := range p.remove {
		delete(f.here.entries, name)
	}
	return nil
}

// follow makes a plan of changed paths. The value says whether a path came into
// being, by a name that may have been another file's before.
func (f *folder) follow(ctx context.Context, changed map[string]bool) (p plan, fresh *listing, err error) {
	fresh = newListing()
	scanner := f.scanner(fresh)
	names := make([]string, 0, len(changed))
	for name := range changed {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if _, done := fresh.entries[name]; done {
			continue
		}
		known, sent := f.here.entries[name]
		now, err := scanner.peek(name)
		switch {
		case err != nil:
			return p, nil, err
		case now == nil && !sent:
			continue
		case now == nil && known.kind == dir:
			return p, nil, errFull
		case now == nil && f.s.options.KeepExtra:
			delete(f.here.entries, name)
			continue
		case now == nil:
			p.remove = append(p.remove, name)
			continue
		case f.filter.excluded(name, now.IsDir()) || insideAny(name, f.foreign):
			if sent {
				return p, nil, errFull
			}
			continue
		}
		found, err := scanner.one(name)
		if err != nil {
			return p, nil, err
		}
		switch {
		case found.kind == others:
			if sent {
				return p, nil, errFull
			}
		case sent && found.kind != known.kind, sent && found.kind == dir && changed[name]:
			return p, nil, errFull
		case found.kind == dir && !sent:
			if err := scanner.folder(ctx, name); err != nil {
				return p, nil, err
			}
		}
	}
	if scanner.ignoreFiles {
		return p, nil, errFull
	}
	f.tellSkipped(scanner)
	for _, name := range fresh.order {
		if known, sent := f.here.entries[name]; !sent || !fresh.entries[name].same(known) {
			p.send = append(p.send, name)
			if sent && known.kind != fresh.entries[name].kind || f.orphan(name, fresh) {
				return p, nil, errFull
			}
		}
	}
	return p, fresh, nil
}

// orphan tells whether the folder that a path is in was never sent.
func (f *folder) orphan(name string, fresh *listing) bool {
	above := path.Dir(name)
	_, known := f.here.entries[above]
	_, now := fresh.entries[above]
	return above != "." && !known && !now
}
