package ingress

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/hashicorp/go-hclog"
)

// TLS says where certificates come from. The zero value is an own certificate
// authority; at most one of the fields is set.
type TLS struct {
	// ACME, when not nil, is a server that signs them.
	ACME *ACME
	// Files, when there are any, are certificates that somebody else renews.
	Files []CertificateFiles
}

// keeper has the certificates of one kind. What it is asked for are names that
// are served.
type keeper interface {
	// certificate returns what a client is shown. The error is *IssueError,
	// *Uncovered, *Slow or another one.
	certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error)
	// trouble says why a name has no certificate, and will not get one with the
	// next connection; nil when nothing is known against it. The error is
	// *IssueError or *Uncovered.
	trouble(name string) error
	// maintain does what is due now and then, until ctx ends.
	maintain(ctx context.Context)
	// stop ends what the keeper has under way, and waits for it a little.
	stop()
}

// certificates chooses what is shown to clients.
type certificates struct {
	directory directory
	keeper    keeper
	logger    hclog.Logger
}

// serves says whether a name gets a certificate. Aliases of a broken container
// do not: nobody can tell which ones it has, and any name would be one.
func (d directory) serves(name string) (bool, error) {
	route, alias, err := d.find(name)
	var unknown *unknownName
	if errors.As(err, &unknown) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return route.Broken == nil || alias == "", nil
}

// get implements tls.Config.GetCertificate. For a name that is not served, or
// that no certificate is for, it returns nothing, and crypto/tls refuses with the
// alert unrecognized_name.
func (c certificates) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	served, err := c.directory.serves(hello.ServerName)
	if err != nil {
		c.logger.Error("cannot answer a TLS client", "name", hello.ServerName, "error", err)
		return nil, err
	}
	if !served {
		c.logger.Debug("refused a TLS client", "name", hello.ServerName, "client", hello.Conn.RemoteAddr())
		return nil, nil
	}
	certificate, err := c.keeper.certificate(hello)
	var (
		uncovered *Uncovered
		failed    *IssueError
		slow      *Slow
	)
	switch {
	case errors.As(err, &uncovered):
		return nil, nil
	case errors.As(err, &failed):
		// It was said when it failed.
		c.logger.Debug("cannot answer a TLS client", "name", hello.ServerName, "error", err)
	case errors.As(err, &slow), errors.Is(err, context.Canceled):
		c.logger.Info("cannot answer a TLS client", "name", hello.ServerName, "error", err)
	case err != nil:
		err = fmt.Errorf("no certificate for %s: %w", hello.ServerName, err)
		c.logger.Error("cannot answer a TLS client", "name", hello.ServerName, "error", err)
	}
	return certificate, err
}
