// Package ingress serves the containers' web pages: it ends TLS for
// https://<alias>.<container>.<domain> and https://<container>.<domain>, finds
// the container by that name and passes the request on to the container's port
// 443. It routes to registered containers and to nothing else.
//
// What exists is asked for every connection and every request, so a new alias
// answers at once and a removed one stops to.
package ingress

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/mholt/acmez/v3"

	"devhost/internal/names"
)

const (
	// containerPort is where a container serves https.
	containerPort = 443
	// headerTimeout bounds the TLS handshake and the reading of a request's
	// header. Nothing bounds a body: downloads and uploads take what they take.
	headerTimeout = 20 * time.Second
	// clientIdleTimeout ends connections that carry no request.
	clientIdleTimeout = 3 * time.Minute
	// pingAfter and pingTimeout find HTTP/2 peers that vanished without a word.
	pingAfter   = 30 * time.Second
	pingTimeout = 10 * time.Second
	// shutdownGrace is how long open requests may go on after the end was asked
	// for; handlerGrace is how long their handlers may take to return after
	// they were cut. Together they stay below five seconds.
	shutdownGrace = 4 * time.Second
	handlerGrace  = 500 * time.Millisecond
)

// Config says what to serve, and where.
type Config struct {
	// Domain is the public domain below which containers are named, lower case
	// and without a trailing dot.
	Domain string
	// MoreDomains are further ones, of the same form.
	MoreDomains []string
	// HTTPSAddresses are the addresses to serve https on, each "host:port". At
	// least one is needed. Port 0 takes a free one.
	HTTPSAddresses []string
	// HTTPAddresses are the addresses that redirect http to https, each
	// "host:port". There need be none.
	HTTPAddresses []string
	// StateDir is the ingress's own folder. It is made when missing: ca/ holds
	// the certificate authority, storage/ the certificates and ACME accounts.
	StateDir string
	// TLS says where certificates come from.
	TLS TLS
	// Source says which containers exist.
	Source Source
	// Logger may be nil.
	Logger hclog.Logger

	// Tests set these; zero means the constants above.
	containerPort int
	shutdownGrace time.Duration
	lookEvery     time.Duration
	clientWait    time.Duration
}

// Addresses are what the ingress listens on, with the ports that it got.
type Addresses struct {
	HTTPS []netip.AddrPort
	HTTP  []netip.AddrPort
}

