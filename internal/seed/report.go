package seed

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// ConsolePrefix starts a line of the serial console that holds an Event. Other
// text may come before it on the line.
const ConsolePrefix = "devbox-report: "

// Kind is what an Event is about.
type Kind string

// The kinds of Event.
const (
	// PhaseEvent: Phase has State; Number of Count.
	PhaseEvent Kind = "phase"
	// HostKeyEvent: HostKey is a public host key of the installed system.
	HostKeyEvent Kind = "hostKey"
	// AddressEvent: Address is one of the guest.
	AddressEvent Kind = "address"
	// VerdictEvent: the end. Verdict says which, Message why.
	VerdictEvent Kind = "verdict"
)

// State is that of a phase.
type State string

// The states of a phase.
const (
	Started State = "started"
	Done    State = "done"
	// Skipped: an earlier run has done it already.
	Skipped State = "skipped"
	Failed  State = "failed"
)

// The verdicts.
const (
	Installed    = "installed"
	InstallFails = "failed"
)

// Event is one line of the report.
type Event struct {
	Version int       `json:"version"`
	Time    time.Time `json:"time"`
	Kind    Kind      `json:"kind"`
	// Phase is one word, such as "partition"; Number counts from 1.
	Phase  string `json:"phase,omitempty"`
	State  State  `json:"state,omitempty"`
	Number int    `json:"number,omitempty"`
	Count  int    `json:"count,omitempty"`
	// HostKey is a line such as "ssh-ed25519 AAAA...".
	HostKey string `json:"hostKey,omitempty"`
	// Address is an IPv4 or IPv6 address.
	Address string `json:"address,omitempty"`
	// Verdict is Installed or InstallFails.
	Verdict string `json:"verdict,omitempty"`
	// Message is for a person: what a phase does, or what failed, why, and what
	// to do. It may have several lines.
	Message string `json:"message,omitempty"`
}

// longestMessage bounds a message, in bytes; the end of a longer one is kept.
const longestMessage = 16 << 10

// longestPhase bounds the name of a phase, in bytes.
const longestPhase = 64

// parse reads one line of a report. It is no event where the line is anything
// else, or of another version.
func parse(line []byte) (Event, bool) {
	var event Event
	if len(line) == 0 || line[0] != '{' || json.Unmarshal(line, &event) != nil || event.Version != Version || event.Kind == "" {
		return Event{}, false
	}
	event.Phase = event.Phase[:min(len(event.Phase), longestPhase)]
	event.Message = ending(event.Message)
	return event, true
}

// ending is the end of a message that is too long, from a whole character on.
func ending(message string) string {
	message = message[max(0, len(message)-longestMessage):]
	for message != "" && !utf8.RuneStart(message[0]) {
		message = message[1:]
	}
	return message
}

// ParseConsole finds an event in a line of the serial console.
func ParseConsole(line string) (Event, bool) {
	_, rest, found := strings.Cut(line, ConsolePrefix)
	if !found {
		return Event{}, false
	}
	// A terminal's sequences may follow.
	if end := strings.LastIndexByte(rest, '}'); end >= 0 {
		rest = rest[:end+1]
	}
	return parse([]byte(rest))
}

// Verdict is the last verdict of a report, nil where there is none.
func Verdict(events []Event) *Event {
	for i := len(events) - 1; i >= 0; i-- {
		if events[i].Kind == VerdictEvent {
			return &events[i]
		}
	}
	return nil
}

// HostKeys are the public host keys of a report, without doubles.
func HostKeys(events []Event) []string {
	var keys []string
	seen := map[string]bool{}
	for _, event := range events {
		if event.Kind == HostKeyEvent && event.HostKey != "" && !seen[event.HostKey] {
			seen[event.HostKey] = true
			keys = append(keys, event.HostKey)
		}
	}
	return keys
}

// Reporter writes events, in the installer.
type Reporter struct {
	// File is the report on the seed disk, opened to append and to write
	// through (O_SYNC): a guest that dies has said what it did.
	File io.Writer
	// Console is the serial console.
	Console io.Writer
	// Now is the clock; time.Now where nil.
	Now func() time.Time
}

// Report writes one event to both. A console that cannot be written to does not
// keep the event from the file.
func (r *Reporter) Report(event Event) error {
	event.Version = Version
	if r.Now != nil {
		event.Time = r.Now().UTC()
	} else {
		event.Time = time.Now().UTC()
	}
	event.Message = ending(event.Message)
	line, err := json.Marshal(event)
	if err != nil {
		return err
	}
	var consoleErr, fileErr error
	if r.Console != nil {
		// A new line first: the kernel writes there too.
		_, consoleErr = io.WriteString(r.Console, "\n"+ConsolePrefix+string(line)+"\n")
	}
	if r.File != nil {
		_, fileErr = r.File.Write(append(line, '\n'))
	}
	return errors.Join(fileErr, consoleErr)
}
