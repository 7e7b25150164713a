package expiry

import (
	"testing"
	"time"

	"devhost/internal/registry"
	"devhost/internal/settings"
)

// deployed is when the containers of these tests were deployed last.
var deployed = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

const hour = time.Hour

// at is a time after the deployment.
func at(after time.Duration) time.Time { return deployed.Add(after) }

func defaults() settings.Expiry { return settings.Default().Expiry }

// told marks a record as warned of.
func told(record registry.Container, stop, delete time.Duration) registry.Container {
	if stop != 0 {
		record.Expiry.StopWarnedAt = at(stop)
	}
	if delete != 0 {
		record.Expiry.DeleteWarnedAt = at(delete)
	}
	return record
}

func TestDecide(t *testing.T) {
	plain := registry.Container{Name: "demo", LastDeployment: deployed}
	with := func(expiry registry.Expiry) registry.Container {
		record := plain
		record.Expiry = expiry
		return record
	}
	running, stopped, used := Situation{Running: true}, Situation{}, Situation{Running: true, InUse: true}
	off := defaults()
	off.Enable = false
	neverStop, neverDelete := defaults(), defaults()
	neverStop.StopAfter, neverDelete.DeleteAfter = 0, 0
	for _, test := range []struct {
		name      string
		record    registry.Container
		host      settings.Expiry
		situation Situation
		after     time.Duration
		want      Action
	}{
		{"just deployed", plain, defaults(), running, 0, Nothing},
		{"before the warning", plain, defaults(), running, 5*day - 1, Nothing},
		{"5 days", plain, defaults(), running, 5 * day, WarnStop},
		{"warned", told(plain, 5*day, 0), defaults(), running, 5*day + hour, Nothing},
		{"6 days 23 hours", told(plain, 5*day, 0), defaults(), running, 6*day + 23*hour, Nothing},
		{"one nanosecond less than 7 days", told(plain, 5*day, 0), defaults(), running, 7*day - 1, Nothing},
		{"7 days", told(plain, 5*day, 0), defaults(), running, 7 * day, Stop},
		{"7 days, warned late but in time", told(plain, 6*day, 0), defaults(), running, 7 * day, Stop},
		{"7 days, warned too late", told(plain, 6*day+hour, 0), defaults(), running, 7 * day, Nothing},
		{"a day after a late warning", told(plain, 6*day+hour, 0), defaults(), running, 7*day + hour, Stop},
		{"7 days, in use", told(plain, 5*day, 0), defaults(), used, 7 * day, Tell},
		{"7 days, stopped by somebody", plain, defaults(), stopped, 7 * day, Nothing},
		{"before the second warning", plain, defaults(), stopped, 28*day - 1, Nothing},
		{"28 days", plain, defaults(), stopped, 28 * day, WarnDelete},
		{"29 days", told(plain, 0, 28*day), defaults(), stopped, 29 * day, Nothing},
		{"29 days 23 hours", told(plain, 0, 28*day), defaults(), stopped, 29*day + 23*hour, Nothing},
		{"30 days", told(plain, 0, 28*day), defaults(), stopped, 30 * day, Delete},
		{"30 days, started again and in use", told(plain, 29*day, 28*day), defaults(), used, 30 * day, Tell},
		{"30 days, started again", told(plain, 29*day, 28*day), defaults(), running, 30 * day, Delete},
		{"30 days, not warned", plain, defaults(), stopped, 30 * day, WarnDelete},

		{"asleep for a month, running", plain, defaults(), running, 35 * day, WarnStop},
		{"asleep for a month, warned of the stop", told(plain, 35*day, 0), defaults(), running, 35 * day, WarnDelete},
		{"asleep for a month, warned", told(plain, 35*day, 35*day), defaults(), running, 35*day + hour, Nothing},
		{"asleep for a month, 23 hours later", told(plain, 35*day, 35*day), defaults(), running, 35*day + 23*hour, Nothing},
		{"asleep for a month, a day later", told(plain, 35*day, 35*day), defaults(), running, 36 * day, Delete},
		{"asleep after the warning", told(plain, 5*day, 0), defaults(), running, 35 * day, WarnDelete},
		{"asleep after the warning, next", told(plain, 5*day, 35*day), defaults(), running, 35 * day, Stop},
		{"asleep for a month, stopped", plain, defaults(), stopped, 35 * day, WarnDelete},
		{"asleep for a month, stopped, warned", told(plain, 0, 35*day), defaults(), stopped, 36*day - 1, Nothing},

		{"clock set back before the deployment", told(plain, 5*day, 0), defaults(), running, -20 * day, Nothing},
		{"clock set back behind the warning", told(plain, 6*day, 0), defaults(), running, 5*day + hour, WarnStop},
		{"clock far ahead for an hour", plain, defaults(), running, 5000 * day, WarnStop},
		{"and right again", told(plain, 5000*day, 5000*day), defaults(), running, 6 * day, WarnStop},
		{"and right again, not due", told(plain, 5000*day, 5000*day), defaults(), running, day, Nothing},
		{"warned in the future, long due", told(plain, 5000*day, 5000*day), defaults(), running, 40 * day, WarnStop},

		{"switched off", told(plain, 5*day, 28*day), off, running, 100 * day, Nothing},
		{"never stopped", plain, neverStop, running, 20 * day, Nothing},
		{"never stopped, but deleted", told(plain, 0, 29*day), neverStop, stopped, 30 * day, Delete},
		{"never deleted", plain, neverDelete, stopped, 1000 * day, Nothing},
		{"kept for good", with(registry.Expiry{Off: true}), defaults(), running, 100 * day, Nothing},
		{"kept", with(registry.Expiry{KeepUntil: at(10 * day)}), defaults(), running, 7 * day, Nothing},
		{"warned before keeping ends", with(registry.Expiry{KeepUntil: at(10 * day)}), defaults(), running, 8 * day, WarnStop},
		{"a warning from before it was kept", told(with(registry.Expiry{KeepUntil: at(10 * day)}), 5*day, 0), defaults(), running, 10 * day, WarnStop},
		{"keeping is over", told(with(registry.Expiry{KeepUntil: at(10 * day)}), 8*day, 0), defaults(), running, 10 * day, Stop},
		{"deleted as long after as always", told(with(registry.Expiry{KeepUntil: at(10 * day)}), 0, 31*day), defaults(), stopped, 33*day - 1, Nothing},
		{"deleted after keeping", told(with(registry.Expiry{KeepUntil: at(10 * day)}), 0, 31*day), defaults(), stopped, 33 * day, Delete},
		{"kept for less than it lives", told(with(registry.Expiry{KeepUntil: at(2 * day)}), 5*day, 0), defaults(), running, 7 * day, Stop},
		{"own stop", with(registry.Expiry{StopAfter: 12 * hour}), defaults(), running, 0, WarnStop},
		{"own stop, warned", told(with(registry.Expiry{StopAfter: 12 * hour}), 1, 0), defaults(), running, 12*hour - 1, Nothing},
		{"own stop, due", told(with(registry.Expiry{StopAfter: 12 * hour}), 1, 0), defaults(), running, 12 * hour, Stop},
		{"later own stop", with(registry.Expiry{StopAfter: 14 * day}), defaults(), running, 7 * day, Nothing},
		{"own deletion", told(with(registry.Expiry{DeleteAfter: 10 * day}), 0, 8*day), defaults(), stopped, 10 * day, Delete},
		{"never deployed", registry.Container{CreatedAt: deployed, Expiry: registry.Expiry{StopWarnedAt: at(5 * day)}}, defaults(), running, 7 * day, Stop},
	} {
		t.Run(test.name, func(t *testing.T) {
			record := test.record
			if got := Decide(&record, test.host, test.situation, at(test.after)); got != test.want {
				t.Errorf("Decide = %q, want %q", got, test.want)
			}
		})
	}
}

