package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"devhost/internal/execx"
)

// evaluations are systems of NixOS that are compared: files of tests/nix, the
// argument that switches what is measured on, and how much longer the
// evaluation may take with it.
var evaluations = []struct {
	what, file, argument string
	most                 float64
}{
	{"a NixOS host with services.devhost, evaluated, against one without", "cost.nix", "enable", 1.05},
	{"a container with the guest module, evaluated, against an empty one", "guest-cost.nix", "guest", 1.15},
}

// evaluate: what the NixOS modules cost in processor time of an evaluation, where
// a tree of nixpkgs can be had.
func (b *bench) evaluate(ctx context.Context) error {
	tree := os.Getenv("DEVHOST_NIXPKGS")
	if tree == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return err
		}
		tree = filepath.Join(home, ".cache", "devhost", "nixpkgs")
	}
	if _, err := os.Stat(filepath.Join(tree, "nixos", "default.nix")); err != nil {
		b.table.information("evaluation of NixOS: skipped, no tree at "+tree+" (DEVHOST_NIXPKGS)", "-", 0)
		return nil
	}
	for _, one := range evaluations {
		system := func(on string) measured {
			return func(ctx context.Context) (time.Duration, error) {
				return b.evaluation(ctx, "--arg", "tree", tree, "--arg", one.argument, on, filepath.Join("tests", "nix", one.file))
			}
		}
		taken, err := b.alternate(ctx, system("false"), system("true"))
		if err != nil {
			return err
		}
		ratio := float64(taken[1].median()) / float64(taken[0].median())
		b.table.bound(one.what, fmt.Sprintf("%.2f x", ratio), fmt.Sprintf("<= %.2f x", one.most), len(taken[1]), ratio <= one.most)
		b.table.information("  with", taken[1].String(), len(taken[1]))
		b.table.information("  without", taken[0].String(), len(taken[0]))
	}
	return nil
}

// evaluation is the processor time of an evaluation that writes nothing to the
// store, as Nix counts it (NIX_SHOW_STATS): other work on the machine changes it
// less than a clock's.
func (b *bench) evaluation(ctx context.Context, args ...string) (time.Duration, error) {
	statistics := filepath.Join(b.folder, "evaluation.json")
	_, err := b.runner.Output(ctx, execx.Command{
		Name: "nix-instantiate", Args: append([]string{"--eval", "--readonly-mode"}, args...),
		Env: append(os.Environ(), "NIX_SHOW_STATS=1", "NIX_SHOW_STATS_PATH="+statistics),
	})
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile(statistics)
	if err != nil {
		return 0, err
	}
	var counted struct {
		CPUTime float64 `json:"cpuTime"` // seconds
	}
	if err := json.Unmarshal(text, &counted); err != nil {
		return 0, fmt.Errorf("%s: %w", statistics, err)
	}
	if counted.CPUTime <= 0 {
		return 0, fmt.Errorf("%s says nothing of cpuTime", statistics)
	}
	return time.Duration(counted.CPUTime * float64(time.Second)), nil
}
