package enter

import (
	"bytes"
	"os"
	"testing"
	"time"
)

// TestDrainLosesNothing: what a command wrote comes out, however the end of the
// command and the copying of its output meet.
func TestDrainLosesNothing(t *testing.T) {
	const rounds = 10_000
	// As much as a pipe holds: it is read in two parts.
	text := bytes.Repeat([]byte{'x'}, 1<<16)
	var seen bytes.Buffer
	for round := range rounds {
		from, end, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		wake, wakeEnd, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		seen.Reset()
		s := &streams{wake: wake, wakeEnd: wakeEnd, outputs: []output{{from, &seen}}}
		if _, err := end.Write(text); err != nil {
			t.Fatal(err)
		}
		_ = end.Close()
		s.start(func() {})
		// A sleep would be too long.
		for wait := time.Now().Add(time.Duration(round%100) * time.Microsecond / 2); time.Now().Before(wait); {
		}
		s.drain()
		_, _ = from.Close(), wake.Close()
		if !bytes.Equal(seen.Bytes(), text) {
			t.Fatalf("in round %d of %d, %d of %d bytes came out", round, rounds, seen.Len(), len(text))
		}
	}
}
