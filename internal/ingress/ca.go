package ingress

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/gofrs/flock"
	"github.com/google/renameio/v2"
	"github.com/hashicorp/go-hclog"
)

const (
	// rootLifetime is how long a new root certificate is valid; one that has
	// less than rootReserve left is replaced at the next start.
	rootLifetime = 10 * 365 * 24 * time.Hour
	rootReserve  = 30 * 24 * time.Hour
	// leafLifetime is short because nothing here can revoke a certificate.
	leafLifetime = 7 * 24 * time.Hour
	// clockSkew is how far behind a client's clock may be.
	clockSkew = time.Hour

	caLockPoll = 20 * time.Millisecond

	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY"
)

// CAError says that the certificate authority is unusable.
type CAError struct {
	// Path is the file that is at fault.
	Path string
	// Doing says what failed, as in "cannot read".
	Doing string
	Err   error
	// Remedy says what to do next. May be empty.
	Remedy string
}

func (c *CAError) Error() string {
	text := fmt.Sprintf("the ingress's certificate authority: %s %s: %v", c.Doing, c.Path, c.Err)
	if c.Remedy != "" {
		text += "; " + c.Remedy
	}
	return text
}

// Unwrap returns the cause.
func (c *CAError) Unwrap() error { return c.Err }

// CARoot returns the path of the root certificate that signs what the ingress
// serves: PEM, readable for everyone, for example for curl --cacert. stateDir
// is Config.StateDir. It exists as soon as the ingress ran once; before, the
// error is a *CAError that wraps fs.ErrNotExist.
func CARoot(stateDir string) (string, error) {
	path := rootCertificatePath(stateDir)
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", &CAError{Path: path, Doing: "cannot find", Err: fs.ErrNotExist, Remedy: "start the ingress once, it makes the file: devhost ingress"}
	}
	if err == nil {
		_, err = parseCertificate(content)
	}
	if err != nil {
		return "", &CAError{Path: path, Doing: "cannot use", Err: err, Remedy: "start the ingress, it writes the file anew: devhost ingress"}
	}
	return path, nil
}

func caDir(stateDir string) string { return filepath.Join(stateDir, "ca") }

// rootPath holds certificate and key in one file, so that it is replaced in one
// step.
func rootPath(stateDir string) string { return filepath.Join(caDir(stateDir), "root.pem") }

// rootCertificatePath is the copy without the key, for everyone.
func rootCertificatePath(stateDir string) string { return filepath.Join(caDir(stateDir), "root.crt") }

func caLockPath(stateDir string) string { return filepath.Join(caDir(stateDir), "lock") }

// internalCA signs certificates for names below its domains, and is certmagic's
// issuer. It needs no network.
type internalCA struct {
	domains     []string
	certificate *x509.Certificate
	key         crypto.Signer
}

var _ certmagic.Issuer = (*internalCA)(nil)

// openCA loads the certificate authority of the domains, or makes it.
func openCA(ctx context.Context, stateDir string, domains []string, logger hclog.Logger) (*internalCA, error) {
	if err := os.MkdirAll(caDir(stateDir), 0o755); err != nil {
		return nil, &CAError{Path: caDir(stateDir), Doing: "cannot make", Err: err}
	}
	// Everyone may read the root certificate, also where the umask is strict.
	for _, folder := range []string{stateDir, caDir(stateDir)} {
		if err := os.Chmod(folder, 0o755); err != nil {
			return nil, &CAError{Path: folder, Doing: "cannot open up", Err: err}
		}
	}
	lock := flock.New(caLockPath(stateDir), flock.SetPermissions(0o600))
	if _, err := lock.TryLockContext(ctx, caLockPoll); err != nil {
		return nil, &CAError{Path: caLockPath(stateDir), Doing: "cannot lock", Err: err}
	}
	defer func() { _ = lock.Unlock() }()

	authority, err := loadCA(stateDir, domains)
	if err != nil {
		return nil, err
	}
	if authority != nil && !authority.usable() {
		// Nothing is lost: the old one could sign no more, and stays beside.
		old := filepath.Join(caDir(stateDir), "root-"+authority.fingerprint()+".pem")
		if err := os.Rename(rootPath(stateDir), old); err != nil {
			return nil, &CAError{Path: rootPath(stateDir), Doing: "cannot replace", Err: err}
		}
		logger.Warn("the certificate authority is replaced, because it expires or is for other domains; browsers must be told to trust the new one",
			"domains", domains, "old", old, "new", rootCertificatePath(stateDir))
		authority = nil
	}
	if authority == nil {
		if authority, err = newCA(domains); err != nil {
			return nil, &CAError{Path: rootPath(stateDir), Doing: "cannot make", Err: err}
		}
		if err := authority.save(stateDir); err != nil {
			return nil, err
		}
		logger.Info("made a certificate authority", "domains", domains, "certificate", rootCertificatePath(stateDir))
	}
	return authority, authority.publish(stateDir)
}

