package seed

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat16"
	"github.com/google/go-cmp/cmp"
)

var contents = Contents{
	Settings: Settings{
		Version: Version, Mode: Direct, Disk: "/dev/vda", Login: "ada", HostName: "box",
		Substituters: []string{"https://cache.example.org"}, TrustedPublicKeys: []string{"cache.example.org:AAAA"},
	},
	AuthorizedKeys: []string{"ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two"},
	UserKey:        []byte("-----BEGIN OPENSSH PRIVATE KEY-----\nplanted\n-----END OPENSSH PRIVATE KEY-----\n"),
}

func made(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "seed.img")
	if err := Create(path, contents); err != nil {
		t.Fatal(err)
	}
	return path
}

// mounted is the content of an image as a guest sees it.
func mounted(t *testing.T, path string) fstest.MapFS {
	t.Helper()
	folder := fstest.MapFS{}
	for _, name := range []string{SettingsFile, AuthorizedKeysFile, UserKeyFile} {
		data, err := readFile(path, name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		folder[name] = &fstest.MapFile{Data: data}
	}
	return folder
}

func TestCreateAndLoad(t *testing.T) {
	path := made(t)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() != Size || info.Mode().Perm() != 0o600 {
		t.Errorf("size %d, mode %v", info.Size(), info.Mode())
	}
	got, err := Load(mounted(t, path))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(contents, got); diff != "" {
		t.Errorf("contents (-want +got):\n%s", diff)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const bootLabel = 43
	if label := string(data[bootLabel : bootLabel+len(Label)]); label != Label {
		t.Errorf("label %q", label)
	}
	// A second one with less in it: nothing of the first is left.
	if err := Create(path, Contents{Settings: contents.Settings}); err != nil {
		t.Fatal(err)
	}
	data, err = os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(data, []byte("planted")) {
		t.Error("the key of the image before is still there")
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestSettingsAreChecked(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Settings)
		want   string
	}{
		{"mode", func(s *Settings) { s.Mode = "fast" }, `the mode is "fast"`},
		{"disk", func(s *Settings) { s.Disk = "vda" }, `the disk is "vda"; give a path such as /dev/vda`},
		{"disk elsewhere", func(s *Settings) { s.Disk = "/dev/../etc/passwd" }, "the disk is"},
		{"login", func(s *Settings) { s.Login = "Ada Lovelace" }, `the login is "Ada Lovelace"`},
		{"login of digits", func(s *Settings) { s.Login = "1a" }, "the login is"},
		{"no login", func(s *Settings) { s.Login = "" }, "the login is"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			changed := contents
			test.change(&changed.Settings)
			path := filepath.Join(t.TempDir(), "seed.img")
			if err := Create(path, changed); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error: %v", err)
			}
			if _, err := os.Stat(path); err == nil {
				t.Error("there is an image")
			}
		})
	}
}

func TestReport(t *testing.T) {
	path := made(t)
	if events, err := ReadReport(path); err != nil || events != nil {
		t.Fatalf("before: %v, %v", events, err)
	}
	var report, console bytes.Buffer
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	reporter := Reporter{File: &report, Console: &console, Now: func() time.Time { return now }}
	events := []Event{
		{Kind: PhaseEvent, Phase: "partition", State: Started, Number: 1, Count: 5},
		{Kind: HostKeyEvent, HostKey: "ssh-ed25519 CCCC"},
		{Kind: HostKeyEvent, HostKey: "ssh-ed25519 CCCC"},
		{Kind: VerdictEvent, Verdict: InstallFails, Phase: "partition", Message: "no disk\nattach one"},
	}
	for i := range events {
		if err := reporter.Report(events[i]); err != nil {
			t.Fatal(err)
		}
		events[i].Version, events[i].Time = Version, now
	}
	report.WriteString("{\"version\":1,\"kind\":\"verd") // died while it wrote
	writeReport(t, path, report.Bytes())
	got, err := ReadReport(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(events, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"ssh-ed25519 CCCC"}, HostKeys(got)); diff != "" {
		t.Error(diff)
	}
	if verdict := Verdict(got); verdict == nil || verdict.Message != "no disk\nattach one" {
		t.Errorf("verdict %v", verdict)
	}
	var fromConsole []Event
	for line := range strings.Lines("[    1.0] kernel\r\n" + console.String()) {
		if event, ok := ParseConsole("<6>x " + strings.TrimRight(line, "\n") + "\x1b[0m\r"); ok {
			fromConsole = append(fromConsole, event)
		}
	}
	if diff := cmp.Diff(events, fromConsole); diff != "" {
		t.Errorf("console (-want +got):\n%s", diff)
	}
}

