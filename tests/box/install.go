package box

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Install makes a dev host of the box, as an admin does.
func (b *Box) Install(ctx context.Context) error {
	for _, line := range []string{
		"/root/devhost host install --public-address " + Domain,
		"usermod -aG devhost alice && usermod -aG devhost bob",
	} {
		if result := b.run(ctx, "root", line, nil); result.Status != 0 {
			return fmt.Errorf("%s ended with %d in the box:\n%s%s", line, result.Status, result.Stdout, result.Stderr)
		}
	}
	return nil
}

// ReadyFile is the file of a box' folder that says how to use it.
func ReadyFile(folder string) string { return filepath.Join(folder, "READY") }

// Announce makes two programs for people who look around, ssh and outside, and
// writes how to use the box to ReadyFile.
func (b *Box) Announce() error {
	for name, argv := range map[string][]string{"ssh": b.Outside("ssh", "-F", b.SSHConfig()), "outside": b.Outside()} {
		script := "#!/bin/sh\nexec " + Quote(argv...) + " \"$@\"\n"
		if err := os.WriteFile(filepath.Join(b.Folder, name), []byte(script), 0o700); err != nil {
			return err
		}
	}
	page := "www.demo." + Domain
	text := strings.NewReplacer("FOLDER", b.Folder, "PAGE", page, "ADDRESS4", Address4, "DOMAIN", Domain, "ROOT", b.Root).Replace(`A dev host runs in a box. It is used from a network of its own, as from another
machine; alice and bob are developers, mallory has an account and nothing more.

  FOLDER/ssh alice@box          log in as a developer
  FOLDER/ssh root@box           log in as the admin
  FOLDER/outside COMMAND        run something on the users' machine

Try, in this order:
  FOLDER/ssh alice@box sudo devhost ensure demo --alias www \
      --channel /srv/channels/offline --provision /srv/examples/demo
  FOLDER/ssh mallory@box getent hosts demo
  FOLDER/outside curl --resolve PAGE:443:ADDRESS4 \
      --cacert ROOT/var/lib/devhost/ingress/ca/root.crt https://PAGE/
  FOLDER/ssh root@box machinectl
  FOLDER/ssh root@box reboot

End it, and remove everything of it: make host-in-a-box-down
`)
	// In one step: others wait for the file.
	temporary := ReadyFile(b.Folder) + ".new"
	return errors.Join(os.WriteFile(temporary, []byte(text), 0o600), os.Rename(temporary, ReadyFile(b.Folder)))
}
