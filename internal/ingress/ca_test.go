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
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"devhost/internal/engine"
)

func open(t *testing.T, stateDir, domain string) *internalCA {
	t.Helper()
	authority, err := openCA(t.Context(), stateDir, []string{domain}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	return authority
}

func TestCAFiles(t *testing.T) {
	// A strict umask must not hide the certificate.
	umask := syscall.Umask(0o077)
	defer syscall.Umask(umask)
	stateDir := filepath.Join(t.TempDir(), "ingress")
	if _, err := CARoot(stateDir); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "devhost ingress") {
		t.Errorf("before the first start: %v", err)
	}
	authority := open(t, stateDir, "dev.test")
	path, err := CARoot(stateDir)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{stateDir: 0o755, caDir(stateDir): 0o755, path: 0o644, rootPath(stateDir): 0o600} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", name, got, want)
		}
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(content), "KEY") {
		t.Errorf("%s tells the key", path)
	}

	if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := CARoot(stateDir); err == nil {
		t.Error("a damaged certificate is no error")
	}
	if again := open(t, stateDir, "dev.test"); !again.certificate.Equal(authority.certificate) {
		t.Error("the second start made another root")
	}
	if now, err := os.ReadFile(path); err != nil || !cmp.Equal(now, content) {
		t.Errorf("the certificate was not published again: %v", err)
	}
}

func TestConcurrentFirstStartsShareOneCA(t *testing.T) {
	stateDir := t.TempDir()
	var group sync.WaitGroup
	authorities := make([]*internalCA, 8)
	for n := range authorities {
		group.Go(func() { authorities[n], _ = openCA(t.Context(), stateDir, []string{"dev.test"}, hclog.NewNullLogger()) })
	}
	group.Wait()
	for _, authority := range authorities {
		if authority == nil || !authority.certificate.Equal(authorities[0].certificate) {
			t.Fatal("there are several roots")
		}
	}
}

