package ingress

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/hashicorp/go-hclog"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"devhost/internal/terminal"
)

// ACME says which server signs certificates (RFC 8555), and for whom.
type ACME struct {
	// Email is the account's, "" for none.
	Email string
	// Directory is the URL of the server's directory, "" for that of Let's
	// Encrypt.
	Directory string
	// CAFile is a PEM file with the certificates that the server's own is trusted
	// by, "" for those that the host trusts.
	CAFile string

	// Tests set these: which ways of asking the server is not left, and below
	// what part of its lifetime a certificate is renewed.
	withoutHTTP, withoutTLS bool
	renewalRatio            float64
}

// URL is that of the directory.
func (a ACME) URL() string {
	if a.Directory == "" {
		return certmagic.LetsEncryptProductionCA
	}
	return a.Directory
}

// server is what the server is called in messages.
func (a ACME) server() string {
	if parsed, err := url.Parse(a.URL()); err == nil && parsed.Host != "" {
		return parsed.Host
	}
	return a.URL()
}

// roots are nil for those that the host trusts.
func (a ACME) roots() (*x509.CertPool, error) {
	if a.CAFile == "" {
		return nil, nil
	}
	const remedy = "ingress.acme.caFile of the settings names the file with the certificates that the ACME server is trusted by"
	content, err := readRegular(a.CAFile)
	if err != nil {
		return nil, &CertificateError{Path: a.CAFile, Doing: "cannot read", Err: err, Remedy: remedy}
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return nil, &CertificateError{Path: a.CAFile, Doing: "cannot use", Err: errors.New("it holds no certificate"), Remedy: remedy}
	}
	return pool, nil
}

// newACME returns a keeper of certificates that the server makes, and what
// answers the server's questions in front of plain http's own handler. addresses
// are those of the ingress.
func newACME(ctx context.Context, settings ACME, directory directory, storage string, addresses Addresses, logger hclog.Logger) (*managed, func(http.Handler) http.Handler, error) {
	roots, err := settings.roots()
	if err != nil {
		return nil, nil, err
	}
	// certmagic listens by itself where nobody does. By these it finds the
	// ingress's own listeners, which answer.
	https := addresses.HTTPS[0]
	var plain netip.AddrPort
	for _, address := range addresses.HTTP {
		if address.Addr() == https.Addr() && !plain.IsValid() {
			plain = address
		}
	}
	host := https.Addr().String()
	if https.Addr().IsUnspecified() {
		host = ""
	}
	keeper := newManaged(ctx, directory, storage, logger)
	keeper.most = acmeTimeout
	keeper.tries = newTries(settings.server(), time.Now)
	keeper.config.RenewalWindowRatio = settings.renewalRatio
	if settings.renewalRatio == 0 {
		keeper.config.RenewalWindowRatio = certmagic.DefaultRenewalWindowRatio
	}
	issuer := certmagic.NewACMEIssuer(keeper.config, certmagic.ACMEIssuer{
		CA: settings.URL(), Email: settings.Email, Agreed: true, TrustedRoots: roots,
		ListenHost: host, AltHTTPPort: int(plain.Port()), AltTLSALPNPort: int(https.Port()),
		DisableHTTPChallenge: settings.withoutHTTP || !plain.IsValid(), DisableTLSALPNChallenge: settings.withoutTLS,
		Logger: zap.NewNop(),
	})
	keeper.issue(politeIssuer{issuer, keeper.tries})
	answering := func(next http.Handler) http.Handler {
		answers := issuer.HTTPChallengeHandler(next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			// The host's name becomes that of a file, and no other one is asked for.
			if served, err := directory.serves(hostOf(r.Host)); err != nil || !served {
				next.ServeHTTP(w, r)
				return
			}
			answers.ServeHTTP(w, r)
		})
	}
	return keeper, answering, nil
}

// politeIssuer asks an ACME server once for a name, and after a failure not
// again before some time has passed, whoever wants the certificate.
type politeIssuer struct {
	*certmagic.ACMEIssuer
	tries *tries
}

