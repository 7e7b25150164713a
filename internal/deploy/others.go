package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"devhost/internal/environment"
	"devhost/internal/execx"
	"devhost/internal/progress"
	"devhost/internal/terminal"
)

// NotDeployed says that this checkout has no containers of an environment.
type NotDeployed struct{ Name string }

func (n *NotDeployed) Error() string {
	return fmt.Sprintf("the environment %s was not deployed from this checkout; do that first: devhost-deploy deploy %s", n.Name, n.Name)
}

// Named checks that all hosts have names. The error is *NotDeployed.
func Named(e *environment.Environment) error {
	for _, host := range e.Hosts {
		if host.Name == "" {
			return &NotDeployed{Name: e.Name}
		}
	}
	return nil
}

// Deployed checks that there is a ssh_config for all hosts. The error is
// *NotDeployed.
func Deployed(e *environment.Environment) error {
	if err := Named(e); err != nil {
		return err
	}
	state := loadState(files{e})
	for _, host := range e.Hosts {
		if state.Hosts[host.Name] == nil {
			return &NotDeployed{Name: e.Name}
		}
	}
	if _, err := os.Stat(e.SSHConfig()); err != nil {
		return &NotDeployed{Name: e.Name}
	}
	return nil
}

// URLs lead to the aliases of a host, as far as is known here.
func URLs(e *environment.Environment, host *environment.Host) []string {
	var domains []string
	if known := loadState(files{e}).Hosts[host.Name]; known != nil {
		domains = known.Domains
	}
	return urls(host, domains)
}

// Validate checks all files of an environment, without the dev host. It gives
// what is doubtful.
func Validate(ctx context.Context, e *environment.Environment, options Options) ([]string, error) {
	script, err := readScript(ctx, options.Runner, e)
	if err != nil {
		return nil, err
	}
	if _, err := provisionArchive(e); err != nil {
		return nil, err
	}
	if script != nil {
		return script.warnings, nil
	}
	return nil, nil
}

// HostStatus is a container as its dev host sees it.
type HostStatus struct {
	Host      string   `json:"host"`
	Container string   `json:"container"`
	DevHost   string   `json:"devHost"`
	URLs      []string `json:"urls"`
	// Status is that of devhost ("running", "stopped" ...), "missing", or
	// "unknown" where the dev host cannot be asked.
	Status        string     `json:"status"`
	IPv4          string     `json:"ipv4,omitempty"`
	IPv6          string     `json:"ipv6,omitempty"`
	ExpiresStop   *time.Time `json:"expiresStop,omitempty"`
	ExpiresDelete *time.Time `json:"expiresDelete,omitempty"`
	Units         []Unit     `json:"units,omitempty"`
	Err           error      `json:"-"`
}

// Status asks the dev hosts about the containers of an environment.
func Status(ctx context.Context, e *environment.Environment, options Options) ([]*HostStatus, error) {
	statuses := make([]*HostStatus, len(e.Hosts))
	for i, host := range e.Hosts {
		statuses[i] = &HostStatus{Host: host.Key, Container: host.Name, DevHost: host.Provisioner.Host, URLs: []string{}, Status: "missing"}
	}
	err := each(ctx, e, options, "asking", func(i int, host *environment.Host, s *session, track *progress.Track) error {
		status := statuses[i]
		if host.Name == "" {
			track.Done(status.Status)
			return nil
		}
		status.URLs = append(status.URLs, URLs(e, host)...)
		output, err := remote(ctx, s, shell(command("sudo -n devhost status --json \"$1\"", "nixos-container list | grep -qx -- \"$1\" && echo '{\"status\": \"up\"}' || exit 4"), host.Name), nil, track.Detail)
		var failed *RemoteError
		const missing = 4
		switch {
		case errors.As(err, &failed) && failed.Status == missing:
		case err != nil:
			status.Status, status.Err = "unknown", asNoDevhost(err, s)
		default:
			if err := status.read(output); err != nil {
				status.Status, status.Err = "unknown", fmt.Errorf("devhost on %s answers in a way that this devhost-deploy does not understand: %w", s.destination, err)
			}
		}
		track.Done(status.Status)
		return nil
	}, func(i int, err error) {
		statuses[i].Status, statuses[i].Err = "unknown", err
	})
	return statuses, err
}

