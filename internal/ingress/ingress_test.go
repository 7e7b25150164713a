package ingress

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/net/websocket"

	"devhost/internal/engine"
	"devhost/internal/names"
)

// patience bounds waits that end at once unless something is broken.
const patience = time.Minute

// fakeSource is a Source that tests change while the ingress runs.
type fakeSource struct {
	mutex  sync.Mutex
	routes map[string]Route
	err    error
	// asked are the names that were looked up.
	asked []string
}

func newSource(routes ...Route) *fakeSource {
	source := &fakeSource{routes: map[string]Route{}}
	for _, route := range routes {
		source.set(route)
	}
	return source
}

func (f *fakeSource) set(route Route) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.routes[route.Container] = route
}

func (f *fakeSource) remove(container string) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	delete(f.routes, container)
}

func (f *fakeSource) fail(err error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.err = err
}

func (f *fakeSource) Route(container string) (Route, bool, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.asked = append(f.asked, container)
	route, known := f.routes[container]
	return route, known, f.err
}

// instance is an ingress under test.
type instance struct {
	Addresses
	config Config
	stop   func() error
}

// testDomains counts the domains that tests used. certmagic keeps what is under
// way by name for the whole process, so that tests must not share names.
var testDomains atomic.Int32

// start runs an ingress until the test ends.
func start(t *testing.T, config Config) *instance {
	t.Helper()
	if config.Domain == "" {
		config.Domain = fmt.Sprintf("d%d.test", testDomains.Add(1))
	}
	if config.StateDir == "" {
		config.StateDir = t.TempDir()
	}
	if config.HTTPSAddresses == nil {
		config.HTTPSAddresses = []string{"127.0.0.1:0"}
		config.HTTPAddresses = []string{"127.0.0.1:0"}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready := make(chan Addresses, 1)
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, config, func(addresses Addresses) { ready <- addresses }) }()
	stop := sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	select {
	case addresses := <-ready:
		t.Cleanup(func() {
			if err := stop(); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		return &instance{Addresses: addresses, config: config, stop: stop}
	case err := <-ended:
		cancel()
		t.Fatalf("Run: %v", err)
		return nil
	}
}

func (i *instance) pool(t *testing.T) *x509.CertPool {
	t.Helper()
	path, err := CARoot(i.config.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		t.Fatalf("%s holds no certificate", path)
	}
	return pool
}

// client returns one that finds every name at the ingress, trusts its CA and
// follows no redirects.
func (i *instance) client(t *testing.T, http2 bool) *http.Client {
	t.Helper()
	var protocols http.Protocols
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
		},
		TLSClientConfig:    &tls.Config{RootCAs: i.pool(t)},
		Protocols:          &protocols,
		DisableCompression: true,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (i *instance) url(name, path string) string {
	return fmt.Sprintf("https://%s.%s:%d%s", name, i.config.Domain, i.HTTPS[0].Port(), path)
}

func get(t *testing.T, client *http.Client, url string, header ...string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n+1 < len(header); n += 2 {
		request.Header.Set(header[n], header[n+1])
	}
	return do(t, client, request)
}

func do(t *testing.T, client *http.Client, request *http.Request) (*http.Response, string) {
	t.Helper()
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

// backends are web servers of containers: each on an address of its own, all on
// one port.
type backends struct {
	port int
	next byte
	// closed, when not nil, gets the client's address of each connection that
	// was closed.
	closed chan string
}

// add serves a handler on the next address, or on the one given.
func (b *backends) add(t *testing.T, handler http.Handler) (netip.Addr, *httptest.Server) {
	t.Helper()
	b.next++
	address := netip.AddrFrom4([4]byte{127, 0, 77, b.next})
	return address, b.addAt(t, address, handler)
}

func (b *backends) addAt(t *testing.T, address netip.Addr, handler http.Handler) *httptest.Server {
	t.Helper()
	listener := b.listen(t, address)
	server := httptest.NewUnstartedServer(handler)
	_ = server.Listener.Close()
	server.Listener = listener
	server.EnableHTTP2 = true
	server.Config.ErrorLog = hclog.NewNullLogger().StandardLogger(nil)
	server.Config.ConnState = func(connection net.Conn, state http.ConnState) {
		if b.closed != nil && state == http.StateClosed {
			b.closed <- connection.RemoteAddr().String()
		}
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

func (b *backends) listen(t *testing.T, address netip.Addr) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", netip.AddrPortFrom(address, uint16(b.port)).String())
	if err != nil {
		t.Fatal(err)
	}
	b.port = listener.Addr().(*net.TCPAddr).Port
	return listener
}

func says(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })
}

func running(container string, address netip.Addr, aliases ...string) Route {
	return Route{Container: container, Aliases: aliases, Address: address, Status: engine.Running}
}

func TestRequestsReachTheContainerAsTheyAre(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2=%t", http2), func(t *testing.T) {
			seen := make(chan *http.Request, 1)
			var back backends
			address, _ := back.add(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				seen <- r
				w.Header().Set("Content-Encoding", "gzip")
				_, _ = io.WriteString(w, "not really gzip")
			}))
			ingress := start(t, Config{Source: newSource(running("shop", address, "www")), containerPort: back.port})

			response, body := get(t, ingress.client(t, http2), ingress.url("www.shop", "/a%2Fb//c?x=1;y=2&z"),
				"X-Forwarded-For", "6.6.6.6", "X-Forwarded-Port", "1", "X_forwarded_proto", "ftp", "Forwarded", "for=6.6.6.6",
				"X-Real-Ip", "6.6.6.6", "Proxy", "http://6.6.6.6", "X-Own", "kept")
			if response.StatusCode != http.StatusOK || body != "not really gzip" {
				t.Errorf("got %s with %q", response.Status, body)
			}
			if want := 1 + btoi(http2); response.ProtoMajor != want {
				t.Errorf("the client got HTTP/%d", response.ProtoMajor)
			}

			request := <-seen
			host := fmt.Sprintf("www.shop.%s:%d", ingress.config.Domain, ingress.HTTPS[0].Port())
			got := map[string]string{
				"uri": request.RequestURI, "host": request.Host, "sni": request.TLS.ServerName,
				"proto": fmt.Sprintf("HTTP/%d", request.ProtoMajor),
			}
			for name, values := range request.Header {
				got[name] = strings.Join(values, ", ")
			}
			want := map[string]string{
				"uri": "/a%2Fb//c?x=1;y=2&z", "host": host, "sni": "www.shop." + ingress.config.Domain,
				"proto":           "HTTP/2",
				"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": host, "X-Forwarded-Proto": "https",
				"X-Own": "kept", "User-Agent": "Go-http-client/" + map[bool]string{false: "1.1", true: "2.0"}[http2],
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("what the container saw (-want +got):\n%s", diff)
			}
		})
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestNamesLeadToTheirContainer(t *testing.T) {
	var back backends
	first, _ := back.add(t, says("first"))
	second, _ := back.add(t, says("second"))
	ingress := start(t, Config{
		Source:        newSource(running("one", first, "www", "api"), running("two", second, "www")),
		containerPort: back.port,
	})
	client := ingress.client(t, true)
	for name, want := range map[string]string{
		"one": "first", "www.one": "first", "api.one": "first", "two": "second", "www.two": "second", "WWW.Two": "second",
	} {
		if _, body := get(t, client, ingress.url(name, "/")); body != want {
			t.Errorf("%s led to %q, want %q", name, body, want)
		}
	}
}

