package devhost

import "devhost/internal/engine/enter"

// internalCommand runs the part of this program that works inside of a
// container, before anything else of it is set up.
func internalCommand(args []string) (status int, ok bool) {
	if len(args) == 2 && args[1] == enter.SessionArgument {
		return enter.Session(), true
	}
	return 0, false
}
