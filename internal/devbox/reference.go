package devbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"devhost/internal/names"
)

// Reference names a host of a flake: FLAKE#HOST.
type Reference struct {
	// Flake is a flake reference; a local one is an absolute path.
	Flake string
	// Folder is the folder of a local flake, "" for others.
	Folder string
	Host   string
}

func (r Reference) String() string { return r.Flake + "#" + r.Host }

// forNix is the flake as Nix is given it, and the working folder for that.
func (r Reference) forNix() (flake, folder string) {
	if r.Folder != "" && r.Flake == r.Folder {
		return ".", r.Folder
	}
	return r.Flake, ""
}

// BadReference says that something is not FLAKE#HOST.
type BadReference struct{ Text, Reason string }

func (b *BadReference) Error() string {
	return fmt.Sprintf("%q is no FLAKE#HOST: %s; give for example ./my-flake#my-devbox", b.Text, b.Reason)
}

// ParseReference reads FLAKE#HOST. Without a FLAKE it is the working folder.
// The error is *BadReference.
func ParseReference(text string) (Reference, error) {
	refuse := func(reason string) (Reference, error) {
		return Reference{}, &BadReference{Text: text, Reason: reason}
	}
	flake, host, found := strings.Cut(text, "#")
	switch {
	case !found:
		return refuse("there is no # in it, with a host of the flake behind")
	case host == "":
		return refuse("there is no host behind the #")
	case strings.HasPrefix(flake, "-"):
		return refuse("it starts with a hyphen")
	}
	if err := CheckName(host); err != nil {
		return refuse(fmt.Sprintf("the VM is named as the host, and %v", err))
	}
	if flake == "" {
		flake = "."
	}
	reference := Reference{Flake: flake, Host: host}
	local := strings.TrimPrefix(flake, "path:")
	if strings.HasPrefix(local, ".") || strings.HasPrefix(local, "/") {
		folder, err := filepath.Abs(local)
		if err != nil {
			return Reference{}, err
		}
		info, err := os.Stat(folder)
		if err != nil || !info.IsDir() {
			return refuse(fmt.Sprintf("there is no folder %s", folder))
		}
		if _, err := os.Stat(filepath.Join(folder, "flake.nix")); err != nil && !inFlake(folder) {
			return refuse(fmt.Sprintf("there is no flake.nix in %s, nor above it", folder))
		}
		reference.Folder = folder
		reference.Flake = strings.TrimSuffix(flake, local) + folder
	}
	return reference, nil
}

// inFlake says whether a folder above holds a flake.nix, as Nix looks for one:
// up to the top of the git repository.
func inFlake(folder string) bool {
	_, ok := flakeFolder(folder)
	return ok
}

// flakeFolder is the folder, or the first one above it, with a flake.nix.
func flakeFolder(folder string) (string, bool) {
	for {
		if _, err := os.Stat(filepath.Join(folder, "flake.nix")); err == nil {
			return folder, true
		}
		_, err := os.Stat(filepath.Join(folder, ".git"))
		above := filepath.Dir(folder)
		if err == nil || above == folder {
			return "", false
		}
		folder = above
	}
}

// UnknownHost says that a flake has no such host.
type UnknownHost struct {
	Reference Reference
	Hosts     []string
}

func (u *UnknownHost) Error() string {
	if len(u.Hosts) == 0 {
		return fmt.Sprintf("the flake %s has no hosts (nixosConfigurations is empty); define %s there with lib.mkDevbox", u.Reference.Flake, u.Reference.Host)
	}
	meant := "."
	if close := names.Closest(u.Reference.Host, u.Hosts); close != "" {
		meant = fmt.Sprintf("; did you mean %q?", close)
	}
	return fmt.Sprintf("the flake %s has no host %q%s It has: %s", u.Reference.Flake, u.Reference.Host, meant, strings.Join(u.Hosts, ", "))
}
