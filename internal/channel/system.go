package channel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"devhost/internal/nix"
	"devhost/internal/progress"
	"devhost/internal/registry"
)

// Names on the search path of the evaluation.
const (
	searchNixpkgs   = "nixpkgs"
	searchGuest     = "devhost-guest"
	searchProvision = "devhost-provision"
)

// hostUsrMarker at the root of a channel's nixpkgs says that its builders and
// its systems use the host's own /usr.
const hostUsrMarker = "host-usr"

// Expression is the Nix expression that yields the derivation of a system.
// provisionModule is the module's path within the provision, "" for none.
// Everything else comes by the search path.
func Expression(shape Shape, provisionModule string) string {
	var modules []string
	if provisionModule != "" {
		modules = append(modules, "<"+searchProvision+"/"+provisionModule+">")
	}
	return expression(shape, modules)
}

// GuestExpression is the same, for a system that a guest builds for itself:
// files are the absolute paths of the modules beside the guest module.
func GuestExpression(shape Shape, files []string) string {
	modules := make([]string, 0, len(files))
	for _, file := range files {
		modules = append(modules, "(/. + "+nixString(file)+")")
	}
	return expression(shape, modules)
}

// nixString writes a text as a string of the Nix language.
func nixString(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "${", `\${`, "\n", `\n`, "\r", `\r`).Replace(text) + `"`
}

func expression(shape Shape, more []string) string {
	guest, settings := "<"+searchGuest+">", ""
	if shape == ShapeFlyingCircus {
		guest = "<" + searchGuest + "/flyingcircus.nix>"
		// The platform reads this from a file of the machine, with priority
		// 900, and needs a name in it; the container's own comes with its
		// start. The provision can still say something else.
		settings = `
    flyingcircus.enc = lib.mkOverride 890 { name = "container"; };`
	}
	modules := strings.Join(append([]string{guest}, more...), " ")
	return `(import <nixpkgs/nixos> {
  configuration = { lib, ... }: {
    imports = [ ` + modules + ` ];` + settings + `
  };
}).system`
}

// SearchPath is what the evaluation may read, and by which names.
// provisionPath may be "".
func SearchPath(shape Shape, channelPath, guestPath, provisionPath string) []nix.SearchEntry {
	entries := []nix.SearchEntry{{Name: searchNixpkgs, Path: channelPath}}
	if shape == ShapeFlyingCircus {
		entries = []nix.SearchEntry{{Path: channelPath}}
	}
	entries = append(entries, nix.SearchEntry{Name: searchGuest, Path: guestPath})
	if provisionPath != "" {
		entries = append(entries, nix.SearchEntry{Name: searchProvision, Path: provisionPath})
	}
	return entries
}

