package devbox

import (
	"bytes"
	"context"
	_ "embed" // host.nix
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"devhost/internal/hypervisor"
	"devhost/internal/nix"
	"devhost/internal/progress"
	"devhost/internal/seed"
)

// InitOptions say what to install.
type InitOptions struct {
	Reference Reference
	// SSHKey is the path of the private key of the VM's user, ParentKey that of
	// a public key that may log in; "" for none.
	SSHKey, ParentKey string
	// Timeout is how long the installed VM may take to answer.
	Timeout time.Duration
}

// host is what a flake says of a host.
type host struct {
	Names  []string `json:"names"`
	System string   `json:"system"`
	Name   string   `json:"hostName"`
	// Installer is the derivation of the ISO.
	Installer string    `json:"installer"`
	Devbox    *settings `json:"devbox"`
}

// settings are the options devbox.* of a host.
type settings struct {
	Hypervisor        string   `json:"hypervisor"`
	Login             string   `json:"login"`
	Nested            bool     `json:"nested"`
	MemoryMB          *int     `json:"memoryMB"`
	DiskGB            int      `json:"diskGB"`
	CPUs              *int     `json:"cpus"`
	Substituters      []string `json:"substituters"`
	TrustedPublicKeys []string `json:"trustedPublicKeys"`
	Mode              string   `json:"mode"`
	Disk              string   `json:"disk"`
}

// hostNix asks a flake about a host.
//
//go:embed host.nix
var hostNix string

