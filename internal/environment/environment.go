// Package environment reads an environment of a project: environments/NAME/
// with environment.cfg, provision.nix, provision.sh and hostmap.json, as batou
// reads them (batou's manual, "Environments").
package environment

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"

	"devhost/internal/names"
)

// DefaultServiceUser is who owns the application in a container.
const DefaultServiceUser = "s-dev"

// largestFile bounds a file that is read as a whole, in bytes.
const largestFile = 1 << 20

// Files of an environment and of its project.
const (
	folderName   = "environments"
	configName   = "environment.cfg"
	moduleName   = "provision.nix"
	scriptName   = "provision.sh"
	hostmapName  = "hostmap.json"
	privateName  = ".devhost"
	batouKeyName = "insecure-private.key"
)

// Environment is one environment of a project.
type Environment struct {
	Name string
	// Root is the project's folder, Folder environments/NAME in it, File the
	// environment.cfg. All are absolute.
	Root, Folder, File string
	// ServiceUser is who owns the application in the containers.
	ServiceUser string
	// SecretsCommand is a shell command that prints secrets, "" for none.
	SecretsCommand string
	// Hosts are those to provision, in the order of the file.
	Hosts []*Host
	// Components are the overrides: component -> attribute -> value.
	Components map[string]map[string]string
	Sync       Sync
	// Warnings are doubts about environment.cfg, each with its line.
	Warnings []string

	// hostmap is what is kept in hostmap.json.
	hostmap map[string]string
}

// Provisioner says where containers come from.
type Provisioner struct {
	Name string
	// Host is the dev host, as ssh takes it: [USER@]HOST.
	Host string
	// Channel is where NixOS comes from, "" for what the dev host decides.
	Channel string
}

// Address is the dev host's name without the login.
func (p *Provisioner) Address() string {
	return p.Host[strings.LastIndexByte(p.Host, '@')+1:]
}

// Host is one host of an environment: a container on a dev host.
type Host struct {
	// Key is X of [host:X], Line the section's line.
	Key  string
	Line int
	// Dynamic says that the container has a random name.
	Dynamic bool
	// Name is the container's name, "" as long as none was picked.
	Name        string
	Aliases     []string
	Provisioner *Provisioner
	// ServiceUser replaces that of the environment, where the host has its own.
	ServiceUser string
}

// FQDN is the name by which an alias of the host is reached from outside.
func (h *Host) FQDN(alias string) string {
	return alias + "." + h.Name + "." + h.Provisioner.Address()
}

// Sync is what the section [sync] says.
type Sync struct {
	Folders []SyncFolder
	// Exclude are lines of gitignore(5), relative to each source.
	Exclude []string
	// Host is the key of the host that folders without one go to, "" for the
	// only one.
	Host string
}

// SyncFolder is a folder to sync.
type SyncFolder struct {
	// Source is absolute and keeps a slash at its end, Target is a folder in the
	// container.
	Source, Target string
	Line           int
}

// FindRoot is the project around a folder: the nearest that has environments/.
func FindRoot(folder string) (string, error) {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return "", err
	}
	for at := folder; ; at = filepath.Dir(at) {
		if info, err := os.Stat(filepath.Join(at, folderName)); err == nil && info.IsDir() {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", &NoProject{Folder: folder}
		}
	}
}

// List names the environments of a project.
func List(root string) []string {
	files, _ := filepath.Glob(filepath.Join(GlobQuote(root), folderName, "*", configName))
	var found []string
	for _, file := range files {
		found = append(found, filepath.Base(filepath.Dir(file)))
	}
	sort.Strings(found)
	return found
}

// GlobQuote makes a path a pattern that matches nothing else.
func GlobQuote(path string) string {
	return regexp.MustCompile(`[*?\[\\]`).ReplaceAllString(path, `\$0`)
}