// BuildInputsHash is the hash over all that a system is built from: equal
// hashes mean equal systems. The hashes of the provision ("" for none) and of
// the guest module are those of their content.
func BuildInputsHash(pin registry.Pin, provisionHash, guestHash string) string {
	// The expressions are inputs too: with another devhost they may differ.
	expressions := Expression(ShapeNixpkgs, "provision.nix") + Expression(ShapeFlyingCircus, "provision.nix")
	text, err := json.Marshal([]string{"1", expressions, pin.StorePath, provisionHash, guestHash})
	if err != nil {
		panic(err) // strings always marshal
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// SystemRequest is one system to build.
type SystemRequest struct {
	Pin registry.Pin
	// GuestPath and ProvisionPath are store paths; ProvisionPath may be "".
	GuestPath, ProvisionPath string
	// ProvisionModule is the module's path within ProvisionPath.
	ProvisionModule string
	// ProvisionName is how the person knows the provision, for messages: a
	// folder, or "-".
	ProvisionName string
	// AllowedURIs are what the evaluation may fetch.
	AllowedURIs []string
	// GCRoot is a symbolic link that is made to the system. Required.
	GCRoot string
	// EvalLog and BuildLog are files for the full logs; may be "".
	EvalLog, BuildLog string
	// Reporter is told about the phases Evaluate and Build.
	Reporter progress.Reporter
}

// System is a built system.
type System struct {
	// Path is its store path; it holds init.
	Path string `json:"path"`
	// HostUsr says that it needs the host's /usr.
	HostUsr bool `json:"hostUsr"`
}

// NoInit says that a channel yields something that is no system.
type NoInit struct{ Reference, Path string }

func (n *NoInit) Error() string {
	return fmt.Sprintf("channel %s: it yields something without init (%s), which is no NixOS system; its nixos/default.nix must have an attribute \"system\" that is config.system.build.toplevel",
		n.Reference, n.Path)
}

// BuildSystem evaluates and builds a system. The error is *nix.EvalError,
// *nix.BuildError, *NoInit, *Error, *nix.NotInstalled, or one of this host.
func BuildSystem(ctx context.Context, client *nix.Client, request SystemRequest) (System, error) {
	source := request.Pin.StorePath
	for _, path := range []string{source, request.GuestPath, request.ProvisionPath} {
		if path != "" {
			if err := nix.CheckStorePath(path); err != nil {
				return System{}, err
			}
		}
	}
	shape, err := ShapeOf(source)
	if err != nil {
		return System{}, &Error{Reference: request.Pin.Reference, Reason: err.Error(), Next: "name another channel", Err: err}
	}
	hostUsr := NeedsHostUsr(source, shape)
	request.Reporter.Phase(progress.Evaluate)
	evaluation, err := client.Evaluate(ctx, nix.EvalRequest{
		Expression:  Expression(shape, request.ProvisionModule),
		SearchPath:  SearchPath(shape, source, request.GuestPath, request.ProvisionPath),
		AllowedURIs: request.AllowedURIs,
		Log:         request.EvalLog,
		Names:       pathNames(request),
	})
	if err != nil {
		return System{}, err
	}
	// A folder below /tmp that is left behind harms nobody.
	defer func() { _ = evaluation.Close() }()
	request.Reporter.Phase(progress.Build)
	options := nix.BuildOptions{GCRoot: request.GCRoot, Log: request.BuildLog, Progress: nix.Report(request.Reporter)}
	if hostUsr {
		options.SandboxPaths = nix.HostSandboxPaths()
	}
	path, err := client.Build(ctx, evaluation.DrvPath, options)
	if err != nil {
		return System{}, err
	}
	if _, err := os.Lstat(filepath.Join(path, "init")); err != nil {
		if removeErr := os.Remove(request.GCRoot); removeErr != nil {
			return System{}, removeErr
		}
		return System{}, &NoInit{Reference: request.Pin.Reference, Path: path}
	}
	return System{Path: path, HostUsr: hostUsr}, nil
}

// NeedsHostUsr says that builders and systems of a channel's source use the
// host's own /usr.
func NeedsHostUsr(source string, shape Shape) bool {
	marker := filepath.Join(source, hostUsrMarker)
	if shape == ShapeFlyingCircus {
		marker = filepath.Join(source, "nixpkgs", hostUsrMarker)
	}
	_, err := os.Stat(marker)
	return err == nil
}

// pathNames says how the person knows the provision's files.
func pathNames(request SystemRequest) []nix.PathName {
	if request.ProvisionPath == "" {
		return nil
	}
	name := request.ProvisionName
	if name == "-" || name == "" {
		name = "provision"
	}
	names := []nix.PathName{{Path: request.ProvisionPath, Name: name}}
	if strings.HasSuffix(name, ".nix") {
		// A single file: it is the module itself.
		names = append([]nix.PathName{{Path: request.ProvisionPath + "/" + request.ProvisionModule, Name: name}}, names...)
	}
	return names
}

// SystemCache remembers which system came of which inputs, so that a second
// container needs no evaluation and no build.
type SystemCache struct {
	// Dir holds one file for each hash of inputs.
	Dir string
}

type cachedSystem struct {
	Version int `json:"version"`
	System
}

func (c SystemCache) path(inputs string) string { return filepath.Join(c.Dir, inputs+".json") }

// Lookup finds the system of some inputs. It starts no process: that the path
// is there does not yet mean that it stays, so make it a profile's generation
// (which asks the daemon) and build anew if that fails.
func (c SystemCache) Lookup(inputs string) (System, bool) {
	data, err := os.ReadFile(c.path(inputs))
	if err != nil {
		return System{}, false
	}
	var cached cachedSystem
	if json.Unmarshal(data, &cached) != nil || cached.Version != 1 || nix.CheckStorePath(cached.Path) != nil {
		return System{}, false
	}
	if _, err := os.Lstat(filepath.Join(cached.Path, "init")); err != nil {
		return System{}, false
	}
	return cached.System, true
}

// Store remembers a system, and forgets those that were garbage collected.
func (c SystemCache) Store(inputs string, system System) error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("cannot make the folder of known systems: %w", err)
	}
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return fmt.Errorf("cannot read the folder of known systems: %w", err)
	}
	for _, entry := range entries {
		other, isEntry := strings.CutSuffix(entry.Name(), ".json")
		if _, ok := c.Lookup(other); isEntry && !ok {
			if err := os.Remove(filepath.Join(c.Dir, entry.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("cannot forget an old system: %w", err)
			}
		}
	}
	return registry.WriteJSON(c.path(inputs), cachedSystem{Version: 1, System: system})
}
