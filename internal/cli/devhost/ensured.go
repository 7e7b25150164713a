package devhost

import (
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"devhost/internal/container"
	"devhost/internal/sshaccess"
)

// ensured is what "ensure --json" prints.
type ensured struct {
	*container.EnsureResult
	// Domains are those below which the ingress serves the container: each alias
	// is at https://ALIAS.NAME.DOMAIN.
	Domains []string `json:"domains"`
	// ExpiresStop and ExpiresDelete are when it is stopped and deleted at the
	// earliest, KeepUntil is until when it is kept; each is missing for never.
	ExpiresStop   *time.Time `json:"expiresStop,omitempty"`
	ExpiresDelete *time.Time `json:"expiresDelete,omitempty"`
	KeepUntil     *time.Time `json:"keepUntil,omitempty"`
	// Access is there with --access.
	Access *access `json:"access,omitempty"`
}

// access is what logs in to a container by ssh.
type access struct {
	User string `json:"user"`
	// PrivateKey is in OpenSSH's format, HostKey as in known_hosts without the
	// name.
	PrivateKey string `json:"privateKey"`
	HostKey    string `json:"hostKey"`
	// Port is where sshd listens at the container's name, seen from the host.
	Port uint16 `json:"port"`
}

func (a *app) ensured(c *cli.Context, manager *container.Manager, result *container.EnsureResult) (*ensured, error) {
	record := result.Container
	outlook := a.outlook(manager, record, true)
	shown := &ensured{
		EnsureResult: result, Domains: []string{},
		ExpiresStop: timeOrNil(outlook.Stop), ExpiresDelete: timeOrNil(outlook.Delete), KeepUntil: timeOrNil(outlook.Kept),
	}
	for _, domain := range append([]string{manager.Settings.PublicAddress}, manager.Settings.Domains...) {
		if domain != "" {
			shown.Domains = append(shown.Domains, domain)
		}
	}
	if !c.Bool("access") {
		return shown, nil
	}
	files := manager.SSHFiles(record.Name)
	key, err := os.ReadFile(files.Identity())
	if err != nil {
		return nil, err
	}
	known, err := os.ReadFile(files.KnownHosts())
	if err != nil {
		return nil, err
	}
	port := record.Address.SSHPort
	if port == 0 {
		port = 22
	}
	_, hostKey, _ := strings.Cut(strings.TrimSpace(string(known)), " ")
	shown.Access = &access{User: sshaccess.HumanUser, PrivateKey: string(key), HostKey: hostKey, Port: port}
	return shown, nil
}
