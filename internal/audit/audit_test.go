package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var sample = Entry{
	Time: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC), Who: Who{Login: "alice", UID: 1000, Via: "sudo"},
	Operation: "ensure", Containers: []string{"box"}, Options: []string{"--memory=4G"}, ExitCode: 2, Error: "no", Milliseconds: 7,
}

func TestLine(t *testing.T) {
	want := `{"time":"2026-11-20T12:00:00Z","who":{"login":"alice","uid":1000,"via":"sudo"},"operation":"ensure","containers":["box"],"options":["--memory=4G"],"exitCode":2,"error":"no","milliseconds":7}`
	if got := sample.Line(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestHostileTexts: what somebody typed can neither end the line, nor drive a
// terminal, nor fill the disk.
func TestHostileTexts(t *testing.T) {
	for name, text := range map[string]string{
		"line break": "a\n{\"who\":\"root\"}", "escape": "\x1b[2J", "C1": "\u009b2J", "delete": "\x7f", "bidi": "\u202egnp.exe", "line separator": "a\u2028b",
		"no UTF-8": "a\xff\xfeb", "null": "a\x00b", "tag": "a\U000e0041b", "quotes": `"},"x":{"`, "backslash": `\`, "letters": "Straße <&>",
	} {
		t.Run(name, func(t *testing.T) {
			entry := sample
			entry.Options, entry.Error, entry.Who.Login = []string{text}, text, text
			line := entry.Line()
			for _, letter := range line {
				if letter < ' ' || letter == 0x7f || (letter > 0x7f && letter < 0xa0) || letter == 0x202e || letter == 0x2028 || letter == 0xe0041 {
					t.Errorf("%q holds %U", line, letter)
				}
			}
			var got Entry
			if err := json.Unmarshal([]byte(line), &got); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			if want := strings.ToValidUTF8(text, "\ufffd"); got.Error != want && name != "no UTF-8" {
				t.Errorf("read back: %q, not %q", got.Error, want)
			}
		})
	}
	entry := sample
	entry.Error = strings.Repeat("ü", 1<<20)
	for range 1 << 16 {
		entry.Options = append(entry.Options, strings.Repeat("x", 1000))
	}
	if line := entry.Line(); len(line) > 64<<10 || !strings.Contains(line, "and 65474 more") {
		t.Errorf("a line of %d bytes", len(line))
	}
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	var sent []string
	log := Log{Path: path, Largest: DefaultLargest, Send: func(line string, _ Entry) error { sent = append(sent, line); return nil }}
	for range 2 {
		if err := log.Write(t.Context(), sample); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{sample.Line(), sample.Line()}
	if diff := cmp.Diff(want, lines(t, path)); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, sent); diff != "" {
		t.Errorf("host's log (-want +got):\n%s", diff)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	// What was interrupted is written down too.
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := log.Write(cancelled, sample); err != nil || len(lines(t, path)) != 3 {
		t.Errorf("after a Ctrl-C: %v", err)
	}
}

// TestWriteFails: one place that cannot be written does not keep the other.
func TestWriteFails(t *testing.T) {
	sent := 0
	log := Log{Path: filepath.Join(t.TempDir(), "missing/audit.log"), Largest: 1, Send: func(string, Entry) error { sent++; return errors.New("no log") }}
	err := log.Write(t.Context(), sample)
	if err == nil || !strings.Contains(err.Error(), "no such file") || !strings.Contains(err.Error(), "no log") || sent != 1 {
		t.Errorf("%v, sent %d", err, sent)
	}
	if err := (Log{}).Write(t.Context(), sample); err != nil {
		t.Errorf("nowhere to write: %v", err)
	}
	// A link is not followed.
	folder := t.TempDir()
	victim := filepath.Join(folder, "victim")
	if err := errors.Join(os.WriteFile(victim, nil, 0o600), os.Symlink(victim, filepath.Join(folder, "audit.log"))); err != nil {
		t.Fatal(err)
	}
	if err := (Log{Path: filepath.Join(folder, "audit.log"), Largest: 1 << 20}).Write(t.Context(), sample); err == nil {
		t.Error("a link was followed")
	}
}

// TestRotation: no line is lost or cut by writers at the same time, and what is
// kept is bounded.
func TestRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	log := Log{Path: path, Largest: int64(10 * len(sample.Line()))}
	const writers, each = 8, 5
	var wait sync.WaitGroup
	for i := range writers {
		wait.Go(func() {
			for j := range each {
				entry := sample
				entry.Error = fmt.Sprintf("%d %d", i, j)
				if err := log.Write(t.Context(), entry); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	seen := map[string]bool{}
	for _, name := range []string{path, path + ".1", path + ".2", path + ".3", path + ".4"} {
		if _, err := os.Stat(name); err != nil {
			continue
		}
		for _, line := range lines(t, name) {
			var entry Entry
			if err := json.Unmarshal([]byte(line), &entry); err != nil {
				t.Errorf("%s: %q: %v", name, line, err)
			}
			seen[entry.Error] = true
		}
	}
	if len(seen) != writers*each {
		t.Errorf("%d of %d entries are there", len(seen), writers*each)
	}
	log.Largest = 1
	for range 20 {
		if err := log.Write(t.Context(), sample); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) != Kept+2 {
		t.Errorf("kept: %v, %v", files, err)
	}
}
