package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"devhost/internal/channel"
	"devhost/internal/names"
	"devhost/internal/nix"
	"devhost/internal/sshaccess"
)

// Declarations are the containers that the host's configuration wants, in a
// file of their own: one versioned JSON object, read as strictly as the
// settings.
type Declarations struct {
	Version    int           `json:"version"`
	Containers []Declaration `json:"containers"`
}

// Declaration says what one container shall be. A nil field stands for a
// missing one.
type Declaration struct {
	Name string `json:"name"`
	// Channel is where its NixOS comes from, as --channel takes it; in its place,
	// System is the store path of a system that the host has built.
	Channel string `json:"channel"`
	System  string `json:"system"`
	// Provision is the absolute path of a folder or a file, "" for none.
	Provision string `json:"provision"`
	// AutoStart, true when missing, starts it when it is made, and with the host.
	AutoStart *bool `json:"autoStart"`
	// Ephemeral empties its root folder at each start.
	Ephemeral bool `json:"ephemeral"`
	// Expiry lets it be stopped and deleted when nobody uses it.
	Expiry  bool     `json:"expiry"`
	Aliases []string `json:"aliases"`
	// Network is NetworkPrivate, which a missing one is too, or NetworkHost.
	Network        string         `json:"network"`
	Environment    string         `json:"environment"`
	AuthorizedKeys []string       `json:"authorizedKeys"`
	Nesting        bool           `json:"nesting"`
	ForwardPorts   []DeclaredPort `json:"forwardPorts"`
	BindMounts     []BindMount    `json:"bindMounts"`
	// Limits that are missing are those of a new container.
	Limits DeclaredLimits `json:"limits"`
}

// The networks that a declared container can have.
const (
	// NetworkPrivate is one of its own, behind the host's packet filter.
	NetworkPrivate = "private"
	// NetworkHost is the host's own.
	NetworkHost = "host"
)

// OnHost says whether it has the host's network.
func (d Declaration) OnHost() bool { return d.Network == NetworkHost }

// DeclaredPort is a port of the host that leads to one of the container.
type DeclaredPort struct {
	Protocol  string `json:"protocol"`
	HostPort  uint16 `json:"hostPort"`
	GuestPort uint16 `json:"guestPort"`
}

// BindMount is a folder of the host that a container sees.
type BindMount struct {
	GuestPath string `json:"guestPath"`
	HostPath  string `json:"hostPath"`
	// IsReadOnly, true when missing, keeps the container from writing there.
	IsReadOnly *bool `json:"isReadOnly"`
	// Owner is the uid of the guest's user that what belongs to the folder's owner
	// on the host belongs to inside, 0 for nobody.
	Owner int `json:"owner"`
}

// ReadOnly says whether the container may only read there.
func (b BindMount) ReadOnly() bool { return b.IsReadOnly == nil || *b.IsReadOnly }

// DeclaredLimits are Limits of which each may be missing.
type DeclaredLimits struct {
	Memory   *Bytes   `json:"memory"`
	CPUs     *float64 `json:"cpus"`
	Tasks    *int64   `json:"tasks"`
	IOWeight *int64   `json:"ioWeight"`
	Disk     *Bytes   `json:"disk"`
}

// Over puts what is declared over what holds otherwise.
func (d DeclaredLimits) Over(limits Limits) Limits {
	replace(&limits.Memory, d.Memory)
	replace(&limits.CPUs, d.CPUs)
	replace(&limits.Tasks, d.Tasks)
	replace(&limits.IOWeight, d.IOWeight)
	replace(&limits.Disk, d.Disk)
	return limits
}

func replace[T any](value, by *T) {
	if by != nil {
		*value = *by
	}
}

// Exceeding are those that are over a maximum. A limit of zero is none, which is
// more than any; but a weight of zero is the usual one.
func (d DeclaredLimits) Exceeding(maximum Limits) []Excess {
	asked := d.Over(Limits{})
	none := map[string]bool{}
	for key, limit := range map[string]struct{ asked, value *int64 }{
		"memory": {(*int64)(d.Memory), (*int64)(&asked.Memory)},
		"tasks":  {d.Tasks, &asked.Tasks},
		"disk":   {(*int64)(d.Disk), (*int64)(&asked.Disk)},
	} {
		if none[key] = limit.asked != nil && *limit.asked == 0; none[key] {
			*limit.value = math.MaxInt64
		}
	}
	if none["cpus"] = d.CPUs != nil && *d.CPUs == 0; none["cpus"] {
		asked.CPUs = math.Inf(1)
	}
	over := Exceeded(asked, maximum)
	for i := range over {
		if none[over[i].Key] {
			over[i].Value = "no limit"
		}
	}
	return over
}

