package sshaccess

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	keyA = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGc7V2c2zFPRMl8/gmBv1/MEldEuJau8jHjhx+2qziYs"
	keyB = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ"
)

func TestEnsureKeepsKeysAndPinsTheHostKey(t *testing.T) {
	files := Files{Host: filepath.Join(t.TempDir(), "ssh"), Guest: t.TempDir()}
	if err := files.Ensure("demo", "10.1.2.3", 0); err != nil {
		t.Fatal(err)
	}
	read := func(path string) string {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	identity, hostKey := read(files.Identity()), read(filepath.Join(files.Guest, hostKeyFile))
	if err := files.Ensure("demo", "10.1.2.4", 0); err != nil {
		t.Fatal(err)
	}
	if identity != read(files.Identity()) || hostKey != read(filepath.Join(files.Guest, hostKeyFile)) {
		t.Error("a second Ensure made new keys")
	}
	want := strings.Fields(read(filepath.Join(files.Guest, hostKeyFile) + ".pub"))[:2]
	got := strings.Fields(read(filepath.Join(files.Host, knownHostsFile)))
	if diff := cmp.Diff(append([]string{"demo"}, want...), got); diff != "" {
		t.Errorf("known_hosts (-want +got):\n%s", diff)
	}
	if config := read(files.Config()); !strings.Contains(config, "HostName 10.1.2.4\n  User ") {
		t.Errorf("the config was not updated:\n%s", config)
	}
	if err := files.Ensure("demo", "127.64.0.9", 61022); err != nil {
		t.Fatal(err)
	}
	if config := read(files.Config()); !strings.Contains(config, "HostName 127.64.0.9\n  Port 61022\n  User ") {
		t.Errorf("the config has no port:\n%s", config)
	}
	for _, secret := range []string{files.Identity(), filepath.Join(files.Guest, hostKeyFile)} {
		info, err := os.Stat(secret)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", secret, info.Mode())
		}
	}
}

func TestEnsureReplacesAHalfWrittenKey(t *testing.T) {
	files := Files{Host: t.TempDir(), Guest: t.TempDir()}
	if err := os.WriteFile(files.Identity(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := files.Ensure("demo", "10.1.2.3", 0); err != nil {
		t.Fatal(err)
	}
	if data, _ := os.ReadFile(files.Identity()); len(data) == 0 {
		t.Error("the empty key is still there")
	}
}

func TestAuthorizeGivesMembersTheHumanUserOnly(t *testing.T) {
	files := Files{Host: t.TempDir(), Guest: t.TempDir()}
	if err := files.Ensure("demo", "10.1.2.3", 0); err != nil {
		t.Fatal(err)
	}
	if err := files.Authorize([]string{"s-dev"}, []string{keyA}); err != nil {
		t.Fatal(err)
	}
	own, _ := os.ReadFile(files.Identity() + ".pub")
	for user, want := range map[string]string{
		"root": string(own), "s-dev": string(own), "developer": string(own) + keyA + "\n",
	} {
		got, _ := os.ReadFile(filepath.Join(files.Guest, keysFolder, user))
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", user, diff)
		}
	}
}

func TestParseKey(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"plain":       {keyA + " me@laptop\n", keyA + " me@laptop"},
		"no comment":  {keyA, keyA},
		"options":     {`command="rm" ` + keyA, ""},
		"two keys":    {keyA + "\n" + keyB, ""},
		"private key": {"-----BEGIN OPENSSH PRIVATE KEY-----", ""},
		"garbage":     {"hello", ""},
		"empty":       {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseKey(test.text)
			var bad *BadKey
			if (test.want == "") != errors.As(err, &bad) || got != test.want {
				t.Errorf("ParseKey = %q, %v; want %q", got, err, test.want)
			}
		})
	}
}

func TestKeysOfLeavesLimitedKeysOut(t *testing.T) {
	text := "# a comment\n\n" + keyB + " b\ncommand=\"backup\" " + keyA + " limited\n" + keyA + " a\n"
	if diff := cmp.Diff([]string{keyB + " b", keyA + " a"}, KeysOf([]byte(text))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestConfigValue(t *testing.T) {
	for value, want := range map[string]string{
		"/plain": "/plain", "/with space": `"/with space"`, "/100%": "/100%%",
	} {
		if got := configValue(value); got != want {
			t.Errorf("configValue(%q) = %q, want %q", value, got, want)
		}
	}
}
