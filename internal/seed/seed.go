// Package seed is what travels between the host and the installer of a devbox:
// a small disk with settings and keys one way, and the installer's report the
// other way.
//
// The disk is a FAT16 file system without a partition table, labelled
// DEVBOX-SEED, of Size bytes. It holds
//
//	settings.json    Settings
//	authorized_keys  public keys that log in as Settings.Login, one a line
//	user_key         the private key of Settings.Login, if one was given
//	report.jsonl     what the installer reports, a line of JSON (Event) each
//
// Nothing of it enters the Nix store or the ISO. The host makes and reads the
// image without mounting it, so that it works the same on macOS.
package seed

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat16"
)

const (
	// Label is the label of the file system.
	Label = "DEVBOX-SEED"
	// Version is that of Settings and of Event.
	Version = 1
	// Size is that of the image, in bytes.
	Size = 16 << 20

	// longestFile bounds what is read of one file, in bytes.
	longestFile = 4 << 20
)

// The names of the files on the disk.
const (
	SettingsFile       = "settings.json"
	AuthorizedKeysFile = "authorized_keys"
	UserKeyFile        = "user_key"
	ReportFile         = "report.jsonl"
)

// The ways to install.
const (
	// Direct copies the prebuilt system from the ISO.
	Direct = "direct"
	// Bootstrap installs a minimal system, which the first update replaces.
	Bootstrap = "bootstrap"
)

// Settings are what the installer is told.
type Settings struct {
	Version int `json:"version"`
	// Mode is Direct or Bootstrap.
	Mode string `json:"mode"`
	// Disk is the disk to install to, as /dev/vda.
	Disk string `json:"disk"`
	// Overwrite lets the installer use a disk that holds data.
	Overwrite bool `json:"overwrite,omitempty"`
	// Login is the user that the keys are for.
	Login string `json:"login"`
	// HostName is the name of the installed system in the mode Bootstrap.
	HostName string `json:"hostName"`
	// Substituters are URLs of binary caches, TrustedPublicKeys their keys.
	Substituters      []string `json:"substituters"`
	TrustedPublicKeys []string `json:"trustedPublicKeys"`
}

// Validate says what is wrong with settings.
func (s *Settings) Validate() error {
	switch {
	case s.Version != Version:
		return fmt.Errorf("the settings have version %d; this program reads version %d", s.Version, Version)
	case s.Mode != Direct && s.Mode != Bootstrap:
		return fmt.Errorf("the mode is %q; it is %q or %q", s.Mode, Direct, Bootstrap)
	case !strings.HasPrefix(s.Disk, "/dev/") || filepath.Clean(s.Disk) != s.Disk:
		return fmt.Errorf("the disk is %q; give a path such as /dev/vda", s.Disk)
	}
	return CheckLogin(s.Login)
}

// CheckLogin says what is wrong with the name of a user of a VM: it becomes a
// part of files of ssh and of NixOS.
func CheckLogin(login string) error {
	if !validLogin(login) {
		return fmt.Errorf("the login is %q; it has lower-case letters, digits, - and _, and starts with a letter", login)
	}
	return nil
}

func validLogin(login string) bool {
	const longest = 31 // useradd(8)
	if login == "" || len(login) > longest || strings.Trim(login[:1], "abcdefghijklmnopqrstuvwxyz_") != "" {
		return false
	}
	return strings.Trim(login, "abcdefghijklmnopqrstuvwxyz0123456789_-") == ""
}

// Contents are what the host puts on the disk.
type Contents struct {
	Settings Settings
	// AuthorizedKeys are public keys in the format of sshd(8).
	AuthorizedKeys []string
	// UserKey is a private key in the format of OpenSSH, nil for none.
	UserKey []byte
}

// Create writes a new image with an empty report. An image at that path is
// replaced. Only its owner can read it. Nobody else may make it at the same
// time.
func Create(path string, contents Contents) (err error) {
	contents.Settings.Version = Version
	if err := contents.Settings.Validate(); err != nil {
		return err
	}
	// One name, so that the next one takes the place of what a process that was
	// killed has left: there is a private key in it.
	unfinished := path + ".new"
	if err := os.Remove(unfinished); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot make the seed disk: %w", err)
	}
	temporary, err := os.OpenFile(unfinished, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("cannot make the seed disk: %w", err)
	}
	defer func() {
		temporary.Close()
		if err != nil {
			_ = os.Remove(temporary.Name())
			err = fmt.Errorf("cannot make the seed disk %s: %w", path, err)
		}
	}()
	if err := temporary.Truncate(Size); err != nil {
		return err
	}
	image, err := fat16.Create(file.New(temporary, false), Size, 0, 0, Label, false)
	if err != nil {
		return err
	}
	// The field of the boot sector is not enough: blkid and udev want the entry
	// in the root folder.
	if err := image.SetRootDirLabel(Label); err != nil {
		return err
	}
	settings, err := json.MarshalIndent(contents.Settings, "", "  ")
	if err != nil {
		return err
	}
	files := []struct {
		name string
		data []byte
	}{
		{SettingsFile, append(settings, '\n')},
		{AuthorizedKeysFile, []byte(lines(contents.AuthorizedKeys))},
		{UserKeyFile, contents.UserKey},
	}
	for _, one := range files {
		if len(one.data) == 0 {
			continue
		}
		if err := write(image, one.name, one.data); err != nil {
			return err
		}
	}
	if err := temporary.Sync(); err != nil {
		return err
	}
	return os.Rename(temporary.Name(), path)
}