// TestSeveralDomains: each has all containers; where one lies below another, the
// longer one is meant.
func TestSeveralDomains(t *testing.T) {
	var back backends
	first, _ := back.add(t, says("first"))
	second, _ := back.add(t, says("second"))
	more := fmt.Sprintf("d%d.test", testDomains.Add(1))
	ingress := start(t, Config{
		Source:        newSource(running("one", first, "www"), running("two", second, "one")),
		MoreDomains:   []string{more, "two." + more},
		containerPort: back.port,
	})
	client := ingress.client(t, true)
	at := func(host string) string { return fmt.Sprintf("https://%s:%d/", host, ingress.HTTPS[0].Port()) }
	for host, want := range map[string]string{
		"one." + ingress.config.Domain: "first", "www.one." + ingress.config.Domain: "first",
		"one." + more: "first", "www.one." + more: "first", "two." + more: "second",
		"one.two." + more: "first", "www.one.two." + more: "first",
	} {
		if _, body := get(t, client, at(host)); body != want {
			t.Errorf("%s led to %q, want %q", host, body, want)
		}
	}
	if _, err := client.Get(at("one.d0.test")); err == nil {
		t.Error("a domain that is none of them is served")
	}
}

func TestIPv6IsTriedAfterIPv4(t *testing.T) {
	listener, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 on loopback: %v", err)
	}
	back := backends{port: listener.Addr().(*net.TCPAddr).Port}
	_ = listener.Close()
	back.addAt(t, netip.IPv6Loopback(), says("six"))
	route := Route{Container: "shop", Status: engine.Running, Address: netip.MustParseAddr("127.0.77.200"), AddressV6: netip.IPv6Loopback()}
	ingress := start(t, Config{Source: newSource(route), containerPort: back.port})
	if _, body := get(t, ingress.client(t, true), ingress.url("shop", "/")); body != "six" {
		t.Errorf("got %q", body)
	}
}

