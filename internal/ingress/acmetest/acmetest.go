// Package acmetest is an ACME server for tests: Pebble, in the test's process,
// with a DNS of its own in which every name is this machine.
package acmetest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"
)

// Server is a running ACME server.
type Server struct {
	// Directory is the URL of its directory.
	Directory string
	// CAFile is a PEM file with what its own certificate is trusted by.
	CAFile string

	http     *httptest.Server
	resolver string
	ca       *ca.CAImpl
	store    *db.MemoryStore

	mutex   sync.Mutex
	handler http.Handler
	ordered []string
}

// Start starts a server for the length of the test. It answers when Serve was
// called.
func Start(t testing.TB) *Server {
	t.Helper()
	for name, value := range map[string]string{
		// Pebble is there to find mistakes of clients: by default it waits,
		// and refuses, at random.
		"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0",
	} {
		t.Setenv(name, value)
	}
	s := &Server{resolver: resolver(t), store: db.NewMemoryStore()}
	silent := log.New(io.Discard, "", 0)
	s.ca = ca.New(silent, s.store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {}})
	s.http = httptest.NewUnstartedServer(http.HandlerFunc(s.answer))
	s.http.Config.ErrorLog = silent
	s.http.StartTLS()
	t.Cleanup(s.http.Close)
	s.Directory = s.http.URL + wfe.DirectoryPath
	s.CAFile = filepath.Join(t.TempDir(), "acme-ca.pem")
	own := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.http.Certificate().Raw})
	if err := os.WriteFile(s.CAFile, own, 0o644); err != nil {
		t.Fatal(err)
	}
	return s
}

// Serve makes it answer. It asks who wants a certificate at these ports of
// 127.0.0.1 instead of 80 and 443.
func (s *Server) Serve(httpPort, httpsPort uint16) {
	silent := log.New(io.Discard, "", 0)
	checks := va.New(silent, int(httpPort), int(httpsPort), true, s.resolver, s.store)
	front := wfe.New(silent, s.store, checks, s.ca, []string{"acme.test"}, true, false, 0, 0)
	s.Handle(front.Handler())
}

// Handle makes something else answer.
func (s *Server) Handle(handler http.Handler) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.handler = handler
}

// Stop ends it: nobody listens there any more.
func (s *Server) Stop() { s.http.Close() }

// Root is the certificate, in PEM, that clients must trust.
func (s *Server) Root() []byte { return s.ca.GetRootCert(0).PEM() }

// Ordered are the names that certificates were asked for, in their order.
func (s *Server) Ordered() []string {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return slices.Clone(s.ordered)
}

// newOrder is where Pebble takes orders.
const newOrder = "/order-plz"

func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	s.mutex.Lock()
	handler := s.handler
	if r.URL.Path == newOrder {
		s.ordered = append(s.ordered, orderedNames(body)...)
	}
	s.mutex.Unlock()
	if handler == nil {
		http.NotFound(w, r)
		return
	}
	handler.ServeHTTP(w, r)
}

// orderedNames reads the names out of a signed order (RFC 8555, 6.2 and 7.4).
func orderedNames(body []byte) []string {
	var signed struct{ Payload string }
	if json.Unmarshal(body, &signed) != nil {
		return []string{"unreadable"}
	}
	payload, err := base64.RawURLEncoding.DecodeString(signed.Payload)
	var order struct{ Identifiers []struct{ Value string } }
	if err != nil || json.Unmarshal(payload, &order) != nil {
		return []string{"unreadable"}
	}
	var ordered []string
	for _, identifier := range order.Identifiers {
		ordered = append(ordered, identifier.Value)
	}
	return ordered
}

// Refuse answers what is asked for with a problem (RFC 8555, 6.7), and passes
// on the rest to what answers now: the path is that of a request, as
// "/order-plz".
func (s *Server) Refuse(path string, status int, problem, detail string) {
	s.mutex.Lock()
	next := s.handler
	s.mutex.Unlock()
	s.Handle(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != path {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]any{"type": "urn:ietf:params:acme:error:" + problem, "detail": detail, "status": status})
	}))
}

// resolver runs a DNS server, and returns its address.
func resolver(t testing.TB) string {
	t.Helper()
	var sockets net.ListenConfig
	listener, err := sockets.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{Listener: listener, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, question *dns.Msg) {
		answer := new(dns.Msg)
		answer.SetReply(question)
		for _, asked := range question.Question {
			if asked.Qtype == dns.TypeA {
				header := dns.RR_Header{Name: asked.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}
				answer.Answer = append(answer.Answer, &dns.A{Hdr: header, A: net.IPv4(127, 0, 0, 1)})
			}
		}
		_ = w.WriteMsg(answer)
	})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.ActivateAndServe()
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-ended
	})
	return listener.Addr().String()
}
