// Package deploy brings an environment of a project to its dev hosts: it makes
// the containers, provisions them, and writes what ssh needs to log in.
package deploy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"devhost/internal/environment"
	"devhost/internal/execx"
	"devhost/internal/progress"
)

// Streams are the process' standard streams.
type Streams struct{ In, Out, Err *os.File }

// Options say how to deploy.
type Options struct {
	Runner  execx.Runner
	Streams Streams
	// Rebuild removes the containers first, with all their files; Force does so
	// with those of other people too.
	Rebuild, Force bool
	// Quiet shows no progress, Debug shows provision.sh and its variables, with
	// the values masked.
	Quiet, Debug bool
	Now          func() time.Time
}

// newBoard shows progress; what --debug logs would meet live lines.
func (o Options) newBoard() *progress.Board {
	if o.Debug {
		return progress.PlainBoard(o.Streams.Err, o.Quiet)
	}
	return progress.BoardFor(o.Streams.Err, o.Quiet)
}

// Result is what became of one host.
type Result struct {
	Host *environment.Host
	// What happened to the container, as "created".
	What string
	// URLs lead to the aliases.
	URLs []string
	// ExpiresStop and ExpiresDelete are nil for never.
	ExpiresStop, ExpiresDelete *time.Time
	// Partial says what of the provisioning is not as it should be.
	Partial []string
	Err     error
}

// Busy says that somebody else deploys the environment from this checkout.
type Busy struct{ Name, Lock string }

func (b *Busy) Error() string {
	return fmt.Sprintf("another devhost-deploy works on the environment %s of this checkout (it holds %s); run this again when that is done", b.Name, b.Lock)
}

// deployment is one run.
type deployment struct {
	Options
	e       *environment.Environment
	files   files
	script  *script
	values  *values
	archive []byte
	runtime string
	board   *progress.Board

	// mutex guards state and what is written of it.
	mutex sync.Mutex
	state *State
}

// Deploy brings all hosts of an environment up to date. The error is about the
// environment as a whole; what failed on a host is in its result.
func Deploy(ctx context.Context, e *environment.Environment, options Options) ([]*Result, error) {
	d := &deployment{Options: options, e: e, files: files{e}}
	if err := d.files.prepare(); err != nil {
		return nil, err
	}
	unlock, err := lock(d.files)
	if err != nil {
		return nil, err
	}
	defer unlock()
	// Somebody may have picked names since.
	if err := e.Reread(); err != nil {
		return nil, err
	}
	if err := d.read(ctx); err != nil {
		return nil, err
	}
	// Before any container is made, so that an interrupted run finds it again.
	picked, err := e.PickNames()
	if err != nil {
		return nil, err
	}
	d.state = loadState(d.files)
	if err := d.writeSSH(); err != nil {
		return nil, err
	}
	if d.runtime, err = RuntimeFolder(); err != nil {
		return nil, err
	}
	defer os.RemoveAll(d.runtime)
	d.board = d.newBoard()
	defer d.board.Close()
	if picked {
		d.tellIgnore(ctx)
	}
	if d.Debug {
		d.showScript()
	}
	return d.hosts(ctx), nil
}

// read reads all that is read once, and finds what is wrong before anything is
// changed.
func (d *deployment) read(ctx context.Context) error {
	var err error
	if d.script, err = readScript(ctx, d.Runner, d.e); err != nil {
		return err
	}
	if d.archive, err = provisionArchive(d.e); err != nil {
		return err
	}
	d.values = &values{variables: map[string]string{}, mask: strings.NewReplacer()}
	if d.script == nil {
		return nil
	}
	d.values, err = collect(ctx, d.e, d.Streams, d.Runner)
	return err
}

// lock keeps others from deploying the same environment from the same checkout.
func lock(f files) (unlock func(), err error) {
	held := flock.New(f.lock(), flock.SetPermissions(0o600))
	locked, err := held.TryLock()
	if err != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", f.lock(), err)
	}
	if !locked {
		return nil, &Busy{Name: f.Name, Lock: f.Shown(f.lock())}
	}
	return func() { _ = held.Unlock() }, nil
}

// writeSSH writes ssh_config and known_hosts by what is known.
func (d *deployment) writeSSH() error {
	access := d.state.access()
	return errors.Join(
		writePrivate(d.files.knownHosts(), renderKnownHosts(d.e, access)),
		writePrivate(d.e.SSHConfig(), renderConfig(d.e, access)),
	)
}

