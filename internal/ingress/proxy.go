package ingress

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// dialTimeout bounds one attempt to connect to one address of a container.
	dialTimeout      = 3 * time.Second
	handshakeTimeout = 10 * time.Second
	// backendIdleTimeout is below the 60 to 75 seconds after which common web
	// servers close an idle connection, so that no request meets the closing.
	backendIdleTimeout = 55 * time.Second
	// idlePerName is how many idle connections are kept for one name.
	idlePerName = 32
	copyBuffer  = 32 << 10
	// startingRetry is the Retry-After, in seconds, while a container starts.
	startingRetry = 2
)

// proxy passes requests on to the containers that they name.
type proxy struct {
	directory directory
	port      int
	logger    hclog.Logger
	// quiet takes what ReverseProxy says besides, mostly of clients that left.
	quiet   *log.Logger
	buffers buffers

	mutex sync.Mutex
	pools map[string]*pool
}

// pool holds the connections to one run of one container.
type pool struct {
	identity  poolIdentity
	transport *http.Transport
}

type poolIdentity struct {
	address, addressV6 netip.Addr
	startedAt          int64
}

func newProxy(directory directory, port int, logger hclog.Logger) *proxy {
	return &proxy{
		directory: directory,
		port:      port,
		logger:    logger,
		quiet:     logger.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
		pools:     map[string]*pool{},
	}
}

// close ends the idle connections to all containers.
func (p *proxy) close() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, pool := range p.pools {
		pool.transport.CloseIdleConnections()
	}
}

// ServeHTTP implements http.Handler.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := hostOf(r.Host)
	route, _, err := p.directory.find(name)
	var unknown *unknownName
	switch {
	case errors.As(err, &unknown):
		p.forget(unknown)
		pageUnknown(unknown).serve(w, r)
		return
	case err != nil:
		p.logger.Error("cannot answer a request", "host", r.Host, "error", err)
		pageLookupFailed(name).serve(w, r)
		return
	case normalize(name) != normalize(r.TLS.ServerName):
		pageMisdirected(r.TLS.ServerName, r.Host).serve(w, r)
		return
	case r.Method == http.MethodConnect:
		pageNoTunnel(route.Container).serve(w, r)
		return
	case !reachable(route):
		if route.Broken != nil {
			p.logger.Error("cannot answer a request", "host", r.Host, "error", route.Broken)
		}
		pageNotRunning(route).serve(w, r)
		return
	}
	reverse := httputil.ReverseProxy{
		Rewrite:       func(request *httputil.ProxyRequest) { p.rewrite(request, normalize(name)) },
		Transport:     p.transport(route),
		FlushInterval: -1,
		BufferPool:    &p.buffers,
		ErrorLog:      p.quiet,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			p.failed(w, r, route, err)
		},
	}
	reverse.ServeHTTP(w, r)
}

// rewrite turns the client's request into the one for the container.
func (p *proxy) rewrite(request *httputil.ProxyRequest, name string) {
	out := request.Out
	out.URL.Scheme = "https"
	// The transport takes the name for TLS from here, and the address to
	// connect to from the route.
	out.URL.Host = net.JoinHostPort(name, strconv.Itoa(p.port))
	out.Host = request.In.Host
	// How to read a query is the application's business.
	out.URL.RawQuery = request.In.URL.RawQuery
	for header := range out.Header {
		if tellsClient(header) {
			delete(out.Header, header)
		}
	}
	request.SetXForwarded()
}

// tellsClient says whether applications take a header for what a proxy says of
// the client. The ones that clients send are dropped, and also the spelling
// with underscores, which CGI and WSGI do not tell from the real one.
func tellsClient(header string) bool {
	header = strings.ReplaceAll(strings.ToLower(header), "_", "-")
	// A "Proxy" header becomes the variable HTTP_PROXY in CGI programs.
	return header == "forwarded" || header == "x-real-ip" || header == "proxy" || strings.HasPrefix(header, "x-forwarded-")
}

