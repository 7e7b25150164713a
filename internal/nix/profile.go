package nix

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/google/renameio/v2"
)

// Generation is one system that a profile had.
type Generation struct {
	Number int `json:"number"`
	// Time is when it was made, UTC.
	Time time.Time `json:"time"`
	// Path is the store path of the system.
	Path string `json:"path"`
	// Current says that the profile points to it now.
	Current bool `json:"current"`
}

// NoGeneration says that a profile has no such generation.
type NoGeneration struct {
	Profile string
	// Number is the generation that was asked for, 0 for the one before the
	// current one.
	Number int
}

func (n *NoGeneration) Error() string {
	if n.Number == 0 {
		return "there is no earlier generation to go back to"
	}
	return fmt.Sprintf("there is no generation %d", n.Number)
}

// generationLink is the link of a generation, relative to the profile's
// folder: "NAME-5-link". The format is that of Nix' profiles.cc.
func generationLink(profile string, number int) string {
	return fmt.Sprintf("%s-%d-link", filepath.Base(profile), number)
}

func generationNumber(profile, link string) (int, bool) {
	middle, ok := strings.CutPrefix(filepath.Base(link), filepath.Base(profile)+"-")
	if !ok {
		return 0, false
	}
	middle, ok = strings.CutSuffix(middle, "-link")
	if !ok {
		return 0, false
	}
	number, err := strconv.Atoi(middle)
	return number, err == nil && number > 0
}

// SetProfile makes a system the current generation of a profile, and tells
// whether that changed anything. A system that is current already, or was the
// newest generation, makes no new one.
func (c *Client) SetProfile(ctx context.Context, profile, system string) (changed bool, err error) {
	if err := CheckStorePath(system); err != nil {
		return false, err
	}
	if current, err := CurrentGeneration(profile); err == nil && current.Path == system {
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(profile), 0o755); err != nil {
		return false, fmt.Errorf("cannot make the folder of the profile: %w", err)
	}
	if first, err := firstGeneration(profile, system); first || err != nil {
		return first, err
	}
	if err := c.Runner.Run(ctx, c.command("nix-env", "--profile", profile, "--set", system)); err != nil {
		return false, fmt.Errorf("cannot make %s the system of profile %s: %w", system, profile, explain(err))
	}
	return true, nil
}

// firstGeneration makes the first generation of a new profile without a
// process. Nobody else knows a profile that does not exist, so the lock that
// nix-env takes would guard nothing.
func firstGeneration(profile, system string) (made bool, err error) {
	generations, err := Generations(profile)
	if err != nil || len(generations) > 0 {
		return false, err
	}
	if _, err := os.Lstat(profile); !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	link := generationLink(profile, 1)
	if err := os.Symlink(system, filepath.Join(filepath.Dir(profile), link)); err != nil {
		return false, fmt.Errorf("cannot make the profile: %w", err)
	}
	if err := renameio.Symlink(link, profile); err != nil {
		return false, fmt.Errorf("cannot make the profile: %w", err)
	}
	return true, nil
}

// SwitchGeneration makes an existing generation the current one. The error is
// *NoGeneration if there is none.
func (c *Client) SwitchGeneration(ctx context.Context, profile string, number int) (Generation, error) {
	generations, err := Generations(profile)
	if err != nil {
		return Generation{}, err
	}
	for _, generation := range generations {
		if generation.Number != number {
			continue
		}
		if !generation.Current {
			if err := c.Runner.Run(ctx, c.command("nix-env", "--profile", profile, "--switch-generation", strconv.Itoa(number))); err != nil {
				return Generation{}, fmt.Errorf("cannot switch profile %s to generation %d: %w", profile, number, explain(err))
			}
			generation.Current = true
		}
		return generation, nil
	}
	return Generation{}, &NoGeneration{Profile: profile, Number: number}
}

// Rollback makes the generation before the current one the current one. The
// error is *NoGeneration if there is none.
func (c *Client) Rollback(ctx context.Context, profile string) (Generation, error) {
	generations, err := Generations(profile)
	if err != nil {
		return Generation{}, err
	}
	for i, generation := range generations {
		if generation.Current && i > 0 {
			return c.SwitchGeneration(ctx, profile, generations[i-1].Number)
		}
	}
	return Generation{}, &NoGeneration{Profile: profile}
}

// Generations lists the generations of a profile, the oldest first. It only
// reads links; a profile that does not exist has none.
func Generations(profile string) ([]Generation, error) {
	entries, err := os.ReadDir(filepath.Dir(profile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the generations of profile %s: %w", profile, err)
	}
	current := currentNumber(profile)
	var generations []Generation
	for _, entry := range entries {
		number, ok := generationNumber(profile, entry.Name())
		if !ok || entry.Type() != fs.ModeSymlink {
			continue
		}
		generation, err := readGeneration(profile, number)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		generation.Current = number == current
		generations = append(generations, generation)
	}
	sort.Slice(generations, func(i, j int) bool { return generations[i].Number < generations[j].Number })
	return generations, nil
}

// CurrentGeneration is the generation that a profile points to; the error is
// *NoGeneration if there is none. It costs a few system calls.
func CurrentGeneration(profile string) (Generation, error) {
	number := currentNumber(profile)
	if number == 0 {
		return Generation{}, &NoGeneration{Profile: profile}
	}
	generation, err := readGeneration(profile, number)
	generation.Current = err == nil
	return generation, err
}

func currentNumber(profile string) int {
	link, err := os.Readlink(profile)
	if err != nil {
		return 0
	}
	number, _ := generationNumber(profile, link)
	return number
}

func readGeneration(profile string, number int) (Generation, error) {
	link := filepath.Join(filepath.Dir(profile), generationLink(profile, number))
	info, err := os.Lstat(link)
	if err != nil {
		return Generation{}, err
	}
	target, err := os.Readlink(link)
	if err != nil {
		return Generation{}, err
	}
	if err := CheckStorePath(target); err != nil {
		return Generation{}, fmt.Errorf("generation %d of profile %s: %w", number, profile, err)
	}
	return Generation{Number: number, Time: info.ModTime().UTC(), Path: target}, nil
}

// DeleteProfile removes a profile with all of its generations. The store paths
// stay until the next garbage collection. What does not exist is no error.
func DeleteProfile(profile string) error {
	entries, err := os.ReadDir(filepath.Dir(profile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot delete profile %s: %w", profile, err)
	}
	names := []string{filepath.Base(profile)}
	for _, entry := range entries {
		if _, ok := generationNumber(profile, entry.Name()); ok {
			names = append(names, entry.Name())
		}
	}
	names = append(names, filepath.Base(profile)+".lock")
	for _, name := range names {
		if err := os.Remove(filepath.Join(filepath.Dir(profile), name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot delete profile %s: %w", profile, err)
		}
	}
	return nil
}

// DeleteGenerations removes generations of a profile, but never the current
// one. Their store paths stay until the next garbage collection. What does not
// exist is no error.
func DeleteGenerations(profile string, numbers ...int) error {
	current := currentNumber(profile)
	for _, number := range numbers {
		if number == current {
			return fmt.Errorf("generation %d of profile %s is its current one", number, profile)
		}
		link := filepath.Join(filepath.Dir(profile), generationLink(profile, number))
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot delete generation %d of profile %s: %w", number, profile, err)
		}
	}
	return nil
}
