// Package fcmanage is fc-manage: it builds a container's system inside of that
// container, from the channel that the host pinned and the modules below
// /etc/local/nixos, and switches to it.
package fcmanage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"devhost/internal/nix"
)

// EncPath is the file by which the host tells a container where its NixOS comes
// from, relative to the container's root folder.
const EncPath = "etc/nixos/enc.json"

// encVersion is the version of the part of the file that is ours.
const encVersion = 1

// mostEnc bounds the file, in bytes.
const mostEnc = 1 << 20

// Enc is the content of EncPath. The keys of Parameters are those of Flying
// Circus' platform.
type Enc struct {
	Parameters Parameters `json:"parameters"`
	Devhost    Pinned     `json:"devhost"`
}

// Parameters are what the platform's own tools read.
type Parameters struct {
	// EnvironmentURL is the channel as the person named it.
	EnvironmentURL string `json:"environment_url"`
	// Environment is always "container".
	Environment string `json:"environment"`
}

// Pinned is what the host made of the channel: its file: URLs and folders do not
// exist inside.
type Pinned struct {
	Version int `json:"version"`
	// Reference is the channel that Channel was made of.
	Reference string `json:"reference"`
	// Channel and GuestModule are store paths.
	Channel     string `json:"channel"`
	GuestModule string `json:"guestModule"`
	// NixFolder holds the host's Nix programs, where they lie in the store.
	NixFolder string `json:"nixFolder,omitempty"`
}

// NewEnc is the file for a pinned channel. nixFolder may be "".
func NewEnc(reference, channel, guestModule, nixFolder string) Enc {
	return Enc{
		Parameters: Parameters{EnvironmentURL: reference, Environment: "container"},
		Devhost:    Pinned{Version: encVersion, Reference: reference, Channel: channel, GuestModule: guestModule, NixFolder: nixFolder},
	}
}

// BadEnc says why the file does not tell which system to build.
type BadEnc struct {
	Path, Reason, Next string
	Err                error
}

func (b *BadEnc) Error() string { return b.Path + ": " + b.Reason + "; " + b.Next }
func (b *BadEnc) Unwrap() error { return b.Err }

// readEnc reads and checks the file. The error is *BadEnc.
func readEnc(path string) (Enc, error) {
	const again = "on the host, run what made the container again, such as: sudo fc-build-dev-container ensure NAME URL ''"
	var enc Enc
	data, err := readBounded(path, mostEnc)
	if errors.Is(err, fs.ErrNotExist) {
		return enc, &BadEnc{Path: path, Reason: "it does not exist, so the host decides about this container's system", Next: "on the host, run: devhost ensure NAME --provision FOLDER", Err: err}
	}
	if err != nil {
		return enc, &BadEnc{Path: path, Reason: err.Error(), Next: again, Err: err}
	}
	if err := json.Unmarshal(data, &enc); err != nil {
		return enc, &BadEnc{Path: path, Reason: err.Error(), Next: again, Err: err}
	}
	switch {
	case enc.Devhost.Version != encVersion:
		return enc, &BadEnc{Path: path, Reason: fmt.Sprintf("its part \"devhost\" has version %d, this fc-manage reads version %d", enc.Devhost.Version, encVersion), Next: again}
	case enc.Parameters.EnvironmentURL != enc.Devhost.Reference:
		return enc, &BadEnc{
			Path: path, Reason: fmt.Sprintf("the channel %s is not the one that the host pinned (%s)", enc.Parameters.EnvironmentURL, enc.Devhost.Reference),
			Next: "name it on the host: sudo fc-build-dev-container ensure NAME " + enc.Parameters.EnvironmentURL + " ''",
		}
	}
	for _, path := range []string{enc.Devhost.Channel, enc.Devhost.GuestModule} {
		err := nix.CheckStorePath(path)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			return enc, &BadEnc{Path: EncPath, Reason: err.Error(), Next: again, Err: err}
		}
	}
	return enc, nil
}

func readBounded(path string, most int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("it is larger than %d bytes", most)
	}
	return data, err
}
