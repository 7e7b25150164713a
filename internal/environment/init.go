package environment

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/google/renameio/v2"
)

//go:embed init
var templates embed.FS

// ignored is what git is to ignore: what each checkout has for itself.
var ignored = []string{"/.devhost/", "/ssh_config_*", "/environments/*/hostmap.json", "/insecure-private.key"}

// Init writes a first environment into a project, with comments, and adds to
// .gitignore what is each checkout's alone. Files that are there stay. It gives
// the paths that it wrote, relative to the project.
func Init(root, name, host, channel string) ([]string, error) {
	switch {
	case !environmentName.MatchString(name):
		return nil, &BadName{Name: name}
	case destinationProblem(host) != "":
		return nil, errors.New(destinationProblem(host))
	case channel != "" && !channelForm.MatchString(channel):
		return nil, fmt.Errorf("the channel %q is neither a URL nor a flake reference nor a folder", channel)
	}
	folder := filepath.Join(root, folderName, name)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	var written []string
	for _, file := range []string{configName, moduleName, scriptName} {
		path := filepath.Join(folder, file)
		if _, err := os.Lstat(path); err == nil {
			continue
		}
		text, err := template.ParseFS(templates, "init/"+file)
		if err != nil {
			return written, err
		}
		var filled bytes.Buffer
		if err := text.Execute(&filled, map[string]string{"Name": name, "Host": host, "Address": (&Provisioner{Host: host}).Address(), "Channel": channel}); err != nil {
			return written, err
		}
		if err := renameio.WriteFile(path, filled.Bytes(), 0o644); err != nil {
			return written, err
		}
		written = append(written, filepath.Join(folderName, name, file))
	}
	added, err := ignore(filepath.Join(root, ".gitignore"))
	if added {
		written = append(written, ".gitignore")
	}
	return written, err
}

// ignore adds lines to a .gitignore.
func ignore(path string) (bool, error) {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	has := map[string]bool{}
	for line := range strings.Lines(string(old)) {
		has[strings.TrimSpace(line)] = true
	}
	text := string(old)
	for _, line := range ignored {
		if has[line] {
			continue
		}
		if text != "" && !strings.HasSuffix(text, "\n") {
			text += "\n"
		}
		text += line + "\n"
	}
	if text == string(old) {
		return false, nil
	}
	return true, renameio.WriteFile(path, []byte(text), 0o644)
}