// tellIgnore says which files git should ignore, where it does not.
func (d *deployment) tellIgnore(ctx context.Context) {
	for _, path := range []string{d.e.Hostmap(), d.e.SSHConfig()} {
		err := d.Runner.Run(ctx, execx.Command{Name: "git", Args: []string{"check-ignore", "--quiet", "--", path}, Dir: d.e.Root})
		var failed *execx.Error
		if errors.As(err, &failed) && failed.ExitCode == 1 {
			d.board.Warn(fmt.Sprintf("git does not ignore %s, which is this checkout's alone; devhost-deploy init adds what is missing to .gitignore", d.e.Shown(path)))
		}
	}
}

// tellLeft names containers that an earlier deploy from this checkout has made and
// that the environment does not have any more. Where the dev host is connected, it
// forgets those that are gone.
func (d *deployment) tellLeft(ctx context.Context, sessions *sessions) {
	for _, name := range left(d.e, d.state) {
		at := d.state.Hosts[name].DevHost
		if s := sessions.standing(at); s != nil {
			output, err := remote(ctx, s, shell(`if [ -e /etc/devhost ] && ! [ -e "/etc/devhost/$1.json" ]; then echo gone; fi`, name), nil, func(string) {})
			if err == nil && strings.TrimSpace(string(output)) == "gone" {
				delete(d.state.Hosts, name)
				if err := d.state.save(d.files); err != nil {
					d.board.Warn(err.Error())
				}
				continue
			}
		}
		d.board.Warn(leftText(d.e, d.state, name))
	}
}

// showScript shows what will run, without values.
func (d *deployment) showScript() {
	if d.script == nil {
		d.board.Note("there is no " + d.e.ShownScript())
		return
	}
	for _, name := range sorted(d.values.variables) {
		d.board.Note(name + "=" + hidden)
	}
	for i, line := range d.script.lines {
		d.board.Note(fmt.Sprintf("%s:%d: %s", d.e.ShownScript(), i+1, d.values.mask.Replace(line)))
	}
}

// hosts works on all hosts at once; those of one dev host share a connection.
func (d *deployment) hosts(ctx context.Context) []*Result {
	results := make([]*Result, len(d.e.Hosts))
	for i, host := range d.e.Hosts {
		results[i] = &Result{Host: host}
	}
	sessions := newSessions(ctx, d.e, d.Runner, d.e.SSHConfig(), d.runtime)
	defer sessions.close(ctx)
	var group sync.WaitGroup
	for i, result := range results {
		track := d.board.Track(result.Host.Key)
		w := &work{deployment: d, Result: result, host: result.Host, track: track, socket: socketPath(d.runtime, "c", i)}
		group.Go(func() {
			track.Step("connecting to " + result.Host.Provisioner.Host)
			if w.devHost, result.Err = sessions.open(result.Host); result.Err == nil {
				result.Err = w.run(ctx)
			}
			switch {
			case result.Err != nil:
				track.Failed("failed")
			case len(result.Partial) > 0:
				track.Done(result.What + ", but not all is well")
			default:
				track.Done(result.What)
			}
		})
	}
	group.Wait()
	if ctx.Err() == nil {
		d.tellLeft(ctx, sessions)
	}
	return results
}

// work is what is done for one host.
type work struct {
	*deployment
	*Result
	host    *environment.Host
	track   *progress.Track
	devHost *session
	// socket is that of the connection to the container.
	socket string
	units  []Unit
	// madeInside says that batou's command made the container.
	madeInside bool
}

