package process

import (
	"fmt"
	"strconv"
	"strings"
)

// GuestIDs is how many ids a container's user namespace has.
const GuestIDs = 1 << 16

// InGuest tells whether an id of the host's is one of the container whose root has
// the id base.
func InGuest(base, id int) bool { return id >= base && id < base+GuestIDs }

// RootID is the id outside of a user namespace that is 0 inside, by the text of
// /proc/PID/uid_map or gid_map: first id inside, first id outside, count; see
// user_namespaces(7). It is an error where 0 is nobody outside.
func RootID(idMap string) (int, error) {
	for line := range strings.Lines(idMap) {
		fields := strings.Fields(line)
		if len(fields) == 3 && fields[0] == "0" {
			return strconv.Atoi(fields[1])
		}
	}
	return 0, fmt.Errorf("the guest's root is nobody: %q", idMap)
}
