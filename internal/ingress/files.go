package ingress

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

const (
	// lookEvery is how often the files are looked at.
	lookEvery = 10 * time.Second
	// remindEvery is how often certificates that end are named, and how often a
	// name that has none.
	remindEvery = 24 * time.Hour
	// endsSoon is what a certificate has left when nobody seems to renew it.
	endsSoon = 10 * 24 * time.Hour
	// largestFile bounds what is read, in bytes.
	largestFile = 1 << 20
)

// CertificateFiles are two PEM files: a certificate followed by its chain, and
// its private key.
type CertificateFiles struct{ Certificate, Key string }

// CertificateError says that a file with certificates or a key is unusable.
type CertificateError struct {
	Path string
	// Doing says what failed, as in "cannot read".
	Doing string
	Err   error
	// Remedy says what to do next.
	Remedy string
}

func (c *CertificateError) Error() string {
	return fmt.Sprintf("the ingress's certificates: %s %s: %v; %s", c.Doing, c.Path, c.Err, c.Remedy)
}

// Unwrap returns the cause.
func (c *CertificateError) Unwrap() error { return c.Err }

// Uncovered says that none of the given certificates is for a name.
type Uncovered struct{ Name string }

func (u *Uncovered) Error() string {
	_, above, _ := strings.Cut(u.Name, ".")
	return fmt.Sprintf("none of the certificates in ingress.certificates of the settings is for %s; add one for it or for *.%s (an asterisk stands for one part of a name only), or set ingress.tls to \"acme\"", u.Name, above)
}

// given are certificates that somebody else renews.
type given struct {
	logger hclog.Logger
	every  time.Duration
	now    func() time.Time

	mutex sync.Mutex
	pairs []*pair
	// named are the times at which names without a certificate were logged;
	// only registered ones come so far.
	named map[string]time.Time
}

// pair is a certificate and what is known of its files.
type pair struct {
	files CertificateFiles
	// certificate is the last one that was good, nil for none.
	certificate *tls.Certificate
	// seen is what was read last. doubtful says that it was no good when it was
	// read for the first time: a certificate is written before its key.
	seen     identity
	doubtful bool
}

// identity tells one state of two files from the next.
type identity [2]struct {
	device, inode uint64
	size          int64
	changed       unix.Timespec
}

func (c CertificateFiles) identity() identity {
	var id identity
	for i, path := range []string{c.Certificate, c.Key} {
		var status unix.Stat_t
		// What is missing will be other than what comes.
		if unix.Stat(path, &status) == nil {
			id[i].device, id[i].inode, id[i].size, id[i].changed = status.Dev, status.Ino, status.Size, status.Ctim
		}
	}
	return id
}

// newGiven reads the certificates. What is wrong with some is logged; the error
// is a *CertificateError when none is good.
func newGiven(files []CertificateFiles, domains []string, logger hclog.Logger) (*given, error) {
	g := &given{logger: logger, every: lookEvery, now: time.Now, named: map[string]time.Time{}}
	var failures []error
	for _, paths := range files {
		// Before they are read: a change in between is seen later.
		one := &pair{files: paths, seen: paths.identity()}
		certificate, err := paths.load()
		if err != nil {
			failures = append(failures, err)
		}
		one.certificate = certificate
		g.pairs = append(g.pairs, one)
	}
	if len(failures) == len(files) {
		return nil, failures[0]
	}
	for _, err := range failures {
		logger.Error(err.Error())
	}
	g.remind()
	for _, line := range g.gaps(domains) {
		logger.Warn(line)
	}
	return g, nil
}

// load reads the two files. The error is a *CertificateError.
func (c CertificateFiles) load() (*tls.Certificate, error) {
	var contents [2][]byte
	for i, path := range []string{c.Certificate, c.Key} {
		content, err := readPEM(path)
		if err != nil {
			return nil, err
		}
		contents[i] = content
	}
	certificate, err := tls.X509KeyPair(contents[0], contents[1])
	if err != nil {
		return nil, &CertificateError{
			Path: c.Certificate, Doing: "cannot use", Err: fmt.Errorf("with the key %s: %w", c.Key, err),
			Remedy: "the files must be PEM, the certificate first in its own, and the key that of the certificate",
		}
	}
	if len(certificate.Leaf.DNSNames) == 0 {
		return nil, &CertificateError{
			Path: c.Certificate, Doing: "cannot use", Err: errors.New("it is for no DNS name (subjectAltName)"), Remedy: "get one for the names that are served",
		}
	}
	return &certificate, nil
}

