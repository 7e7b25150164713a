package direct

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTail(t *testing.T) {
	many := strings.Repeat("line\n", 30)
	tests := []struct {
		name, text string
		before     int64
		want       []string
	}{
		{"all", "one\n\n  two  \nthree", 0, []string{"one", "two", "three"}},
		{"what is new", "old\nnew\n", 4, []string{"new"}},
		{"rotated meanwhile", "new\n", 4000, []string{"new"}},
		{"last lines only", many, 0, strings.Fields(strings.Repeat("line ", 20))},
		{"terminal codes", "\x1b[0;32m  OK  \x1b[0m\a\x00done\n\x1b]0;title\x07", 0, []string{"OK  done"}},
		{"empty", "", 0, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, tail(path, test.before)); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
		})
	}
	if got := tail(filepath.Join(t.TempDir(), "none"), 0); got != nil {
		t.Errorf("of no file: %q", got)
	}
}
