package nix

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/nix-community/go-nix/pkg/nixbase32"
	"github.com/nix-community/go-nix/pkg/nixhash"
	"github.com/nix-community/go-nix/pkg/storepath"
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

// SourcePath is where the store keeps a source with this NAR hash and name,
// as `nix-store --add` and builtins.path compute it. The format is that of
// makeFixedOutputPath in Nix' store-api.cc.
func SourcePath(sri, name string) (string, error) {
	hash, err := nixhash.ParseAny(sri, nil)
	if err != nil {
		return "", fmt.Errorf("cannot read the hash %q: %w", sri, err)
	}
	fingerprint := fmt.Sprintf("source:sha256:%x:%s:%s", hash.Digest(), storepath.StoreDir, name)
	sum := sha256.Sum256([]byte(fingerprint))
	path := storepath.StoreDir + "/" + nixbase32.EncodeToString(nixhash.CompressHash(sum[:], storepath.PathHashSize)) + "-" + name
	return path, CheckStorePath(path)
}
