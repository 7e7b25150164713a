package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"devhost/internal/engine"
	"devhost/internal/engine/supervisor"
	"devhost/internal/process"
	"devhost/internal/registry"
)

// version: devhost --version.
func (b *bench) version(ctx context.Context) error {
	taken, err := b.alternate(ctx, func(ctx context.Context) (time.Duration, error) { return b.devhost(ctx, "--version") })
	if err != nil {
		return err
	}
	b.table.below("devhost --version", taken[0], 20*time.Millisecond)
	return nil
}

// manyContainers is how many are registered for the figure of list.
const manyContainers = 1000

func (b *bench) listLayout() registry.Layout {
	return registry.Layout{State: filepath.Join(b.folder, "list")}
}

// list: devhost list with many containers, first stopped, then as if all ran.
func (b *bench) list(ctx context.Context) error {
	layout := b.listLayout()
	if err := registerMany(layout); err != nil {
		return err
	}
	listing := func(args ...string) measured {
		return func(ctx context.Context) (time.Duration, error) {
			return b.devhostIn(ctx, layout, nil, append([]string{"list"}, args...)...)
		}
	}
	stopped, err := b.alternate(ctx, listing(), listing("--json"))
	if err != nil {
		return err
	}
	if err := pretendRunning(layout); err != nil {
		return err
	}
	running, err := b.alternate(ctx, listing(), listing("--json"))
	if err != nil {
		return err
	}
	const bound = 50 * time.Millisecond
	b.table.below("devhost list, 1,000 containers, stopped", stopped[0], bound)
	b.table.below("devhost list --json, 1,000 containers, stopped", stopped[1], bound)
	b.table.information("devhost list, 1,000 containers, running", running[0].String(), len(running[0]))
	b.table.information("devhost list --json, 1,000 containers, running", running[1].String(), len(running[1]))
	return nil
}

// registerMany writes records as they are in life.
func registerMany(layout registry.Layout) error {
	records := registry.New(layout)
	if err := records.Prepare(); err != nil {
		return err
	}
	now := time.Now().UTC()
	var group sync.WaitGroup
	problems := make([]error, manyContainers)
	const atOnce = 8
	for first := range atOnce {
		group.Go(func() {
			for i := first; i < manyContainers; i += atOnce {
				name := fmt.Sprintf("container-%04d", i)
				problems[i] = errors.Join(os.Mkdir(layout.Container(name), 0o700), records.Save(&registry.Container{
					Name: name, Owner: "developer", CreatedAt: now, LastDeployment: now, Enabled: true,
					Pin: registry.Pin{
						Reference: "https://channels.example.org/nixos-26.05/nixexprs.tar.xz", Kind: "tarball",
						StorePath: "/nix/store/00000000000000000000000000000000-source", URL: "https://releases.example.org/nixos/26.05/nixexprs.tar.xz",
						NarHash: "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", Time: now,
					},
					Inputs: strings.Repeat("0", 64), System: "/nix/store/00000000000000000000000000000000-nixos-system",
					ProvisionHash: "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", Aliases: []string{"www", "api"},
					Limits: registry.Limits{MemoryBytes: 4 << 30, CPUs: 2, Tasks: 4096},
					Address: registry.Address{
						IPv4: fmt.Sprintf("192.0.2.%d", i%256), IPv6: fmt.Sprintf("2001:db8::%x", i), MAC: "02:00:00:00:00:01",
						HostInterface: fmt.Sprintf("vd-%d", i),
					},
				}))
			}
		})
	}
	group.Wait()
	return errors.Join(problems...)
}

