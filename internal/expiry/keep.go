package expiry

import (
	"context"
	"time"

	"devhost/internal/container"
	"devhost/internal/registry"
	"devhost/internal/settings"
)

// Change is what a person wants of a container's expiry. nil leaves as it was.
type Change struct {
	// KeepUntil puts everything off until then; the zero time does not.
	KeepUntil *time.Time
	// Off says that it never expires.
	Off *bool
	// StopAfter and DeleteAfter replace those of the host; zero does not.
	StopAfter, DeleteAfter *time.Duration
}

// Kept is what came of a Change.
type Kept struct {
	Record  *registry.Container
	Running bool
	Outlook Outlook
}

// Apply changes when a container expires. People are warned anew before
// anything happens. To have somebody else's deleted sooner is like destroying
// it: the error is *container.NotOwner.
func Apply(ctx context.Context, manager *container.Manager, host settings.Expiry, name string, change Change, timeout time.Duration) (Kept, error) {
	var kept Kept
	err := manager.Visit(ctx, name, "keep", timeout, func(visit *container.Visit) error {
		expiry, before := &visit.Record.Expiry, DeadlinesOf(visit.Record, host).Delete
		set(&expiry.KeepUntil, change.KeepUntil)
		set(&expiry.Off, change.Off)
		set(&expiry.StopAfter, change.StopAfter)
		set(&expiry.DeleteAfter, change.DeleteAfter)
		if DeadlinesOf(visit.Record, host).Delete.sooner(before) {
			if err := visit.CheckOwner("unkeep"); err != nil {
				return err
			}
		}
		expiry.StopWarnedAt, expiry.DeleteWarnedAt = time.Time{}, time.Time{}
		if err := visit.Save(); err != nil {
			return err
		}
		now, running := manager.Now(), runs(visit.State)
		kept = Kept{Record: visit.Record, Running: running, Outlook: Look(visit.Record, host, running, now)}
		return visit.Notice(notice(visit.Record, host, running, now))
	})
	return kept, err
}

func set[T any](field, value *T) {
	if value != nil {
		*field = *value
	}
}
