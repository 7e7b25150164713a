package supervisor

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/idmap"
)

// TestExchanged: every id of the guest is there once, and one is another's on the
// disk.
func TestExchanged(t *testing.T) {
	const base = 10 << 16
	for name, test := range map[string]struct {
		guest int
		want  []idmap.Mapping
	}{
		"a user":   {1000, []idmap.Mapping{{Disk: 7, Shown: base + 1000, Size: 1}, {Disk: base, Shown: base, Size: 1000}, {Disk: base + 1001, Shown: base + 1001, Size: 64535}}},
		"the last": {65535, []idmap.Mapping{{Disk: 7, Shown: base + 65535, Size: 1}, {Disk: base, Shown: base, Size: 65535}}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, exchanged(base, test.guest, 7)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