// TestNeverWithoutWarning plays many lives of a host that sleeps and whose clock
// jumps, and demands that nothing happens within the grace after its warning.
func TestNeverWithoutWarning(t *testing.T) {
	host := defaults()
	for step := hour; step < 40*day; step += 7*hour + 13*time.Minute {
		for _, back := range []time.Duration{0, 3 * hour, 20 * day} {
			record := &registry.Container{Name: "demo", LastDeployment: deployed}
			running, now := true, deployed
			for range 200 {
				now = now.Add(step).Add(-back / 50)
				action := Decide(record, host, Situation{Running: running}, now)
				switch action {
				case WarnStop:
					record.Expiry.StopWarnedAt = now
				case WarnDelete:
					record.Expiry.DeleteWarnedAt = now
				case Stop:
					if now.Sub(deployed) < 7*day || now.Sub(record.Expiry.StopWarnedAt) < day {
						t.Fatalf("step %s: stopped at %s, warned at %s", step, now, record.Expiry.StopWarnedAt)
					}
					running = false
				case Delete:
					if now.Sub(deployed) < 30*day || now.Sub(record.Expiry.DeleteWarnedAt) < day {
						t.Fatalf("step %s: deleted at %s, warned at %s", step, now, record.Expiry.DeleteWarnedAt)
					}
				}
				if action == Delete {
					break
				}
			}
		}
	}
}

