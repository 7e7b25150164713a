package filesync

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"devhost/internal/execx"
	"devhost/internal/gitignore"
)

// gitFolder is never synced, at any depth: a repository is not part of what it
// holds.
const gitFolder = ".git"

// filter tells what is not synced below one source.
type filter struct {
	rules *gitignore.Rules
	// prefix is the path of the source below the top of its checkout, "" or
	// ending with a slash.
	prefix string
	// tracked are files that git tracks though a line ignores them, and the
	// folders that they are in. They are synced.
	tracked map[string]bool
}

// excluded tells whether a path below the source is not synced.
func (f *filter) excluded(name string, folder bool) bool {
	if name == gitFolder || strings.HasPrefix(name, gitFolder+"/") || strings.HasSuffix(name, "/"+gitFolder) || strings.Contains(name, "/"+gitFolder+"/") {
		return true
	}
	return !f.tracked[name] && f.rules.Ignored(f.prefix+name, folder)
}

// add adds the ignore file of a folder below the source, "" for itself.
func (f *filter) add(folder, text string) {
	f.rules.Add(strings.TrimSuffix(f.prefix+folder, "/"), text)
}

// newFilter reads what holds for a folder: the lines of the caller, those of
// git, and those of the folders above up to the top of the checkout. The ignore
// files below are added while these are read.
func newFilter(ctx context.Context, runner execx.Runner, source string, exclude []string) (*filter, error) {
	f := &filter{tracked: map[string]bool{}}
	top := checkout(source)
	var last []string
	if top == "" {
		top = source
	} else {
		if below, err := filepath.Rel(top, source); err == nil && below != "." {
			f.prefix = filepath.ToSlash(below) + "/"
		}
		for _, name := range f.readGit(ctx, runner, source) {
			if text, err := os.ReadFile(name); err == nil {
				last = append(last, string(text))
			}
		}
	}
	lines := make([]string, len(exclude))
	for i, line := range exclude {
		lines[i] = f.below(line)
	}
	f.rules = gitignore.New(strings.Join(lines, "\n"), last...)
	for folder := top; f.prefix != "" && folder != source; {
		if err := f.read(top, folder); err != nil {
			return nil, err
		}
		rest, err := filepath.Rel(folder, source)
		if err != nil {
			return nil, err
		}
		next, _, _ := strings.Cut(rest, string(filepath.Separator))
		folder = filepath.Join(folder, next)
	}
	return f, nil
}

// below lets a line that is anchored to the source hold for the whole checkout.
func (f *filter) below(line string) string {
	text, negated := strings.CutPrefix(line, "!")
	if f.prefix == "" || !strings.Contains(strings.TrimSuffix(text, "/"), "/") || strings.HasPrefix(text, "#") {
		return line
	}
	escaped := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(f.prefix)
	text = "/" + escaped + strings.TrimPrefix(text, "/")
	if negated {
		return "!" + text
	}
	return text
}

// read adds the ignore file of a folder above the source.
func (f *filter) read(top, folder string) error {
	text, err := readIgnoreFile(filepath.Join(folder, gitignore.File))
	if err != nil || text == "" {
		return err
	}
	below, err := filepath.Rel(top, folder)
	if err != nil {
		return err
	}
	if below == "." {
		below = ""
	}
	f.rules.Add(filepath.ToSlash(below), text)
	return nil
}

// readIgnoreFile gives "" for what is not there; as git does, it follows no
// link.
func readIgnoreFile(name string) (string, error) {
	info, err := os.Lstat(name)
	if errors.Is(err, os.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(name)
	return string(text), err
}

// checkout is the top folder of the checkout that a folder is in, "" for none.
func checkout(folder string) string {
	for {
		if _, err := os.Lstat(filepath.Join(folder, gitFolder)); err == nil {
			return folder
		}
		parent := filepath.Dir(folder)
		if parent == folder {
			return ""
		}
		folder = parent
	}
}

// readGit asks git which files it tracks though they are ignored, and where its
// further lines are, the weightier first. Without git there are none.
func (f *filter) readGit(ctx context.Context, runner execx.Runner, source string) []string {
	git := func(args ...string) string {
		output, err := runner.Output(ctx, execx.Command{Name: "git", Args: args, Dir: source})
		if err != nil {
			return ""
		}
		return string(output)
	}
	for name := range strings.SplitSeq(git("ls-files", "--cached", "--ignored", "--exclude-standard", "-z"), "\x00") {
		for name != "" && name != "." && !f.tracked[name] {
			f.tracked[name] = true
			name = filepath.ToSlash(filepath.Dir(name))
		}
	}
	var files []string
	if name := strings.TrimSuffix(git("rev-parse", "--git-path", "info/exclude"), "\n"); name != "" {
		if !filepath.IsAbs(name) {
			name = filepath.Join(source, name)
		}
		files = append(files, name)
	}
	name := strings.TrimSuffix(git("config", "--type=path", "--get", "core.excludesFile"), "\n")
	if name == "" {
		name = filepath.Join(os.Getenv("XDG_CONFIG_HOME"), "git", "ignore")
		if os.Getenv("XDG_CONFIG_HOME") == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return files
			}
			name = filepath.Join(home, ".config", "git", "ignore")
		}
	}
	return append(files, name)
}