// read takes what a dev host says of a container: that alone, and nothing that
// could drive a terminal.
func (h *HostStatus) read(output []byte) error {
	var answer struct {
		Status, IPv4, IPv6         string
		ExpiresStop, ExpiresDelete *time.Time
		Units                      []Unit
	}
	if err := json.Unmarshal(output, &answer); err != nil {
		return err
	}
	cleanUnits(answer.Units)
	h.Status, h.IPv4, h.IPv6 = terminal.Line(answer.Status), terminal.Line(answer.IPv4), terminal.Line(answer.IPv6)
	h.ExpiresStop, h.ExpiresDelete, h.Units = answer.ExpiresStop, answer.ExpiresDelete, answer.Units
	return nil
}

// command is a script for the dev host: one line where devhost is, another where
// only batou's command is.
func command(devhost, batou string) string {
	return "if command -v devhost >/dev/null 2>&1; then " + devhost + "; elif command -v fc-build-dev-container >/dev/null 2>&1; then " + batou + "; else exit 96; fi"
}

func asNoDevhost(err error, s *session) error {
	var failed *RemoteError
	if errors.As(err, &failed) && failed.Status == statusNone {
		return &NoDevhost{Host: s.destination}
	}
	return err
}

// Destroy removes the containers of an environment, and what is kept of them
// here.
func Destroy(ctx context.Context, e *environment.Environment, options Options) ([]*Result, error) {
	f := files{e}
	if err := f.prepare(); err != nil {
		return nil, err
	}
	unlock, err := lock(f)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := e.Reread(); err != nil {
		return nil, err
	}
	results := make([]*Result, len(e.Hosts))
	for i, host := range e.Hosts {
		results[i] = &Result{Host: host, What: "there was no container"}
	}
	force := ""
	if options.Force {
		force = " --force"
	}
	script := command("sudo -n devhost destroy"+force+" --json --missing-ok \"$1\"", "sudo -n fc-build-dev-container destroy \"$1\"")
	err = each(ctx, e, options, "removing the container", func(i int, host *environment.Host, s *session, track *progress.Track) error {
		if host.Name == "" {
			track.Done(results[i].What)
			return nil
		}
		output, err := remote(ctx, s, shell(script, host.Name), nil, track.Detail)
		if err != nil {
			return asNoDevhost(err, s)
		}
		if len(strings.TrimSpace(string(output))) > 0 {
			results[i].What = "container " + host.Name + " is removed"
		}
		track.Done(results[i].What)
		return nil
	}, func(i int, err error) { results[i].Err = err })
	if err != nil {
		return nil, err
	}
	return results, forget(f, results, options)
}

// left are containers that a deploy from this checkout has made and that the
// environment does not have any more.
func left(e *environment.Environment, state *State) []string {
	var names []string
	for _, name := range sorted(state.Hosts) {
		at := state.Hosts[name].DevHost
		if !slices.ContainsFunc(e.Hosts, func(host *environment.Host) bool { return host.Name == name && host.Provisioner.Host == at }) {
			names = append(names, name)
		}
	}
	return names
}

func leftText(e *environment.Environment, state *State, name string) string {
	at := state.Hosts[name].DevHost
	return fmt.Sprintf("container %s on %s is no longer a part of %s; remove it with: %s sudo devhost destroy %s", name, at, e.Name, byHand(e, at), name)
}

// byHand is a command by which a person logs in to a dev host: with the project's
// ssh_config, where there is one.
func byHand(e *environment.Environment, destination string) string {
	project := filepath.Join(e.Root, "ssh_config")
	if _, err := os.Stat(project); err != nil {
		return "ssh " + destination
	}
	if _, err := os.Stat(e.SSHConfig()); err == nil {
		project = e.SSHConfig()
	}
	return execx.Quote([]string{"ssh", "-F", project, destination})
}