// TestAwakeHostIsExact: where a sweep runs every hour, things happen exactly
// when they are due.
func TestAwakeHostIsExact(t *testing.T) {
	for name, offset := range map[string]time.Duration{"on the hour": 0, "between": 59 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			record := &registry.Container{Name: "demo", LastDeployment: deployed}
			happened := map[Action]time.Duration{}
			running := true
			for now := deployed.Add(offset); happened[Delete] == 0 && now.Before(at(60*day)); now = now.Add(hour) {
				for {
					action := Decide(record, defaults(), Situation{Running: running}, now)
					if action == Nothing {
						break
					}
					happened[action] = now.Sub(deployed)
					switch action {
					case WarnStop:
						record.Expiry.StopWarnedAt = now
					case WarnDelete:
						record.Expiry.DeleteWarnedAt = now
					case Stop:
						running = false
					}
					if action == Delete {
						break
					}
				}
			}
			for action, want := range map[Action]time.Duration{WarnStop: 5 * day, Stop: 7 * day, WarnDelete: 28 * day, Delete: 30 * day} {
				if got := happened[action]; got < want || got-want >= hour || (offset == 0 && got != want) {
					t.Errorf("%s after %s, want %s", action, got, want)
				}
			}
		})
	}
}

func TestLook(t *testing.T) {
	record := &registry.Container{Name: "demo", LastDeployment: deployed}
	for _, test := range []struct {
		name         string
		change       func(*registry.Expiry, *settings.Expiry)
		running      bool
		after        time.Duration
		stop, delete time.Duration
		forever      bool
		warnings     int
	}{
		{"fresh", nil, true, 0, 7 * day, 30 * day, false, 0},
		{"stopped", nil, false, 0, 0, 30 * day, false, 0},
		{"about to be stopped", nil, true, 5 * day, 7 * day, 30 * day, false, 1},
		{"about to be deleted", nil, false, 28 * day, 0, 30 * day, false, 1},
		{"asleep: a day from now", nil, true, 40 * day, 41 * day, 41 * day, false, 1},
		{"kept", func(expiry *registry.Expiry, _ *settings.Expiry) { expiry.KeepUntil = at(20 * day) }, true, day, 20 * day, 43 * day, false, 0},
		{"for good", func(expiry *registry.Expiry, _ *settings.Expiry) { expiry.Off = true }, true, 50 * day, 0, 0, true, 0},
		{"switched off", func(_ *registry.Expiry, host *settings.Expiry) { host.Enable = false }, true, 50 * day, 0, 0, true, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			one, host := *record, defaults()
			if test.change != nil {
				test.change(&one.Expiry, &host)
			}
			outlook := Look(&one, host, test.running, at(test.after))
			since := func(time time.Time) (after int64) {
				if !time.IsZero() {
					after = int64(time.Sub(deployed))
				}
				return after
			}
			if since(outlook.Stop) != int64(test.stop) || since(outlook.Delete) != int64(test.delete) || outlook.Forever != test.forever || len(outlook.Warnings) != test.warnings {
				t.Errorf("Look = %+v", outlook)
			}
		})
	}
}
