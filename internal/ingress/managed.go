package ingress

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/hashicorp/go-hclog"
	"github.com/mholt/acmez/v3"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"
)

const (
	// issueTimeout bounds how long a client waits for its first certificate. It
	// outlasts a lock that a killed ingress left, which certmagic takes over
	// after ten seconds.
	issueTimeout = 15 * time.Second
	// acmeTimeout bounds how long a certificate may take that an ACME server
	// makes. Clients do not wait for it: the next one finds it.
	acmeTimeout = 3 * time.Minute
	// certificatesInMemory bounds the cache; others are read from disk.
	certificatesInMemory = 1000
	// cleanEvery is how often expired certificates are removed from disk.
	cleanEvery = 24 * time.Hour
)

// Slow says that a certificate is being made, for longer than a client waits.
type Slow struct{ Name string }

func (s *Slow) Error() string {
	return fmt.Sprintf("the certificate for %s is not there yet; try again in a moment", s.Name)
}

// managed makes certificates when a name is first asked for, and renews them
// when it is asked for later.
type managed struct {
	config *certmagic.Config
	cache  *certmagic.Cache
	// lifetime ends with the ingress.
	lifetime context.Context
	end      context.CancelFunc
	// most bounds how long a certificate may take, wait how long a client waits.
	most, wait time.Duration
	// tries is nil where nobody else is asked for certificates.
	tries  *tries
	flight singleflight.Group
	jobs   sync.WaitGroup
	logger hclog.Logger
}

// newManaged returns a keeper without an issuer; issue sets that.
func newManaged(ctx context.Context, directory directory, storage string, logger hclog.Logger) *managed {
	m := &managed{logger: logger, most: issueTimeout, wait: issueTimeout}
	m.lifetime, m.end = context.WithCancel(ctx)
	// certmagic logs through zap only; what matters comes as an event or as an
	// error, and goes to our own log.
	silent := zap.NewNop()
	m.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return m.config, nil },
		Capacity:         certificatesInMemory,
		Logger:           silent,
	})
	m.config = certmagic.New(m.cache, certmagic.Config{
		Storage: certificateStorage{&certmagic.FileStorage{Path: storage}, logger},
		OnDemand: &certmagic.OnDemandConfig{DecisionFunc: func(_ context.Context, name string) error {
			served, err := directory.serves(name)
			if err == nil && !served {
				err = errors.New("it is not registered")
			}
			return err
		}},
		OnEvent:        m.report,
		ShouldEmitFunc: func(event string) bool { return event == eventObtained || event == eventFailed },
		// What is shown needs no answer of anybody: no stapling, and renewals
		// by the lifetime alone.
		OCSP:                certmagic.OCSPConfig{DisableStapling: true},
		DisableARI:          true,
		DisableStorageCheck: true,
		Logger:              silent,
	})
	return m
}

func (m *managed) issue(issuer certmagic.Issuer) { m.config.Issuers = []certmagic.Issuer{issuer} }

// Names of certmagic's events.
const (
	eventObtained = "cert_obtained"
	eventFailed   = "cert_failed"
)

func (m *managed) report(_ context.Context, event string, data map[string]any) error {
	name, _ := data["identifier"].(string)
	switch event {
	case eventObtained:
		if m.tries != nil {
			m.tries.succeeded(name)
		}
		m.logger.Info("made a certificate", "name", name, "renewal", data["renewal"])
	case eventFailed:
		err, _ := data["error"].(error)
		var again *postponed
		if errors.As(err, &again) || m.lifetime.Err() != nil {
			return nil
		}
		var failed *IssueError
		if errors.As(err, &failed) {
			// Without what certmagic puts around it.
			err = failed
		}
		m.logger.Error("cannot make a certificate", "name", name, "renewal", data["renewal"], "error", err)
	}
	return nil
}

// certificate implements keeper.
func (m *managed) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if slices.Equal(hello.SupportedProtos, []string{acmez.ACMETLS1Protocol}) {
		// The server asks, while everybody else waits for its answer.
		return m.config.GetCertificateWithContext(hello.Context(), hello)
	}
	name := normalize(hello.ServerName)
	// It is made even when this client goes away: the next one wants it.
	made := m.flight.DoChan(name, func() (any, error) { return m.make(name, hello) })
	timer := time.NewTimer(m.wait)
	defer timer.Stop()
	select {
	case result := <-made:
		if result.Err != nil {
			return nil, result.Err
		}
		return result.Val.(*tls.Certificate), nil
	case <-timer.C:
		return nil, &Slow{Name: name}
	case <-hello.Context().Done():
		return nil, hello.Context().Err()
	}
}

