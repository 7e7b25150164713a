package ingress

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// madeCertificate says what a test's certificate is like.
type madeCertificate struct {
	names []string
	from  time.Time
	until time.Time
	rsa   bool
}

var serial int64

// write makes a certificate and writes both files, which it returns.
func (m madeCertificate) write(t *testing.T, folder, name string) CertificateFiles {
	t.Helper()
	certificate, key := m.make(t)
	files := CertificateFiles{filepath.Join(folder, name+".crt"), filepath.Join(folder, name+".key")}
	put(t, files.Certificate, certificate)
	put(t, files.Key, key)
	return files
}

func (m madeCertificate) make(t *testing.T) (certificate, key []byte) {
	t.Helper()
	var signer crypto.Signer
	var err error
	if m.rsa {
		signer, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	serial++
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: m.from, NotAfter: m.until, DNSNames: m.names}
	if m.from.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
	}
	if m.until.IsZero() {
		template.NotAfter = time.Now().Add(90 * 24 * time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}

// put replaces a file in one step, as those do who renew certificates.
func put(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// givenInstance is an ingress with given certificates.
type givenInstance struct {
	*instance
	log *lockedBuffer
}

func startGiven(t *testing.T, domain string, files ...CertificateFiles) *givenInstance {
	t.Helper()
	g := &givenInstance{log: &lockedBuffer{}}
	g.instance = start(t, Config{
		Domain: domain, Source: shop(), TLS: TLS{Files: files}, lookEvery: 5 * time.Millisecond,
		Logger: hclog.New(&hclog.LoggerOptions{Output: g.log, Level: hclog.Warn}),
	})
	return g
}

// serial is that of the certificate that a client is shown, 0 when it is refused.
func (g *givenInstance) serial(t *testing.T, name string, suites ...uint16) int64 {
	t.Helper()
	connection, err := tls.Dial("tcp", g.HTTPS[0].String(), &tls.Config{
		ServerName: name, InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: suites,
	})
	if isAlert(err, "unrecognized name") {
		return 0
	}
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, g.log)
	}
	defer connection.Close()
	return connection.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

func (g *givenInstance) waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: in vain\n%s", what, g.log)
		}
	}
}

func TestGivenCertificates(t *testing.T) {
	folder := t.TempDir()
	const domain = "given.test"
	wildcard := madeCertificate{names: []string{"*." + domain}}.write(t, folder, "wildcard")
	ofWildcard := serial
	exact := madeCertificate{names: []string{"shop." + domain, "other." + domain}}.write(t, folder, "exact")
	ofExact := serial
	expired := madeCertificate{names: []string{"shop." + domain, "www.shop." + domain}, until: time.Now().Add(-time.Minute)}.write(t, folder, "expired")
	ofExpired := serial
	byRSA := madeCertificate{names: []string{"SHOP." + domain}, rsa: true}.write(t, folder, "rsa")
	ofRSA := serial

	for name, test := range map[string]struct {
		files []CertificateFiles
		want  map[string]int64
	}{
		"a wildcard is for one level":    {[]CertificateFiles{wildcard}, map[string]int64{"shop": ofWildcard, "www.shop": 0, "other": 0}},
		"an exact name before an *":      {[]CertificateFiles{wildcard, exact}, map[string]int64{"shop": ofExact}},
		"a valid one before an expired":  {[]CertificateFiles{expired, wildcard}, map[string]int64{"shop": ofWildcard, "www.shop": ofExpired}},
		"names are no matter of case":    {[]CertificateFiles{byRSA}, map[string]int64{"shop": ofRSA, "Shop": ofRSA}},
		"the first one of two like ones": {[]CertificateFiles{exact, exact, wildcard}, map[string]int64{"shop": ofExact}},
	} {
		t.Run(name, func(t *testing.T) {
			g := startGiven(t, domain, test.files...)
			for name, want := range test.want {
				if got := g.serial(t, name+"."+domain); got != want {
					t.Errorf("%s: certificate %d, want %d", name, got, want)
				}
			}
		})
	}
	t.Run("what the client knows", func(t *testing.T) {
		g := startGiven(t, domain, exact, byRSA)
		if got := g.serial(t, "shop."+domain, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256); got != ofRSA {
			t.Errorf("a client without ECDSA gets %d, not %d", got, ofRSA)
		}
		if got := g.serial(t, "shop."+domain, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256); got != ofExact {
			t.Errorf("a client without RSA gets %d, not %d", got, ofExact)
		}
	})
}

