// Package audit writes down who changed what: a line of JSON for each change,
// in a file of root's, and in the journal or syslog of the host.
package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/syslog"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"
)

// Who is the person who asked for a change.
type Who struct {
	Login string `json:"login"`
	UID   uint32 `json:"uid"`
	// Via is the program that made the person root, such as sudo, "" for none.
	Via string `json:"via,omitempty"`
}

// Entry is one change.
type Entry struct {
	Time time.Time `json:"time"`
	Who  Who       `json:"who"`
	// Operation is the command, such as "snapshot create".
	Operation string `json:"operation"`
	// Containers are those that it was about.
	Containers []string `json:"containers,omitempty"`
	// Options are what was asked for, as "--memory=4G", without secrets.
	Options []string `json:"options,omitempty"`
	// ExitCode is the exit status, Error the first line of the message.
	ExitCode int    `json:"exitCode"`
	Error    string `json:"error,omitempty"`
	// Milliseconds is how long it took.
	Milliseconds int64 `json:"milliseconds"`
}

// Bounds of one entry; what is over them is cut off.
const (
	longestText = 300
	mostTexts   = 64
)

// Line is the entry as one line of JSON, without its line break. All that is
// not plainly to be printed is escaped: it may come from anybody.
func (e Entry) Line() string {
	e.Containers, e.Options = bounded(e.Containers), bounded(e.Options)
	e.Error, e.Who.Login = cut(e.Error), cut(e.Who.Login)
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(e); err != nil {
		panic(err) // texts and numbers always marshal
	}
	var line strings.Builder
	for _, letter := range strings.TrimSuffix(text.String(), "\n") {
		switch {
		case letter < unicode.MaxASCII || (unicode.IsPrint(letter) && letter != unicode.ReplacementChar):
			line.WriteRune(letter)
		case letter > 0xffff:
			// A pair of surrogates; see RFC 8259, 7.
			fmt.Fprintf(&line, `\u%04x\u%04x`, 0xd800+(letter-0x10000)>>10, 0xdc00+(letter-0x10000)&0x3ff)
		default:
			fmt.Fprintf(&line, `\u%04x`, letter)
		}
	}
	return line.String()
}

func bounded(texts []string) []string {
	if len(texts) > mostTexts {
		texts = append(texts[:mostTexts-1:mostTexts-1], fmt.Sprintf("and %d more", len(texts)-mostTexts+1))
	}
	kept := make([]string, len(texts))
	for i, text := range texts {
		kept[i] = cut(text)
	}
	return kept
}

func cut(text string) string {
	if len(text) <= longestText {
		return text
	}
	return strings.ToValidUTF8(text[:longestText], "") + "..."
}

// Log is where entries go.
type Log struct {
	// Path is the file; "" for none. Older ones are Path.1 (the newest) to
	// Path.Kept.
	Path string
	// Largest is the size, in bytes, from which on a new file is begun.
	Largest int64
	// Send hands a line to the host's log; nil for none.
	Send func(line string, entry Entry) error
}

// Kept is how many older files there are.
const Kept = 4

// DefaultLargest bounds each file.
const DefaultLargest = 8 << 20

// lockTimeout is how long an entry waits for others that are being written.
const lockTimeout = 30 * time.Second

// Write adds an entry. It is tried everywhere: an error says where it is
// missing.
func (l Log) Write(ctx context.Context, entry Entry) error {
	line := entry.Line()
	var problems []error
	if l.Path != "" {
		if err := l.append(ctx, line); err != nil {
			problems = append(problems, fmt.Errorf("cannot write down who changed what: %w", err))
		}
	}
	if l.Send != nil {
		if err := l.Send(line, entry); err != nil {
			problems = append(problems, fmt.Errorf("cannot tell the host's log who changed what: %w", err))
		}
	}
	return errors.Join(problems...)
}

func (l Log) append(ctx context.Context, line string) error {
	// What is written down happened, also when it was interrupted.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lockTimeout)
	defer cancel()
	lock := flock.New(l.Path+".lock", flock.SetPermissions(0o600))
	if locked, err := lock.TryLockContext(ctx, 10*time.Millisecond); err != nil || !locked {
		return fmt.Errorf("%s is in use: %w", l.Path+".lock", err)
	}
	defer lock.Unlock()
	if info, err := os.Lstat(l.Path); err == nil && info.Size() >= l.Largest {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	file, err := os.OpenFile(l.Path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = io.WriteString(file, line+"\n")
	return errors.Join(err, file.Close())
}

func (l Log) rotate() error {
	name := func(number int) string {
		if number == 0 {
			return l.Path
		}
		return l.Path + "." + strconv.Itoa(number)
	}
	for number := Kept - 1; number >= 0; number-- {
		if err := os.Rename(name(number), name(number+1)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// identifier is what the host's log calls the entries.
const identifier = "devhost-audit"

// HostLog returns what hands lines to the journal, or to syslog where there is
// no journal; nil where there is neither.
func HostLog() func(line string, entry Entry) error {
	if journal.Enabled() {
		return func(line string, entry Entry) error {
			return journal.Send(line, journal.PriNotice, map[string]string{
				"SYSLOG_IDENTIFIER": identifier, "DEVHOST_LOGIN": entry.Who.Login, "DEVHOST_OPERATION": entry.Operation,
				"DEVHOST_CONTAINERS": strings.Join(entry.Containers, " "), "DEVHOST_EXIT_CODE": strconv.Itoa(entry.ExitCode),
			})
		}
	}
	if _, err := os.Stat("/dev/log"); err != nil {
		return nil
	}
	return func(line string, _ Entry) error {
		writer, err := syslog.New(syslog.LOG_NOTICE|syslog.LOG_AUTHPRIV, identifier)
		if err != nil {
			return err
		}
		return errors.Join(writer.Notice(line), writer.Close())
	}
}
