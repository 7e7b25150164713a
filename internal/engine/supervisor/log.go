package supervisor

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"

	"devhost/internal/execx"
)

const (
	defaultLogMegabytes = 10
	keptLogs            = 3
)

// consoleLog is the console's log file, rotated by size.
type consoleLog struct {
	mutex  sync.Mutex
	logger lumberjack.Logger
}

func openLog(path string, megabytes int) *consoleLog {
	if megabytes == 0 {
		megabytes = defaultLogMegabytes
	}
	return &consoleLog{logger: lumberjack.Logger{Filename: path, MaxSize: megabytes, MaxBackups: keptLogs}}
}

// write never fails: a full disk must not stop a guest that writes to its
// console.
func (c *consoleLog) write(data []byte) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	_, _ = c.logger.Write(data)
}

// note writes a line of the supervisor's own.
func (c *consoleLog) note(format string, arguments ...any) {
	c.write(fmt.Appendf(nil, "-- devhost: %s at %s\n", fmt.Sprintf(format, arguments...), time.Now().UTC().Format(time.RFC3339)))
}

func (c *consoleLog) Close() error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.logger.Close()
}

// drain hands everything that comes out of a pipe to take, without the carriage
// returns of a terminal, and closes it at its end.
func (c *consoleLog) drain(pipe *os.File, take func([]byte), done chan<- struct{}) {
	defer func() { done <- struct{}{} }()
	defer pipe.Close()
	buffer := make([]byte, 8192)
	for {
		count, err := pipe.Read(buffer)
		if count > 0 {
			take(bytes.ReplaceAll(buffer[:count], []byte("\r"), nil))
		}
		if err != nil {
			return
		}
	}
}

// farewell is what nspawn always says at its end where /run is no tmpfs.
const farewell = "Attempted to remove disk file system under"

// keeping writes nspawn's own words, line by line, and keeps the last.
func (c *consoleLog) keeping(last *lastLine) func([]byte) {
	lines := &execx.LineWriter{Line: func(line string) {
		if strings.HasPrefix(line, farewell) {
			return
		}
		c.write([]byte(line + "\n"))
		last.set(line)
	}}
	return func(data []byte) { _, _ = lines.Write(data) }
}

// lastLine is the last line that somebody said.
type lastLine struct {
	mutex sync.Mutex
	line  string
}

func (l *lastLine) set(line string) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if line = strings.TrimSpace(line); line != "" {
		l.line = line
	}
}

func (l *lastLine) String() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.line
}
