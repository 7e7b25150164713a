package box_test

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

	"devhost/tests/box"
)

// screen collects what a terminal shows.
type screen struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (s *screen) Write(data []byte) (int, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.text.Write(data)
}

func (s *screen) String() string {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.text.String()
}

// TestExpiryInUse: the service throws nobody out, and its sandbox lets it tell
// who is logged in.
func TestExpiryInUse(t *testing.T) {
	needsFullRun(t)
	h := box.Start(t)
	h.Must("root", `echo '{"version": 1, "expiry": {"warnAfter": "1s", "stopAfter": "2s", "deleteAfter": "1000d"}}' >/etc/devhost-settings.json`)
	h.Must("alice", "sudo devhost ensure demo "+minimal)
	expire := func() { h.Must("root", "systemctl start devhost-expire.service") }
	time.Sleep(2 * time.Second)
	expire()
	var shown screen
	session := h.SSHCommand(t.Context(), "alice", "sudo devhost ssh demo -- -tt")
	session.Stdout, session.Stderr = &shown, &shown
	keyboard, err := session.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = keyboard.Close(); _ = session.Wait() }()
	eventually(t, func() string {
		if strings.Contains(shown.String(), "Container demo will be stopped") {
			return ""
		}
		return "at login there is no warning but " + shown.String()
	})
	time.Sleep(2 * time.Second)
	expire()
	eventually(t, func() string {
		if strings.Contains(shown.String(), "*** devhost: container demo is to be stopped") {
			return ""
		}
		return "the person is told nothing but " + shown.String()
	})
	if state := status(h)["demo"]; state != "running" {
		t.Fatalf("while somebody is logged in, it is %s", state)
	}
	if _, err := keyboard.Write([]byte("exit\n")); err != nil {
		t.Error(err)
	}
	_ = session.Wait()
	eventually(t, func() string {
		// systemd refuses to start a unit very often.
		time.Sleep(3 * time.Second)
		expire()
		if state := status(h)["demo"]; state != "stopped" {
			return "when nobody is logged in, it is " + state
		}
		return ""
	})
	if audit := h.Must("root", "cat /var/lib/devhost/audit.log"); !strings.Contains(audit, `"expire stop"`) || !strings.Contains(audit, `"expire warn-stop"`) {
		t.Errorf("the audit log lacks what expiry did:\n%s", audit)
	}
}