// PreCheck implements certmagic.PreChecker.
func (p politeIssuer) PreCheck(ctx context.Context, names []string, interactive bool) error {
	if err := p.ACMEIssuer.PreCheck(ctx, names, interactive); err != nil {
		return certmagic.ErrNoRetry{Err: err}
	}
	return nil
}

// Issue implements certmagic.Issuer. certmagic tries again within what clients
// wait for, unless it is told not to.
func (p politeIssuer) Issue(ctx context.Context, request *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	name := request.DNSNames[0]
	if err := p.tries.mayTry(name); err != nil {
		return nil, certmagic.ErrNoRetry{Err: err}
	}
	issued, err := p.ACMEIssuer.Issue(ctx, request)
	if err == nil {
		err = fits(issued.Certificate, request.PublicKey)
	}
	switch cause := context.Cause(ctx); {
	case err == nil:
		// Until it is known to be on disk: were it ordered with each
		// connection because the disk is full, the server would refuse soon.
		_ = p.tries.failed(name, errNotStored, awaited(ctx))
		return issued, nil
	case errors.Is(cause, context.Canceled):
		// The ingress ends.
		return nil, certmagic.ErrNoRetry{Err: cause}
	case errors.Is(cause, context.DeadlineExceeded):
		err = errTooLate
	case cause != nil:
		err = cause
	}
	return nil, certmagic.ErrNoRetry{Err: p.tries.failed(name, err, awaited(ctx))}
}

// fits says what is wrong with a certificate, in PEM, for a public key.
func fits(chain []byte, public any) error {
	leaf, err := parseCertificate(chain)
	if err != nil {
		return fmt.Errorf("%w: %w", errUnusable, err)
	}
	if key, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !key.Equal(public) {
		return fmt.Errorf("%w: it is for another key", errUnusable)
	}
	return nil
}

// IssueError says that an ACME server made no certificate.
type IssueError struct {
	Name string
	// Server is the server's host.
	Server string
	// Err is the server's own answer, an acme.Problem, or what kept it from
	// giving one.
	Err error
	// Retry is the time before which the server is not asked again.
	Retry time.Time
}

func (i *IssueError) Error() string {
	reason, remedy := i.reason(), i.remedy()
	return fmt.Sprintf("no certificate for %s: %s; %s. The server is asked again from %s on, or as soon as the ingress is started again",
		i.Name, reason, remedy, i.Retry.Local().Format(time.DateTime))
}

// Unwrap returns the cause.
func (i *IssueError) Unwrap() error { return i.Err }

// problem is what the server answered, if it did.
func (i *IssueError) problem() (acme.Problem, bool) {
	var problem acme.Problem
	answered := errors.As(i.Err, &problem)
	return problem, answered
}

const (
	// longestReason bounds what is shown of a server's answer, in bytes.
	longestReason = 600
	problemPrefix = "urn:ietf:params:acme:error:"
)

func (i *IssueError) reason() string {
	problem, answered := i.problem()
	switch {
	case answered:
		return terminal.Line(fmt.Sprintf("the ACME server %s says: %.*s (%s)", i.Server, longestReason, problem.Detail, strings.TrimPrefix(problem.Type, problemPrefix)))
	case errors.Is(i.Err, errNotStored):
		return fmt.Sprintf("the one that %s made %v", i.Server, errNotStored)
	case errors.Is(i.Err, errTooLate):
		return fmt.Sprintf("the ACME server %s %v", i.Server, errTooLate)
	case errors.Is(i.Err, errUnusable):
		return terminal.Line(fmt.Sprintf("what the ACME server %s made %v", i.Server, i.Err))
	}
	return terminal.Line(fmt.Sprintf("the ACME server %s could not be asked: %.*s", i.Server, longestReason, i.Err.Error()))
}

