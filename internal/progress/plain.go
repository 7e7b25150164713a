package progress

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// Plain prints one line for each phase and build, for logs and pipes.
func Plain(stream io.Writer, now func() time.Time) Reporter {
	return &plain{stream: stream, now: now, start: now()}
}

type plain struct {
	mutex   sync.Mutex
	stream  io.Writer
	now     func() time.Time
	start   time.Time
	phase   Phase
	started int
}

func (p *plain) print(format string, arguments ...any) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	// A closed standard error is no reason to stop the work.
	_, _ = fmt.Fprintf(p.stream, format+"\n", arguments...)
}

func (p *plain) Phase(phase Phase) {
	p.mutex.Lock()
	repeated := p.phase == phase
	p.phase = phase
	p.mutex.Unlock()
	switch _, named := describe[phase]; {
	case repeated:
	case named:
		p.print("%s: %s", phase, phase.description())
	default:
		p.print("%s", clean(phase.description()))
	}
}

func (p *plain) Build(status BuildStatus) {
	if !status.Started {
		return
	}
	p.mutex.Lock()
	p.started++
	number := p.started
	p.mutex.Unlock()
	p.print("build: %d of %d, %s", number, max(number, status.Total), clean(status.Name))
}

func (p *plain) Detail(string)    {}
func (p *plain) Note(text string) { p.print("%s", clean(text)) }
func (p *plain) Warn(text string) { p.print("warning: %s", clean(text)) }
func (p *plain) Done(text string) {
	if text != "" {
		p.print("%s (%s)", clean(text), duration(p.now().Sub(p.start)))
	}
}
func (p *plain) Failed()           {}
func (p *plain) Writer() io.Writer { return lockedWriter{&p.mutex, p.stream} }

type lockedWriter struct {
	mutex  *sync.Mutex
	stream io.Writer
}

func (l lockedWriter) Write(data []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.stream.Write(data)
}

// Quiet prints warnings only.
func Quiet(stream io.Writer) Reporter { return &quiet{plain{stream: stream, now: time.Now}} }

type quiet struct{ plain }

func (*quiet) Phase(Phase)       {}
func (*quiet) Build(BuildStatus) {}
func (*quiet) Note(string)       {}
func (*quiet) Done(string)       {}
