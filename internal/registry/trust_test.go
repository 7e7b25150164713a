package registry

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestCheckTrusted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make folders of somebody else")
	}
	const somebody = 65534
	top := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	folder := func(name string, mode os.FileMode, owner int) string {
		path := filepath.Join(top, name)
		must(os.MkdirAll(path, 0o755))
		must(os.Chown(path, owner, 0))
		must(os.Chmod(path, mode))
		return path
	}
	folder("good", 0o755, 0)
	folder("good/private", 0o700, 0)
	folder("theirs", 0o755, somebody)
	folder("theirs/ours", 0o755, 0)
	folder("writable", 0o775, 0)
	folder("shared", 0o777|os.ModeSticky, 0)
	folder("shared/ours", 0o755, 0)
	must(os.WriteFile(filepath.Join(top, "good/file"), nil, 0o644))
	must(os.Symlink("good", filepath.Join(top, "link")))
	must(os.Symlink("../theirs", filepath.Join(top, "good/out")))
	must(os.Symlink(filepath.Join(top, "good"), filepath.Join(top, "shared/link")))
	must(os.Lchown(filepath.Join(top, "shared/link"), somebody, 0))
	must(os.Symlink("round", filepath.Join(top, "round")))
	folder("state/containers/box/root/fake", 0o755, 0)
	must(os.WriteFile(Layout{State: filepath.Join(top, "state")}.Marker(), nil, 0o644))
	must(os.Symlink("state/containers/box/root/fake", filepath.Join(top, "way-in")))
	must(os.Symlink("good/out/../private", filepath.Join(top, "winding")))
	for _, test := range []struct{ name, path, reason string }{
		{"link that winds", "winding", "is a link with '..' in the middle"},
		{"a state folder", "state", ""},
		{"made by a guest", "state/containers/box/root/fake", "is a state folder itself, and guests write below it"},
		{"link to what a guest made", "way-in", "is a state folder itself, and guests write below it"},
		{"root's", "good/private", ""},
		{"not there yet", "good/a/b/c", ""},
		{"link of root's", "link/private", ""},
		{"below a link, not there yet", "link/new", ""},
		{"below a shared folder", "shared/ours", ""},
		{"somebody's", "theirs", "belongs to uid 65534"},
		{"below somebody's", "theirs/ours", "belongs to uid 65534"},
		{"below somebody's, not there yet", "theirs/new", "belongs to uid 65534"},
		{"link to somebody's", "good/out/ours", "belongs to uid 65534"},
		{"writable for a group", "writable/state", "can be written by others"},
		{"writable itself", "writable", "can be written by others"},
		{"shared itself", "shared", "can be written by others"},
		{"somebody could make it", "shared/new/state", "does not exist, and anybody could make it first"},
		{"somebody's link", "shared/link/private", "belongs to uid 65534"},
		{"file", "good/file", "is no folder"},
		{"endless link", "round/state", "is a link without an end"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := Layout{State: filepath.Join(top, test.path)}.CheckTrusted()
			var untrusted *Untrusted
			switch {
			case test.reason == "" && err != nil:
				t.Errorf("it is refused: %v", err)
			case test.reason != "" && (!errors.As(err, &untrusted) || untrusted.Reason != test.reason):
				t.Errorf("%v is not because it %q", err, test.reason)
			}
		})
	}
}

func TestCheckKnown(t *testing.T) {
	layout := Layout{State: t.TempDir(), Etc: t.TempDir()}
	var unknown *Unknown
	if err := layout.CheckKnown(); !errors.As(err, &unknown) {
		t.Errorf("a folder that root never used: %v", err)
	}
	if err := os.Mkdir(layout.Published(), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		path  string
		known bool
	}{{layout.State + "-with-the-same-hash", false}, {layout.State, true}} {
		if err := os.WriteFile(layout.PublishedState(), []byte(test.path+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := layout.CheckKnown(); (err == nil) != test.known {
			t.Errorf("%s is known: %v", test.path, err)
		}
	}
	if err := (Layout{State: DefaultStateDir, Etc: t.TempDir()}).CheckKnown(); err != nil {
		t.Errorf("the default folder: %v", err)
	}
}