// readPEM reads a file. The error is a *CertificateError.
func readPEM(path string) ([]byte, error) {
	content, err := readRegular(path)
	if err == nil {
		return content, nil
	}
	failure := &CertificateError{Path: path, Doing: "cannot read", Err: err, Remedy: "see ingress.certificates of the settings"}
	var system *fs.PathError
	if errors.As(err, &system) {
		failure.Err = system.Err
	}
	if errors.Is(err, fs.ErrPermission) {
		failure.Remedy = "the ingress reads what root may read as the owner or by its group: give the file to root, or the unit the file's group: systemctl edit devhost-ingress, [Service], SupplementaryGroups=GROUP"
	}
	return nil, failure
}

func readRegular(path string) ([]byte, error) {
	// Opening a FIFO would wait for a writer.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is no regular file")
	}
	content, err := io.ReadAll(io.LimitReader(file, largestFile+1))
	if err == nil && len(content) > largestFile {
		err = fmt.Errorf("it is larger than %d bytes", largestFile)
	}
	return content, err
}

// certificate implements keeper.
func (g *given) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	chosen := g.choose(normalize(hello.ServerName), hello)
	if chosen != nil {
		return chosen, nil
	}
	err := &Uncovered{Name: normalize(hello.ServerName)}
	if g.firstToday(err.Name) {
		g.logger.Error("refused a TLS client", "name", err.Name, "error", err)
	}
	return nil, err
}

// firstToday bounds what clients can make it log.
func (g *given) firstToday(name string) bool {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	now := g.now()
	if before, known := g.named[name]; known && now.Sub(before) < remindEvery {
		return false
	}
	g.named[name] = now
	return true
}

// trouble implements keeper.
func (g *given) trouble(name string) error {
	if name = normalize(name); g.choose(name, nil) == nil {
		return &Uncovered{Name: name}
	}
	return nil
}

// choose returns the best certificate for a name: one that the client knows how
// to use (hello may be nil), that is valid now, and that names it without an
// asterisk. nil when none is for the name.
func (g *given) choose(name string, hello *tls.ClientHelloInfo) *tls.Certificate {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	var best *tls.Certificate
	most := -1
	for _, one := range g.pairs {
		if one.certificate == nil || one.certificate.Leaf.VerifyHostname(name) != nil {
			continue
		}
		leaf, score := one.certificate.Leaf, 0
		if hello == nil || hello.SupportsCertificate(one.certificate) == nil {
			score += 4
		}
		if now := g.now(); !now.Before(leaf.NotBefore) && now.Before(leaf.NotAfter) {
			score += 2
		}
		if slices.ContainsFunc(leaf.DNSNames, func(own string) bool { return strings.EqualFold(own, name) }) {
			score++
		}
		if score > most {
			best, most = one.certificate, score
		}
	}
	return best
}

// gaps says which names below the domains no certificate is for.
func (g *given) gaps(domains []string) []string {
	var lines []string
	const label = "any"
	for _, domain := range domains {
		if g.choose(label+"."+domain, nil) == nil {
			lines = append(lines, fmt.Sprintf("no certificate in ingress.certificates is for all containers of %s: https works for those alone that one names; it would be one for *.%[1]s", domain))
		}
		var covered []string
		for _, one := range g.pairs {
			if one.certificate == nil {
				continue
			}
			for _, own := range one.certificate.Leaf.DNSNames {
				container, below := strings.CutSuffix(strings.ToLower(own), "."+domain)
				container, wildcard := strings.CutPrefix(container, "*.")
				if below && wildcard && !slices.Contains(covered, container) {
					covered = append(covered, container)
				}
			}
		}
		said := "no certificate in ingress.certificates is for aliases of containers of " + domain
		if len(covered) > 0 {
			said = fmt.Sprintf("the certificates in ingress.certificates are for aliases of %s.%s alone", strings.Join(covered, "."+domain+", "), domain)
		}
		lines = append(lines, fmt.Sprintf("%s: an asterisk stands for one part of a name, so ALIAS.CONTAINER.%s needs one for *.CONTAINER.%[2]s", said, domain))
	}
	return lines
}

