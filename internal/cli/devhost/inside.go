package devhost

import "devhost/internal/engine/enter"

// Inside runs the part of this program that works inside of a container, if args
// ask for it. It comes before anything else of the program is set up.
func Inside(args []string) (status int, ok bool) {
	if len(args) == 2 && args[1] == enter.SessionArgument {
		return enter.Session(), true
	}
	return 0, false
}