var (
	environmentName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
	loginName       = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,30}$`)
	sshDestination  = regexp.MustCompile(`^([A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	channelForm     = regexp.MustCompile(`^[^\s-][^\s[:cntrl:]]*$`)
	variablePart    = regexp.MustCompile(`[^A-Za-z0-9_]`)
)

// destinationProblem says what is wrong with the name of a dev host, "" for
// nothing. ssh's ProxyJump and URLs are made of it, so it is a name or an IPv4
// address alone.
func destinationProblem(host string) string {
	switch {
	case sshDestination.MatchString(host):
		return ""
	case sshDestination.MatchString(strings.NewReplacer(":", "", "[", "", "]", "").Replace(host)):
		return fmt.Sprintf("the host %s has a port, or is an IPv6 address; give it a name in your ~/.ssh/config (Host, HostName and Port), and write that name", shown(host))
	}
	return fmt.Sprintf("the host %s is no name that ssh can take; a dev host such as dev.example.org was expected", shown(host))
}

// Load reads an environment. The error is *Missing, or *Invalid with all that
// is wrong with environment.cfg or hostmap.json.
func Load(root, name string) (*Environment, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	if !environmentName.MatchString(name) {
		return nil, &BadName{Name: name}
	}
	e := &Environment{Name: name, Root: root, Folder: filepath.Join(root, folderName, name), ServiceUser: DefaultServiceUser, Components: map[string]map[string]string{}}
	e.File = filepath.Join(e.Folder, configName)
	data, err := readFile(e.File)
	if errors.Is(err, fs.ErrNotExist) {
		known := List(root)
		return nil, &Missing{Name: name, Path: e.shown(e.File), Known: known, Meant: names.Closest(name, known)}
	}
	if err != nil {
		return nil, &Invalid{Path: e.shown(e.File), Problems: []Problem{{Text: "it cannot be read: " + reason(err)}}}
	}
	parsed, problems := readINI(data)
	reader := &reader{Environment: e, file: parsed, problems: problems}
	reader.read()
	if len(reader.problems) > 0 {
		slices.SortStableFunc(reader.problems, func(a, b Problem) int { return a.Line - b.Line })
		return nil, &Invalid{Path: e.shown(e.File), Problems: reader.problems}
	}
	if err := e.readHostmap(); err != nil {
		return nil, err
	}
	return e, nil
}

// readFile reads a file of a project, which may be anything: no more than
// largestFile, and no device.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	switch {
	case info.IsDir():
		return nil, errors.New("it is a folder")
	case !info.Mode().IsRegular():
		return nil, errors.New("it is no file")
	case info.Size() > largestFile:
		return nil, fmt.Errorf("it has more than %d KiB", largestFile>>10)
	}
	return os.ReadFile(path)
}

// reason is an error about a file that is named already.
func reason(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	return err.Error()
}

// shown is a path as messages have it: relative to the project.
func (e *Environment) shown(path string) string {
	if relative, err := filepath.Rel(e.Root, path); err == nil && filepath.IsLocal(relative) {
		return relative
	}
	return path
}

// Module is the path of provision.nix, Script that of provision.sh; neither
// needs to be there.
func (e *Environment) Module() string { return filepath.Join(e.Folder, moduleName) }

// Script is the path of provision.sh.
func (e *Environment) Script() string { return filepath.Join(e.Folder, scriptName) }

// ShownScript is provision.sh as messages have it.
func (e *Environment) ShownScript() string { return e.shown(e.Script()) }

// SSHConfig is the path of the ssh_config of all hosts.
func (e *Environment) SSHConfig() string { return filepath.Join(e.Root, "ssh_config_"+e.Name) }

// Private is the folder for keys.
func (e *Environment) Private() string { return filepath.Join(e.Root, privateName, e.Name) }

// BatouKey is where batou puts its published private key.
func (e *Environment) BatouKey() string { return filepath.Join(e.Root, batouKeyName) }

// Shown is a path of the project as messages have it.
func (e *Environment) Shown(path string) string { return e.shown(path) }

// ServiceUserOf is who owns the application on a host.
func (e *Environment) ServiceUserOf(host *Host) string {
	if host.ServiceUser != "" {
		return host.ServiceUser
	}
	return e.ServiceUser
}

// isDevHost tells whether ssh knows a dev host of the environment by a word.
func (e *Environment) isDevHost(word string) bool {
	return slices.ContainsFunc(e.Hosts, func(host *Host) bool { return host.Provisioner != nil && host.Provisioner.Address() == word })
}

// Words are the names that ssh_config has for a host: its container, its key, and
// the aliases that mean nothing else in the environment.
func (e *Environment) Words(host *Host) []string {
	words := []string{host.Name}
	if host.Key != host.Name {
		words = append(words, host.Key)
	}
	for _, alias := range host.Aliases {
		if !e.isDevHost(alias) && !slices.ContainsFunc(e.Hosts, func(other *Host) bool {
			return other.Key == alias || other.Name == alias || other != host && slices.Contains(other.Aliases, alias)
		}) {
			words = append(words, alias)
		}
	}
	return words
}

// Host is a host by its key or its container's name; "" is the only one. The error
// is *NoHost.
func (e *Environment) Host(word string) (*Host, error) {
	keys := make([]string, len(e.Hosts))
	for i, host := range e.Hosts {
		keys[i] = host.Key
		if word != "" && (host.Key == word || host.Name == word) {
			return host, nil
		}
	}
	switch {
	case word == "" && len(e.Hosts) == 1:
		return e.Hosts[0], nil
	case word == "":
		return nil, &NoHost{Text: fmt.Sprintf("environment %s has several hosts: say which: %s", e.Name, strings.Join(keys, ", "))}
	}
	text := fmt.Sprintf("environment %s has no host %q", e.Name, word)
	if meant := names.Closest(word, keys); meant != "" {
		return nil, &NoHost{Text: fmt.Sprintf("%s; did you mean %q?", text, meant)}
	}
	return nil, &NoHost{Text: fmt.Sprintf("%s; there are: %s", text, strings.Join(keys, ", "))}
}

// Variable is the name of the variable with a component's attribute: what a
// shell does not take in a name becomes _.
func Variable(component, attribute string) string {
	name := "COMPONENT_" + component + "_" + attribute
	return strings.ToUpper(variablePart.ReplaceAllString(name, "_"))
}
