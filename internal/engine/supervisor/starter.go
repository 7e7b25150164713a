package supervisor

import (
	"encoding/json"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// ReadyVariable names the environment variable with the number of the
// descriptor to which a supervisor writes one Report as JSON. It is removed
// from the environment when it is read.
const ReadyVariable = "DEVHOST_READY_FD"

// Report is what a supervisor says to whoever started it, once.
type Report struct {
	// Up says that the guest is up.
	Up bool `json:"up"`
	// Reason says why not.
	Reason string `json:"reason,omitempty"`
}

// starter is whoever waits for the guest to be up.
type starter struct{ pipe *os.File }

// up says that the guest is up.
func (s *starter) up() { s.report(Report{Up: true}) }

// failed says that it will not be; it says nothing after up.
func (s *starter) failed(err error) {
	report := Report{Reason: "it was asked to stop, or powered off, before it was up"}
	if err != nil {
		report.Reason = err.Error()
	}
	s.report(report)
}

func (s *starter) report(report Report) {
	if s.pipe == nil {
		return
	}
	// Whoever waits may have gone.
	_ = json.NewEncoder(s.pipe).Encode(report)
	_ = s.pipe.Close()
	s.pipe = nil
}

func readyPipe() *os.File {
	text := os.Getenv(ReadyVariable)
	_ = os.Unsetenv(ReadyVariable)
	descriptor, err := strconv.Atoi(text)
	if err != nil || descriptor < 3 {
		return nil
	}
	unix.CloseOnExec(descriptor)
	return os.NewFile(uintptr(descriptor), "ready")
}

// closeInherited closes descriptors that came from whoever started this
// process: a shell's lock file, say, would stay locked as long as the
// container runs. Our own are close-on-exec, inherited ones cannot be.
func closeInherited(keep *os.File) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, entry := range entries {
		descriptor, err := strconv.Atoi(entry.Name())
		if err != nil || descriptor < 3 || (keep != nil && descriptor == int(keep.Fd())) {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(descriptor), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = unix.Close(descriptor)
		}
	}
}
