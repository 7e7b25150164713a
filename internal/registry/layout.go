// Package registry is what devhost keeps on disk: one folder a container with
// one versioned JSON file, its locks and its journal, and the names of all
// files. Nothing else in devhost builds a path below the state folder.
package registry

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
)

// DefaultStateDir is where state lives unless --state-dir says otherwise.
const DefaultStateDir = "/var/lib/devhost"

// Layout names every file of one state folder.
type Layout struct {
	// State is the absolute path of the state folder.
	State string
	// Etc replaces /etc, for tests.
	Etc string
}

// NewLayout makes the path absolute and clean.
func NewLayout(stateDir string) (Layout, error) {
	absolute, err := filepath.Abs(stateDir)
	if err != nil {
		return Layout{}, err
	}
	return Layout{State: absolute}, nil
}

// Instance is the short id that everything global which belongs to this state
// folder carries (bridge, nftables table, profiles, cgroups, published
// blocks), so that two state folders do not meet: 8 hex digits.
func (l Layout) Instance() string {
	sum := sha256.Sum256([]byte(l.State))
	return hex.EncodeToString(sum[:4])
}

// Containers holds one folder a container. It is 0700 and root's: guest root
// is uid 0 on disk, so a setuid file made inside must be out of reach.
func (l Layout) Containers() string { return filepath.Join(l.State, "containers") }

// Marker is the file that makes a folder a state folder.
func (l Layout) Marker() string { return filepath.Join(l.State, "devhost-state.json") }

// Published is where other programs find what they need to know of the
// containers, NAME.json and vm-configs/NAME.json each.
func (l Layout) Published() string {
	etc := cmp.Or(l.Etc, "/etc")
	if l.State == DefaultStateDir {
		return filepath.Join(etc, "devhost")
	}
	return filepath.Join(etc, "devhost-"+l.Instance())
}

// PublishedState is the file among what is published that holds the path of
// the state folder.
func (l Layout) PublishedState() string { return filepath.Join(l.Published(), "state-dir") }

// Settings is the file with the host's settings. It is not among what is
// published, where each file is named as a container.
func (l Layout) Settings() string {
	if l.State == DefaultStateDir {
		return filepath.Join(cmp.Or(l.Etc, "/etc"), "devhost-settings.json")
	}
	return filepath.Join(l.State, "settings.json")
}

// Declarations is the file with the containers that the host's configuration
// declares. Like the settings, it is not among what is published.
func (l Layout) Declarations() string {
	if l.State == DefaultStateDir {
		return filepath.Join(cmp.Or(l.Etc, "/etc"), "devhost-containers.json")
	}
	return filepath.Join(l.State, "containers.json")
}

// Archives holds what deleted containers were, for undelete.
func (l Layout) Archives() string { return filepath.Join(l.State, "archives") }

// Snapshots holds the snapshots of one container.
func (l Layout) Snapshots(name string) string { return filepath.Join(l.Container(name), "snapshots") }

// Programs holds the copies of devhost that containers see.
func (l Layout) Programs() string { return filepath.Join(l.State, "bin") }

// Audit is the log of who changed what, a line of JSON each.
func (l Layout) Audit() string { return filepath.Join(l.State, "audit.log") }

// Container is the folder of one container.
func (l Layout) Container(name string) string { return filepath.Join(l.Containers(), name) }

// Record is the container's versioned JSON file.
func (l Layout) Record(name string) string { return filepath.Join(l.Container(name), "container.json") }

// Journal says which change of the container is under way.
func (l Layout) Journal(name string) string { return filepath.Join(l.Container(name), "journal.json") }

// Root is the container's root folder.
func (l Layout) Root(name string) string { return filepath.Join(l.Container(name), "root") }

// Guest is the folder that is bound at /run/devhost inside, read-only.
func (l Layout) Guest(name string) string { return filepath.Join(l.Container(name), "guest") }