func (i *IssueError) remedy() string {
	problem, answered := i.problem()
	var authority x509.UnknownAuthorityError
	switch {
	case errors.As(i.Err, &authority):
		return "if it is a server of your own, name its root certificate in ingress.acme.caFile of the settings"
	case errors.Is(i.Err, errNotStored):
		return "see what the ingress said before (journalctl -u devhost-ingress), and whether the disk is full"
	case errors.Is(i.Err, errUnusable):
		return "choose another server (ingress.acme.directory of the settings)"
	case !answered:
		return "see whether it is reached from this host, and ingress.acme of the settings"
	}
	switch problem.Type {
	case acme.ProblemTypeConnection, acme.ProblemTypeDNS, acme.ProblemTypeUnauthorized, acme.ProblemTypeTLS, acme.ProblemTypeIncorrectResponse, acme.ProblemTypeMalformed:
		return fmt.Sprintf("for the server, %s must lead to this host (a DNS record for the domain and for all names below it), with port 80 or 443 open", i.Name)
	case acme.ProblemTypeCAA:
		return "add the server to the CAA records of the domain"
	case acme.ProblemTypeRateLimited:
		return "wait, or let a wildcard certificate be served (ingress.tls \"files\" of the settings)"
	case acme.ProblemTypeRejectedIdentifier, acme.ProblemTypeUnsupportedIdentifier:
		return "choose another domain (publicAddress of the settings) or another server (ingress.acme.directory)"
	case acme.ProblemTypeExternalAccountRequired:
		return "choose a server that has accounts for everybody (ingress.acme.directory of the settings)"
	case acme.ProblemTypeInvalidContact, acme.ProblemTypeUnsupportedContact:
		return "set another ingress.acme.email in the settings"
	}
	return "see ingress.acme of the settings"
}

// postponed says that the server is not asked yet, because of a failure that was
// said before.
type postponed struct{ *IssueError }

func (p *postponed) Unwrap() error { return p.IssueError }

var (
	errNotStored = errors.New("could not be stored")
	errTooLate   = errors.New("made none in time")
	errUnusable  = errors.New("cannot be used")
)

// How long a server is left alone after the first failure for a name; twice as
// long after each further one, up to the most.
const (
	// A refusal: Let's Encrypt allows five failed checks of a name within an hour,
	// and an attempt is up to two.
	refusedWait, refusedMost = 20 * time.Minute, 12 * time.Hour
	limitedWait, limitedMost = time.Hour, 12 * time.Hour
	// Without an answer, nothing was counted.
	silentWait, silentMost = 10 * time.Second, 10 * time.Minute
)

// tries remembers failures of names, which are registered ones.
type tries struct {
	server string
	now    func() time.Time
	mutex  sync.Mutex
	byName map[string]*try
}

type try struct {
	failures int
	err      *IssueError
	// bare says that the name has no certificate that is valid.
	bare bool
}

func newTries(server string, now func() time.Time) *tries {
	return &tries{server: server, now: now, byName: map[string]*try{}}
}

// mayTry returns nil when the server may be asked for a name.
func (t *tries) mayTry(name string) error {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if before := t.byName[name]; before != nil && t.now().Before(before.err.Retry) {
		return &postponed{before.err}
	}
	return nil
}

// refusal is mayTry for a name that has no certificate: what kept it from getting
// one.
func (t *tries) refusal(name string) error {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if before := t.byName[name]; before != nil && before.bare && t.now().Before(before.err.Retry) {
		return before.err
	}
	return nil
}

// failed remembers a failure, and returns it for people.
func (t *tries) failed(name string, err error, bare bool) *IssueError {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	now := t.now()
	maps.DeleteFunc(t.byName, func(_ string, old *try) bool { return now.Sub(old.err.Retry) > refusedMost })
	failure := t.byName[name]
	if failure == nil {
		failure = &try{}
		t.byName[name] = failure
	}
	failure.bare, failure.err = bare, &IssueError{Name: name, Server: t.server, Err: err}
	first, most := silentWait, silentMost
	problem, answered := failure.err.problem()
	switch {
	case answered && problem.Type == acme.ProblemTypeRateLimited:
		first, most = limitedWait, limitedMost
	case errors.Is(err, errNotStored), errors.Is(err, errUnusable), answered && problem.Status < http.StatusInternalServerError:
		first, most = refusedWait, refusedMost
	}
	wait := first
	for range failure.failures {
		wait = min(2*wait, most)
	}
	failure.failures++
	failure.err.Retry = now.Add(wait)
	return failure.err
}

func (t *tries) succeeded(name string) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	delete(t.byName, name)
}