func (w *work) run(ctx context.Context) error {
	inside := w.script != nil && w.script.inside
	first := asking{inside: inside, rebuild: w.Rebuild, archive: w.archive}
	state, err := w.ensure(ctx, first)
	if failed := (*RemoteError)(nil); errors.As(err, &failed) && strings.Contains(failed.Text, cannotSwitch) && w.script != nil && w.script.calls {
		// The new system may need what provision.sh brings: first that, to the
		// container as it was.
		w.track.Note(fmt.Sprintf("%s\nIt runs its previous system; %s is run before it is tried once more.", failed.Text, w.e.ShownScript()))
		if state, err = w.ensure(ctx, asking{asItIs: true}); err != nil {
			return err
		}
		if err := w.provision(ctx, state.inside); err != nil {
			return fmt.Errorf("%w\nBefore that: %w", err, failed)
		}
		if state, err = w.ensure(ctx, asking{archive: w.archive}); err != nil {
			return err
		}
	} else if err == nil {
		err = w.provision(ctx, state.inside)
	}
	if err != nil {
		return err
	}
	w.URLs = urls(w.host, state.Domains)
	w.ExpiresStop, w.ExpiresDelete = state.ExpiresStop, state.ExpiresDelete
	if w.script == nil && w.archive == nil {
		w.track.Warn(fmt.Sprintf("there is neither %s nor %s", w.e.Shown(w.e.Module()), w.e.ShownScript()))
	}
	for _, unit := range w.units {
		text := fmt.Sprintf("unit %s still starts (%s)", unit.Name, unit.Description)
		if unit.State == "failed" {
			text = fmt.Sprintf("unit %s failed (%s)", unit.Name, unit.Description)
			for _, line := range unit.Log {
				text += "\n  " + w.values.mask.Replace(line)
			}
		}
		w.Partial = append(w.Partial, text)
	}
	return nil
}

// asking is what the dev host is asked for.
type asking struct {
	// inside says that the container builds its own system, asItIs that its system
	// stays as it is.
	inside, asItIs, rebuild bool
	// archive is the provision, nil for none.
	archive []byte
}

// cannotSwitch is what devhost ensure says of a new system that was no good; the
// container runs its previous one then.
const cannotSwitch = "could not switch to its new system"

// needsChannel is what devhost ensure says of a new container without a channel.
const needsChannel = "say where its NixOS comes from"

// made is what ensure gave.
type made struct {
	*HostState
	// inside says that the container builds its own system.
	inside bool
}

// ensure makes the container, or brings it up to date, and writes what ssh needs.
func (w *work) ensure(ctx context.Context, asked asking) (*made, error) {
	w.track.Step("bringing up the container " + w.host.Name)
	for {
		result, err := w.ask(ctx, asked)
		var failed *RemoteError
		errors.As(err, &failed)
		switch {
		case failed != nil && failed.Status == statusInside:
			// It was made by batou, or for a provision.sh that says fc-manage.
			asked.inside, asked.rebuild = true, false
			continue
		case failed != nil && failed.Status == statusHost:
			return nil, fmt.Errorf("the system of container %s is built by the dev host, and %s is written for containers that build it inside (it says fc-manage, or copies modules to /etc/local); make it such a one, without its files: devhost-deploy deploy %s --rebuild", w.host.Name, w.e.ShownScript(), w.e.Name)
		case failed != nil && failed.Status == statusNone:
			return nil, &NoDevhost{Host: w.devHost.destination}
		case failed != nil && failed.Status == statusBatou:
			return w.ensureBatou(ctx)
		case err != nil:
			return nil, err
		}
		state := &HostState{
			DevHost: w.devHost.destination, Domains: result.Domains, HostKey: result.Access.HostKey, Port: result.Access.Port,
			Deployed: w.Now().UTC().Truncate(time.Second), ExpiresStop: result.ExpiresStop, ExpiresDelete: result.ExpiresDelete,
		}
		switch {
		case result.Created || w.madeInside:
			w.What = "created"
		case result.Switched:
			w.What = "switched to its new system"
		case result.Started:
			w.What = "started"
		default:
			w.What = "unchanged"
		}
		for _, warning := range result.Warnings {
			w.track.Warn(warning)
		}
		w.units = result.Units
		if err := writePrivate(w.files.key(w.host.Name), result.Access.PrivateKey); err != nil {
			return nil, err
		}
		return &made{HostState: state, inside: asked.inside}, w.remember(state)
	}
}

