package install

import (
	"context"
	_ "embed"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/google/renameio/v2"

	"devhost/internal/seed"
)

//go:embed configuration.nix.tmpl
var configurationText string

var configurationTemplate = template.Must(template.New("configuration.nix").Funcs(template.FuncMap{"nix": nixString, "list": nixList}).Parse(configurationText))

// renderConfiguration is the configuration.nix of the mode bootstrap.
func renderConfiguration(contents seed.Contents, config Config) (string, error) {
	var text strings.Builder
	err := configurationTemplate.Execute(&text, struct {
		seed.Contents
		Config Config
	}{contents, config})
	return text.String(), err
}

// nixString writes a string of the Nix language.
func nixString(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(text) + `"`
}

// nixList writes a list of strings.
func nixList(texts []string) string {
	var list strings.Builder
	list.WriteString("[ ")
	for _, text := range texts {
		list.WriteString(nixString(text) + " ")
	}
	list.WriteString("]")
	return list.String()
}

// configure writes the configuration of a minimal system.
func (i *Installer) configure(ctx context.Context) (outcome, error) {
	if err := i.command(ctx, "nixos-generate-config", "--root", i.Root); err != nil {
		return outcome{}, err
	}
	text, err := renderConfiguration(i.contents, i.Config)
	if err != nil {
		return outcome{}, err
	}
	path := filepath.Join(i.Root, "etc/nixos/configuration.nix")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return outcome{}, err
	}
	return outcome{}, renameio.WriteFile(path, []byte(text), 0o644)
}

// installBootstrap builds and installs that system.
func (i *Installer) installBootstrap(ctx context.Context) (outcome, error) {
	arguments := append([]string{"--root", i.Root, "--no-root-passwd"}, durable...)
	if len(i.settings.Substituters) > 0 {
		arguments = append(arguments, "--option", "extra-substituters", strings.Join(i.settings.Substituters, " "))
	}
	if len(i.settings.TrustedPublicKeys) > 0 {
		arguments = append(arguments, "--option", "extra-trusted-public-keys", strings.Join(i.settings.TrustedPublicKeys, " "))
	}
	return outcome{}, i.command(ctx, "nixos-install", arguments...)
}
