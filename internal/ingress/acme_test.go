package ingress

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"devhost/internal/engine"
	"devhost/internal/ingress/acmetest"
)

// acmeInstance is an ingress whose certificates come from a server.
type acmeInstance struct {
	*instance
	server *acmetest.Server
	log    *lockedBuffer
}

// shop is a container that is stopped: the ingress itself answers for it.
func shop() *fakeSource {
	return newSource(Route{Container: "shop", Aliases: []string{"www", "api"}, Status: engine.Stopped})
}

func startACME(t *testing.T, config Config, settings ACME) *acmeInstance {
	t.Helper()
	server := acmetest.Start(t)
	a := &acmeInstance{server: server, log: &lockedBuffer{}}
	settings.Directory, settings.CAFile = server.Directory, server.CAFile
	config.TLS.ACME = &settings
	if config.Source == nil {
		config.Source = shop()
	}
	config.Logger = hclog.New(&hclog.LoggerOptions{Output: a.log, Level: hclog.Warn})
	a.instance = start(t, config)
	server.Serve(a.HTTP[0].Port(), a.HTTPS[0].Port())
	return a
}

func (a *acmeInstance) name(short string) string { return short + "." + a.config.Domain }

// connect returns the certificate that a new client is shown for a name, which it
// trusts by the server's root alone.
func (a *acmeInstance) connect(short string) (*x509.Certificate, error) {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(a.server.Root())
	connection, err := tls.Dial("tcp", a.HTTPS[0].String(), &tls.Config{ServerName: a.name(short), RootCAs: pool})
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	return connection.ConnectionState().PeerCertificates[0], nil
}

func (a *acmeInstance) shown(t *testing.T, short string) *x509.Certificate {
	t.Helper()
	certificate, err := a.connect(short)
	if err != nil {
		t.Fatalf("%s: %v\n%s", short, err, a.log)
	}
	return certificate
}

// onHTTP is what plain http answers.
func (a *acmeInstance) onHTTP(t *testing.T, short, path string) (status int, location, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://%s%s", a.HTTP[0], path), nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = a.name(short)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, body := do(t, client, request)
	return response.StatusCode, response.Header.Get("Location"), body
}

func TestACME(t *testing.T) {
	for name, settings := range map[string]ACME{
		"HTTP-01":     {withoutTLS: true, Email: "admin@example.org"},
		"TLS-ALPN-01": {withoutHTTP: true},
	} {
		t.Run(name, func(t *testing.T) {
			a := startACME(t, Config{}, settings)
			first := a.shown(t, "www.shop")
			if diff := cmp.Diff([]string{a.name("www.shop")}, first.DNSNames); diff != "" {
				t.Error(diff)
			}
			if again := a.shown(t, "www.shop"); !again.Equal(first) {
				t.Error("the second client got another certificate")
			}
			a.shown(t, "shop")

			// Names that are not registered cost the server nothing.
			for _, short := range []string{"old.shop", "other", "www.other", "a.b.shop"} {
				if _, err := a.connect(short); !isAlert(err, "unrecognized name") {
					t.Errorf("%s: %v", short, err)
				}
			}
			if diff := cmp.Diff([]string{a.name("www.shop"), a.name("shop")}, a.server.Ordered()); diff != "" {
				t.Errorf("orders (-want +got):\n%s", diff)
			}
			if status, location, _ := a.onHTTP(t, "shop", "/x"); status != http.StatusPermanentRedirect || !strings.HasPrefix(location, "https://"+a.name("shop")) {
				t.Errorf("plain http answers %d %s", status, location)
			}
			if a.log.String() != "" {
				t.Errorf("it complains:\n%s", a.log)
			}
		})
	}
}