func TestUnusableCA(t *testing.T) {
	good := t.TempDir()
	open(t, good, "dev.test")
	content, err := os.ReadFile(rootPath(good))
	if err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	open(t, other, "dev.test")
	otherContent, err := os.ReadFile(rootPath(other))
	if err != nil {
		t.Fatal(err)
	}
	certificate, key, _ := strings.Cut(string(content), "-----BEGIN PRIVATE KEY-----")
	_, otherKey, _ := strings.Cut(string(otherContent), "-----BEGIN PRIVATE KEY-----")
	for name, content := range map[string]string{
		"empty":           "",
		"no key":          certificate,
		"no certificate":  "-----BEGIN PRIVATE KEY-----" + key,
		"key of another":  certificate + "-----BEGIN PRIVATE KEY-----" + otherKey,
		"truncated":       string(content[:len(content)/3]),
		"not a key":       certificate + string(pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: []byte("x")})),
		"not certificate": string(pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: []byte("x")})) + key,
	} {
		t.Run(name, func(t *testing.T) {
			stateDir := t.TempDir()
			if err := os.MkdirAll(caDir(stateDir), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(rootPath(stateDir), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := openCA(t.Context(), stateDir, []string{"dev.test"}, hclog.NewNullLogger())
			var caError *CAError
			if !errors.As(err, &caError) || caError.Path != rootPath(stateDir) || !strings.Contains(err.Error(), "restore") {
				t.Errorf("got %v", err)
			}
			if now, err := os.ReadFile(rootPath(stateDir)); err != nil || string(now) != content {
				t.Errorf("the file was changed: %v", err)
			}
		})
	}
}

func TestCAIsReplacedWhenItCannotSign(t *testing.T) {
	stateDir := t.TempDir()
	first := open(t, stateDir, "one.test")
	second := open(t, stateDir, "two.test")
	if second.certificate.Equal(first.certificate) || second.IssuerKey() == first.IssuerKey() {
		t.Error("the root for another domain is used")
	}
	kept, err := os.ReadFile(filepath.Join(caDir(stateDir), "root-"+first.fingerprint()+".pem"))
	if err != nil {
		t.Fatal(err)
	}
	if certificate, _, err := parseCA(kept); err != nil || !certificate.Equal(first.certificate) {
		t.Errorf("the old root is lost: %v", err)
	}

	expiring := *second.certificate
	expiring.NotAfter = time.Now().Add(rootReserve - time.Hour)
	if (&internalCA{domains: []string{"two.test"}, certificate: &expiring, key: second.key}).usable() {
		t.Error("a root that is about to expire is used")
	}
}

func TestCALockHonoursCancelling(t *testing.T) {
	stateDir := t.TempDir()
	open(t, stateDir, "dev.test")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := openCA(ctx, stateDir, []string{"dev.test"}, hclog.NewNullLogger()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestCASignsForItsDomainOnly(t *testing.T) {
	authority := open(t, t.TempDir(), "dev.test")
	roots := x509.NewCertPool()
	roots.AddCert(authority.certificate)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		valid bool
	}{
		{"shop.dev.test", true},
		{"www.shop.dev.test", true},
		{strings.Repeat("a", 63) + "." + strings.Repeat("b", 63) + ".dev.test", true},
		{"shop.example.com", false},
		{"shopdev.test", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{test.name}}, key)
			if err != nil {
				t.Fatal(err)
			}
			request, err := x509.ParseCertificateRequest(der)
			if err != nil {
				t.Fatal(err)
			}
			issued, err := authority.Issue(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			block, _ := pem.Decode(issued.Certificate)
			certificate, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			_, err = certificate.Verify(x509.VerifyOptions{Roots: roots, DNSName: test.name})
			if (err == nil) != test.valid {
				t.Errorf("a client says %v", err)
			}
			if life := certificate.NotAfter.Sub(certificate.NotBefore); life != leafLifetime+clockSkew {
				t.Errorf("it lives %s", life)
			}
		})
	}

	// Even who gets hold of the key can sign for no address.
	for _, address := range []string{"192.0.2.1", "2001:db8::1"} {
		t.Run(address, func(t *testing.T) {
			template := &x509.Certificate{
				SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.ParseIP(address)},
			}
			der, err := x509.CreateCertificate(rand.Reader, template, authority.certificate, key.Public(), authority.key)
			if err != nil {
				t.Fatal(err)
			}
			certificate, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := certificate.Verify(x509.VerifyOptions{Roots: roots, DNSName: address}); err == nil {
				t.Error("a client accepts it")
			}
		})
	}
	t.Run("forged request", func(t *testing.T) {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"shop.dev.test"}}, key)
		if err != nil {
			t.Fatal(err)
		}
		der[len(der)-1] ^= 1
		request, err := x509.ParseCertificateRequest(der)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := authority.Issue(t.Context(), request); err == nil {
			t.Error("it was signed")
		}
	})
	t.Run("expired root", func(t *testing.T) {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"shop.dev.test"}}, key)
		if err != nil {
			t.Fatal(err)
		}
		request, err := x509.ParseCertificateRequest(der)
		if err != nil {
			t.Fatal(err)
		}
		expired := *authority.certificate
		expired.NotAfter = time.Now().Add(-time.Minute)
		if _, err := (&internalCA{certificate: &expired, key: authority.key}).Issue(t.Context(), request); err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("got %v", err)
		}
	})
}

// shown returns the certificate that a new client is shown.
func shown(t *testing.T, ingress *instance, name string) *x509.Certificate {
	t.Helper()
	connection, err := tls.Dial("tcp", ingress.HTTPS[0].String(), &tls.Config{ServerName: name + "." + ingress.config.Domain, RootCAs: ingress.pool(t)})
	if err != nil {
		t.Error(err)
		return nil
	}
	defer func() { _ = connection.Close() }()
	return connection.ConnectionState().PeerCertificates[0]
}

