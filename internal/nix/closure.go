package nix

import (
	"context"
	"fmt"
	"io"
	"math"
	"sort"
	"strconv"
	"strings"
	"text/tabwriter"
)

// PathInfo is one store path of a closure.
type PathInfo struct {
	Path string
	// NarSize is the size of its NAR, bytes.
	NarSize int64
}

// pathsPerCommand keeps argument vectors far below the kernel's limit.
const pathsPerCommand = 2000

// QueryClosure lists a path and all that it needs at run time, sorted by path.
func (c *Client) QueryClosure(ctx context.Context, path string) ([]PathInfo, error) {
	if err := CheckStorePath(path); err != nil {
		return nil, err
	}
	output, err := c.Runner.Output(ctx, c.command("nix-store", "--query", "--requisites", path))
	if err != nil {
		return nil, fmt.Errorf("cannot list what %s needs: %w", path, explain(err))
	}
	paths := strings.Fields(string(output))
	sort.Strings(paths)
	closure := make([]PathInfo, 0, len(paths))
	for len(paths) > 0 {
		chunk := paths[:min(len(paths), pathsPerCommand)]
		paths = paths[len(chunk):]
		sizes, err := c.sizes(ctx, chunk)
		if err != nil {
			return nil, err
		}
		closure = append(closure, sizes...)
	}
	return closure, nil
}

func (c *Client) sizes(ctx context.Context, paths []string) ([]PathInfo, error) {
	output, err := c.Runner.Output(ctx, c.command("nix-store", append([]string{"--query", "--size"}, paths...)...))
	if err != nil {
		return nil, fmt.Errorf("cannot read the sizes of store paths: %w", explain(err))
	}
	numbers := strings.Fields(string(output))
	if len(numbers) != len(paths) {
		return nil, fmt.Errorf("nix-store --query --size printed %d sizes for %d paths", len(numbers), len(paths))
	}
	result := make([]PathInfo, len(paths))
	for i, number := range numbers {
		size, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("nix-store --query --size printed %q for %s", number, paths[i])
		}
		result[i] = PathInfo{Path: paths[i], NarSize: size}
	}
	return result, nil
}

// Change is what became of one package between two closures.
type Change struct {
	// Name is the package's name without version.
	Name string `json:"name"`
	// Before and After are its versions, sorted, without those that are in
	// both; a path without a version counts as "". Both are empty where only
	// the size changed.
	Before []string `json:"before"`
	After  []string `json:"after"`
	// SizeDelta is how many bytes it has grown.
	SizeDelta int64 `json:"sizeDelta"`
}

// sizeThreshold is the least difference of size that is a change of its own,
// bytes, as in `nix store diff-closures`.
const sizeThreshold = 8 << 10

// DiffClosures compares two closures by package, as `nix store diff-closures`
// does: added, removed and changed versions, and sizes that differ by 8 KiB or
// more. The result is sorted by name.
func DiffClosures(before, after []PathInfo) []Change {
	first, second := groupByPackage(before), groupByPackage(after)
	names := map[string]bool{}
	for name := range first {
		names[name] = true
	}
	for name := range second {
		names[name] = true
	}
	var changes []Change
	for name := range names {
		change := Change{
			Name:      name,
			Before:    without(first[name].versions, second[name].versions),
			After:     without(second[name].versions, first[name].versions),
			SizeDelta: second[name].size - first[name].size,
		}
		if len(change.Before) > 0 || len(change.After) > 0 || change.SizeDelta >= sizeThreshold || change.SizeDelta <= -sizeThreshold {
			changes = append(changes, change)
		}
	}
	sort.Slice(changes, func(i, j int) bool { return changes[i].Name < changes[j].Name })
	return changes
}

type packageInfo struct {
	versions map[string]bool
	size     int64
}

func groupByPackage(closure []PathInfo) map[string]packageInfo {
	packages := map[string]packageInfo{}
	for _, info := range closure {
		name, version := SplitName(storeName(info.Path))
		entry, ok := packages[name]
		if !ok {
			entry.versions = map[string]bool{}
		}
		entry.versions[version] = true
		entry.size += info.NarSize
		packages[name] = entry
	}
	return packages
}

func without(versions, others map[string]bool) []string {
	result := []string{}
	for version := range versions {
		if !others[version] {
			result = append(result, version)
		}
	}
	sort.Strings(result)
	return result
}

// outputNames are the suffixes of a store path's name that tell outputs of one
// package apart.
var outputNames = []string{"bin", "lib", "dev", "doc", "man", "info", "out", "data", "debug", "static", "lib32", "lib64", "devdoc", "terminfo", "getent"}

// SplitName splits "postgresql-15.6-lib" into "postgresql" and "15.6": the
// version starts at the first dash that no letter follows, as
// builtins.parseDrvName has it, and the name of an output is not part of it.
func SplitName(full string) (name, version string) {
	name = full
	for i := 0; i+1 < len(full); i++ {
		if full[i] == '-' && !isLetter(full[i+1]) {
			name, version = full[:i], full[i+1:]
			break
		}
	}
	for _, output := range outputNames {
		if short, ok := strings.CutSuffix(version, "-"+output); ok {
			return name, short
		}
	}
	return name, version
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// WriteChanges prints changes as a table for people.
func WriteChanges(w io.Writer, changes []Change) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "PACKAGE\tBEFORE\tAFTER\tSIZE")
	var total int64
	for _, change := range changes {
		total += change.SizeDelta
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", change.Name, versionList(change.Before), versionList(change.After), signedSize(change.SizeDelta))
	}
	fmt.Fprintf(table, "total\t\t\t%s\n", signedSize(total))
	return table.Flush()
}

func versionList(versions []string) string {
	shown := make([]string, len(versions))
	for i, version := range versions {
		shown[i] = orDefault(version, "unversioned")
	}
	return orDefault(strings.Join(shown, ", "), "-")
}

func signedSize(bytes int64) string {
	sign := "+"
	if bytes < 0 {
		sign, bytes = "-", -bytes
	}
	switch {
	case bytes < 1<<10:
		return fmt.Sprintf("%s%d B", sign, bytes)
	case bytes < 1<<20:
		return fmt.Sprintf("%s%.1f KiB", sign, float64(bytes)/(1<<10))
	}
	return fmt.Sprintf("%s%.1f MiB", sign, math.Round(float64(bytes)/(1<<20)*10)/10)
}
