package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"devhost/internal/execx"
	"devhost/tests/box"
)

// deployedConfig is an environment with one host and no provision.sh.
const deployedConfig = `[provisioner:default]
method = fc-nixos-dev-container
host = alice@box
channel = /srv/channels/offline

[host:bench]
provision-aliases = www
`

// deploy: "devhost-deploy deploy" of an environment in which nothing changed,
// against a bare ssh to the dev host, which is one in a box.
func (b *bench) deploy(ctx context.Context) (err error) {
	if _, err := os.Stat(b.client); err != nil {
		return fmt.Errorf("there is no %s; run: make build", b.client)
	}
	folder, err := os.MkdirTemp("", "devhost-bench-box-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	host, err := box.Boot(ctx, box.Options{Folder: folder, Program: b.program, Sources: box.Sources()})
	if host != nil {
		defer func() { err = errors.Join(err, host.Remove(context.WithoutCancel(ctx))) }()
	}
	if err == nil {
		err = host.Install(ctx)
	}
	if err != nil {
		return err
	}
	project := filepath.Join(b.folder, "project")
	environment := filepath.Join(project, "environments", "dev")
	if err := os.MkdirAll(environment, 0o755); err != nil {
		return err
	}
	config, err := os.ReadFile(host.SSHConfig())
	if err != nil {
		return err
	}
	for path, text := range map[string]string{
		filepath.Join(project, "ssh_config"): string(config), filepath.Join(environment, "environment.cfg"): deployedConfig, filepath.Join(environment, "provision.nix"): "{ }\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	timed := func(args ...string) measured {
		return func(ctx context.Context) (time.Duration, error) {
			argv := host.Outside(args...)
			began := time.Now()
			err := b.runner.Run(ctx, execx.Command{Name: argv[0], Args: argv[1:]})
			return time.Since(began), err
		}
	}
	taken, err := b.alternate(ctx, timed(b.client, "--quiet", "--project", project, "deploy", "dev"), timed("ssh", "-F", host.SSHConfig(), "alice@box", "true"))
	if err != nil {
		return err
	}
	const share, more = 1.5, 300 * time.Millisecond
	deploy, bare := taken[0].median(), taken[1].median()
	bound := time.Duration(share*float64(bare)) + more
	b.table.bound("devhost-deploy deploy, unchanged, against a bare ssh", taken[0].String(), "<= 1.5 x + 300 ms = "+inMilliseconds(bound), len(taken[0]), deploy <= bound)
	b.table.information("  ssh HOST true", taken[1].String(), len(taken[1]))
	return nil
}