// forget removes what is kept of containers that are gone.
func forget(f files, results []*Result, options Options) error {
	state := loadState(f)
	var problems []error
	all := true
	for _, result := range results {
		if result.Err != nil {
			all = false
			continue
		}
		delete(state.Hosts, result.Host.Name)
		if result.Host.Name != "" {
			problems = append(problems, removeIfThere(f.key(result.Host.Name)))
		}
	}
	remaining := left(f.Environment, state)
	// Last, because it says what ssh_config is there then.
	defer func() {
		for _, name := range remaining {
			progress.PlainBoard(options.Streams.Err, options.Quiet).Warn(leftText(f.Environment, state, name))
		}
	}()
	if all {
		paths := []string{f.SSHConfig(), f.knownHosts(), f.state()}
		if len(remaining) > 0 {
			paths = paths[:len(paths)-1]
			problems = append(problems, state.save(f))
		}
		for _, path := range paths {
			problems = append(problems, removeIfThere(path))
		}
		return errors.Join(problems...)
	}
	return errors.Join(append(problems, state.save(f), writePrivate(f.knownHosts(), renderKnownHosts(f.Environment, state.access())))...)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// each does something for each host at the same time, over one connection to each
// dev host. failed is told about hosts for which it did not work.
func each(ctx context.Context, e *environment.Environment, options Options, doing string, do func(i int, host *environment.Host, s *session, track *progress.Track) error, failed func(i int, err error)) error {
	runtime, err := RuntimeFolder()
	if err != nil {
		return err
	}
	defer os.RemoveAll(runtime)
	config, err := hostConfig(e, runtime)
	if err != nil {
		return err
	}
	board := options.newBoard()
	defer board.Close()
	sessions := newSessions(ctx, e, options.Runner, config, runtime)
	defer sessions.close(ctx)
	var group sync.WaitGroup
	for i, host := range e.Hosts {
		track := board.Track(host.Key)
		group.Go(func() {
			track.Step(doing)
			s, err := sessions.open(host)
			if err == nil {
				err = do(i, host, s, track)
			}
			if err != nil {
				track.Failed("failed")
				failed(i, err)
			}
		})
	}
	group.Wait()
	return nil
}

// hostConfig is a ssh_config that leads to the dev hosts as that of the
// environment does, also where that is not written yet.
func hostConfig(e *environment.Environment, runtime string) (string, error) {
	path := runtime + "/config"
	return path, writePrivate(path, renderConfig(e, nil))
}

// sessions are the connections to the dev hosts of an environment.
type sessions struct {
	byHost map[string]*session
	// opened connects, once, and says how that went; connected says that it did.
	opened    map[string]func() error
	mutex     sync.Mutex
	connected map[string]bool
}

func newSessions(ctx context.Context, e *environment.Environment, runner execx.Runner, config, runtime string) *sessions {
	all := &sessions{byHost: map[string]*session{}, opened: map[string]func() error{}, connected: map[string]bool{}}
	for _, host := range e.Hosts {
		name := host.Provisioner.Host
		if all.byHost[name] == nil {
			s := &session{runner: runner, config: config, socket: socketPath(runtime, "h", len(all.byHost)), destination: name, byHand: byHand(e, name)}
			all.byHost[name], all.opened[name] = s, sync.OnceValue(func() error { return s.open(ctx) })
		}
	}
	return all
}

// open is the connection to a host's dev host; the first who asks makes it.
func (s *sessions) open(host *environment.Host) (*session, error) {
	name := host.Provisioner.Host
	err := s.opened[name]()
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.connected[name] = err == nil
	return s.byHost[name], err
}

// standing is the connection to a dev host, nil where there is none.
func (s *sessions) standing(name string) *session {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if !s.connected[name] {
		return nil
	}
	return s.byHost[name]
}

func (s *sessions) close(ctx context.Context) {
	for name, one := range s.byHost {
		if s.connected[name] {
			one.close(ctx)
		}
	}
}