// TestUncoveredNames: what no certificate is for is refused, and said.
func TestUncoveredNames(t *testing.T) {
	const domain = "gaps.test"
	g := startGiven(t, domain, madeCertificate{names: []string{"*." + domain}}.write(t, t.TempDir(), "wildcard"))
	for range 3 {
		if got := g.serial(t, "www.shop."+domain); got != 0 {
			t.Errorf("certificate %d", got)
		}
	}
	const want = "none of the certificates in ingress.certificates of the settings is for www.shop.gaps.test; add one for it or for *.shop.gaps.test"
	if count := strings.Count(g.log.String(), want); count != 1 {
		t.Errorf("the log says it %d times:\n%s", count, g.log)
	}
	a := &acmeInstance{instance: g.instance}
	if status, _, page := a.onHTTP(t, "www.shop", "/"); status != http.StatusServiceUnavailable || !strings.Contains(page, want) {
		t.Errorf("plain http says %d %s", status, page)
	}
	if status, _, _ := a.onHTTP(t, "shop", "/"); status != http.StatusPermanentRedirect {
		t.Errorf("a name with a certificate: %d", status)
	}
	if got := g.serial(t, "nobody."+domain); got != 0 {
		t.Errorf("a name that is not registered gets certificate %d", got)
	}
}

func TestGaps(t *testing.T) {
	for name, test := range map[string]struct {
		names []string
		want  []string
	}{
		"nothing of it": {[]string{"*.elsewhere.org"}, []string{
			"no certificate in ingress.certificates is for all containers of dev.test: https works for those alone that one names; it would be one for *.dev.test",
			"no certificate in ingress.certificates is for aliases of containers of dev.test: an asterisk stands for one part of a name, so ALIAS.CONTAINER.dev.test needs one for *.CONTAINER.dev.test",
		}},
		"the containers": {[]string{"*.dev.test"}, []string{
			"no certificate in ingress.certificates is for aliases of containers of dev.test: an asterisk stands for one part of a name, so ALIAS.CONTAINER.dev.test needs one for *.CONTAINER.dev.test",
		}},
		"aliases of two": {[]string{"*.dev.test", "*.shop.dev.test", "*.CI.dev.test"}, []string{
			"the certificates in ingress.certificates are for aliases of shop.dev.test, ci.dev.test alone: an asterisk stands for one part of a name, so ALIAS.CONTAINER.dev.test needs one for *.CONTAINER.dev.test",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var log lockedBuffer
			files := []CertificateFiles{madeCertificate{names: test.names}.write(t, t.TempDir(), "a")}
			g, err := newGiven(files, []string{"dev.test"}, hclog.New(&hclog.LoggerOptions{Output: &log}))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, g.gaps([]string{"dev.test"})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if !strings.Contains(log.String(), test.want[0]) {
				t.Errorf("it is not said at the start:\n%s", log.String())
			}
		})
	}
}