func TestUnknownNamesAreRefusedInTheHandshake(t *testing.T) {
	source := newSource(
		running("shop", netip.MustParseAddr("127.0.77.1"), "www"),
		Route{Container: "broken", Broken: errors.New("unexpected end of JSON input")},
	)
	ingress := start(t, Config{Source: source})
	domain := ingress.config.Domain
	for _, name := range []string{
		"", "other." + domain, "api.shop." + domain, "www.other." + domain, "a.www.shop." + domain, domain, "shop.example.com",
		"shop." + domain + ".example.com", "any.broken." + domain, "1234." + domain, "xn--a." + domain, "..." + domain, "../../etc." + domain, "a/b." + domain, "shop" + domain,
	} {
		t.Run(name, func(t *testing.T) {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				connection, err := tls.Dial("tcp", ingress.HTTPS[0].String(),
					&tls.Config{ServerName: name, InsecureSkipVerify: true, MinVersion: version, MaxVersion: version})
				if err == nil {
					_ = connection.Close()
				}
				if !isAlert(err, "unrecognized name") {
					t.Errorf("TLS %x: got %v, want the alert unrecognized_name", version, err)
				}
			}
		})
	}
	// A source makes file names of what it is asked for.
	for _, name := range source.asked {
		if err := names.Container(name); err != nil {
			t.Errorf("the source was asked for a name from the network: %v", err)
		}
	}
	if entries, err := os.ReadDir(filepath.Join(ingress.config.StateDir, "storage", "certificates")); err == nil {
		t.Errorf("certificates were made: %v", entries)
	}
}

// isAlert says whether the server refused with a TLS alert, which crypto/tls
// tells by its text only.
func isAlert(err error, name string) bool {
	var opError *net.OpError
	return errors.As(err, &opError) && opError.Op == "remote error" && strings.HasSuffix(err.Error(), "tls: "+name)
}

func TestASourceThatFailsIsAnErrorNotAnUnknownName(t *testing.T) {
	source := newSource(running("shop", netip.MustParseAddr("127.0.77.1")))
	ingress := start(t, Config{Source: source})
	source.fail(errors.New("too many open files"))
	_, err := tls.Dial("tcp", ingress.HTTPS[0].String(), &tls.Config{ServerName: "shop." + ingress.config.Domain, InsecureSkipVerify: true})
	if !isAlert(err, "internal error") {
		t.Errorf("https: got %v, want the alert internal_error", err)
	}
	response, body := get(t, http.DefaultClient, "http://"+ingress.HTTP[0].String()+"/")
	if response.StatusCode != http.StatusNotFound {
		t.Errorf("http, no name of a container: got %s with %q", response.Status, body)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+ingress.HTTP[0].String()+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = "shop." + ingress.config.Domain
	if response, body := do(t, http.DefaultClient, request); response.StatusCode != http.StatusInternalServerError || strings.Contains(body, "too many") {
		t.Errorf("http: got %s with %q", response.Status, body)
	}
}

func TestAliasesComeAndGoWhileItRuns(t *testing.T) {
	var back backends
	address, _ := back.add(t, says("hello"))
	source := newSource(running("shop", address, "www"))
	ingress := start(t, Config{Source: source, containerPort: back.port})
	client := ingress.client(t, true)

	if _, err := client.Get(ingress.url("new.shop", "/")); err == nil {
		t.Fatal("an alias that does not exist was served")
	}
	source.set(running("shop", address, "www", "new"))
	if _, body := get(t, client, ingress.url("new.shop", "/")); body != "hello" {
		t.Errorf("new alias: got %q", body)
	}

	source.set(running("shop", address, "www"))
	response, body := get(t, client, ingress.url("new.shop", "/"))
	if response.StatusCode != http.StatusNotFound || !strings.Contains(body, "has no alias new") {
		t.Errorf("removed alias on an open connection: got %s with %q", response.Status, body)
	}
	if _, err := ingress.client(t, true).Get(ingress.url("new.shop", "/")); !isAlert(err, "unrecognized name") {
		t.Errorf("removed alias on a new connection: got %v", err)
	}

	source.remove("shop")
	if response, body := get(t, client, ingress.url("new.shop", "/")); response.StatusCode != http.StatusNotFound || !strings.Contains(body, "There is no container shop") {
		t.Errorf("removed container: got %s with %q", response.Status, body)
	}
}

func TestHostMustBeTheNameOfTheConnection(t *testing.T) {
	var back backends
	address, _ := back.add(t, says("hello"))
	ingress := start(t, Config{Source: newSource(running("one", address, "www"), running("two", address)), containerPort: back.port})
	domain := ingress.config.Domain
	for _, test := range []struct {
		host   string
		status int
		body   string
	}{
		{"www.one." + domain, http.StatusOK, "hello"},
		{"WWW.one." + domain + ".:9999", http.StatusOK, "hello"},
		{"one." + domain, http.StatusMisdirectedRequest, "The connection was made to www.one." + domain + ", but the request asks for one." + domain},
		{"two." + domain, http.StatusMisdirectedRequest, "This connection is for another name"},
		{"other." + domain, http.StatusNotFound, "There is no container other"},
		{"example.com", http.StatusNotFound, "Names here have the form CONTAINER." + domain},
		{"[::1]:443", http.StatusNotFound, "Nothing is served under this name"},
	} {
		t.Run(test.host, func(t *testing.T) {
			for _, http2 := range []bool{false, true} {
				request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, ingress.url("www.one", "/"), nil)
				if err != nil {
					t.Fatal(err)
				}
				request.Host = test.host
				response, body := do(t, ingress.client(t, http2), request)
				if response.StatusCode != test.status || !strings.Contains(body, test.body) {
					t.Errorf("http2=%t: got %s with %q", http2, response.Status, body)
				}
			}
		})
	}
}

