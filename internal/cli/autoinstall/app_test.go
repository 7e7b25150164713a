package autoinstall

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestArguments(t *testing.T) {
	folder := t.TempDir()
	good, bad := filepath.Join(folder, "good.json"), filepath.Join(folder, "bad.json")
	for path, text := range map[string]string{
		good: `{"version":1,"system":"","console":"ttyS0","stateVersion":"26.05"}`,
		bad:  `{"version":9}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name      string
		arguments []string
		code      int
		out, err  string
	}{
		{"help", []string{"--help"}, 0, "usage: devbox-auto-install", ""},
		{"a right file", []string{"--config", good, "--check"}, 0, "", ""},
		{"a wrong file", []string{"--config", bad, "--check"}, 2, "", "its version is 9; this program reads version 1"},
		{"a wrong file to install from", []string{"--config", bad}, 2, `"verdict":"failed","message":"` + bad + ` says wrongly what the ISO holds: its version is 9`, "its version is 9"},
		{"no file", []string{"--config", filepath.Join(folder, "none.json"), "--check"}, 2, "", "cannot read what the ISO holds"},
		{"nothing", nil, 2, "", "--config is missing\n\nusage: "},
		{"an unknown option", []string{"--disk", "/dev/vda"}, 2, "", "flag provided but not defined: -disk\n\nusage: "},
		{"an argument too many", []string{"--config", good, "--check", "more"}, 2, "", `"more" is one argument too many`},
		{"a wrong duration", []string{"--config", good, "--wait", "long"}, 2, "", `invalid value "long" for flag -wait`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var out, messages bytes.Buffer
			code := Main(t.Context(), test.arguments, Streams{Out: &out, Err: &messages})
			if code != test.code || !strings.Contains(out.String(), test.out) || (test.out == "") != (out.Len() == 0) || !strings.Contains(messages.String(), test.err) || (test.err == "") != (messages.Len() == 0) {
				t.Errorf("exit code %d, want %d\n%s%s", code, test.code, out.String(), messages.String())
			}
		})
	}
}