// ask is one round trip: devhost ensure, and what has to come before it.
func (w *work) ask(ctx context.Context, asked asking) (*ensured, error) {
	builds, stdin := "host", asked.archive
	arguments := ensureArguments(w.e, w.host)
	switch {
	case asked.inside:
		builds, stdin = "inside", nil
	case asked.asItIs:
	case stdin == nil:
		arguments = append(arguments, "--provision", "")
	default:
		arguments = append(arguments, "--provision", "-")
	}
	yes := map[bool]string{true: "1", false: "0"}
	line := shell(ensureScript, append([]string{w.host.Name, builds, yes[asked.rebuild], yes[w.Force], w.host.Provisioner.Channel, strings.Join(w.host.Aliases, " ")}, arguments...)...)
	output, err := remote(ctx, w.devHost, line, stdin, func(line string) {
		w.madeInside = w.madeInside || line == saysMade
		w.track.Detail(w.values.mask.Replace(line))
	})
	var failed *RemoteError
	if errors.As(err, &failed) {
		// It may quote what a container wrote.
		failed.Text = w.values.mask.Replace(failed.Text)
		if w.host.Provisioner.Channel == "" && strings.Contains(failed.Text, needsChannel) {
			failed.Text = fmt.Sprintf("container %s does not exist yet, so say where its NixOS comes from: channel = URL|FLAKE|FOLDER in [provisioner:%s] of %s", w.host.Name, w.host.Provisioner.Name, w.e.Shown(w.e.File))
		}
	}
	const degraded = 3
	if err != nil && (!errors.As(err, &failed) || failed.Status != degraded) {
		return nil, err
	}
	return parseEnsured(w.devHost.destination, output)
}

// remember writes down what the dev host said of a container.
func (w *work) remember(state *HostState) error {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.state.Hosts[w.host.Name] = state
	return errors.Join(w.state.save(w.files), w.writeSSH())
}

// ensureBatou is for hosts that have only batou's command.
func (w *work) ensureBatou(ctx context.Context) (*made, error) {
	if w.host.Provisioner.Channel == "" {
		return nil, fmt.Errorf("%s has fc-build-dev-container and no devhost, and that needs a channel: channel = URL in [provisioner:%s]", w.devHost.destination, w.host.Provisioner.Name)
	}
	if w.Rebuild {
		if _, err := remote(ctx, w.devHost, execx.Quote([]string{"sudo", "-n", "fc-build-dev-container", "destroy", w.host.Name}), nil, w.track.Detail); err != nil {
			return nil, err
		}
	}
	line := execx.Quote([]string{"sudo", "-n", "fc-build-dev-container", "ensure", w.host.Name, w.host.Provisioner.Channel, strings.Join(w.host.Aliases, " ")}) +
		" </dev/null >&2 && ssh-keyscan -T 20 -t ed25519,rsa " + w.host.Name + " 2>/dev/null"
	output, err := remote(ctx, w.devHost, line, nil, w.track.Detail)
	if err != nil {
		return nil, err
	}
	state := &HostState{DevHost: w.devHost.destination, Batou: true, Deployed: w.Now().UTC().Truncate(time.Second)}
	for text := range strings.Lines(string(output)) {
		if _, key, found := strings.Cut(strings.TrimSpace(text), " "); found && (state.HostKey == "" || strings.HasPrefix(key, "ssh-ed25519 ")) {
			state.HostKey = key
		}
	}
	if state.HostKey == "" {
		return nil, fmt.Errorf("container %s on %s is up, but its sshd does not answer", w.host.Name, w.devHost.destination)
	}
	w.What = "up"
	return &made{HostState: state, inside: true}, w.remember(state)
}

// provision runs provision.sh, and fc-manage where the container builds its own
// system.
func (w *work) provision(ctx context.Context, inside bool) error {
	if w.script != nil {
		for _, warning := range w.script.warnings {
			w.track.Warn(warning)
		}
	}
	if !inside && w.script == nil {
		return nil
	}
	container := &session{runner: w.Runner, config: w.e.SSHConfig(), socket: w.socket, destination: w.host.Name, through: w.devHost.forward()}
	if inside || w.script.calls {
		w.track.Step("logging in to the container " + w.host.Name)
		if err := container.open(ctx); err != nil {
			return w.noLogin(err)
		}
		defer container.close(ctx)
	}
	p := &provisioning{
		runner: w.Runner, e: w.e, host: w.host, control: w.socket, mask: w.values.mask,
		variables: variablesOf(w.e, w.host, w.values.variables, w.Rebuild),
		step: func(line int) {
			w.track.Step(fmt.Sprintf("%s:%d: %s", filepath.Base(w.e.Script()), line, w.values.mask.Replace(w.script.source(line))))
		},
		line: w.track.Output,
	}
	if inside && w.archive != nil && (w.script == nil || !w.script.names("provision.nix")) {
		w.track.Step("copying provision.nix")
		if failed, err := p.run(ctx, "COPY provision.nix /etc/local/nixos/provision-container.nix"); err != nil || failed != nil {
			if err != nil {
				return err
			}
			return fmt.Errorf("provision.nix cannot be copied to the container %s:\n  %s", w.host.Name, strings.Join(failed.Tail, "\n  "))
		}
	}
	if w.script != nil {
		w.track.Step("running " + w.e.ShownScript())
		failed, err := p.run(ctx, "")
		if err != nil {
			return err
		}
		if failed != nil {
			failed.Source = w.values.mask.Replace(w.script.source(failed.Line))
			if !w.Quiet {
				// It was shown as it came.
				failed.Tail = last(failed.Tail, 10)
			}
			return failed
		}
	}
	if inside {
		return w.manage(ctx, container)
	}
	return w.startAgain(ctx, container)
}

