package sshlink

import (
	"context"
	"errors"
	"fmt"
	"time"

	"devhost/internal/execx"
)

// The pause between two tries to connect grows from the first to the longest.
const (
	firstPause   = 500 * time.Millisecond
	longestPause = 15 * time.Second
)

// Keeper keeps a connection.
type Keeper struct {
	Runner  execx.Runner
	Host    Host
	Options Options
	// Say gets a line when the connection is lost and when it is back.
	Say func(line string)
	// pause waits between two tries; tests replace it.
	pause func(ctx context.Context, length time.Duration) error
}

// Keep connects and calls use, again each time that the connection was lost.
// It ends when the first connection fails, when the context ends, or when use
// ends while the connection stands. Use must end when the connection does.
func (k *Keeper) Keep(ctx context.Context, use func(ctx context.Context, connection *Connection) error) error {
	connection, err := Open(ctx, k.Runner, k.Host, k.Options)
	if err != nil {
		return err
	}
	for {
		using, cancel := context.WithCancel(ctx)
		go func() {
			select {
			case <-connection.Done():
				cancel()
			case <-using.Done():
			}
		}()
		err := use(using, connection)
		cancel()
		lost := ctx.Err() == nil && err != nil && connection.Lost(err)
		connection.Close()
		if !lost {
			return errors.Join(ctx.Err(), err)
		}
		if connection, err = k.again(ctx, connection.Err()); err != nil {
			return err
		}
	}
}

// again connects until it works.
func (k *Keeper) again(ctx context.Context, reason error) (*Connection, error) {
	k.Say(fmt.Sprintf("the connection to %s is lost (%s); trying again until it is back", k.Host.Name, brief(reason)))
	pause := k.pause
	if pause == nil {
		pause = wait
	}
	began := time.Now()
	told := map[string]bool{brief(reason): true}
	for length := firstPause; ; length = min(2*length, longestPause) {
		if err := pause(ctx, length); err != nil {
			return nil, err
		}
		connection, err := Open(ctx, k.Runner, k.Host, k.Options)
		if err == nil {
			k.Say(fmt.Sprintf("the connection to %s is back after %s", k.Host.Name, time.Since(began).Round(time.Second)))
			return connection, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if now := brief(err); !told[now] {
			told[now] = true
			k.Say(fmt.Sprintf("%s cannot be reached yet: %s", k.Host.Name, now))
		}
	}
}

// brief is an error without the advice that follows it.
func brief(err error) string {
	var unreachable *Unreachable
	if errors.As(err, &unreachable) {
		if len(unreachable.Said) > 0 {
			return unreachable.Said[len(unreachable.Said)-1]
		}
		return "ssh " + reasonOf(unreachable.Err)
	}
	return err.Error()
}

func wait(ctx context.Context, length time.Duration) error {
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
