package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"devhost/internal/process"
)

// monitor is a connection to the QEMU Machine Protocol (QMP) of one machine:
// https://www.qemu.org/docs/master/interop/qmp-spec.html. QEMU serves one
// connection at a time, so it is kept only for a few commands.
type monitor struct {
	connection net.Conn
	reader     *bufio.Reader
}

// monitorPatience is how long QEMU may take to answer. Its main loop answers in
// milliseconds, also where the guest hangs; tests shorten it.
var monitorPatience = 5 * time.Second

// longestAnswer bounds a line of QEMU, in bytes.
const longestAnswer = 1 << 20

// connect opens the monitor at a socket.
func connect(ctx context.Context, socket string) (*monitor, error) {
	dialer := net.Dialer{Timeout: monitorPatience}
	connection, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	m := &monitor{connection: connection, reader: bufio.NewReaderSize(connection, longestAnswer)}
	if err := m.greet(); err != nil {
		connection.Close()
		return nil, fmt.Errorf("QEMU does not answer at %s: %w", socket, err)
	}
	return m, nil
}

func (m *monitor) close() { m.connection.Close() }

func (m *monitor) greet() error {
	if err := m.connection.SetDeadline(time.Now().Add(monitorPatience)); err != nil {
		return err
	}
	greeting, err := m.line()
	if err != nil {
		return err
	}
	if _, ok := greeting["QMP"]; !ok {
		return fmt.Errorf("what listens there is no QEMU")
	}
	return m.execute("qmp_capabilities", nil)
}

func (m *monitor) line() (map[string]json.RawMessage, error) {
	data, err := m.reader.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	var message map[string]json.RawMessage
	if err := json.Unmarshal(data, &message); err != nil {
		return nil, fmt.Errorf("QEMU said %.80q: %w", data, err)
	}
	return message, nil
}

// execute runs a command and decodes what it returns into result, unless that
// is nil. Events that come between are dropped.
func (m *monitor) execute(command string, result any) error {
	data, err := json.Marshal(map[string]string{"execute": command})
	if err != nil {
		return err
	}
	if err := m.connection.SetDeadline(time.Now().Add(monitorPatience)); err != nil {
		return err
	}
	if _, err := m.connection.Write(append(data, '\n')); err != nil {
		return err
	}
	for {
		message, err := m.line()
		if err != nil {
			return err
		}
		if failure, ok := message["error"]; ok {
			var detail struct {
				Desc string `json:"desc"`
			}
			_ = json.Unmarshal(failure, &detail)
			return fmt.Errorf("QEMU refused %s: %s", command, detail.Desc)
		}
		if answer, ok := message["return"]; ok {
			if result == nil {
				return nil
			}
			return json.Unmarshal(answer, result)
		}
	}
}

// status is the run state of the guest: RunState of QEMU's QAPI schema.
func (m *monitor) status() (string, error) {
	var answer struct {
		Status string `json:"status"`
	}
	err := m.execute("query-status", &answer)
	return answer.Status, err
}

// process is the process that listens, by the kernel's word.
func (m *monitor) process() (process.ID, error) {
	connection, ok := m.connection.(*net.UnixConn)
	if !ok {
		return process.ID{}, errors.New("the monitor is no socket of this machine")
	}
	return process.Peer(connection)
}

// name is the name that QEMU was given.
func (m *monitor) name() (string, error) {
	var answer struct {
		Name string `json:"name"`
	}
	err := m.execute("query-name", &answer)
	return answer.Name, err
}
