package enter

import (
	"os"
	"os/signal"
	"syscall"
)

// caught are the signals of this process while a command runs.
type caught struct {
	raw       chan os.Signal
	forwarded chan syscall.Signal
	resized   chan os.Signal
	stopped   chan struct{}
}

func catchSignals() *caught {
	c := &caught{
		raw:       make(chan os.Signal, 16),
		forwarded: make(chan syscall.Signal),
		resized:   make(chan os.Signal, 1),
		stopped:   make(chan struct{}),
	}
	signal.Notify(c.raw, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	signal.Notify(c.resized, syscall.SIGWINCH)
	go c.pass()
	return c
}

func (c *caught) pass() {
	for {
		select {
		case got := <-c.raw:
			number, ok := got.(syscall.Signal)
			if !ok {
				continue
			}
			select {
			case c.forwarded <- number:
			case <-c.stopped:
				return
			}
		case <-c.stopped:
			return
		}
	}
}

func (c *caught) stop() {
	signal.Stop(c.raw)
	signal.Stop(c.resized)
	close(c.stopped)
}