func write(image *fat16.FileSystem, name string, data []byte) error {
	target, err := image.OpenFile(name, os.O_CREATE|os.O_RDWR)
	if err != nil {
		return err
	}
	if _, err := target.Write(data); err != nil {
		return err
	}
	return target.Close()
}

func lines(all []string) string {
	var text strings.Builder
	for _, line := range all {
		text.WriteString(strings.TrimSpace(line) + "\n")
	}
	return text.String()
}

// Load reads what the host wrote, in the installer, from the folder where the
// disk is mounted.
func Load(folder fs.FS) (Contents, error) {
	data, err := readBounded(folder, SettingsFile)
	if err != nil {
		return Contents{}, fmt.Errorf("the seed disk has no settings: %w", err)
	}
	var contents Contents
	if err := json.Unmarshal(data, &contents.Settings); err != nil {
		return Contents{}, fmt.Errorf("the settings on the seed disk, %s, are no JSON: %w", SettingsFile, err)
	}
	if err := contents.Settings.Validate(); err != nil {
		return Contents{}, err
	}
	keys, err := readBounded(folder, AuthorizedKeysFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Contents{}, err
	}
	for line := range strings.Lines(string(keys)) {
		if line = strings.TrimSpace(line); line != "" {
			contents.AuthorizedKeys = append(contents.AuthorizedKeys, line)
		}
	}
	contents.UserKey, err = readBounded(folder, UserKeyFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Contents{}, err
	}
	return contents, nil
}

func readBounded(folder fs.FS, name string) ([]byte, error) {
	opened, err := folder.Open(name)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	return io.ReadAll(io.LimitReader(opened, longestFile))
}

// ReadReport reads the report from an image. The guest could write anything
// there: what is no report is left out, and a damaged file system is an error.
// No report yet is no events.
func ReadReport(path string) (events []Event, err error) {
	data, err := readFile(path, ReportFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the installer's report from the seed disk %s: %w", path, err)
	}
	for line := range bytes.Lines(data) {
		if event, ok := parse(bytes.TrimSpace(line)); ok {
			events = append(events, event)
		}
	}
	return events, nil
}

// readFile reads a file in the root folder of an image.
func readFile(path, name string) (data []byte, err error) {
	// The library trusts what it reads.
	defer func() {
		if found := recover(); found != nil {
			err = fmt.Errorf("its file system is damaged: %v", found)
		}
	}()
	opened, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	if info, err := opened.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() != Size {
		return nil, errors.Join(fmt.Errorf("it is no file of %d bytes", Size), err)
	}
	if err := checkChains(opened); err != nil {
		return nil, err
	}
	image, err := fat16.Read(file.New(opened, true), Size, 0, 0)
	if err != nil {
		return nil, err
	}
	entries, err := image.ReadDir(".")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if strings.EqualFold(entry.Name(), name) && !entry.IsDir() {
			if info, err := entry.Info(); err != nil || info.Size() == 0 {
				return nil, err
			}
			found, err := image.OpenFile(entry.Name(), os.O_RDONLY)
			if err != nil {
				return nil, err
			}
			return io.ReadAll(io.LimitReader(found, longestFile))
		}
	}
	return nil, fs.ErrNotExist
}

// Where fields of the boot sector and the first table lie in an image that
// Create made.
const (
	reservedSectors = 4
	sectorSize      = 512
	entrySize       = 2
	endOfChain      = 0xfff8
)

// checkChains refuses a table with chains that never end, which the library
// would follow for ever.
func checkChains(image io.ReaderAt) error {
	boot := make([]byte, sectorSize)
	if _, err := image.ReadAt(boot, 0); err != nil {
		return err
	}
	perSector, perTable := int(boot[11])|int(boot[12])<<8, int(boot[22])|int(boot[23])<<8
	if perSector != sectorSize || boot[14] != reservedSectors || boot[15] != 0 {
		return errors.New("its file system is not the one that was made there")
	}
	table := make([]byte, perTable*sectorSize)
	if _, err := image.ReadAt(table, reservedSectors*sectorSize); err != nil {
		return err
	}
	const unseen, open, ends = 0, 1, 2
	states := make([]byte, len(table)/entrySize)
	for start := range states {
		var chain []int
		for at := start; at < len(states) && states[at] != ends; {
			if states[at] == open {
				return errors.New("its file system is damaged: a file never ends")
			}
			states[at] = open
			chain = append(chain, at)
			next := int(table[entrySize*at]) | int(table[entrySize*at+1])<<8
			if next == 0 || next >= endOfChain {
				break
			}
			at = next
		}
		for _, at := range chain {
			states[at] = ends
		}
	}
	return nil
}