// maintain implements keeper: it reads files that changed.
func (g *given) maintain(ctx context.Context) {
	look, remind := time.NewTicker(g.every), time.NewTicker(remindEvery)
	defer look.Stop()
	defer remind.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			g.look()
		case <-remind.C:
			g.remind()
		}
	}
}

func (g *given) look() {
	for _, one := range g.pairs {
		id := one.files.identity()
		if id == one.seen && !one.doubtful {
			continue
		}
		certificate, err := one.files.load()
		switch {
		case err == nil:
			g.mutex.Lock()
			one.certificate = certificate
			g.mutex.Unlock()
			one.doubtful = false
			g.logger.Info("read a new certificate", "file", one.files.Certificate, "until", certificate.Leaf.NotAfter)
		case id == one.seen:
			one.doubtful = false
			g.logger.Error(err.Error(), "served", stays(one.certificate))
		default:
			one.doubtful = true
		}
		one.seen = id
	}
}

func stays(certificate *tls.Certificate) string {
	if certificate == nil {
		return "none"
	}
	return "the one of before, valid until " + certificate.Leaf.NotAfter.Local().Format(time.DateTime)
}

// remind names certificates that end.
func (g *given) remind() {
	for _, one := range g.pairs {
		if one.certificate == nil {
			continue
		}
		for _, doubt := range one.files.doubts(one.certificate, g.now()) {
			g.logger.Warn(doubt.Detail, "remedy", doubt.Remedy)
		}
	}
}

// stop implements keeper.
func (g *given) stop() {}

// CertificateFinding is what is wrong with a certificate's files.
type CertificateFinding struct {
	// Serious is what keeps it from being used.
	Serious        bool
	Detail, Remedy string
}

// CheckCertificateFiles says what is wrong with certificates.
func CheckCertificateFiles(files []CertificateFiles, now time.Time) []CertificateFinding {
	var findings []CertificateFinding
	for _, one := range files {
		certificate, err := one.load()
		var failure *CertificateError
		if errors.As(err, &failure) {
			findings = append(findings, CertificateFinding{
				Serious: true, Detail: fmt.Sprintf("%s %s: %v", failure.Doing, failure.Path, failure.Err), Remedy: failure.Remedy,
			})
			continue
		}
		findings = append(findings, one.doubts(certificate, now)...)
	}
	return findings
}

// CheckACME says what is wrong with the files of ACME.
func CheckACME(settings ACME) error {
	_, err := settings.roots()
	return err
}

// doubts are what does not keep a certificate from being used.
func (c CertificateFiles) doubts(certificate *tls.Certificate, now time.Time) []CertificateFinding {
	var findings []CertificateFinding
	add := func(remedy, detail string, values ...any) {
		findings = append(findings, CertificateFinding{Detail: fmt.Sprintf(detail, values...), Remedy: remedy})
	}
	const renew = "renew it; the ingress reads it by itself when the files change"
	leaf := certificate.Leaf
	switch until := leaf.NotAfter.Local().Format(time.DateTime); {
	case now.Before(leaf.NotBefore):
		add("wait, or see whether the clock is right", "the certificate %s is not valid before %s", c.Certificate, leaf.NotBefore.Local().Format(time.DateTime))
	case now.After(leaf.NotAfter):
		add(renew, "the certificate %s is not valid since %s", c.Certificate, until)
	// Those of a few days are renewed late.
	case leaf.NotAfter.Sub(now) < min(endsSoon, leaf.NotAfter.Sub(leaf.NotBefore)/10):
		add(renew, "the certificate %s is valid until %s only", c.Certificate, until)
	}
	const othersRead = 0o004
	if info, err := os.Stat(c.Key); err == nil && info.Mode().Perm()&othersRead != 0 {
		add("chmod o-r "+c.Key, "every user of this host can read the key %s", c.Key)
	}
	return findings
}
