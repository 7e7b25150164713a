// Package install installs a devbox on a disk. It runs in the installer ISO.
//
// What to do comes from the seed disk (package seed), what to install from the
// ISO (Config). Each phase and the verdict are reported on the console and on
// the seed disk. An installation that was cut short is gone on with: until it is
// complete, its root partition is named so (partitionInstalling), and the
// phases leave alone what an earlier run has finished.
package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"devhost/internal/execx"
	"devhost/internal/seed"
)

const (
	// WaitForDisks is how long disks may take to show up after the boot, by itself.
	WaitForDisks = time.Minute
	// poll is how often something is looked for that may show up.
	poll = 250 * time.Millisecond
	// cleanUpTime bounds what is done after an interruption.
	cleanUpTime = time.Minute
)

// Installer installs once.
type Installer struct {
	Runner execx.Runner
	Config Config
	// Console gets reports and what programs print.
	Console io.Writer
	// Root is the folder where the new system is mounted, SeedFolder that of the
	// seed disk.
	Root, SeedFolder string
	// Devices and Blocks are /dev and /sys/class/block, Mounts is
	// /proc/self/mountinfo.
	Devices, Blocks, Mounts string
	// Wait is how long disks may take to show up.
	Wait time.Duration

	settings seed.Settings
	contents seed.Contents
	reporter *seed.Reporter
	disk     target
}

// New returns an installer for the machine that this process runs on.
func New(runner execx.Runner, config Config, console io.Writer) *Installer {
	return &Installer{
		Runner: runner, Config: config, Console: console,
		Root: "/mnt", SeedFolder: "/run/devbox-seed",
		Devices: "/dev", Blocks: "/sys/class/block", Mounts: "/proc/self/mountinfo",
		Wait: WaitForDisks,
	}
}

// phase is one step. do says whether an earlier run had done it already, and
// what there is to say of it.
type phase struct {
	name string
	do   func(ctx context.Context) (outcome, error)
}

// outcome is what became of a phase that did not fail.
type outcome struct {
	skipped bool
	// message is for a person, "" for none.
	message string
}

// phaseError says which phase failed.
type phaseError struct {
	phase string
	err   error
}

func (p *phaseError) Error() string { return fmt.Sprintf("%s: %v", p.phase, p.err) }
func (p *phaseError) Unwrap() error { return p.err }

// lenient is a writer whose errors do not matter.
type lenient struct{ next io.Writer }

func (l lenient) Write(data []byte) (int, error) {
	_, _ = l.next.Write(data)
	return len(data), nil
}

// seedPhase is the one that cannot be reported on the seed disk.
const seedPhase = "seed"

// Run installs, reports, and leaves nothing mounted.
func (i *Installer) Run(ctx context.Context) error {
	// A console that is gone must end neither the installation nor the programs
	// that write there: the host reads the seed disk.
	i.Console = lenient{i.Console}
	i.reporter = &seed.Reporter{Console: i.Console}
	err := i.run(ctx)
	verdict := seed.Event{Kind: seed.VerdictEvent, Verdict: seed.Installed}
	if err != nil {
		verdict.Verdict, verdict.Message = seed.InstallFails, explain(err)
		var failed *phaseError
		if errors.As(err, &failed) {
			verdict.Phase, verdict.Message = failed.phase, explain(failed.err)
		}
	}
	// A system whose verdict did not reach the host counts as failed there.
	err = errors.Join(err, i.reporter.Report(verdict))
	cleanUp, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	if closer, ok := i.reporter.File.(io.Closer); ok {
		err = errors.Join(err, closer.Close())
	}
	return errors.Join(err, i.unmount(cleanUp, i.SeedFolder))
}

func (i *Installer) run(ctx context.Context) (err error) {
	// A report must be made of everything.
	defer func() {
		if found := recover(); found != nil {
			err = fmt.Errorf("this is a bug in devbox-auto-install: %v\n%s", found, debug.Stack())
		}
	}()
	if err := i.openSeed(ctx); err != nil {
		return &phaseError{seedPhase, err}
	}
	phases, err := i.phases()
	if err != nil {
		return &phaseError{seedPhase, err}
	}
	if err := i.unmount(ctx, i.Root); err != nil {
		return err
	}
	defer func() {
		cleanUp, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
		defer cancel()
		err = errors.Join(err, i.unmount(cleanUp, i.Root))
	}()
	for number, phase := range phases {
		event := seed.Event{Kind: seed.PhaseEvent, Phase: phase.name, Number: number + 1, Count: len(phases), State: seed.Started}
		if err := i.reporter.Report(event); err != nil {
			return &phaseError{phase.name, noReport(err)}
		}
		done, err := phase.do(ctx)
		event.State, event.Message = seed.Done, done.message
		switch {
		case err != nil:
			event.State, event.Message = seed.Failed, explain(err)
		case done.skipped:
			event.State = seed.Skipped
		}
		if reportErr := i.reporter.Report(event); err == nil && reportErr != nil {
			err = noReport(reportErr)
		}
		if err != nil {
			return &phaseError{phase.name, err}
		}
	}
	return nil
}

func (i *Installer) phases() ([]phase, error) {
	disk := []phase{{"disk", i.chooseDisk}, {"partition", i.partition}, {"format", i.format}, {"mount", i.mount}}
	end := []phase{{"keys", i.installKeys}, {"finish", i.finish}}
	switch i.settings.Mode {
	case seed.Direct:
		if i.Config.System == "" {
			return nil, errors.New("the seed disk says direct, and this ISO has no prebuilt system; set devbox.install.mode = \"direct\" and build the ISO again")
		}
		return append(append(disk, phase{"copy", i.copySystem}, phase{"boot", i.installBoot}), end...), nil
	case seed.Bootstrap:
		if i.Config.System != "" {
			return nil, errors.New("the seed disk says bootstrap, and this ISO is for direct; set devbox.install.mode = \"bootstrap\" and build the ISO again")
		}
		return append(append(disk, phase{"configure", i.configure}, phase{"install", i.installBootstrap}), end...), nil
	}
	return nil, fmt.Errorf("there is no mode %q", i.settings.Mode)
}

// openSeed finds and mounts the seed disk, reads it and opens the report there.
func (i *Installer) openSeed(ctx context.Context) error {
	if err := i.unmount(ctx, i.SeedFolder); err != nil {
		return err
	}
	device, err := i.findSeed(ctx)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(i.SeedFolder, 0o700); err != nil {
		return err
	}
	if err := i.command(ctx, "mount", "-t", "vfat", "-o", "rw,umask=077,nosuid,nodev,noexec", device, i.SeedFolder); err != nil {
		return err
	}
	// First of all: what is wrong with the rest is reported there.
	report, err := os.OpenFile(filepath.Join(i.SeedFolder, seed.ReportFile), os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_SYNC, 0o600)
	if err != nil {
		return noReport(err)
	}
	i.reporter.File = report
	i.contents, err = seed.Load(os.DirFS(i.SeedFolder))
	i.settings = i.contents.Settings
	return err
}

// command runs a program, whose output goes to the console.
func (i *Installer) command(ctx context.Context, name string, arguments ...string) error {
	return i.Runner.Run(ctx, execx.Command{Name: name, Args: arguments, Stdout: i.Console, Stderr: i.Console})
}