func last(lines []string, most int) []string {
	return lines[max(0, len(lines)-most):]
}

// noLogin is about a container that is up and lets nobody in.
func (w *work) noLogin(err error) error {
	var unreachable *Unreachable
	if !errors.As(err, &unreachable) {
		return err
	}
	return fmt.Errorf("container %s on %s is up, but does not let developer log in: %s, after %.1f s; see its log with: %s sudo devhost logs %s",
		w.host.Name, w.devHost.destination, unreachable.Reason, unreachable.After.Seconds(), byHand(w.e, w.devHost.destination), w.host.Name)
}

// manage has the container build its system. As with batou, what goes wrong
// there is reported, and no failure: what comes next may mend it.
func (w *work) manage(ctx context.Context, container *session) error {
	w.track.Step("building the system inside (fc-manage -c)")
	const kept = 20
	var tail []string
	_, err := remote(ctx, container, "sudo -n -i fc-manage -c >&2", nil, func(line string) {
		line = w.values.mask.Replace(line)
		tail = last(append(tail, line), kept)
		w.track.Detail(line)
	})
	var failed *RemoteError
	if errors.As(err, &failed) && failed.Status != lost {
		w.Partial = append(w.Partial, fmt.Sprintf("fc-manage -c in the container ended with exit status %d\n  %s", failed.Status, strings.Join(tail, "\n  ")))
		return nil
	}
	return err
}

// startAgain starts units once more that failed before provision.sh: it may have
// brought what they need.
func (w *work) startAgain(ctx context.Context, container *session) error {
	var failed, others []Unit
	var names []string
	for _, unit := range w.units {
		if unit.State == "failed" {
			failed, names = append(failed, unit), append(names, unit.Name)
		} else {
			others = append(others, unit)
		}
	}
	if len(failed) == 0 || !w.script.calls {
		return nil
	}
	w.track.Step("starting again what failed before " + w.e.ShownScript())
	output, err := remote(ctx, container, shell(`for unit; do sudo -n systemctl restart -- "$unit" </dev/null >/dev/null 2>&1 || echo "$unit"; done`, names...), nil, w.track.Detail)
	if err != nil {
		return err
	}
	still := strings.Fields(string(output))
	for _, unit := range failed {
		for _, name := range still {
			if name == unit.Name {
				others = append(others, unit)
			}
		}
	}
	w.units = others
	return nil
}

// names tells whether the script says something outside of comments.
func (s *script) names(text string) bool {
	for _, line := range s.lines {
		if code, _, _ := strings.Cut(" "+line, " #"); strings.Contains(code, text) {
			return true
		}
	}
	return false
}

// urls lead to the aliases of a host: by the dev host's name in environment.cfg,
// unless it says that it serves others.
func urls(host *environment.Host, domains []string) []string {
	domain := host.Provisioner.Address()
	if len(domains) > 0 {
		found := false
		for _, one := range domains {
			found = found || one == domain
		}
		if !found {
			domain = domains[0]
		}
	}
	var urls []string
	for _, alias := range host.Aliases {
		urls = append(urls, "https://"+alias+"."+host.Name+"."+domain)
	}
	return urls
}

var noLabel = regexp.MustCompile(`[^a-z0-9]+`)

// label makes a DNS label of an environment's name.
func label(name string) string {
	const most = 40
	text := strings.Trim(noLabel.ReplaceAllString(strings.ToLower(name), "-"), "-")
	if len(text) > most {
		text = strings.Trim(text[:most], "-")
	}
	if text == "" {
		return "environment"
	}
	return text
}

func shortHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	const bytes = 4
	return hex.EncodeToString(sum[:bytes])
}