// pretendRunning writes runtime records that name this process.
func pretendRunning(layout registry.Layout) error {
	self, err := process.Of(os.Getpid())
	if err != nil {
		return err
	}
	if err := os.MkdirAll(layout.Runtime(), 0o700); err != nil {
		return err
	}
	for i := range manyContainers {
		name := fmt.Sprintf("container-%04d", i)
		err := registry.WriteJSON(layout.RuntimeRecord(name), supervisor.Record{
			Version: supervisor.RecordVersion, Name: name, BootID: process.BootID(), Status: engine.Running,
			Supervisor: self, Nspawn: self, Leader: self, UIDBase: 1 << 16, StartedAt: time.Now().UTC(),
			System: "/nix/store/00000000000000000000000000000000-nixos-system",
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// unchanged: ensure with nothing to do, with a pinned archive and with a folder
// as the channel, with and without naming channel and provision again.
func (b *bench) unchanged(ctx context.Context) error {
	archive, err := b.tarball(ctx)
	if err != nil {
		return err
	}
	cases := []struct {
		what string
		args []string
	}{
		{"pinned archive", []string{"pinned"}},
		{"pinned archive, everything given again", []string{"pinned", "--channel", archive, "--provision", b.minimal}},
		{"channels/offline", []string{"folder"}},
		{"channels/offline, everything given again", []string{"folder", "--channel", b.channel, "--provision", b.minimal}},
	}
	var things []measured
	for i, one := range cases {
		args := append([]string{"ensure"}, one.args...)
		if i%2 == 1 {
			if _, err := b.devhost(ctx, args...); err != nil {
				return err
			}
		}
		things = append(things, func(ctx context.Context) (time.Duration, error) { return b.devhost(ctx, args...) })
	}
	taken, err := b.alternate(ctx, things...)
	if err != nil {
		return err
	}
	for i, one := range cases {
		b.table.below("ensure, unchanged: "+one.what, taken[i], 50*time.Millisecond)
	}
	recorder, err := b.recordNix(ctx)
	if err != nil {
		return err
	}
	for _, one := range cases {
		if _, err := b.devhostIn(ctx, b.layout, []string{recorder.env}, append([]string{"ensure"}, one.args...)...); err != nil {
			return err
		}
	}
	calls, err := recorder.calls()
	if err != nil {
		return err
	}
	b.table.bound("ensure, unchanged: programs of Nix that were started", strconv.Itoa(len(calls)), "0", len(cases), len(calls) == 0)
	return nil
}

// created is one new container.
type created struct{ answers, returns time.Duration }

// createOnce makes a container, and returns when its sshd greeted and when
// ensure was done.
func (b *bench) createOnce(ctx context.Context, name string) (created, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type ending struct {
		took time.Duration
		err  error
	}
	ended := make(chan ending, 1)
	began := time.Now()
	go func() {
		took, err := b.devhost(ctx, "ensure", name, "--channel", b.channel, "--provision", b.minimal)
		ended <- ending{took, err}
	}()
	answered := make(chan ending, 1)
	go func() {
		took, err := b.waitForContainer(ctx, name, began)
		answered <- ending{took, err}
	}()
	done := <-ended
	if done.err != nil {
		return created{}, done.err
	}
	reached := <-answered
	return created{answers: reached.took, returns: done.took}, reached.err
}

// waitForContainer waits until a new container is registered with its address
// and connected, and then for its sshd. Before it is connected, its address
// leads out of this host, where anybody may answer.
func (b *bench) waitForContainer(ctx context.Context, name string, began time.Time) (time.Duration, error) {
	for {
		record, err := b.records.Load(name)
		if err == nil && isConnected(record.Address) {
			return waitForBanner(ctx, record.Address.IPv4, began)
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(bannerPause):
		}
	}
}

// isConnected tells whether the host's end of a container's cable is up.
func isConnected(address registry.Address) bool {
	if address.HostInterface == "" {
		return false
	}
	cable, err := net.InterfaceByName(address.HostInterface)
	return err == nil && cable.Flags&net.FlagUp != 0
}

// comparison is a container made by devhost against a bare boot of its system.
type comparison struct{ answers, returns, destroys, bare samples }

func (b *bench) compare(ctx context.Context, name, system string) (comparison, error) {
	var result comparison
	round := 0
	taken, err := b.alternate(ctx,
		func(ctx context.Context) (time.Duration, error) { return b.bare.boot(ctx, system) },
		func(ctx context.Context) (time.Duration, error) {
			made, err := b.createOnce(ctx, name)
			if err != nil {
				return 0, err
			}
			destroyed, err := b.devhost(ctx, "destroy", name)
			if round++; round > warmUps {
				result.returns, result.destroys = append(result.returns, made.returns), append(result.destroys, destroyed)
			}
			return made.answers, err
		})
	if err != nil {
		return result, err
	}
	result.bare, result.answers = taken[0], taken[1]
	return result, nil
}

// mostOverBare is how much longer than a bare boot devhost may take.
const mostOverBare = 1.3

func (b *bench) addComparison(what string, result comparison) {
	ratio := float64(result.answers.median()) / float64(result.bare.median())
	b.table.bound(what+" to sshd answering, against a bare boot", fmt.Sprintf("%.2f x", ratio), fmt.Sprintf("<= %.1f x", mostOverBare), len(result.answers), ratio <= mostOverBare)
	b.table.information("  devhost: ensure started to sshd answering", result.answers.String(), len(result.answers))
	b.table.information("  bare: systemd-nspawn started to sshd answering", result.bare.String(), len(result.bare))
	b.table.information("  ensure started to ensure done", result.returns.String(), len(result.returns))
}

// build makes a container for its system, and returns that.
func (b *bench) build(ctx context.Context, name string) (string, error) {
	if _, err := b.devhost(ctx, "ensure", name, "--channel", b.channel, "--provision", b.minimal); err != nil {
		return "", err
	}
	record, err := b.records.Load(name)
	if err != nil {
		return "", err
	}
	return record.System, nil
}

// create: a new container whose system is built, against a bare boot of it.
func (b *bench) create(ctx context.Context) error {
	system, err := b.build(ctx, "new")
	if err != nil {
		return err
	}
	if err := b.destroy(ctx, "new"); err != nil {
		return err
	}
	result, err := b.compare(ctx, "new", system)
	if err != nil {
		return err
	}
	b.addComparison("create", result)
	b.table.information("destroy", result.destroys.String(), len(result.destroys))
	return nil
}

// second: the same while a container of the same channel and provision runs.
func (b *bench) second(ctx context.Context) error {
	system, err := b.build(ctx, "first")
	if err != nil {
		return err
	}
	result, err := b.compare(ctx, "second", system)
	if err != nil {
		return err
	}
	b.addComparison("second container of the same inputs", result)
	recorder, err := b.recordNix(ctx)
	if err != nil {
		return err
	}
	if _, err := b.devhostIn(ctx, b.layout, []string{recorder.env}, "ensure", "second", "--channel", b.channel, "--provision", b.minimal); err != nil {
		return err
	}
	calls, err := recorder.calls()
	if err != nil {
		return err
	}
	found := builds(calls)
	b.table.bound("second container: evaluations and builds", strconv.Itoa(len(found)), "0", 1, len(found) == 0)
	b.table.information("second container: programs of Nix that were started", strconv.Itoa(len(calls)), 1)
	for _, call := range calls {
		b.say("a second container starts: %s", call)
	}
	return nil
}

// together is how many containers run for the figure of memory.
const together = 20

// memory: what one supervisor weighs while many run.
func (b *bench) memory(ctx context.Context) error {
	var names []string
	for i := range together {
		name := fmt.Sprintf("many-%02d", i)
		names = append(names, name)
		if _, err := b.devhost(ctx, "ensure", name, "--channel", b.channel, "--provision", b.minimal); err != nil {
			return err
		}
	}
	// The last one is still busy with its start.
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(5 * time.Second):
	}
	var weights []int
	for _, name := range names {
		record, err := supervisor.ReadRecord(b.layout, name)
		if err != nil {
			return err
		}
		if record == nil || record.Status != engine.Running {
			return fmt.Errorf("container %s does not run", name)
		}
		weight, err := proportional(record.Supervisor.PID)
		if err != nil {
			return err
		}
		weights = append(weights, weight)
	}
	slices.Sort(weights)
	const bound = 8 << 10
	median, most := (weights[together/2-1]+weights[together/2])/2, weights[together-1]
	b.table.bound("one supervisor of 20, proportional memory", fmt.Sprintf("%s (most %s)", mebibytes(median), mebibytes(most)), "<= 8 MiB", together, most <= bound)
	return nil
}

// proportional is the proportional set size of a process in KiB, see
// proc_pid_smaps(5).
func proportional(pid int) (int, error) {
	path := fmt.Sprintf("/proc/%d/smaps_rollup", pid)
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) == 3 && fields[0] == "Pss:" {
			return strconv.Atoi(fields[1])
		}
	}
	return 0, fmt.Errorf("%s has no line Pss", path)
}

// other: what has no bound and is good to know.
func (b *bench) other(ctx context.Context) error {
	if _, err := b.build(ctx, "other"); err != nil {
		return err
	}
	taken, err := b.alternate(ctx,
		func(ctx context.Context) (time.Duration, error) { return b.devhost(ctx, "exec", "other", "--", "true") },
		func(ctx context.Context) (time.Duration, error) { return b.devhost(ctx, "status", "other") })
	if err != nil {
		return err
	}
	b.table.information("exec NAME -- true", taken[0].String(), len(taken[0]))
	b.table.information("status NAME", taken[1].String(), len(taken[1]))
	var stops samples
	taken, err = b.alternate(ctx, func(ctx context.Context) (time.Duration, error) {
		stopped, err := b.devhost(ctx, "stop", "other")
		if err != nil {
			return 0, err
		}
		stops = append(stops, stopped)
		return b.devhost(ctx, "start", "other")
	})
	if err != nil {
		return err
	}
	stops = stops[warmUps:]
	b.table.information("stop", stops.String(), len(stops))
	b.table.information("start to sshd answering", taken[0].String(), len(taken[0]))
	provision := filepath.Join(b.folder, "provision.nix")
	stamp := time.Now().UnixNano()
	taken, err = b.alternate(ctx, func(ctx context.Context) (time.Duration, error) {
		stamp++
		text := fmt.Sprintf("{ ... }: { environment.etc.\"devhost-bench\".text = \"%d\"; }\n", stamp)
		if err := os.WriteFile(provision, []byte(text), 0o644); err != nil {
			return 0, err
		}
		return b.devhost(ctx, "ensure", "other", "--provision", provision)
	})
	if err != nil {
		return err
	}
	b.table.information("ensure with a new provision: evaluate, build, switch", taken[0].String(), len(taken[0]))
	return nil
}
