package ingress

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"
)

const (
	// issueTimeout bounds how long a client waits for its first certificate. It
	// outlasts a lock that a killed ingress left, which certmagic takes over
	// after ten seconds.
	issueTimeout = 15 * time.Second
	// certificatesInMemory bounds the cache; others are read from disk.
	certificatesInMemory = 1000
	// cleanEvery is how often expired certificates are removed from disk.
	cleanEvery = 24 * time.Hour
)

// certificates chooses, makes and renews what is shown to clients.
type certificates struct {
	directory directory
	config    *certmagic.Config
	cache     *certmagic.Cache
	logger    hclog.Logger
}

func newCertificates(directory directory, issuer certmagic.Issuer, storage string, logger hclog.Logger) *certificates {
	c := &certificates{directory: directory, logger: logger}
	// certmagic logs through zap only; what matters comes as an event or as an
	// error, and goes to our own log.
	silent := zap.NewNop()
	c.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return c.config, nil },
		Capacity:         certificatesInMemory,
		Logger:           silent,
	})
	c.config = certmagic.New(c.cache, certmagic.Config{
		Issuers: []certmagic.Issuer{issuer},
		Storage: impatientStorage{&certmagic.FileStorage{Path: storage}},
		OnDemand: &certmagic.OnDemandConfig{DecisionFunc: func(_ context.Context, name string) error {
			served, err := c.serves(name)
			if err == nil && !served {
				err = errors.New("it is not registered")
			}
			return err
		}},
		OnEvent:        c.report,
		ShouldEmitFunc: func(event string) bool { return event == eventObtained || event == eventFailed },
		// None of these may cause network traffic: the certificates name no
		// OCSP responder either.
		OCSP:                certmagic.OCSPConfig{DisableStapling: true},
		DisableARI:          true,
		DisableStorageCheck: true,
		Logger:              silent,
	})
	return c
}

// Names of certmagic's events.
const (
	eventObtained = "cert_obtained"
	eventFailed   = "cert_failed"
)

func (c *certificates) report(_ context.Context, event string, data map[string]any) error {
	switch event {
	case eventObtained:
		c.logger.Info("made a certificate", "name", data["identifier"], "renewal", data["renewal"])
	case eventFailed:
		c.logger.Error("cannot make a certificate", "name", data["identifier"], "renewal", data["renewal"], "error", data["error"])
	}
	return nil
}

// serves says whether a name gets a certificate. Aliases of a broken container
// do not: nobody can tell which ones it has, and any name would be one.
func (c *certificates) serves(name string) (bool, error) {
	route, alias, err := c.directory.find(name)
	var unknown *unknownName
	if errors.As(err, &unknown) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return route.Broken == nil || alias == "", nil
}

// get implements tls.Config.GetCertificate. For a name that is not served it
// returns nothing, and crypto/tls refuses with the alert unrecognized_name.
func (c *certificates) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	served, err := c.serves(hello.ServerName)
	if err != nil {
		c.logger.Error("cannot answer a TLS client", "name", hello.ServerName, "error", err)
		return nil, err
	}
	if !served {
		c.logger.Debug("refused a TLS client", "name", hello.ServerName, "client", hello.Conn.RemoteAddr())
		return nil, nil
	}
	// Other clients may wait for the same certificate: it is made even when
	// this one goes away.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(hello.Context()), issueTimeout)
	defer cancel()
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	certificate, err := c.config.GetCertificateWithContext(context.WithValue(ctx, giveUpKey{}, giveUp), hello)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		err = fmt.Errorf("no certificate for %s: %w", hello.ServerName, err)
		c.logger.Error("cannot answer a TLS client", "name", hello.ServerName, "error", err)
		return nil, err
	}
	return certificate, nil
}

// impatientStorage ends the making of a certificate when it cannot be stored,
// for example on a full disk. certmagic would try again for a month, and the
// client's handshake with it. Renewals in the background are tried again.
type impatientStorage struct{ *certmagic.FileStorage }

// giveUpKey finds the context.CancelCauseFunc of a client's handshake.
type giveUpKey struct{}

// Store implements certmagic.Storage.
func (i impatientStorage) Store(ctx context.Context, key string, value []byte) error {
	err := i.FileStorage.Store(ctx, key, value)
	if giveUp, ok := ctx.Value(giveUpKey{}).(context.CancelCauseFunc); ok && err != nil {
		giveUp(err)
	}
	return err
}

// clean removes expired certificates from disk now and then, until ctx ends.
func (c *certificates) clean(ctx context.Context) {
	ticker := time.NewTicker(cleanEvery)
	defer ticker.Stop()
	for {
		err := certmagic.CleanStorage(ctx, c.config.Storage, certmagic.CleanStorageOptions{Logger: zap.NewNop(), ExpiredCerts: true})
		if err != nil && ctx.Err() == nil {
			c.logger.Warn("cannot remove expired certificates", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (c *certificates) stop() { c.cache.Stop() }