func TestACMEClientsShareAnOrder(t *testing.T) {
	a := startACME(t, Config{}, ACME{})
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() {
			if _, err := a.connect("api.shop"); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if diff := cmp.Diff([]string{a.name("api.shop")}, a.server.Ordered()); diff != "" {
		t.Errorf("orders (-want +got):\n%s", diff)
	}
}

func TestACMEWithoutPlainHTTP(t *testing.T) {
	a := startACMEWith(t, []string{"127.0.0.1:0"}, []string{})
	a.server.Serve(1, a.HTTPS[0].Port())
	a.shown(t, "shop")
}

// startACMEWith starts one on certain addresses.
func startACMEWith(t *testing.T, https, plain []string) *acmeInstance {
	t.Helper()
	server := acmetest.Start(t)
	a := &acmeInstance{server: server, log: &lockedBuffer{}}
	a.instance = start(t, Config{
		Source: shop(), HTTPSAddresses: https, HTTPAddresses: plain, TLS: TLS{ACME: &ACME{Directory: server.Directory, CAFile: server.CAFile}},
		Logger: hclog.New(&hclog.LoggerOptions{Output: a.log, Level: hclog.Warn}),
	})
	return a
}

// TestACMEListensNowhereElse: certmagic would, where it does not find the
// ingress's own listeners.
func TestACMEListensNowhereElse(t *testing.T) {
	a := startACMEWith(t, []string{"127.0.0.1:0"}, []string{"127.0.0.2:0"})
	a.server.Serve(a.HTTP[0].Port(), a.HTTPS[0].Port())
	a.shown(t, "shop")
	if a.log.String() != "" {
		t.Errorf("it complains:\n%s", a.log)
	}
}

// TestACMEChallengeNeedsAnOrder: nothing of the kind is answered by itself.
func TestACMEChallengeNeedsAnOrder(t *testing.T) {
	a := startACME(t, Config{}, ACME{})
	const path = "/.well-known/acme-challenge/token"
	if status, _, body := a.onHTTP(t, "shop", path); status != http.StatusPermanentRedirect {
		t.Errorf("a registered name: %d %s", status, body)
	}
	if status, _, body := a.onHTTP(t, "other", path); status != http.StatusNotFound {
		t.Errorf("another name: %d %s", status, body)
	}
	_, err := tls.Dial("tcp", a.HTTPS[0].String(), &tls.Config{ServerName: a.name("shop"), NextProtos: []string{acmez.ACMETLS1Protocol}, InsecureSkipVerify: true})
	if err == nil {
		t.Error("a challenge of nobody is answered in TLS")
	}
	if ordered := a.server.Ordered(); len(ordered) > 0 {
		t.Errorf("these were ordered: %v", ordered)
	}
}

func TestACMEFailures(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(*acmeInstance)
		said    []string
		// orders is how many the server gets, however many clients come.
		orders int
	}{
		"down": {
			func(a *acmeInstance) { a.server.Stop() },
			[]string{"could not be asked", "connection refused", "see whether it is reached from this host"}, 0,
		},
		"refused": {
			func(a *acmeInstance) {
				a.server.Refuse("/order-plz", http.StatusForbidden, "rejectedIdentifier", "policy \x1b[2Jforbids it")
			},
			[]string{"says: policy", "forbids it (rejectedIdentifier)", "choose another domain"}, 1,
		},
		"too many": {
			func(a *acmeInstance) {
				a.server.Refuse("/order-plz", http.StatusTooManyRequests, "rateLimited", "too many certificates already issued")
			},
			[]string{"says: too many certificates already issued (rateLimited)", "wildcard"}, 1,
		},
		// Nobody listens where it asks.
		"wrong answers": {
			func(a *acmeInstance) { a.server.Serve(1, 1) },
			[]string{"says: ", "must lead to this host", "port 80 or 443"}, 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := startACME(t, Config{}, ACME{Email: "admin@example.org"})
			before := a.shown(t, "shop")
			test.prepare(a)
			already := len(a.server.Ordered())
			for range 3 {
				if _, err := a.connect("www.shop"); !isAlert(err, "internal error") {
					t.Errorf("a new name: %v", err)
				}
			}
			if orders := len(a.server.Ordered()) - already; orders != test.orders {
				t.Errorf("three clients made %d orders, want %d", orders, test.orders)
			}
			log := a.log.String()
			status, _, page := a.onHTTP(t, "www.shop", "/")
			if status != http.StatusServiceUnavailable {
				t.Errorf("plain http answers %d", status)
			}
			for _, want := range append(test.said, "no certificate for "+a.name("www.shop"), "asked again from") {
				if !strings.Contains(log, want) {
					t.Errorf("the log does not say %q:\n%s", want, log)
				}
				if !strings.Contains(page, want) {
					t.Errorf("the page does not say %q:\n%s", want, page)
				}
			}
			if strings.Count(log, "\n") != 1 {
				t.Errorf("three clients fill the log:\n%s", log)
			}
			if strings.Contains(log+page, "\x1b") {
				t.Errorf("control characters of the server are shown: %q", log)
			}
			// What there is goes on.
			if again := a.shown(t, "shop"); !again.Equal(before) {
				t.Error("the certificate that there was is gone")
			}
		})
	}
}

// TestACMERecovers: when the time has come, the server is asked again.
func TestACMERecovers(t *testing.T) {
	a := startACME(t, Config{}, ACME{})
	a.server.Handle(http.NotFoundHandler())
	if _, err := a.connect("shop"); err == nil {
		t.Fatal("there was a certificate")
	}
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	// As the error says, a start asks at once.
	a.instance = start(t, a.config)
	a.server.Serve(a.HTTP[0].Port(), a.HTTPS[0].Port())
	a.shown(t, "shop")
}