func TestNoTunnels(t *testing.T) {
	ingress := start(t, Config{Source: newSource(running("one", netip.MustParseAddr("127.0.77.1")))})
	host := "one." + ingress.config.Domain
	connection, err := tls.Dial("tcp", ingress.HTTPS[0].String(), &tls.Config{ServerName: host, RootCAs: ingress.pool(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = connection.Close() }()
	_, _ = fmt.Fprintf(connection, "CONNECT %s:443 HTTP/1.1\r\nHost: %s:443\r\n\r\n", host, host)
	response, err := http.ReadResponse(bufio.NewReader(connection), &http.Request{Method: http.MethodConnect})
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("got %s", response.Status)
	}
}

func TestAmbiguousRequestsDoNotReachTheContainer(t *testing.T) {
	var reached atomic.Int32
	var back backends
	address, _ := back.add(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	ingress := start(t, Config{Source: newSource(running("one", address)), containerPort: back.port})
	host := "one." + ingress.config.Domain
	for name, header := range map[string]string{
		"two lengths":         "Content-Length: 3\r\nContent-Length: 4\r\n",
		"unknown coding":      "Transfer-Encoding: xchunked\r\n",
		"space before colon":  "Transfer-Encoding : chunked\r\n",
		"folded header":       "X: a\r\n b\x00\r\n",
		"two hosts":           "Host: two\r\n",
		"length with a sign":  "Content-Length: +3\r\n",
		"control in a header": "X: a\x01b\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			connection, err := tls.Dial("tcp", ingress.HTTPS[0].String(), &tls.Config{ServerName: host, RootCAs: ingress.pool(t)})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = connection.Close() }()
			_, _ = fmt.Fprintf(connection, "POST / HTTP/1.1\r\nHost: %s\r\n%s\r\nabcd", host, header)
			response, err := http.ReadResponse(bufio.NewReader(connection), nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			if response.StatusCode != http.StatusBadRequest && response.StatusCode != http.StatusNotImplemented {
				t.Errorf("got %s", response.Status)
			}
		})
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d requests reached the container", n)
	}
}

func TestContainersThatDoNotAnswer(t *testing.T) {
	var back backends
	alive, _ := back.add(t, says("hello"))
	plain := netip.MustParseAddr("127.0.77.101")
	plainServer := &http.Server{Handler: says("plain"), ReadHeaderTimeout: patience}
	plainListener := back.listen(t, plain)
	go func() { _ = plainServer.Serve(plainListener) }()
	t.Cleanup(func() { _ = plainServer.Close() })
	breaking, _ := back.add(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	down := netip.MustParseAddr("127.0.77.102")

	with := func(route Route, status engine.Status, detail string) Route {
		route.Status, route.Detail = status, detail
		return route
	}
	for _, test := range []struct {
		name   string
		route  Route
		status int
		title  string
		says   []string
		retry  string
	}{
		{"stopped", with(running("c", alive), engine.Stopped, ""), 503, "Container c is stopped", []string{"devhost start c\n"}, ""},
		{"starting", with(running("c", alive), engine.Starting, ""), 503, "Container c is starting", []string{"devhost logs c\n"}, "2"},
		{"stopping", with(running("c", alive), engine.Stopping, ""), 503, "Container c is stopping", []string{"devhost start c\n"}, ""},
		{"failed", with(running("c", alive), engine.Failed, "exit status 1"), 503, "Container c failed", []string{"It ended by itself: exit status 1", "devhost logs c\n", "devhost start c\n"}, ""},
		{"failed, reason unknown", with(running("c", alive), engine.Failed, ""), 503, "Container c failed", []string{"It ended by itself, with an error."}, ""},
		{"broken", Route{Container: "c", Broken: errors.New("secret path")}, 503, "The state of container c is unreadable", []string{"devhost status c\n"}, ""},
		{"refused", running("c", down), 502, "Container c runs, but serves no https", []string{fmt.Sprintf("port %d", back.port), "devhost exec c -- systemctl --failed\n"}, ""},
		{"no TLS", running("c", plain), 502, "Container c speaks no TLS on port", []string{"addSSL = true;\n"}, ""},
		{"breaks off", running("c", breaking), 502, "Container c broke off", []string{"devhost exec c -- systemctl --failed\n"}, ""},
		{"no address", Route{Container: "c", Status: engine.Running}, 502, "Container c broke off", nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			ingress := start(t, Config{Source: newSource(test.route), containerPort: back.port})
			client := ingress.client(t, true)
			response, body := get(t, client, ingress.url("c", "/"))
			if response.StatusCode != test.status || response.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
				t.Errorf("got %s, %s", response.Status, response.Header.Get("Content-Type"))
			}
			if !strings.HasPrefix(body, test.title) {
				t.Errorf("the page does not start with %q:\n%s", test.title, body)
			}
			for _, want := range test.says {
				if !strings.Contains(body, want) {
					t.Errorf("the page does not say %q:\n%s", want, body)
				}
			}
			if strings.Contains(body, "secret") {
				t.Errorf("the page tells an internal error:\n%s", body)
			}
			if got := response.Header.Get("Retry-After"); got != test.retry {
				t.Errorf("Retry-After is %q, want %q", got, test.retry)
			}
			response, body = get(t, client, ingress.url("c", "/"), "Accept", "text/html,*/*;q=0.8")
			if response.StatusCode != test.status || response.Header.Get("Content-Type") != "text/html; charset=utf-8" || !strings.Contains(body, "<h1>"+test.title) {
				t.Errorf("in a browser: got %s, %s:\n%s", response.Status, response.Header.Get("Content-Type"), body)
			}
		})
	}
}

