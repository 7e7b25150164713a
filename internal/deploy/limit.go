package deploy

import (
	"bytes"
	"fmt"
)

// limited keeps what a command prints, up to a number of bytes. The next write
// fails then, and the command ends as it does when nobody reads it.
type limited struct {
	kept bytes.Buffer
	most int
	full bool
}

// Bytes are what was kept.
func (l *limited) Bytes() []byte { return l.kept.Bytes() }

func (l *limited) Write(data []byte) (int, error) {
	if l.kept.Len()+len(data) > l.most {
		l.full = true
		return 0, fmt.Errorf("it is more than %d KiB", l.most>>10)
	}
	return l.kept.Write(data)
}