// TestACMESlowServer: a client waits for so long, and what was begun is there for
// the next one.
func TestACMESlowServer(t *testing.T) {
	a := startACME(t, Config{clientWait: time.Millisecond}, ACME{})
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		_, err := a.connect("shop")
		if err == nil {
			break
		}
		if !isAlert(err, "internal error") || time.Now().After(deadline) {
			t.Fatalf("%v\n%s", err, a.log)
		}
	}
	if diff := cmp.Diff([]string{a.name("shop")}, a.server.Ordered()); diff != "" {
		t.Errorf("orders (-want +got):\n%s", diff)
	}
}

func TestACMERenewal(t *testing.T) {
	a := startACME(t, Config{}, ACME{renewalRatio: 0.999999999})
	first := a.shown(t, "shop")
	for deadline := time.Now().Add(patience); a.shown(t, "shop").Equal(first); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it is not renewed\n%s", a.log)
		}
	}
	// Without the server, the last one is served.
	a.server.Stop()
	for range 5 {
		a.shown(t, "shop")
	}
}

// TestACMEFullDisk: what cannot be stored is not ordered again and again.
func TestACMEFullDisk(t *testing.T) {
	stateDir := t.TempDir()
	// See TestStorageThatTakesNothingIsSaidAtOnce.
	if err := os.MkdirAll(filepath.Join(stateDir, "storage"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/nowhere", filepath.Join(stateDir, "storage", "certificates")); err != nil {
		t.Fatal(err)
	}
	a := startACME(t, Config{StateDir: stateDir}, ACME{})
	for range 3 {
		if _, err := a.connect("shop"); err == nil {
			t.Fatal("there was a certificate")
		}
	}
	if diff := cmp.Diff([]string{a.name("shop")}, a.server.Ordered()); diff != "" {
		t.Errorf("orders (-want +got):\n%s", diff)
	}
	if log := a.log.String(); !strings.Contains(log, "file exists") {
		t.Errorf("the log does not say why:\n%s", log)
	}
}

func TestACMERoots(t *testing.T) {
	server := acmetest.Start(t)
	var log lockedBuffer
	// One that the host does not trust.
	a := start(t, Config{
		Source: shop(), TLS: TLS{ACME: &ACME{Directory: server.Directory}},
		Logger: hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Warn}),
	})
	if _, err := tls.Dial("tcp", a.HTTPS[0].String(), &tls.Config{ServerName: "shop." + a.config.Domain, InsecureSkipVerify: true}); err == nil {
		t.Error("there is a certificate")
	}
	if !strings.Contains(log.String(), "ingress.acme.caFile") {
		t.Errorf("the log does not say what to do:\n%s", log.String())
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/nowhere/ca.pem": "no such file", empty: "it holds no certificate"} {
		config := Config{
			Domain: "roots.test", Source: shop(), StateDir: t.TempDir(), HTTPSAddresses: []string{"127.0.0.1:0"},
			TLS: TLS{ACME: &ACME{Directory: server.Directory, CAFile: path}},
		}
		var failure *CertificateError
		if err := Run(t.Context(), config, func(Addresses) {}); !errors.As(err, &failure) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "ingress.acme.caFile") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestTries(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	refused := acme.Problem{Type: acme.ProblemTypeConnection, Status: http.StatusBadRequest}
	limited := acme.Problem{Type: acme.ProblemTypeRateLimited, Status: http.StatusTooManyRequests}
	broken := acme.Problem{Type: acme.ProblemTypeServerInternal, Status: http.StatusInternalServerError}
	minutes := func(list ...float64) (waits []time.Duration) {
		for _, one := range list {
			waits = append(waits, time.Duration(one*float64(time.Minute)))
		}
		return waits
	}
	for name, test := range map[string]struct {
		err  error
		want []time.Duration
	}{
		"refused":       {fmt.Errorf("solving: %w", refused), minutes(20, 40, 80, 160, 320, 640, 720, 720)},
		"rate limited":  {limited, minutes(60, 120, 240, 480, 720, 720)},
		"no answer":     {errors.New("connection refused"), minutes(1.0/6, 1.0/3, 2.0/3, 4.0/3, 8.0/3, 16.0/3, 10, 10)},
		"server's fail": {broken, minutes(1.0/6, 1.0/3)},
		"not stored":    {errNotStored, minutes(20, 40)},
	} {
		t.Run(name, func(t *testing.T) {
			clock := now
			tries := newTries("acme.test", func() time.Time { return clock })
			var waits []time.Duration
			for range test.want {
				failure := tries.failed("a.test", test.err, true)
				waits = append(waits, failure.Retry.Sub(clock))
				clock = failure.Retry.Add(-time.Second)
				var again *postponed
				if err := tries.mayTry("a.test"); !errors.As(err, &again) || tries.refusal("a.test") == nil {
					t.Errorf("too early: %v", err)
				}
				clock = failure.Retry
				if err := tries.mayTry("a.test"); err != nil || tries.refusal("a.test") != nil {
					t.Errorf("in time: %v", err)
				}
			}
			if diff := cmp.Diff(test.want, waits); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			tries.succeeded("a.test")
			if failure := tries.failed("a.test", test.err, true); failure.Retry.Sub(clock) != test.want[0] {
				t.Error("a success does not count")
			}
			// A renewal that fails leaves the certificate that there is.
			tries.failed("b.test", test.err, false)
			if err := tries.refusal("b.test"); err != nil || tries.mayTry("b.test") == nil {
				t.Errorf("a renewal that failed: %v", err)
			}
			clock = clock.Add(30 * 24 * time.Hour)
			tries.failed("c.test", test.err, true)
			if len(tries.byName) != 1 {
				t.Errorf("%d names are remembered", len(tries.byName))
			}
		})
	}
}