func TestAContainerThatMovedOrRestartedGetsNewConnections(t *testing.T) {
	back := backends{closed: make(chan string, 8)}
	telling := func(text string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, text+" "+r.RemoteAddr)
		})
	}
	first, _ := back.add(t, telling("first"))
	second, _ := back.add(t, telling("second"))
	source := newSource(running("shop", first))
	ingress := start(t, Config{Source: source, containerPort: back.port})
	client := ingress.client(t, true)

	_, before := get(t, client, ingress.url("shop", "/"))
	if _, again := get(t, client, ingress.url("shop", "/")); again != before {
		t.Errorf("the connection was not used again: %q, then %q", before, again)
	}
	restarted := running("shop", first)
	restarted.StartedAt = time.Unix(1, 0)
	source.set(restarted)
	if _, after := get(t, client, ingress.url("shop", "/")); after == before || !strings.HasPrefix(after, "first") {
		t.Errorf("after the restart: %q, before: %q", after, before)
	}
	select {
	case closed := <-back.closed:
		if before != "first "+closed {
			t.Errorf("closed was %q, not %q", closed, before)
		}
	case <-time.After(patience):
		t.Error("the connection to the earlier run is still open")
	}
	source.set(running("shop", second))
	if _, after := get(t, client, ingress.url("shop", "/")); !strings.HasPrefix(after, "second") {
		t.Errorf("after the move: %q", after)
	}
}

func TestAddressOfADeletedContainerIsNotReachedThroughOldConnections(t *testing.T) {
	var back backends
	address, _ := back.add(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RemoteAddr) }))
	source := newSource(running("old", address), running("new", address))
	ingress := start(t, Config{Source: source, containerPort: back.port})
	client := ingress.client(t, true)
	_, old := get(t, client, ingress.url("old", "/"))
	_, other := get(t, client, ingress.url("new", "/"))
	if old == other {
		t.Error("two containers share a connection")
	}
	source.remove("old")
	get(t, client, ingress.url("old", "/"))
	source.set(running("old", address))
	if _, again := get(t, client, ingress.url("old", "/")); again == old {
		t.Error("the connection of the deleted container is used")
	}
}

func TestWebSocket(t *testing.T) {
	var back backends
	address, _ := back.add(t, websocket.Handler(func(connection *websocket.Conn) { _, _ = io.Copy(connection, connection) }))
	ingress := start(t, Config{Source: newSource(running("shop", address)), containerPort: back.port, shutdownGrace: patience})
	connection := dialWebSocket(t, ingress)
	for _, message := range []string{"hello", "again"} {
		if err := websocket.Message.Send(connection, message); err != nil {
			t.Fatal(err)
		}
		var answer string
		if err := websocket.Message.Receive(connection, &answer); err != nil || answer != message {
			t.Fatalf("got %q, %v", answer, err)
		}
	}

	// It must not keep the ingress from ending, and must notice that it does.
	began := time.Now()
	if err := ingress.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took >= patience {
		t.Errorf("the ingress took %s to end", took)
	}
	_ = connection.SetReadDeadline(time.Now().Add(patience))
	var rest string
	if err := websocket.Message.Receive(connection, &rest); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the WebSocket was not cut: %v", err)
	}
}

