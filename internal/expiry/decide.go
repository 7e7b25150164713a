// Package expiry is what becomes of containers that nobody deploys to any
// more: people are warned, the container is stopped, and in the end archived
// and deleted. Decide says what is to be done, a Sweep does it.
package expiry

import (
	"time"

	"devhost/internal/registry"
	"devhost/internal/settings"
)

// Action is what is to be done with a container.
type Action string

// The actions. Tell is about a container that is due and in use: the people in
// it are told, and nothing else is done until the next sweep.
const (
	Nothing    Action = ""
	WarnStop   Action = "warn-stop"
	Stop       Action = "stop"
	WarnDelete Action = "warn-delete"
	Delete     Action = "delete"
	Tell       Action = "tell"
)

const (
	day = 24 * time.Hour
	// longestGrace is how long before a stop or deletion its warning must have
	// been given, at the latest.
	longestGrace = day
)

// Deadline is when something happens, the zero time for never, and how long
// before.
type Deadline struct {
	// At is when it is due, WarnFrom when people are to be told.
	At, WarnFrom time.Time
	// Grace is how long before it happens the warning must have been given at
	// the latest. It is at most half of the time between WarnFrom and At: where
	// the host is awake in between, the deadline is kept exactly.
	Grace time.Duration
}

// Deadlines are those of one container.
type Deadlines struct{ Stop, Delete Deadline }

// DeadlinesOf computes when a container is due. They do not depend on the
// present time, so a clock that is set back or forth moves none of them.
func DeadlinesOf(record *registry.Container, host settings.Expiry) Deadlines {
	if !host.Enable || record.Expiry.Off {
		return Deadlines{}
	}
	from := record.LastDeployment
	if from.IsZero() {
		from = record.CreatedAt
	}
	stopAfter, deleteAfter := time.Duration(host.StopAfter), time.Duration(host.DeleteAfter)
	if record.Expiry.StopAfter > 0 {
		stopAfter = record.Expiry.StopAfter
	}
	if record.Expiry.DeleteAfter > 0 {
		deleteAfter = record.Expiry.DeleteAfter
	}
	// A container that is kept is treated as if it had been deployed so late
	// that it is due when the keeping ends.
	first := stopAfter
	if first == 0 {
		first = deleteAfter
	}
	if kept := record.Expiry.KeepUntil.Add(-first); !record.Expiry.KeepUntil.IsZero() && kept.After(from) {
		from = kept
	}
	notice := time.Duration(host.StopAfter - host.WarnAfter)
	return Deadlines{Stop: deadline(from, stopAfter, notice), Delete: deadline(from, deleteAfter, notice)}
}

func deadline(from time.Time, after, notice time.Duration) Deadline {
	if after <= 0 {
		return Deadline{}
	}
	if notice <= 0 {
		notice = min(day, after/2)
	}
	notice = min(notice, after)
	at := from.Add(after)
	return Deadline{At: at, WarnFrom: at.Add(-notice), Grace: min(longestGrace, notice/2)}
}

// never says that it does not happen.
func (d Deadline) never() bool { return d.At.IsZero() }

// sooner says whether it happens before another one does.
func (d Deadline) sooner(other Deadline) bool {
	return !d.never() && (other.never() || d.At.Before(other.At))
}

// announced says whether it is so near that people are to know.
func (d Deadline) announced(now time.Time) bool { return !d.never() && !now.Before(d.WarnFrom) }

// warned says whether a warning counts. One from before WarnFrom was about
// another deadline, one from the future was given by a clock that was wrong.
func (d Deadline) warned(at, now time.Time) bool {
	return !at.IsZero() && !at.Before(d.WarnFrom) && !at.After(now)
}

// Effective is when it happens at the earliest, given when people were warned
// (the zero time for not yet): a host that was asleep warns late.
func (d Deadline) Effective(warnedAt, now time.Time) time.Time {
	if d.never() || !d.announced(now) {
		return d.At
	}
	if !d.warned(warnedAt, now) {
		warnedAt = now
	}
	if earliest := warnedAt.Add(d.Grace); earliest.After(d.At) {
		return earliest
	}
	return d.At
}

// due says whether it happens now.
func (d Deadline) due(warnedAt, now time.Time) bool {
	return !d.never() && d.warned(warnedAt, now) && !now.Before(d.Effective(warnedAt, now))
}

// Situation is what a container is doing.
type Situation struct {
	Running bool
	// InUse says that somebody is logged in or runs a command in it.
	InUse bool
}

// Decide says what is to be done first with a container. When that is done and
// recorded, it is asked again.
func Decide(record *registry.Container, host settings.Expiry, situation Situation, now time.Time) Action {
	deadlines, expiry := DeadlinesOf(record, host), record.Expiry
	if situation.Running && deadlines.Stop.announced(now) && !deadlines.Stop.warned(expiry.StopWarnedAt, now) {
		return WarnStop
	}
	if deadlines.Delete.announced(now) && !deadlines.Delete.warned(expiry.DeleteWarnedAt, now) {
		return WarnDelete
	}
	action := Nothing
	switch {
	case deadlines.Delete.due(expiry.DeleteWarnedAt, now):
		action = Delete
	case situation.Running && deadlines.Stop.due(expiry.StopWarnedAt, now):
		action = Stop
	}
	if action != Nothing && situation.Running && situation.InUse {
		return Tell
	}
	return action
}
