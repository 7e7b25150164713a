package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/ingress/acmetest"
)

func portOf(t *testing.T, address string) uint16 {
	t.Helper()
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return uint16(port)
}

// TestIngressACME: a container is reached by https with a certificate of an ACME
// server, which is asked for registered names alone.
func TestIngressACME(t *testing.T) {
	needsFullRun(t)
	server := acmetest.Start(t)
	h := newHost(t)
	h.configure(fmt.Sprintf(`{
  "version": 1,
  "publicAddress": "dev.acme-e2e.test",
  "ingress": { "tls": "acme", "acme": { "email": "admin@example.org", "directory": %q, "caFile": %q } }
}`, server.Directory, server.CAFile))
	h.must("ensure", "web", "--channel", offline(t), "--provision", provision(t, webServer), "--alias", "www")
	ingress := startIngress(h)
	server.Serve(portOf(t, ingress.http), portOf(t, ingress.https))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(server.Root())
	ingress.client = ingress.clientWith(pool)

	ingress.wantPage("https://www.web.dev.acme-e2e.test/", "this is web, asked for www.web.dev.acme-e2e.test\n")
	ingress.wantPage("https://web.dev.acme-e2e.test/", "this is web, asked for web.dev.acme-e2e.test\n")
	ingress.wantRefusal("shop.web.dev.acme-e2e.test")
	ingress.wantRefusal("other.dev.acme-e2e.test")
	if diff := cmp.Diff([]string{"www.web.dev.acme-e2e.test", "web.dev.acme-e2e.test"}, server.Ordered()); diff != "" {
		t.Errorf("orders (-want +got):\n%s", diff)
	}
	h.fails(2, []string{"--ca: the ingress has no certificate authority of its own", `"acme"`}, "ingress", "--ca")

	// What there is outlives the server, and a restart.
	ingress.stop()
	server.Stop()
	again := startIngress(h)
	again.client = again.clientWith(pool)
	again.wantPage("https://www.web.dev.acme-e2e.test/", "this is web, asked for www.web.dev.acme-e2e.test\n")
	h.must("ensure", "web", "--alias", "www", "--alias", "shop")
	if _, _, err := again.get("https://shop.web.dev.acme-e2e.test/"); err == nil {
		t.Error("there is a certificate without a server")
	}
	status, page, err := again.get("http://shop.web.dev.acme-e2e.test/")
	if err != nil || status != http.StatusServiceUnavailable || !strings.Contains(page, "There is no certificate for shop.web.dev.acme-e2e.test") || !strings.Contains(page, "connection refused") {
		t.Errorf("plain http says %d %s (%v)", status, page, err)
	}
}

// TestIngressFiles: given certificates, and what the commands say of them.
func TestIngressFiles(t *testing.T) {
	h := newHost(t)
	folder := t.TempDir()
	certificate, key := filepath.Join(folder, "wildcard.crt"), filepath.Join(folder, "wildcard.key")
	h.configure(fmt.Sprintf(`{
  "version": 1,
  "allowedGroups": [],
  "publicAddress": "dev.example.org",
  "ingress": { "tls": "files", "certificates": [{ "certificate": %q, "key": %q }] }
}`, certificate, key))
	h.fails(6, []string{"cannot read " + certificate + ": no such file or directory", "ingress.certificates"}, "ingress", "--https", "127.0.0.1:0", "--http", "")
	if result := h.run("host", "check"); result.status != 0 || !strings.Contains(result.stderr, "warning: cannot read "+certificate) {
		t.Errorf("host check says %d %s", result.status, result.stderr)
	}
	if result := h.run("doctor"); !strings.Contains(result.stdout, "PROBLEM  certificates: cannot read "+certificate) {
		t.Errorf("doctor says %s", result.stdout)
	}

	pool := writeCertificate(t, certificate, key, "*.dev.example.org")
	if result := h.run("doctor"); !strings.Contains(result.stdout, "certificates: 1 can be used") {
		t.Errorf("doctor says %s", result.stdout)
	}
	if result := h.run("host", "check"); result.status != 0 || strings.Contains(result.stderr, "warning") || !strings.Contains(result.stdout, "from files (1)") {
		t.Errorf("host check says %d %s%s", result.status, result.stdout, result.stderr)
	}
	ingress := startIngress(h)
	if said := strings.Join(ingress.warnings, "\n"); len(ingress.warnings) != 1 || !strings.Contains(said, "needs one for *.CONTAINER.dev.example.org") {
		t.Errorf("the ingress says %q", said)
	}
	ingress.client = ingress.clientWith(pool)
	// Names of nobody are refused, with a certificate or without one.
	ingress.wantRefusal("web.dev.example.org")
	h.fails(2, []string{"--ca: the ingress has no certificate authority of its own"}, "ingress", "--ca")

	// A domain of the command line is none that a server signs for.
	h.configure(`{"version": 1, "allowedGroups": [], "publicAddress": "dev.example.org", "ingress": {"tls": "acme"}}`)
	h.fails(2, []string{"no ACME server signs certificates for names below dev.localhost"}, "ingress", "--domain", "dev.localhost")
}

// writeCertificate makes a certificate, and returns what trusts it.
func writeCertificate(t *testing.T, certificate, key, name string) *x509.CertPool {
	t.Helper()
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour), DNSNames: []string{name},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: encoded}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(parsed)
	return pool
}