// Provision is the snapshot of the provision of the last ensure.
func (l Layout) Provision(name string) string { return filepath.Join(l.Container(name), "provision") }

// SSH holds the key pair, known_hosts and ssh_config of the host's side.
func (l Layout) SSH(name string) string { return filepath.Join(l.Container(name), "ssh") }

// Log is the console log of the container, rotated beside it.
func (l Layout) Log(name string) string {
	return filepath.Join(l.Container(name), "log", "console.log")
}

// SupervisorLog is what the supervisor itself has to say.
func (l Layout) SupervisorLog(name string) string {
	return filepath.Join(l.Container(name), "log", "supervisor.log")
}

// EvaluationLog holds all that Nix said in the last evaluation for a container.
// It outlives a first ensure that failed.
func (l Layout) EvaluationLog(name string) string {
	return filepath.Join(l.State, "logs", name+".evaluation.log")
}

// BuildLog holds the last build for a container.
func (l Layout) BuildLog(name string) string {
	return filepath.Join(l.State, "logs", name+".build.log")
}

// Lock is the lock file of a container's name. It lies outside of the
// container's folder, because it must outlive it.
func (l Layout) Lock(name string) string { return filepath.Join(l.State, "locks", name+".lock") }

// GlobalLock guards what all containers share: addresses, network, names.
func (l Layout) GlobalLock() string { return filepath.Join(l.State, "locks", ".global") }

// BuildLock serializes builds of the same inputs. There are 256 of these files
// for all inputs: who shares one by chance only waits a little.
func (l Layout) BuildLock(inputs string) string {
	sum := sha256.Sum256([]byte(inputs))
	return filepath.Join(l.State, "locks", ".build-"+hex.EncodeToString(sum[:1]))
}

// Network is the recorded network of this instance.
func (l Layout) Network() string { return filepath.Join(l.State, "network.json") }

// NetworkLock serializes changes of bridge and packet filter.
func (l Layout) NetworkLock() string { return filepath.Join(l.State, "locks", ".network") }

// Systems remembers which system came of which inputs.
func (l Layout) Systems() string { return filepath.Join(l.State, "systems") }

// Pins remembers what channels in folders resolved to.
func (l Layout) Pins() string { return filepath.Join(l.State, "pins") }

// Daemon holds the record of a Nix daemon that devhost started.
func (l Layout) Daemon() string { return filepath.Join(l.State, "nix-daemon") }

// Temporary holds what is being made; it is emptied by repair.
func (l Layout) Temporary() string { return filepath.Join(l.State, "tmp") }

// Runtime holds what only lives while containers run (pids, sockets).
func (l Layout) Runtime() string { return filepath.Join("/run/devhost-host", l.Instance()) }

// RuntimeRecord is the supervisor's record of a running container.
func (l Layout) RuntimeRecord(name string) string { return filepath.Join(l.Runtime(), name+".json") }

// Profiles holds the Nix profiles of this instance, one folder a container.
func (l Layout) Profiles() string {
	if l.State == DefaultStateDir {
		return "/nix/var/nix/profiles/devhost"
	}
	return "/nix/var/nix/profiles/devhost-" + l.Instance()
}

// ProfileFolder is the folder of one container's profile: generations are
// links beside the profile, and those of "demo" could be named as another
// container, "demo-1-link".
func (l Layout) ProfileFolder(name string) string { return filepath.Join(l.Profiles(), name) }

// Profile is the Nix profile whose generations are the container's systems.
func (l Layout) Profile(name string) string { return filepath.Join(l.ProfileFolder(name), "system") }

// GCRoots holds this instance's garbage collector roots.
func (l Layout) GCRoots() string {
	return filepath.Join("/nix/var/nix/gcroots", "devhost-"+l.Instance())
}

// Ingress is the state folder of the ingress (CA, certificates).
func (l Layout) Ingress() string { return filepath.Join(l.State, "ingress") }