// TestReplacedCertificate: what is renewed is served without a restart, and what
// is broken is not.
func TestReplacedCertificate(t *testing.T) {
	const domain = "replaced.test"
	folder := t.TempDir()
	wildcard := madeCertificate{names: []string{"*." + domain}}
	files := wildcard.write(t, folder, "a")
	old := serial
	// One whose files come later, by a link as certbot has them.
	late := CertificateFiles{filepath.Join(folder, "live.crt"), filepath.Join(folder, "live.key")}
	g := startGiven(t, domain, files, late)
	if log := g.log.String(); !strings.Contains(log, "cannot read "+late.Certificate+": no such file") {
		t.Errorf("a missing file is not said:\n%s", log)
	}

	put(t, files.Certificate, []byte("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n"))
	g.waitFor(t, "a broken file", func() bool { return strings.Contains(g.log.String(), "cannot use "+files.Certificate) })
	if log := g.log.String(); !strings.Contains(log, "the one of before, valid until ") {
		t.Errorf("it is not said what is served:\n%s", log)
	}
	if got := g.serial(t, "shop."+domain); got != old {
		t.Errorf("with a broken file, certificate %d is served, not %d", got, old)
	}
	if err := os.Remove(files.Key); err != nil {
		t.Fatal(err)
	}
	g.waitFor(t, "a missing key", func() bool {
		return strings.Contains(g.log.String(), "cannot read "+files.Certificate[:len(files.Certificate)-3]+"key") || strings.Count(g.log.String(), "cannot use") > 1
	})
	if got := g.serial(t, "shop."+domain); got != old {
		t.Errorf("without its key, certificate %d is served, not %d", got, old)
	}

	wildcard.write(t, folder, "a")
	renewed := serial
	g.waitFor(t, "a renewed certificate", func() bool { return g.serial(t, "shop."+domain) == renewed })

	target := madeCertificate{names: []string{"www.shop." + domain}}.write(t, folder, "archived")
	for link, file := range map[string]string{late.Certificate: target.Certificate, late.Key: target.Key} {
		if err := os.Symlink(file, link); err != nil {
			t.Fatal(err)
		}
	}
	g.waitFor(t, "a certificate that came later", func() bool { return g.serial(t, "www.shop."+domain) == serial })
}

// TestHalfReplaced: the certificate is there before its key, which is no error.
func TestHalfReplaced(t *testing.T) {
	var log lockedBuffer
	folder := t.TempDir()
	made := madeCertificate{names: []string{"*.half.test"}}
	files := made.write(t, folder, "a")
	g, err := newGiven([]CertificateFiles{files}, nil, hclog.New(&hclog.LoggerOptions{Output: &log}))
	if err != nil {
		t.Fatal(err)
	}
	old := g.choose("a.half.test", nil)
	certificate, key := made.make(t)
	put(t, files.Certificate, certificate)
	g.look()
	if g.choose("a.half.test", nil) != old || strings.Contains(log.String(), "ERROR") {
		t.Errorf("half of a certificate is served, or an error:\n%s", log.String())
	}
	put(t, files.Key, key)
	g.look()
	if now := g.choose("a.half.test", nil); now == old || strings.Contains(log.String(), "ERROR") {
		t.Errorf("the whole is not served, or an error:\n%s", log.String())
	}
	// What stays broken is said, once.
	put(t, files.Key, []byte("nonsense"))
	for range 5 {
		g.look()
	}
	if count := strings.Count(log.String(), "[ERROR]"); count != 1 {
		t.Errorf("the log says it %d times:\n%s", count, log.String())
	}
}