// Starts says whether it is started when it is made, and with the host.
func (d Declaration) Starts() bool { return d.AutoStart == nil || *d.AutoStart }

// InvalidDeclarations says that the file of declarations cannot be used.
type InvalidDeclarations struct {
	Path     string
	Problems []Problem
}

func (i *InvalidDeclarations) Error() string {
	lines := []string{"the declared containers of this host cannot be used, and none was changed:"}
	for _, problem := range i.Problems {
		lines = append(lines, "  "+i.Path+":"+problem.String())
	}
	return strings.Join(append(lines, "Correct the file, and check it with: devhost host check --containers "+i.Path), "\n")
}

// LoadDeclarations reads the file with the containers of a host. The error is
// *InvalidDeclarations, *Untrusted or that of the file system.
func LoadDeclarations(path string) (Declarations, error) {
	text, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Declarations{}, fmt.Errorf("there are no declared containers: %w", err)
	}
	if err != nil {
		return Declarations{}, err
	}
	declared, problems := ParseDeclarations(text, nil)
	if len(problems) > 0 {
		return Declarations{}, &InvalidDeclarations{Path: path, Problems: problems}
	}
	return declared, nil
}

// ParseDeclarations reads the text of such a file. With the settings of a host,
// what those refuse is a problem too. Problems come in the order of their lines.
func ParseDeclarations(text []byte, host *Settings) (Declarations, []Problem) {
	var declared Declarations
	if len(text) > largest {
		return declared, []Problem{{Line: 1, Column: 1, Reason: fmt.Sprintf("it is larger than %d bytes", largest)}}
	}
	d := decode(text, &declared)
	if _, versioned := d.offsets["version"]; !versioned && len(d.problems) == 0 {
		d.report(0, "version", "it is missing")
	} else if declared.Version != Version && len(d.problems) == 0 {
		d.report(d.offsets["version"], "version", fmt.Sprintf("it has version %d, this devhost reads version %d", declared.Version, Version))
	}
	if len(d.problems) == 0 {
		checker{d}.declarations(declared.Containers)
		if host != nil {
			checker{d}.allowed(declared.Containers, *host)
		}
	}
	sortProblems(d.problems)
	return declared, d.problems
}

func (c checker) declarations(containers []Declaration) {
	first := map[string]int{}
	ports := map[string]string{}
	for i, one := range containers {
		at := fmt.Sprintf("containers[%d]", i)
		if err := names.Container(one.Name); err != nil {
			c.at(at+".name", "%v", err)
		} else if before, twice := first[one.Name]; twice {
			c.at(at+".name", "containers[%d] has that name too", before)
		}
		first[one.Name] = i
		c.source(at, one)
		c.networkOf(at, one)
		each(at+".aliases", one.Aliases, func(path, alias string) {
			if err := names.Alias(alias); err != nil {
				c.at(path, "%v", err)
			} else if path != fmt.Sprintf("%s.aliases[%d]", at, slices.Index(one.Aliases, alias)) {
				c.at(path, "it is there twice")
			}
		})
		if one.Environment != "" {
			if err := names.Alias(one.Environment); err != nil {
				c.at(at+".environment", "%v", err)
			}
		}
		each(at+".authorizedKeys", one.AuthorizedKeys, func(path, key string) {
			if _, err := sshaccess.ParseKey(key); err != nil {
				c.at(path, "%v", err)
			}
		})
		for j, port := range one.ForwardPorts {
			path := fmt.Sprintf("%s.forwardPorts[%d]", at, j)
			host := fmt.Sprintf("%d/%s", port.HostPort, port.Protocol)
			switch {
			case port.Protocol != "tcp" && port.Protocol != "udp":
				c.at(path+".protocol", "%q is no protocol: it must be \"tcp\" or \"udp\"", port.Protocol)
			case port.HostPort == 0 || port.GuestPort == 0:
				c.at(path, "hostPort and guestPort must be 1 to 65535")
			case ports[host] != "":
				c.at(path, "port %s of the host is that of %s too", host, ports[host])
			}
			ports[host] = path
		}
		c.bindMounts(at+".bindMounts", one.BindMounts)
		c.limits(at+".limits", one.Limits.Over(Limits{}))
	}
}