// newCA makes a certificate authority that can sign for names below the domains
// only: who trusts it for development need not trust it for anything else.
func newCA(domains []string) (*internalCA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	everyIPv4 := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	everyIPv6 := &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	template := &x509.Certificate{
		SerialNumber: serial,
		// The serial tells one root from the next in a browser's list.
		Subject:                     pkix.Name{Organization: []string{"devhost"}, CommonName: "devhost development CA " + serial.Text(16)[:8]},
		NotBefore:                   now.Add(-clockSkew),
		NotAfter:                    now.Add(rootLifetime),
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:                        true,
		BasicConstraintsValid:       true,
		MaxPathLenZero:              true,
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         domains,
		ExcludedIPRanges:            []*net.IPNet{everyIPv4, everyIPv6},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &internalCA{domains: domains, certificate: certificate, key: key}, nil
}

// loadCA returns nil when there is none yet.
func loadCA(stateDir string, domains []string) (*internalCA, error) {
	path := rootPath(stateDir)
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &CAError{Path: path, Doing: "cannot read", Err: err}
	}
	certificate, key, err := parseCA(content)
	if err != nil {
		return nil, &CAError{
			Path: path, Doing: "cannot use", Err: err,
			Remedy: "restore the file from a backup, or remove it to get a new authority, which browsers must be told to trust",
		}
	}
	return &internalCA{domains: domains, certificate: certificate, key: key}, nil
}

// parseCA reads a certificate and its key, in PEM, out of one file.
func parseCA(content []byte) (*x509.Certificate, crypto.Signer, error) {
	certificate, err := parseCertificate(content)
	if err != nil {
		return nil, nil, err
	}
	block := findPEM(content, pemKey)
	if block == nil {
		return nil, nil, errors.New("it holds no private key")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block)
	if err != nil {
		return nil, nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(certificate.PublicKey) {
		return nil, nil, errors.New("its private key is not the one of its certificate")
	}
	return certificate, key, nil
}

func parseCertificate(content []byte) (*x509.Certificate, error) {
	block := findPEM(content, pemCertificate)
	if block == nil {
		return nil, errors.New("it holds no certificate")
	}
	return x509.ParseCertificate(block)
}

func findPEM(content []byte, kind string) []byte {
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == kind {
			return block.Bytes
		}
	}
	return nil
}

// usable says whether it can sign for the domains, and will for a while.
func (c *internalCA) usable() bool {
	return slices.Equal(c.certificate.PermittedDNSDomains, c.domains) && time.Until(c.certificate.NotAfter) > rootReserve
}

// fingerprint is short and differs from root to root.
func (c *internalCA) fingerprint() string {
	return hex.EncodeToString(c.certificate.SubjectKeyId[:6])
}

func (c *internalCA) certificatePEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: c.certificate.Raw})
}

func (c *internalCA) save(stateDir string) error {
	path := rootPath(stateDir)
	der, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		return &CAError{Path: path, Doing: "cannot encode the key for", Err: err}
	}
	content := append(c.certificatePEM(), pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der})...)
	if err := renameio.WriteFile(path, content, 0o600); err != nil {
		return &CAError{Path: path, Doing: "cannot write", Err: err}
	}
	return nil
}

// publish writes the certificate for everyone, unless it is there.
func (c *internalCA) publish(stateDir string) error {
	path := rootCertificatePath(stateDir)
	content := c.certificatePEM()
	if there, err := os.ReadFile(path); err == nil && slices.Equal(there, content) {
		return nil
	}
	// The mode is meant as it is, whatever the umask.
	if err := renameio.WriteFile(path, content, 0o644, renameio.WithStaticPermissions(0o644)); err != nil {
		return &CAError{Path: path, Doing: "cannot write", Err: err}
	}
	return nil
}

// IssuerKey names the authority in certmagic's storage. A new root has a key of
// its own, so that nothing which an old one signed is served.
func (c *internalCA) IssuerKey() string { return "internal-" + c.fingerprint() }

// Issue implements certmagic.Issuer.
func (c *internalCA) Issue(_ context.Context, request *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	der, err := c.sign(request)
	if err != nil {
		// Signing fails the same way the next time: no use in certmagic's
		// retries, for which a client would wait.
		return nil, certmagic.ErrNoRetry{Err: err}
	}
	return &certmagic.IssuedCertificate{Certificate: pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der})}, nil
}

func (c *internalCA) sign(request *x509.CertificateRequest) ([]byte, error) {
	if err := request.CheckSignature(); err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if now.After(c.certificate.NotAfter) {
		return nil, fmt.Errorf("the certificate authority expired on %s; restart the ingress, it makes a new one", c.certificate.NotAfter.Format(time.DateOnly))
	}
	notAfter := now.Add(leafLifetime)
	if notAfter.After(c.certificate.NotAfter) {
		notAfter = c.certificate.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		NotBefore:    now.Add(-clockSkew),
		NotAfter:     notAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     request.DNSNames,
	}
	return x509.CreateCertificate(rand.Reader, template, c.certificate, request.PublicKey, c.key)
}

func newSerial() (*big.Int, error) {
	// 159 random bits: RFC 5280 allows 20 octets and wants a positive number.
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 159))
	if err != nil {
		return nil, err
	}
	return serial.SetBit(serial, 158, 1), nil
}