// applied is a Nix function of nixosConfigurations: one of our files with the
// name of a host.
func applied(function, name string) string {
	quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`).Replace(name)
	return "(" + function + ") \"" + quoted + "\""
}

// NoDevbox says that a host of a flake is no devbox.
type NoDevbox struct {
	Reference Reference
	Missing   string
}

func (n *NoDevbox) Error() string {
	return fmt.Sprintf("the host %s is no devbox: it has no %s; build it with lib.mkDevbox, or import nixosModules.devbox in it", n.Reference, n.Missing)
}

// evaluate asks a flake about a host.
func (m *Manager) evaluate(ctx context.Context, reference Reference) (*host, error) {
	var found host
	m.Reporter.Phase(progress.Evaluate)
	if err := m.ask(ctx, reference, hostNix, &found); err != nil {
		return nil, err
	}
	switch {
	case found.System == "":
		return nil, &UnknownHost{Reference: reference, Hosts: found.Names}
	case found.Devbox == nil:
		return nil, &NoDevbox{Reference: reference, Missing: "options devbox.*"}
	}
	if err := seed.CheckLogin(found.Devbox.Login); err != nil {
		return nil, fmt.Errorf("the option devbox.user.login of %s will not do: %w", reference, err)
	}
	return &found, nil
}

// ask applies one of our functions to the hosts of a flake.
func (m *Manager) ask(ctx context.Context, reference Reference, function string, answer any) error {
	flake, folder := reference.forNix()
	own := nix.Own{Runner: m.Runner, Dir: folder}
	err := own.EvaluateFlake(ctx, flake+"#nixosConfigurations", applied(function, reference.Host), m.EvaluationLog(reference.Host), answer)
	var failure *nix.EvalError
	if errors.As(err, &failure) && strings.Contains(failure.Message, "does not provide attribute") && strings.Contains(failure.Message, "'nixosConfigurations'") {
		return &UnknownHost{Reference: reference}
	}
	return err
}

// InitResult is what init made.
type InitResult struct {
	Record   *Record
	Endpoint hypervisor.Endpoint
	// Resumed says that an installation was gone on with.
	Resumed bool
}

// LeftRunning is an interruption that leaves something running.
type LeftRunning struct {
	// Now says what holds and how to go on.
	Now string
	Err error
}

func (l *LeftRunning) Error() string { return l.Err.Error() + "\n" + l.Now }
func (l *LeftRunning) Unwrap() error { return l.Err }

// Init builds the installer of a host, makes its VM, installs it, starts it and
// waits until it answers. An installation that was interrupted is gone on with.
func (m *Manager) Init(ctx context.Context, options InitOptions) (*InitResult, error) {
	name := options.Reference.Host
	var keys seed.Contents
	if options.SSHKey != "" {
		key, err := readPrivateKey(options.SSHKey)
		if err != nil {
			return nil, err
		}
		keys.UserKey = key
	}
	if options.ParentKey != "" {
		key, err := readPublicKey(options.ParentKey)
		if err != nil {
			return nil, err
		}
		keys.AuthorizedKeys = []string{key}
	}
	record, err := m.unfinished(name, options.Reference)
	if err != nil {
		return nil, err
	}
	result := &InitResult{Resumed: record != nil}
	if record == nil || !m.runsInstaller(ctx, record) {
		if record, err = m.beginInstall(ctx, options.Reference, keys); err != nil {
			if interrupted(ctx, err) {
				return nil, &LeftRunning{Err: err, Now: fmt.Sprintf("No installation of %s runs now; start it again with: devbox-cli init %s", name, options.Reference)}
			}
			return nil, err
		}
	} else {
		m.Reporter.Note(fmt.Sprintf("the installation of %s still runs; going on with it", name))
	}
	if err := m.finishInstall(ctx, record); err != nil {
		if interrupted(ctx, err) {
			return nil, &LeftRunning{Err: err, Now: fmt.Sprintf("The installation of %s goes on in the VM; go on watching it with: devbox-cli init %s; end it with: devbox-cli rm %s", name, options.Reference, name)}
		}
		return nil, err
	}
	if _, err := m.Start(ctx, name, StartOptions{}); err != nil {
		return nil, err
	}
	if result.Record, err = m.Load(name); err != nil {
		return nil, err
	}
	m.Reporter.Phase(progress.Ready)
	result.Endpoint, err = m.WaitSSH(ctx, name, result.Record.Login, options.Timeout)
	if interrupted(ctx, err) {
		return nil, &LeftRunning{Err: err, Now: fmt.Sprintf("VM %s is installed and starts; devbox-cli ssh %s logs in", name, name)}
	}
	return result, err
}

// unfinished is the record of an installation that did not end well, nil where
// there is no VM yet.
func (m *Manager) unfinished(name string, reference Reference) (*Record, error) {
	record, err := m.Load(name)
	var unknown *Unknown
	if errors.As(err, &unknown) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if record.Install == nil || record.Install.State == Installed {
		return nil, &AlreadyInstalled{Name: name, Reference: reference, What: describe(record)}
	}
	return record, nil
}

// AlreadyInstalled says that there is a VM of that name, and no installation to go on
// with.
type AlreadyInstalled struct {
	Name      string
	Reference Reference
	What      string
}

func (i *AlreadyInstalled) Error() string {
	return fmt.Sprintf("VM %s is there already (%s); bring it up to date with: devbox-cli update %s, or install it anew after: devbox-cli rm %s", i.Name, i.What, i.Reference, i.Name)
}

// runsInstaller says whether an installation is under way.
func (m *Manager) runsInstaller(ctx context.Context, record *Record) bool {
	if record.Install.State != Installing {
		return false
	}
	_, chosen, err := m.open(record.Name)
	if err != nil {
		return false
	}
	state, err := chosen.State(ctx, m.vm(record))
	if err != nil {
		return false
	}
	if state.Status == hypervisor.Running {
		return true
	}
	// It may have ended since.
	events, err := seed.ReadReport(m.Files(record.Name).Seed())
	return err == nil && seed.Verdict(events) != nil
}

// beginInstall builds the ISO, makes the VM where there is none, and boots it
// from the ISO.
func (m *Manager) beginInstall(ctx context.Context, reference Reference, contents seed.Contents) (*Record, error) {
	name := reference.Host
	found, err := m.evaluate(ctx, reference)
	if err != nil {
		return nil, err
	}
	if found.Installer == "" {
		return nil, &NoDevbox{Reference: reference, Missing: "system.build.devboxInstaller"}
	}
	wanted := found.Devbox
	chosen, err := m.hypervisor(wanted.Hypervisor)
	if err != nil {
		return nil, err
	}
	if err := chosen.Check(ctx, found.System); err != nil {
		return nil, err
	}
	contents.Settings = seed.Settings{
		Version: seed.Version, Mode: wanted.Mode, Disk: wanted.Disk, Login: wanted.Login, HostName: found.Name,
		Substituters: wanted.Substituters, TrustedPublicKeys: wanted.TrustedPublicKeys,
	}
	if err := contents.Settings.Validate(); err != nil {
		return nil, fmt.Errorf("the options devbox.* of %s will not do: %w", reference, err)
	}
	create := CreateOptions{Name: name, Hypervisor: wanted.Hypervisor, System: found.System, DiskGB: wanted.DiskGB, Nested: wanted.Nested}
	if wanted.MemoryMB != nil {
		create.MemoryMB = *wanted.MemoryMB
	}
	if wanted.CPUs != nil {
		create.CPUs = *wanted.CPUs
	}
	if err := checkSizes(create.DiskGB, create.MemoryMB, create.CPUs); err != nil {
		return nil, fmt.Errorf("the options devbox.vm.* of %s will not do: %w", reference, err)
	}
	image, err := m.buildInstaller(ctx, name, found)
	if err != nil {
		return nil, err
	}
	return m.bootInstaller(ctx, reference, create, contents, image)
}

func (m *Manager) buildInstaller(ctx context.Context, name string, found *host) (string, error) {
	m.Reporter.Phase(progress.Build)
	own := nix.Own{Runner: m.Runner, Substituters: found.Devbox.Substituters, TrustedPublicKeys: found.Devbox.TrustedPublicKeys}
	built, err := own.Build(ctx, found.Installer, nix.BuildOptions{GCRoot: m.Installer(name), Log: m.BuildLog(name), Progress: nix.Report(m.Reporter)})
	if err != nil {
		return "", err
	}
	image, err := ISO(built)
	if err != nil {
		return "", err
	}
	return inStore(image)
}

// inStore is the image that a build made, without symbolic links. What a flake
// builds must not bring other files of this machine into its VM.
func inStore(image string) (string, error) {
	resolved, err := filepath.EvalSymlinks(image)
	if err != nil {
		return "", &NoISO{Path: image, Reason: err.Error()}
	}
	const store = "/nix/store/"
	if !strings.HasPrefix(resolved, store) {
		return "", &NoISO{Path: image, Reason: "it is a link to " + resolved + ", which Nix has not built"}
	}
	return resolved, nil
}

// bootInstaller makes the VM and its seed disk and boots it, under its lock.
func (m *Manager) bootInstaller(ctx context.Context, reference Reference, create CreateOptions, contents seed.Contents, image string) (*Record, error) {
	name := reference.Host
	unlock, err := m.lock(ctx, name, "init")
	if err != nil {
		return nil, err
	}
	defer unlock()
	// Another init may have been faster.
	record, err := m.unfinished(name, reference)
	if err != nil {
		return nil, err
	}
	m.Reporter.Phase("making the VM")
	install := &Install{State: Installing, Mode: contents.Settings.Mode, At: m.Now().UTC()}
	complete := func(record *Record) {
		record.Flake, record.Host, record.Login = reference.Flake, reference.Host, contents.Settings.Login
		record.Install = install
	}
	if record != nil {
		record, err = m.adapt(ctx, record, create)
	}
	switch {
	case err != nil:
	case record == nil:
		record, err = m.create(ctx, create, complete)
	default:
		// Nobody but the installer has written to its disk.
		contents.Settings.Overwrite = true
		complete(record)
		err = m.save(record)
	}
	if err != nil {
		return nil, err
	}
	own, err := m.ownKey(name)
	if err != nil {
		return nil, err
	}
	contents.AuthorizedKeys = append([]string{own}, contents.AuthorizedKeys...)
	_, chosen, err := m.open(name)
	if err != nil {
		return nil, err
	}
	state, err := chosen.State(ctx, m.vm(record))
	if err != nil {
		return nil, err
	}
	if state.Status == hypervisor.Running {
		return record, nil
	}
	seedImage := m.Files(name).Seed()
	if err := seed.Create(seedImage, contents); err != nil {
		return nil, err
	}
	m.Reporter.Phase(bootPhase)
	_, err = m.start(ctx, record, chosen, hypervisor.StartOptions{Nested: record.Nested, ISO: image, Seed: seedImage})
	return record, err
}

// adapt gives a VM whose installation did not end well what its flake says now;
// its disk only grows. The result is nil where that needs a new VM: the old one
// is gone then, and with it nothing but what the installer has written.
func (m *Manager) adapt(ctx context.Context, record *Record, wanted CreateOptions) (*Record, error) {
	_, chosen, err := m.open(record.Name)
	if err != nil {
		return nil, err
	}
	state, err := chosen.State(ctx, m.vm(record))
	if err != nil || state.Status == hypervisor.Running {
		// Another init was faster, and it runs as that one has made it.
		return record, err
	}
	resizer, resizes := chosen.(hypervisor.Resizer)
	if state.Status == hypervisor.Missing || record.Hypervisor != wanted.Hypervisor || record.System != wanted.System || !resizes {
		return nil, m.erase(ctx, record, chosen)
	}
	if state.Status == hypervisor.Failed {
		if _, err := chosen.Stop(ctx, m.vm(record), 0); err != nil {
			return nil, err
		}
	}
	changed := *record
	changed.CPUs, changed.MemoryMB, changed.Nested = wanted.CPUs, wanted.MemoryMB, wanted.Nested
	changed.DiskGB = max(record.DiskGB, wanted.DiskGB)
	if changed == *record {
		return record, nil
	}
	return &changed, resizer.Resize(ctx, m.vm(&changed))
}

// finishInstall waits for the installer's verdict, and writes down what came
// of it.
func (m *Manager) finishInstall(ctx context.Context, record *Record) error {
	_, chosen, err := m.open(record.Name)
	if err != nil {
		return err
	}
	events, err := m.followInstaller(ctx, record, chosen)
	if err != nil {
		return err
	}
	judged := m.judge(record, events)
	unlock, err := m.lock(ctx, record.Name, "init")
	if err != nil {
		return err
	}
	defer unlock()
	// rm may have been faster.
	if record, err = m.Load(record.Name); err != nil {
		return err
	}
	if err := m.keepReport(record.Name, events); err != nil {
		return err
	}
	if judged != nil {
		record.Install.State, record.Install.Message = Failed, judged.Error()
		return errors.Join(judged, m.save(record))
	}
	if err := m.pin(record.Name, seed.HostKeys(events)); err != nil {
		return err
	}
	record.Install.State, record.Install.Message, record.Install.At = Installed, "", m.Now().UTC()
	if err := m.save(record); err != nil {
		return err
	}
	// The user's private key was on it.
	if err := os.Remove(m.Files(record.Name).Seed()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return removeLink(m.Installer(record.Name))
}

// keepReport keeps the report when the seed disk is gone.
func (m *Manager) keepReport(name string, events []seed.Event) error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	for _, event := range events {
		if err := encoder.Encode(event); err != nil {
			return err
		}
	}
	return renameio.WriteFile(m.Report(name), text.Bytes(), 0o600)
}