func TestUnusableCertificates(t *testing.T) {
	folder := t.TempDir()
	good := madeCertificate{names: []string{"a.test"}}.write(t, folder, "good")
	other := madeCertificate{names: []string{"a.test"}}.write(t, folder, "other")
	nameless := madeCertificate{}.write(t, folder, "nameless")
	fifo, large := filepath.Join(folder, "fifo"), filepath.Join(folder, "large")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(large, make([]byte, largestFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		files CertificateFiles
		want  string
	}{
		"missing":        {CertificateFiles{folder + "/none.crt", good.Key}, "cannot read " + folder + "/none.crt: no such file or directory; see ingress.certificates"},
		"missing key":    {CertificateFiles{good.Certificate, folder + "/none.key"}, "cannot read " + folder + "/none.key: no such file"},
		"another's key":  {CertificateFiles{good.Certificate, other.Key}, "cannot use " + good.Certificate + ": with the key " + other.Key + ": tls: private key does not match public key"},
		"exchanged":      {CertificateFiles{good.Key, good.Certificate}, "cannot use " + good.Key},
		"a folder":       {CertificateFiles{folder, good.Key}, "it is no regular file"},
		"a FIFO":         {CertificateFiles{fifo, good.Key}, "it is no regular file"},
		"large":          {CertificateFiles{large, good.Key}, "it is larger than"},
		"without a name": {nameless, "it is for no DNS name"},
		"through a file": {CertificateFiles{good.Certificate + "/x", good.Key}, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Run(t.Context(), Config{
				Domain: "unusable.test", Source: shop(), StateDir: t.TempDir(), HTTPSAddresses: []string{"127.0.0.1:0"}, TLS: TLS{Files: []CertificateFiles{test.files}},
			}, func(Addresses) { t.Error("it serves") })
			var failure *CertificateError
			if !errors.As(err, &failure) || !strings.Contains(err.Error(), test.want) || failure.Remedy == "" {
				t.Errorf("got %v", err)
			}
			findings := CheckCertificateFiles([]CertificateFiles{test.files}, time.Now())
			if len(findings) != 1 || !findings[0].Serious || !strings.HasPrefix(findings[0].Detail, "cannot ") {
				t.Errorf("found %+v", findings)
			}
		})
	}
}

func TestCheckCertificateFiles(t *testing.T) {
	now := time.Now()
	folder := t.TempDir()
	files := func(name string, made madeCertificate, mode os.FileMode) CertificateFiles {
		made.names = []string{"a.test"}
		written := made.write(t, folder, name)
		if err := os.Chmod(written.Key, mode); err != nil {
			t.Fatal(err)
		}
		return written
	}
	day := 24 * time.Hour
	for name, test := range map[string]struct {
		files CertificateFiles
		want  string
	}{
		"good":        {files("good", madeCertificate{}, 0o640), ""},
		"expired":     {files("expired", madeCertificate{until: now.Add(-time.Hour)}, 0o600), "is not valid since"},
		"not yet":     {files("early", madeCertificate{from: now.Add(time.Hour)}, 0o600), "is not valid before"},
		"ends":        {files("ends", madeCertificate{from: now.Add(-86 * day), until: now.Add(4 * day)}, 0o600), "only"},
		"short lived": {files("short", madeCertificate{from: now.Add(-3 * day), until: now.Add(3 * day)}, 0o600), ""},
		"open key":    {files("open", madeCertificate{}, 0o644), "every user of this host can read the key"},
	} {
		t.Run(name, func(t *testing.T) {
			var said string
			for _, finding := range CheckCertificateFiles([]CertificateFiles{test.files}, now) {
				said += fmt.Sprintln(finding.Detail)
				if finding.Serious || finding.Remedy == "" {
					t.Errorf("%+v", finding)
				}
			}
			if (test.want == "") != (said == "") || !strings.Contains(said, test.want) {
				t.Errorf("it says %q", said)
			}
		})
	}
}

// TestUnreadableKey: the service has not all of root's rights.
func TestUnreadableKey(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("who is not root cannot become another user")
	}
	files := madeCertificate{names: []string{"a.test"}}.write(t, t.TempDir(), "a")
	done := make(chan error)
	go func() {
		// Of this thread alone, which ends with the goroutine.
		runtime.LockOSThread()
		if err := unix.Setfsuid(65534); err != nil {
			done <- err
			return
		}
		_, err := readPEM(files.Key)
		done <- err
	}()
	if err := <-done; !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "SupplementaryGroups=") {
		t.Errorf("got %v", err)
	}
}