func writeReport(t *testing.T, path string, data []byte) {
	t.Helper()
	opened, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	image, err := fat16.Read(file.New(opened, false), Size, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := write(image, ReportFile, data); err != nil {
		t.Fatal(err)
	}
}

func TestLongMessageKeepsItsEnd(t *testing.T) {
	var report bytes.Buffer
	reporter := Reporter{File: &report}
	if err := reporter.Report(Event{Kind: VerdictEvent, Verdict: InstallFails, Message: strings.Repeat("é", longestMessage) + "the end"}); err != nil {
		t.Fatal(err)
	}
	event, ok := parse(bytes.TrimSpace(report.Bytes()))
	if !ok || len(event.Message) > longestMessage || !strings.HasSuffix(event.Message, "the end") || strings.Contains(event.Message, "�") {
		t.Errorf("%v, %d bytes", ok, len(event.Message))
	}
}

func TestForeignLinesAreNoEvents(t *testing.T) {
	for _, line := range []string{"", "devbox-report: ", "devbox-report: nonsense", `devbox-report: {"version":2,"kind":"verdict"}`, `devbox-report: {"version":1}`, `{"version":1,"kind":"verdict"}`} {
		if event, ok := ParseConsole(line); ok {
			t.Errorf("%q: %v", line, event)
		}
	}
}

func TestDamagedImage(t *testing.T) {
	tests := []struct {
		name   string
		damage func([]byte) []byte
		want   string
	}{
		{"cut off", func(data []byte) []byte { return data[:1000] }, "it is no file of 16777216 bytes"},
		{"empty boot sector", func(data []byte) []byte { clear(data[:512]); return data }, "not the one that was made"},
		{"a chain without end", func(data []byte) []byte {
			const table = reservedSectors * sectorSize
			for at := 3; at < 10; at++ {
				data[table+2*at], data[table+2*at+1] = 3, 0
			}
			return data
		}, "a file never ends"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := made(t)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, test.damage(data), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := ReadReport(path); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error: %v", err)
			}
		})
	}
}

func FuzzParseConsole(f *testing.F) {
	f.Add(`devbox-report: {"version":1,"kind":"phase","phase":"mkfs","state":"done"}`)
	f.Fuzz(func(t *testing.T, line string) {
		if event, ok := ParseConsole(line); ok && (event.Version != Version || event.Kind == "") {
			t.Errorf("%q: %v", line, event)
		}
	})
}

func TestGuestsEventsAreBounded(t *testing.T) {
	line, err := json.Marshal(Event{Version: Version, Kind: VerdictEvent, Phase: strings.Repeat("p", 1<<20), Message: strings.Repeat("m", 1<<20) + "the end"})
	if err != nil {
		t.Fatal(err)
	}
	path := made(t)
	writeReport(t, path, append([]byte("{}\n\x00garbage\n{\"version\":99,\"kind\":\"verdict\"}\n"), line...))
	events, err := ReadReport(path)
	if err != nil || len(events) != 1 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	if got := events[0]; len(got.Phase) > longestPhase || len(got.Message) > longestMessage || !strings.HasSuffix(got.Message, "the end") {
		t.Errorf("phase of %d bytes, message of %d bytes", len(got.Phase), len(got.Message))
	}
}

// A process that was killed leaves no private key that nobody removes.
func TestUnfinishedImageIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seed.img")
	if err := os.WriteFile(path+".new", []byte("a private key"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Create(path, Contents{Settings: Settings{Mode: Direct, Disk: "/dev/vda", Login: "alice"}}); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v, %v", entries, err)
	}
	if info, err := entries[0].Info(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}