func dialWebSocket(t *testing.T, ingress *instance) *websocket.Conn {
	t.Helper()
	host := "shop." + ingress.config.Domain
	config, err := websocket.NewConfig("wss://"+host+"/", "https://"+host+"/")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := tls.Dial("tcp", ingress.HTTPS[0].String(), &tls.Config{ServerName: host, RootCAs: ingress.pool(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() })
	connection, err := websocket.NewClient(config, raw)
	if err != nil {
		t.Fatal(err)
	}
	return connection
}

func TestAnswersArriveAsTheyAreWritten(t *testing.T) {
	for _, test := range []struct {
		name   string
		http2  bool
		header [2]string
	}{
		{"events, http 1", false, [2]string{"Content-Type", "text/event-stream"}},
		{"events, http 2", true, [2]string{"Content-Type", "text/event-stream"}},
		{"known length, http 1", false, [2]string{"Content-Length", "24"}},
		{"known length, http 2", true, [2]string{"Content-Length", "24"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			next := make(chan struct{})
			var back backends
			address, _ := back.add(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set(test.header[0], test.header[1])
				for n := range 3 {
					_, _ = fmt.Fprintf(w, "data: %d\n", n)
					w.(http.Flusher).Flush()
					select {
					case <-next:
					case <-r.Context().Done():
						return
					}
				}
			}))
			ingress := start(t, Config{Source: newSource(running("shop", address)), containerPort: back.port})
			client := ingress.client(t, test.http2)
			client.Timeout = patience
			response, err := client.Get(ingress.url("shop", "/"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			lines := bufio.NewReader(response.Body)
			for n := range 3 {
				// The container writes the next line only when this one is here.
				line, err := lines.ReadString('\n')
				if want := fmt.Sprintf("data: %d\n", n); err != nil || line != want {
					t.Fatalf("got %q, %v, want %q", line, err, want)
				}
				next <- struct{}{}
			}
		})
	}
}

func TestAClientThatLeavesEndsTheRequest(t *testing.T) {
	arrived, ended := make(chan struct{}), make(chan struct{})
	var back backends
	address, _ := back.add(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		close(ended)
	}))
	var log lockedBuffer
	ingress := start(t, Config{
		Source: newSource(running("shop", address)), containerPort: back.port,
		Logger: hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Warn}),
	})
	ctx, leave := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, ingress.url("shop", "/"), nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-arrived
		leave()
	}()
	if response, err := ingress.client(t, true).Do(request); err == nil {
		_ = response.Body.Close()
		t.Error("the request was answered")
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("the container still works for a client that left")
	}
	if err := ingress.stop(); err != nil {
		t.Error(err)
	}
	if text := log.String(); text != "" {
		t.Errorf("the container is blamed for it: %s", text)
	}
}

func TestLargeUpload(t *testing.T) {
	const size = 64 << 20
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2=%t", http2), func(t *testing.T) {
			var back backends
			address, _ := back.add(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				n, err := io.Copy(io.Discard, r.Body)
				_, _ = fmt.Fprintf(w, "%d %v %d", n, err, r.ContentLength)
			}))
			ingress := start(t, Config{Source: newSource(running("shop", address)), containerPort: back.port})
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, ingress.url("shop", "/"), io.LimitReader(zeroes{}, size))
			if err != nil {
				t.Fatal(err)
			}
			request.ContentLength = size
			if response, body := do(t, ingress.client(t, http2), request); body != fmt.Sprintf("%d <nil> %d", size, size) {
				t.Errorf("got %s with %q", response.Status, body)
			}
		})
	}
}

type zeroes struct{}

func (zeroes) Read(buffer []byte) (int, error) {
	clear(buffer)
	return len(buffer), nil
}

func TestTrailersAndLargeDownload(t *testing.T) {
	block := bytes.Repeat([]byte("x"), 1<<20)
	var back backends
	address, _ := back.add(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "Checksum")
		for range 32 {
			_, _ = w.Write(block)
		}
		w.Header().Set("Checksum", "ok")
	}))
	ingress := start(t, Config{Source: newSource(running("shop", address)), containerPort: back.port})
	response, body := get(t, ingress.client(t, true), ingress.url("shop", "/"))
	if len(body) != 32<<20 || response.Trailer.Get("Checksum") != "ok" {
		t.Errorf("got %d bytes, trailer %v", len(body), response.Trailer)
	}
}

