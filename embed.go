// Package assets carries the Nix files that the binaries need at run time.
package assets

import "embed"

// ContainerGuest is the folder modules/container-guest: the NixOS module that
// every container imports.
//
//go:embed modules/container-guest
var ContainerGuest embed.FS
