package deploy

import (
	"encoding/json"
	"os"
	"time"
)

// State is what a checkout remembers of an environment: state.json beside the
// keys. It can be lost: the next deploy writes it again.
type State struct {
	Version int `json:"version"`
	// Hosts are by the container's name.
	Hosts map[string]*HostState `json:"hosts"`
}

// HostState is what the last deploy said of a container.
type HostState struct {
	// DevHost is where it is, as the environment named it then.
	DevHost string `json:"devHost"`
	// Domains are those below which the dev host serves it.
	Domains []string `json:"domains,omitempty"`
	// HostKey is its pinned host key, Port that of its sshd.
	HostKey string `json:"hostKey,omitempty"`
	Port    uint16 `json:"port,omitempty"`
	// Batou says that it was made by fc-build-dev-container on a host without
	// devhost: there is no key of its own.
	Batou    bool      `json:"batou,omitempty"`
	Deployed time.Time `json:"deployed"`
	// ExpiresStop and ExpiresDelete are as devhost said them.
	ExpiresStop   *time.Time `json:"expiresStop,omitempty"`
	ExpiresDelete *time.Time `json:"expiresDelete,omitempty"`
}

const stateVersion = 1

// loadState reads the state; what cannot be used counts as none.
func loadState(f files) *State {
	state := &State{}
	data, err := os.ReadFile(f.state())
	if err != nil || json.Unmarshal(data, state) != nil || state.Version != stateVersion {
		state = &State{}
	}
	state.Version = stateVersion
	if state.Hosts == nil {
		state.Hosts = map[string]*HostState{}
	}
	return state
}

func (s *State) save(f files) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return writePrivate(f.state(), string(text)+"\n")
}

// access is what ssh needs of each container.
func (s *State) access() map[string]Access {
	access := map[string]Access{}
	for name, host := range s.Hosts {
		access[name] = Access{HostKey: host.HostKey, Port: host.Port, Batou: host.Batou}
	}
	return access
}