func TestRedirects(t *testing.T) {
	ingress := start(t, Config{Source: newSource(running("shop", netip.MustParseAddr("127.0.77.1"), "www"), Route{Container: "off", Status: engine.Stopped})})
	domain, port := ingress.config.Domain, ingress.HTTPS[0].Port()
	for _, test := range []struct {
		host, path, location, body string
	}{
		{"shop." + domain, "/", fmt.Sprintf("https://shop.%s:%d/", domain, port), ""},
		{"WWW.shop." + domain + ".:80", "/a%2Fb?c=d", fmt.Sprintf("https://www.shop.%s:%d/a%%2Fb?c=d", domain, port), ""},
		{"off." + domain, "//example.com/", fmt.Sprintf("https://off.%s:%d//example.com/", domain, port), ""},
		{"api.shop." + domain, "/", "", "Container shop has no alias api"},
		{"other." + domain, "/", "", "There is no container other"},
		{"example.com", "/", "", "You asked for example.com."},
		{"127.0.0.1", "/", "", "Names here have the form"},
	} {
		t.Run(test.host, func(t *testing.T) {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+ingress.HTTP[0].String()+test.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			request.Host = test.host
			response, body := do(t, ingress.client(t, false), request)
			want := http.StatusPermanentRedirect
			if test.location == "" {
				want = http.StatusNotFound
			}
			if response.StatusCode != want || response.Header.Get("Location") != test.location || !strings.Contains(body, test.body) {
				t.Errorf("got %s to %q with %q", response.Status, response.Header.Get("Location"), body)
			}
			if response.Header.Get("Cache-Control") != "no-store" {
				t.Error("the answer may be cached")
			}
		})
	}
}

func TestRedirectPort(t *testing.T) {
	addresses := func(texts ...string) (list []netip.AddrPort) {
		for _, text := range texts {
			list = append(list, netip.MustParseAddrPort(text))
		}
		return list
	}
	for _, test := range []struct {
		name     string
		https    []netip.AddrPort
		local    string
		location string
	}{
		{"default port", addresses("10.0.0.1:443"), "10.0.0.1:80", "https://shop.example.com/"},
		{"same address", addresses("10.0.0.1:8443", "127.0.0.1:9443"), "127.0.0.1:80", "https://shop.example.com:9443/"},
		{"any address", addresses("10.0.0.1:8443", "[::]:9443"), "127.0.0.1:80", "https://shop.example.com:9443/"},
		{"no such address", addresses("10.0.0.1:8443"), "127.0.0.1:80", "https://shop.example.com:8443/"},
	} {
		t.Run(test.name, func(t *testing.T) {
			handler := redirector{directory: directory{domains: []string{"example.com"}, source: newSource(Route{Container: "shop"})}, https: test.https, trouble: func(string) error { return nil }}
			request := httptest.NewRequest(http.MethodGet, "http://shop.example.com/", nil)
			local := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(test.local))
			request = request.WithContext(context.WithValue(request.Context(), http.LocalAddrContextKey, net.Addr(local)))
			recorder := httptest.NewRecorder()
			handler.ServeHTTP(recorder, request)
			if got := recorder.Header().Get("Location"); got != test.location {
				t.Errorf("got %q, want %q", got, test.location)
			}
		})
	}
}

