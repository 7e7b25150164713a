package deploy

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/environment"
	"devhost/internal/filesync"
)

func TestPairsOf(t *testing.T) {
	folder := t.TempDir()
	t.Chdir(folder)
	e := &environment.Environment{Name: "dev", File: "/p/environments/dev/environment.cfg", ServiceUser: "s-dev"}
	pairs, err := pairsOf(e, []string{"app/:/srv/s-dev/app", "/x:/y/"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]filesync.Pair{{Source: filepath.Join(folder, "app"), Destination: "/srv/s-dev/app"}, {Source: "/x", Destination: "/y/"}}, pairs); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, test := range []struct {
		words []string
		want  string
	}{
		{nil, "there is nothing to sync: give SRC:DEST, such as src:/srv/s-dev/src, or write into /p/environments/dev/environment.cfg\n  [sync]\n  folders = src:/srv/s-dev/src"},
		{[]string{"app"}, "is no folder to sync; SOURCE:TARGET was expected"},
		{[]string{"app:rel"}, "must be an absolute path in the container"},
	} {
		if _, err := pairsOf(e, test.words); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("pairsOf(%q) = %v, want %s", test.words, err, test.want)
		}
	}
	e.Sync.Folders = []environment.SyncFolder{{Source: "/p/src/", Target: "/srv/s-dev/src"}}
	if pairs, err = pairsOf(e, nil); err != nil || len(pairs) != 1 || pairs[0].Source != "/p/src" {
		t.Errorf("pairsOf = %v, %v", pairs, err)
	}
}