// allowed checks that a host's settings let it have what it wants.
func (c checker) allowed(containers []Declaration, host Settings) {
	for i, one := range containers {
		at := fmt.Sprintf("containers[%d]", i)
		if one.Nesting && !host.AllowNesting {
			c.at(at+".nesting", "it is switched off by the settings of the host (allowNesting); leave it out, or switch it on there")
		}
		for j, port := range one.ForwardPorts {
			if reason := host.PortRefusal(port.Protocol, port.HostPort); reason != "" {
				c.at(fmt.Sprintf("%s.forwardPorts[%d].hostPort", at, j), "port %d of the host cannot lead to a container: %s", port.HostPort, reason)
			}
		}
		for _, over := range one.Limits.Exceeding(host.Maximum) {
			c.at(at+".limits."+over.Key, "it asks for %s, and the settings of the host let no container have more than %s (maximum.%s)", over.Value, over.Most, over.Key)
		}
	}
}

// networkOf checks which network it has, and that it wants nothing that the host's
// cannot give: the ingress and forwarded ports would lead to ports of the host.
func (c checker) networkOf(at string, one Declaration) {
	switch one.Network {
	case "", NetworkPrivate:
		return
	case NetworkHost:
	default:
		c.at(at+".network", "%q is no network: it must be %q or %q", one.Network, NetworkPrivate, NetworkHost)
		return
	}
	const remedy = "leave that out, or take the network \"private\""
	if len(one.Aliases) > 0 {
		c.at(at+".aliases", "with the host's network it has no port 443, and the ingress cannot serve it; %s", remedy)
	}
	if len(one.ForwardPorts) > 0 {
		c.at(at+".forwardPorts", "with the host's network its ports are the host's own already; %s", remedy)
	}
	if one.Nesting {
		c.at(at+".nesting", "container engines inside cannot make networks of their own in the host's; %s", remedy)
	}
}

// source checks where a declared container's system comes from.
func (c checker) source(at string, one Declaration) {
	switch {
	case one.Channel != "" && one.System != "":
		c.at(at+".system", "there is a channel too: leave one of them out")
	case one.Channel == "" && one.System == "":
		c.at(at, "it must have a channel, or a system")
	case one.Channel != "":
		parsed, err := channel.Parse(one.Channel)
		if err != nil {
			c.at(at+".channel", "%v", err)
		} else if parsed.Kind == channel.Folder && !path.IsAbs(one.Channel) {
			c.at(at+".channel", "a folder must be an absolute path")
		}
	case nix.CheckStorePath(one.System) != nil:
		c.at(at+".system", "%q is not the path of an object in the store", one.System)
	case one.Provision != "":
		c.at(at+".provision", "a system that is built already takes none: build it in")
	}
	if one.Provision != "" && !path.IsAbs(one.Provision) {
		c.at(at+".provision", "it must be an absolute path")
	}
}

// mostOwner is the largest uid that can own files of a bind mount: the next ones
// stand for nobody.
const mostOwner = 65533

// ownFolders are those in which a container's own mounts lie, or the files that
// it starts with.
var ownFolders = []string{"/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/nix", "/proc", "/run", "/sbin", "/sys", "/tmp", "/usr"}

func (c checker) bindMounts(at string, mounts []BindMount) {
	for i, mount := range mounts {
		path := fmt.Sprintf("%s[%d]", at, i)
		c.plainPath(path+".guestPath", mount.GuestPath)
		c.plainPath(path+".hostPath", mount.HostPath)
		for _, folder := range ownFolders {
			if within(mount.GuestPath, folder) {
				c.at(path+".guestPath", "%s is the container's own; take one below /srv, /var, /home or /mnt", folder)
			}
		}
		for j, other := range mounts[:i] {
			if within(mount.GuestPath, other.GuestPath) || within(other.GuestPath, mount.GuestPath) {
				c.at(path+".guestPath", "it and that of bindMounts[%d] are in one another", j)
			}
		}
		switch {
		case mount.Owner < 0 || mount.Owner > mostOwner:
			c.at(path+".owner", "it must be the uid of a user inside, 1 to %d, or 0 for none", mostOwner)
		case mount.Owner == 0 && !mount.ReadOnly():
			c.at(path, "nobody inside could write there; give the uid of a user inside as owner")
		}
	}
}

// plainPath checks a path that is handed on to others as it stands.
func (c checker) plainPath(at, text string) {
	switch {
	case !path.IsAbs(text) || path.Clean(text) != text || text == "/":
		c.at(at, "%q is not the absolute path of a folder below /", text)
	case strings.ContainsFunc(text, unicode.IsControl) || !utf8.ValidString(text):
		c.at(at, "it holds a character that does not belong into a path")
	}
}

func within(inner, outer string) bool {
	return inner == outer || strings.HasPrefix(inner, outer+"/")
}
