package expiry

import (
	"fmt"
	"strings"
	"time"

	"github.com/docker/go-units"

	"devhost/internal/registry"
	"devhost/internal/settings"
)

// timeForm is how people are told a time, in the host's time zone.
const timeForm = "Mon 2006-01-02 15:04 MST"

// Format writes a time for people.
func Format(at time.Time) string { return at.Local().Format(timeForm) }

// Outlook is what lies before a container.
type Outlook struct {
	// Stop and Delete are when it happens at the earliest, the zero time for
	// never; Stop is zero too for a container that does not run.
	Stop, Delete time.Time
	// Kept is until when the container is kept, the zero time for not; Forever
	// says that it never expires.
	Kept    time.Time
	Forever bool
	// Warnings are sentences about what is near.
	Warnings []string
}

// Look says what lies before a container.
func Look(record *registry.Container, host settings.Expiry, running bool, now time.Time) Outlook {
	deadlines, expiry := DeadlinesOf(record, host), record.Expiry
	outlook := Outlook{Forever: !host.Enable || expiry.Off, Delete: deadlines.Delete.Effective(expiry.DeleteWarnedAt, now)}
	if expiry.KeepUntil.After(now) && !outlook.Forever {
		outlook.Kept = expiry.KeepUntil
	}
	if running {
		outlook.Stop = deadlines.Stop.Effective(expiry.StopWarnedAt, now)
	}
	deleting := deadlines.Delete.announced(now)
	if running && deadlines.Stop.announced(now) && (!deleting || outlook.Stop.Before(outlook.Delete)) {
		outlook.Warnings = append(outlook.Warnings, warning(record.Name, "stopped", outlook.Stop, now))
	}
	if deleting {
		outlook.Warnings = append(outlook.Warnings, warning(record.Name, "deleted", outlook.Delete, now))
	}
	return outlook
}

func warning(name, what string, at, now time.Time) string {
	if !at.After(now) {
		return fmt.Sprintf("container %s will be %s as soon as nobody is logged in", name, what)
	}
	return fmt.Sprintf("container %s will be %s on %s", name, what, Format(at))
}

// Reason is why a container expires, for people.
func Reason(record *registry.Container, now time.Time) string {
	if record.LastDeployment.IsZero() {
		return "it was never deployed"
	}
	age := now.Sub(record.LastDeployment)
	if age < 0 {
		return "last deployed on " + Format(record.LastDeployment)
	}
	return fmt.Sprintf("last deployed %s ago", units.HumanDuration(age))
}

// Remedy is what people can do about it.
func Remedy(name string) string {
	return fmt.Sprintf("deploy to it, or keep it: devhost keep %s --for 14d", name)
}

// notice is what people are told at login, "" for nothing.
func notice(record *registry.Container, host settings.Expiry, running bool, now time.Time) string {
	warnings := Look(record, host, running, now).Warnings
	if len(warnings) == 0 {
		return ""
	}
	var text strings.Builder
	for _, warning := range warnings {
		text.WriteString(capital(warning) + ".\n")
	}
	fmt.Fprintf(&text, "Nobody has deployed to it for some time. To have it longer, on the dev host:\n  devhost keep %s --for 14d\n", record.Name)
	return text.String()
}

func capital(sentence string) string { return strings.ToUpper(sentence[:1]) + sentence[1:] }
