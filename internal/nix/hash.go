package nix

import (
	"fmt"
	"strings"

	"github.com/nix-community/go-nix/pkg/nixhash"
)

// SRI turns a hash as Nix writes it (sha256:<base32>, sha256:<hex>, bare
// base32, or SRI already) into the SRI form sha256-<base64>.
func SRI(text string) (string, error) {
	if !strings.Contains(text, ":") && !strings.Contains(text, "-") {
		text = "sha256:" + text
	}
	hash, err := nixhash.ParseAny(text, nil)
	if err != nil {
		return "", fmt.Errorf("cannot read the hash %q: %w", text, err)
	}
	if hash.Algo() != nixhash.SHA256 {
		return "", fmt.Errorf("the hash %q is no SHA-256", text)
	}
	return hash.Format(nixhash.SRI, true), nil
}