func TestFirstRequestsShareOneCertificate(t *testing.T) {
	ingress := start(t, Config{Source: newSource(Route{Container: "shop", Aliases: []string{"www"}, Status: engine.Stopped})})
	certificates := make([]*x509.Certificate, 20)
	var group sync.WaitGroup
	for n := range certificates {
		group.Go(func() { certificates[n] = shown(t, ingress, "www.shop") })
	}
	group.Wait()
	for _, certificate := range certificates {
		if !certificate.Equal(certificates[0]) {
			t.Fatal("there are several certificates")
		}
	}
	if diff := cmp.Diff([]string{"www.shop." + ingress.config.Domain}, certificates[0].DNSNames); diff != "" {
		t.Error(diff)
	}
}

func TestRestartKeepsCAAndCertificates(t *testing.T) {
	config := Config{Domain: "restart.test", Source: newSource(running("shop", netip.MustParseAddr("127.0.77.1"))), StateDir: t.TempDir()}
	first := start(t, config)
	certificate := shown(t, first, "shop")
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	second := start(t, config)
	if again := shown(t, second, "shop"); !again.Equal(certificate) {
		t.Error("the restart made another certificate")
	}
}

// TestDamagedCertificates: a file that somebody or a disk has damaged costs no more
// than a new certificate.
func TestDamagedCertificates(t *testing.T) {
	for kind, content := range map[string]string{
		".crt":     "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		".key":     "no key",
		".json":    "{",
		"cut .crt": "",
	} {
		t.Run(kind, func(t *testing.T) {
			var log lockedBuffer
			config := Config{
				Domain: "damaged.test", Source: newSource(running("shop", netip.MustParseAddr("127.0.77.1"))), StateDir: t.TempDir(),
				Logger: hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Warn}),
			}
			first := start(t, config)
			certificate := shown(t, first, "shop")
			if err := first.stop(); err != nil {
				t.Fatal(err)
			}
			found, err := filepath.Glob(filepath.Join(config.StateDir, "storage", "certificates", "*", "shop.*", "shop.*"+filepath.Ext(kind)))
			if err != nil || len(found) != 1 {
				t.Fatal(found, err)
			}
			if err := os.WriteFile(found[0], []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			second := start(t, config)
			again := shown(t, second, "shop")
			if again.Equal(certificate) {
				t.Error("it is the same certificate")
			}
			if text := log.String(); !strings.Contains(text, "a stored certificate is damaged; it is made anew: file="+found[0]) {
				t.Errorf("the log does not say it: %s", text)
			}
			if err := second.stop(); err != nil {
				t.Fatal(err)
			}
			if third := shown(t, start(t, config), "shop"); !third.Equal(again) {
				t.Error("the new one was not kept")
			}
		})
	}
}

func TestAnotherDomainGetsAnotherCA(t *testing.T) {
	config := Config{Source: newSource(running("shop", netip.MustParseAddr("127.0.77.1"))), StateDir: t.TempDir()}
	first := start(t, config)
	shown(t, first, "shop")
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	config.Domain = "another.test"
	shown(t, start(t, config), "shop")
}

func TestStorageThatTakesNothingIsSaidAtOnce(t *testing.T) {
	var log lockedBuffer
	stateDir := t.TempDir()
	// A link to nowhere stands for a disk that takes nothing: what is below it
	// does not exist and cannot be made.
	if err := os.MkdirAll(filepath.Join(stateDir, "storage"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/nowhere", filepath.Join(stateDir, "storage", "certificates")); err != nil {
		t.Fatal(err)
	}
	ingress := start(t, Config{
		Source: newSource(running("shop", netip.MustParseAddr("127.0.77.1"))), StateDir: stateDir,
		Logger: hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Error}),
	})
	began := time.Now()
	connection, err := tls.Dial("tcp", ingress.HTTPS[0].String(), &tls.Config{ServerName: "shop." + ingress.config.Domain, InsecureSkipVerify: true})
	if err == nil {
		_ = connection.Close()
		t.Fatal("there was a certificate")
	}
	if took := time.Since(began); took >= issueTimeout {
		t.Errorf("it took %s", took)
	}
	if text := log.String(); !strings.Contains(text, "file exists") {
		t.Errorf("the log does not say why: %s", text)
	}
}