// transport returns the connections to a container. When the container moved to
// another address or was started again, these are new ones.
func (p *proxy) transport(route Route) *http.Transport {
	identity := poolIdentity{address: route.Address, addressV6: route.AddressV6, startedAt: route.StartedAt.UnixMicro()}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	known := p.pools[route.Container]
	if known != nil && known.identity == identity {
		return known.transport
	}
	if known != nil {
		known.transport.CloseIdleConnections()
	}
	transport := p.newTransport(route)
	p.pools[route.Container] = &pool{identity: identity, transport: transport}
	return transport
}

func (p *proxy) newTransport(route Route) *http.Transport {
	dialer := net.Dialer{Timeout: dialTimeout}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialRoute(ctx, dialer, network, route, p.port)
		},
		// Containers sign their own certificates. What guards this hop is that
		// it never leaves the host.
		TLSClientConfig:       &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   handshakeTimeout,
		ForceAttemptHTTP2:     true,
		HTTP2:                 &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		MaxIdleConnsPerHost:   idlePerName,
		IdleConnTimeout:       backendIdleTimeout,
		ExpectContinueTimeout: time.Second,
		// Bodies pass as they are.
		DisableCompression: true,
	}
}

// dialRoute connects to the first address of a container that answers.
func dialRoute(ctx context.Context, dialer net.Dialer, network string, route Route, port int) (net.Conn, error) {
	var failures []error
	for _, address := range []netip.Addr{route.Address, route.AddressV6} {
		if !address.IsValid() {
			continue
		}
		connection, err := dialer.DialContext(ctx, network, netip.AddrPortFrom(address, uint16(port)).String())
		if err == nil {
			return connection, nil
		}
		failures = append(failures, err)
	}
	if len(failures) == 0 {
		return nil, fmt.Errorf("container %s has no address", route.Container)
	}
	return nil, errors.Join(failures...)
}

// forget drops the connections to a container that is gone.
func (p *proxy) forget(unknown *unknownName) {
	if unknown.Container == "" || unknown.Registered {
		return
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if known := p.pools[unknown.Container]; known != nil {
		known.transport.CloseIdleConnections()
		delete(p.pools, unknown.Container)
	}
}

// failed answers for a container that did not.
func (p *proxy) failed(w http.ResponseWriter, r *http.Request, route Route, err error) {
	if r.Context().Err() != nil {
		// The client is gone, or the ingress ends: there is nobody to tell.
		panic(http.ErrAbortHandler)
	}
	p.logger.Warn("a container does not answer", "container", route.Container, "host", r.Host, "error", err)
	pageNoAnswer(route.Container, p.port, failureOf(err)).serve(w, r)
}

// failure is why a container gave no answer, as far as a page can help.
type failure int

const (
	// otherFailure is a connection that broke, or an answer that is no HTTP.
	otherFailure failure = iota
	refused
	unreachable
	notTLS
)

func failureOf(err error) failure {
	var noTLS tls.RecordHeaderError
	var netError net.Error
	var opError *net.OpError
	switch {
	case errors.As(err, &noTLS):
		return notTLS
	case errors.Is(err, syscall.ECONNREFUSED):
		return refused
	case errors.As(err, &opError) && opError.Op == "dial":
		return unreachable
	case errors.As(err, &netError) && netError.Timeout():
		return unreachable
	}
	return otherFailure
}

// hostOf returns the name in a Host header, without the port.
func hostOf(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return host
}

// buffers lends the buffers that bodies are copied through.
type buffers struct{ pool sync.Pool }

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte {
	if buffer, ok := b.pool.Get().(*[]byte); ok {
		return *buffer
	}
	return make([]byte, copyBuffer)
}

// Put implements httputil.BufferPool.
func (b *buffers) Put(buffer []byte) { b.pool.Put(&buffer) }