func TestIssueErrors(t *testing.T) {
	retry := time.Date(2026, 11, 20, 12, 0, 0, 0, time.Local)
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"too late": {errTooLate, "the ACME server acme.test made none in time; see whether it is reached"},
		"stored":   {errNotStored, "the one that acme.test made could not be stored; see what the ingress said before"},
		"CAA":      {acme.Problem{Type: acme.ProblemTypeCAA, Detail: "forbidden"}, "says: forbidden (caa); add the server to the CAA records"},
		"account":  {acme.Problem{Type: acme.ProblemTypeExternalAccountRequired}, "choose a server that has accounts for everybody"},
		"contact":  {acme.Problem{Type: acme.ProblemTypeInvalidContact}, "set another ingress.acme.email"},
		"other":    {acme.Problem{Type: "x", Detail: strings.Repeat("é", 1000)}, "(x); see ingress.acme of the settings"},
		"long":     {errors.New(strings.Repeat("x", 10000)), "xx; see whether"},
	} {
		t.Run(name, func(t *testing.T) {
			got := (&IssueError{Name: "a.dev.test", Server: "acme.test", Err: test.err, Retry: retry}).Error()
			if !strings.Contains(got, test.want) || !strings.HasPrefix(got, "no certificate for a.dev.test: ") || !strings.Contains(got, "from 2026-11-20 12:00:00 on") {
				t.Errorf("got %s", got)
			}
			if len(got) > 2000 {
				t.Errorf("it has %d bytes", len(got))
			}
		})
	}
}

func TestACMEEndsWithTheIngress(t *testing.T) {
	a := startACME(t, Config{clientWait: time.Millisecond}, ACME{})
	asked := make(chan struct{}, 1)
	a.server.Handle(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case asked <- struct{}{}:
		default:
		}
		<-r.Context().Done()
	}))
	if _, err := a.connect("shop"); err == nil {
		t.Error("there was a certificate")
	}
	<-asked
	if err := a.stop(); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if a.log.String() != "" {
		t.Errorf("the end is an error in the log:\n%s", a.log)
	}
}

// TestFits: what a server hands out is looked at before it is kept.
func TestFits(t *testing.T) {
	made := func() (chain []byte, key *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
		certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}), key
	}
	chain, key := made()
	_, another := made()
	if err := fits(chain, key.Public()); err != nil {
		t.Error(err)
	}
	for want, err := range map[string]error{
		"cannot be used: it is for another key":       fits(chain, another.Public()),
		"cannot be used: it holds no certificate":     fits([]byte("rubbish"), key.Public()),
		"cannot be used: x509: malformed certificate": fits(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("rubbish")}), key.Public()),
	} {
		if err == nil || err.Error() != want {
			t.Errorf("%v, not %s", err, want)
			continue
		}
		failure := newTries("ca.test", time.Now).failed("shop.test", err, true)
		if said := failure.Error(); !strings.HasPrefix(said, "no certificate for shop.test: what the ACME server ca.test made "+want+"; choose another server") {
			t.Error(said)
		}
		if wait := time.Until(failure.Retry); wait < refusedWait/2 {
			t.Errorf("the server is asked again in %s", wait)
		}
	}
}