// Run serves until ctx ends; then it returns nil within five seconds. Open
// requests may finish in that time, WebSockets are cut. ready is called once,
// when every address accepts connections. The error is a *ListenError when an
// address cannot be had, a *CAError when the certificate authority is unusable,
// a *CertificateError when files with certificates are.
func Run(ctx context.Context, config Config, ready func(Addresses)) error {
	domains := append([]string{config.Domain}, config.MoreDomains...)
	for _, domain := range domains {
		if err := names.Domain(domain); err != nil {
			return fmt.Errorf("cannot serve: %w", err)
		}
	}
	if len(config.HTTPSAddresses) == 0 {
		return errors.New("cannot serve: no address for https is given; name one with " + httpsFlag + " HOST:PORT")
	}
	logger := config.Logger
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	if config.containerPort == 0 {
		config.containerPort = containerPort
	}
	if config.shutdownGrace == 0 {
		config.shutdownGrace = shutdownGrace
	}

	httpsListeners, err := listenAll(ctx, config.HTTPSAddresses, httpsFlag)
	if err != nil {
		return err
	}
	defer closeAll(httpsListeners)
	httpListeners, err := listenAll(ctx, config.HTTPAddresses, httpFlag)
	if err != nil {
		return err
	}
	defer closeAll(httpListeners)

	// Requests outlive ctx by the grace, then cut ends them all. A WebSocket
	// has left the server's books, so this is the only thing that ends it.
	requests, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var handlers sync.WaitGroup
	counted := func(handler http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handlers.Add(1)
			defer handlers.Done()
			handler.ServeHTTP(w, r)
		})
	}

	addresses := Addresses{HTTPS: addressesOf(httpsListeners), HTTP: addressesOf(httpListeners)}
	directory := directory{domains: domains, source: config.Source}
	keeper, answering, err := newKeeper(requests, config, directory, addresses, logger)
	if err != nil {
		return err
	}
	defer keeper.stop()
	certificates := certificates{directory: directory, keeper: keeper, logger: logger}
	proxy := newProxy(directory, config.containerPort, logger)
	defer proxy.close()
	httpsServer := newServer(requests, counted(proxy), logger)
	httpsServer.TLSConfig = &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: certificates.get,
	}
	redirector := redirector{directory: directory, https: addresses.HTTPS, trouble: keeper.trouble}
	httpServer := newServer(requests, counted(answering(redirector)), logger)
	if config.TLS.ACME != nil {
		httpsServer.TLSConfig.NextProtos = []string{"h2", "http/1.1", acmez.ACMETLS1Protocol}
	}

	failed := make(chan error, len(httpsListeners)+len(httpListeners))
	for _, listener := range httpsListeners {
		go func() { failed <- httpsServer.ServeTLS(listener, "", "") }()
	}
	for _, listener := range httpListeners {
		go func() { failed <- httpServer.Serve(listener) }()
	}
	var background sync.WaitGroup
	background.Go(func() { keeper.maintain(requests) })
	logger.Info("serving", "domains", domains, "https", addresses.HTTPS, "http", addresses.HTTP)
	ready(addresses)

	var serveErr error
	select {
	case <-ctx.Done():
	case err := <-failed:
		serveErr = fmt.Errorf("the ingress stopped: %w", err)
	}
	shutDown(requests, config.shutdownGrace, httpsServer, httpServer)
	cut()
	background.Wait()
	waitFor(&handlers, handlerGrace)
	return serveErr
}

// newKeeper returns what has the certificates, and what stands in front of the
// handler of plain http.
func newKeeper(ctx context.Context, config Config, directory directory, addresses Addresses, logger hclog.Logger) (keeper, func(http.Handler) http.Handler, error) {
	storage := filepath.Join(config.StateDir, "storage")
	asItIs := func(handler http.Handler) http.Handler { return handler }
	switch {
	case config.TLS.ACME != nil:
		keeper, answering, err := newACME(ctx, *config.TLS.ACME, directory, storage, addresses, logger)
		if err != nil {
			return nil, nil, err
		}
		if config.clientWait > 0 {
			keeper.wait = config.clientWait
		}
		return keeper, answering, nil
	case len(config.TLS.Files) > 0:
		given, err := newGiven(config.TLS.Files, directory.domains, logger)
		if err != nil {
			return nil, nil, err
		}
		if config.lookEvery > 0 {
			given.every = config.lookEvery
		}
		return given, asItIs, nil
	}
	authority, err := openCA(ctx, config.StateDir, directory.domains, logger)
	if err != nil {
		return nil, nil, err
	}
	managed := newManaged(ctx, directory, storage, logger)
	managed.issue(authority)
	return managed, asItIs, nil
}

func newServer(requests context.Context, handler http.Handler, logger hclog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       clientIdleTimeout,
		HTTP2:             &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		BaseContext:       func(net.Listener) context.Context { return requests },
		// Mostly handshakes that clients gave up: of interest to who looks for
		// them only.
		ErrorLog: logger.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
}

// shutDown lets open requests finish, and cuts what is left after the grace.
func shutDown(ctx context.Context, grace time.Duration, servers ...*http.Server) {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	var group sync.WaitGroup
	for _, server := range servers {
		group.Go(func() {
			if server.Shutdown(ctx) != nil {
				_ = server.Close()
			}
		})
	}
	group.Wait()
}

// waitFor waits until the group is done, but no longer than the time given.
func waitFor(group *sync.WaitGroup, longest time.Duration) {
	done := make(chan struct{})
	go func() {
		group.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(longest):
	}
}
