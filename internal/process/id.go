// Package process names processes so that they cannot be mistaken for others:
// by pid and start time. A pid alone is given out again when its process ends.
package process

// ID is one process of this boot. The zero ID names none.
type ID struct {
	PID int `json:"pid"`
	// Start is when it was started. On Linux, in clock ticks after boot: field
	// 22 of /proc/PID/stat, see proc_pid_stat(5). On macOS, in microseconds
	// since 1970.
	Start uint64 `json:"start"`
}