func (m *managed) make(name string, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	m.jobs.Add(1)
	defer m.jobs.Done()
	if err := m.trouble(name); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(m.lifetime, m.most)
	defer cancel()
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	certificate, err := m.config.GetCertificateWithContext(context.WithValue(ctx, giveUpKey{}, giveUp), hello)
	if err == nil {
		return certificate, nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return nil, err
}

// trouble implements keeper.
func (m *managed) trouble(name string) error {
	if m.tries == nil {
		return nil
	}
	return m.tries.refusal(normalize(name))
}

// certificateStorage ends the making of a certificate when it cannot be stored,
// for example on a full disk. certmagic would try again for a month, and the
// client's handshake with it. Renewals in the background are tried again.
//
// A certificate that is damaged counts as none: certmagic would refuse it at each
// connection, for ever. The clean-up of expired certificates takes none away that
// is being stored.
type certificateStorage struct {
	*certmagic.FileStorage
	logger hclog.Logger
}

// giveUpKey finds the context.CancelCauseFunc of what clients wait for.
type giveUpKey struct{}

// awaited tells whether clients wait for what a context is of: then they have no
// certificate that is valid.
func awaited(ctx context.Context) bool { return ctx.Value(giveUpKey{}) != nil }

// Store implements certmagic.Storage.
func (s certificateStorage) Store(ctx context.Context, key string, value []byte) error {
	err := s.FileStorage.Store(ctx, key, value)
	// The clean-up may take the folder away before there is a file in it.
	const tries = 100
	for n := 1; n < tries && errors.Is(err, fs.ErrNotExist); n++ {
		err = s.FileStorage.Store(ctx, key, value)
	}
	if giveUp, ok := ctx.Value(giveUpKey{}).(context.CancelCauseFunc); ok && err != nil {
		giveUp(err)
	}
	return err
}

// Load implements certmagic.Storage.
func (s certificateStorage) Load(ctx context.Context, key string) ([]byte, error) {
	value, err := s.FileStorage.Load(ctx, key)
	if err != nil {
		return nil, err
	}
	damage := damaged(key, value)
	if damage == nil {
		return value, nil
	}
	s.logger.Warn("a stored certificate is damaged; it is made anew", "file", s.Filename(key), "error", damage)
	// Its key and its description are of no use by themselves.
	if err := s.FileStorage.Delete(ctx, path.Dir(key)); err != nil {
		return nil, err
	}
	return nil, fs.ErrNotExist
}

// damaged looks at a file by itself: while a certificate is renewed, its files
// need not fit each other.
func damaged(key string, value []byte) error {
	if !strings.HasPrefix(key, "certificates/") {
		return nil
	}
	switch path.Ext(key) {
	case ".crt":
		_, err := parseCertificate(value)
		return err
	case ".key":
		_, err := certmagic.PEMDecodePrivateKey(value)
		return err
	case ".json":
		if !json.Valid(value) {
			return errors.New("it is no JSON")
		}
	}
	return nil
}

// Delete implements certmagic.Storage. certmagic deletes folders when it has seen
// that they are empty: what came into one since then stays.
func (s certificateStorage) Delete(ctx context.Context, key string) error {
	file := s.Filename(key)
	info, err := os.Lstat(file)
	if err != nil || !info.IsDir() {
		return s.FileStorage.Delete(ctx, key)
	}
	err = os.Remove(file)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTEMPTY) {
		return nil
	}
	return err
}

// maintain implements keeper: it removes expired certificates from disk.
func (m *managed) maintain(ctx context.Context) {
	ticker := time.NewTicker(cleanEvery)
	defer ticker.Stop()
	for {
		err := certmagic.CleanStorage(ctx, m.config.Storage, certmagic.CleanStorageOptions{Logger: zap.NewNop(), ExpiredCerts: true})
		if err != nil && ctx.Err() == nil {
			m.logger.Warn("cannot remove expired certificates", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// stop implements keeper.
func (m *managed) stop() {
	m.end()
	waitFor(&m.jobs, handlerGrace)
	m.cache.Stop()
}