func TestOpenRequestsMayFinishWithinTheGrace(t *testing.T) {
	arrived, goOn := make(chan struct{}), make(chan struct{})
	var back backends
	address, _ := back.add(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-goOn
		_, _ = io.WriteString(w, "done")
	}))
	ingress := start(t, Config{Source: newSource(running("shop", address)), containerPort: back.port})
	answer := make(chan string, 1)
	client := ingress.client(t, false)
	go func() {
		response, err := client.Get(ingress.url("shop", "/"))
		if err != nil {
			answer <- err.Error()
			return
		}
		defer func() { _ = response.Body.Close() }()
		body, _ := io.ReadAll(response.Body)
		answer <- string(body)
	}()
	<-arrived
	ended := make(chan error, 1)
	go func() { ended <- ingress.stop() }()
	// New connections are refused as soon as the end has begun.
	for {
		connection, err := net.Dial("tcp", ingress.HTTPS[0].String())
		if err != nil {
			break
		}
		_ = connection.Close()
		runtime.Gosched()
	}
	close(goOn)
	if got := <-answer; got != "done" {
		t.Errorf("the open request got %q", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestRequestsAreCutAfterTheGrace(t *testing.T) {
	arrived, ended := make(chan struct{}), make(chan struct{})
	var back backends
	address, _ := back.add(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		close(ended)
	}))
	ingress := start(t, Config{Source: newSource(running("shop", address)), containerPort: back.port, shutdownGrace: 50 * time.Millisecond})
	client := ingress.client(t, true)
	failed := make(chan error, 1)
	go func() {
		response, err := client.Get(ingress.url("shop", "/"))
		if err == nil {
			_ = response.Body.Close()
		}
		failed <- err
	}()
	<-arrived
	slow, err := tls.Dial("tcp", ingress.HTTPS[0].String(), &tls.Config{ServerName: "shop." + ingress.config.Domain, RootCAs: ingress.pool(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slow.Close() }()
	if _, err := io.WriteString(slow, "GET / HTTP/1.1\r\nHost: "); err != nil {
		t.Fatal(err)
	}
	if err := ingress.stop(); err != nil {
		t.Error(err)
	}
	_ = slow.SetReadDeadline(time.Now().Add(patience))
	if _, err := slow.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("half a request keeps its connection: %v", err)
	}
	if err := <-failed; err == nil {
		t.Error("the request was answered")
	}
	<-ended
}

func TestPortTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	address := taken.Addr().String()
	for flag, config := range map[string]Config{
		"--https": {HTTPSAddresses: []string{"127.0.0.1:0", address}},
		"--http":  {HTTPSAddresses: []string{"127.0.0.1:0"}, HTTPAddresses: []string{address}},
	} {
		t.Run(flag, func(t *testing.T) {
			config.Domain, config.StateDir, config.Source = "example.test", t.TempDir(), newSource()
			err := Run(t.Context(), config, func(Addresses) { t.Error("it is said to be ready") })
			var listenError *ListenError
			if !errors.As(err, &listenError) || !errors.Is(err, syscall.EADDRINUSE) || listenError.Address != address {
				t.Fatalf("got %v", err)
			}
			_, port, _ := net.SplitHostPort(address)
			for _, want := range []string{"port " + port + " is taken by ", fmt.Sprintf("(pid %d)", os.Getpid()), flag + " 127.0.0.1:8"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			if entries, _ := os.ReadDir(config.StateDir); len(entries) != 0 {
				t.Errorf("files were made: %v", entries)
			}
		})
	}
}

func TestListenErrorsSayWhatToDo(t *testing.T) {
	for _, test := range []struct {
		name string
		err  ListenError
		want string
	}{
		{"taken by somebody unseen", ListenError{Address: ":80", Flag: httpFlag, Err: syscall.EADDRINUSE},
			"cannot listen on :80: port 80 is taken by another process (as root, this says which); stop that, or choose another port, for example --http :8080"},
		{"no right", ListenError{Address: "[::1]:443", Flag: httpsFlag, Err: &net.OpError{Err: os.NewSyscallError("bind", syscall.EACCES)}},
			"cannot listen on [::1]:443: ports below 1024 are root's; run it with sudo, or choose a higher port, for example --https [::1]:8443"},
		{"foreign address", ListenError{Address: "192.0.2.1:443", Flag: httpsFlag, Err: syscall.EADDRNOTAVAIL},
			"cannot listen on 192.0.2.1:443: no network interface of this machine has that address (see: ip address); choose another one with --https"},
		{"no address", ListenError{Address: "x", Flag: httpsFlag, Err: errors.New("missing port")},
			"cannot listen on x: missing port; choose another address with --https HOST:PORT"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, test.err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestListeningSockets(t *testing.T) {
	// Captured on a little-endian machine.
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the tables are of a little-endian machine")
	}
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 14001 1 0000000000000000 100 0 0 10 0
   1: 0100007F:01BB 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 14002 1 0000000000000000 20 4 30 10 -1
   2: 0100007F:01BB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 14003 1 0000000000000000 100 0 0 10 0
   3: 0200007F:01BB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 14004 1 0000000000000000 100 0 0 10 0
   4: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 14005 1 0000000000000000 100 0 0 10 0
   5: 00000000000000000000000001000000:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 14006 1 0000000000000000 100 0 0 10 0
   6: 0000000000000000FFFF00000100007F:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 14007 1 0000000000000000 100 0 0 10 0
   7: short
   8: 0100:01BB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 14008 1 0000000000000000 100 0 0 10 0
   9: 0100007X:01BB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 14009 1 0000000000000000 100 0 0 10 0
  10: 0100007F:01BBB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 14010 1 0000000000000000 100 0 0 10 0
`
	for wanted, want := range map[string][]string{
		"127.0.0.1:443": {"14003", "14007"},
		"127.0.0.2:443": {"14004"},
		"[::1]:443":     {"14006"},
		"[::]:443":      {"14003", "14004", "14006", "14007"},
		"127.0.0.1:80":  {"14001", "14005"},
		"127.0.0.1:81":  nil,
	} {
		t.Run(wanted, func(t *testing.T) {
			if diff := cmp.Diff(want, listeningSockets(table, netip.MustParseAddrPort(wanted))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestBadConfig(t *testing.T) {
	for name, config := range map[string]Config{
		"no domain":  {HTTPSAddresses: []string{"127.0.0.1:0"}},
		"no address": {Domain: "example.test"},
		"no port":    {Domain: "example.test", HTTPSAddresses: []string{"127.0.0.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			config.StateDir, config.Source = t.TempDir(), newSource()
			if err := Run(t.Context(), config, func(Addresses) { t.Error("it is said to be ready") }); err == nil {
				t.Error("no error")
			}
		})
	}
}
