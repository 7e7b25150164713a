package hypervisor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLastLines(t *testing.T) {
	endless := strings.Repeat("x", 100<<10)
	tests := []struct {
		name, log string
		want      []string
	}{
		{"few", "one\n\ntwo\r\n", []string{"one", "two"}},
		{"many", "one\ntwo\nthree\nfour", []string{"two", "three", "four"}},
		{"control", "\x1b[2Jcleared\x07\n", []string{"cleared"}},
		{"endless", endless + "\nend\n", []string{endless[:32<<10-len("\nend\n")], "end"}},
		{"empty", "", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(path, []byte(test.log), 0o600); err != nil {
				t.Fatal(err)
			}
			const most = 3
			if diff := cmp.Diff(test.want, LastLines(path, most)); diff != "" {
				t.Error(diff)
			}
		})
	}
	if got := LastLines(filepath.Join(t.TempDir(), "none"), 1); got != nil {
		t.Errorf("%q", got)
	}
}
