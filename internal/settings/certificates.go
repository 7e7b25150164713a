package settings

import (
	"errors"
	"fmt"
	"net/mail"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"devhost/internal/names"
)

// TLSMode says where the ingress's certificates come from.
type TLSMode string

// The values of TLSMode.
const (
	// TLSInternal is an own certificate authority.
	TLSInternal TLSMode = "internal"
	// TLSACME is an ACME server (RFC 8555).
	TLSACME TLSMode = "acme"
	// TLSFiles are certificates that somebody else renews.
	TLSFiles TLSMode = "files"
)

var tlsModes = []string{string(TLSInternal), string(TLSACME), string(TLSFiles)}

// UnmarshalText parses it.
func (m *TLSMode) UnmarshalText(text []byte) error {
	if !slices.Contains(tlsModes, string(text)) {
		reason := fmt.Sprintf("%.64q is none of %s", text, strings.Join(tlsModes, ", "))
		if meant := names.Closest(string(text), tlsModes); meant != "" {
			reason += fmt.Sprintf("; did you mean %q?", meant)
		}
		return errors.New(reason)
	}
	*m = TLSMode(text)
	return nil
}

// ACME says which server signs certificates, and for whom.
type ACME struct {
	// Email is the account's, "" for none.
	Email string `json:"email"`
	// Directory is the URL of the server's directory, "" for that of Let's
	// Encrypt.
	Directory string `json:"directory"`
	// CAFile is a PEM file with the certificates that the server's own is trusted
	// by, "" for those that the host trusts.
	CAFile string `json:"caFile"`
}

// CertificateFiles are two PEM files: a certificate followed by its chain, and
// its private key.
type CertificateFiles struct {
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
}

// NotPublic says that no ACME server can sign for a domain.
type NotPublic struct {
	Domain string
	// Reason completes "because ...".
	Reason string
}

func (n *NotPublic) Error() string {
	return fmt.Sprintf("no ACME server signs certificates for names below %s: %s; set publicAddress to a name that leads here from outside, or ingress.tls to \"internal\"", n.Domain, n.Reason)
}

// notPublic are the top level domains that no public certificate is for (RFC
// 2606, 6761, 6762, 7686, 8375, 9476, and ICANN's decision on .internal).
var notPublic = []string{"alt", "arpa", "example", "home", "internal", "invalid", "lan", "local", "onion", "test"}

// ACMEDomain checks that the server of a directory (as in ACME) can sign for
// names below a domain. The error is *NotPublic. A server of one's own may know
// names that others do not.
func ACMEDomain(domain, directory string) error {
	top := domain[strings.LastIndexByte(domain, '.')+1:]
	server, _ := url.Parse(directory)
	public := directory == "" || (server != nil && strings.HasSuffix(server.Hostname(), ".letsencrypt.org"))
	switch {
	case top == "localhost":
		return &NotPublic{domain, "names below localhost are each machine itself"}
	case public && top == domain:
		return &NotPublic{domain, "it is a single word"}
	case public && slices.Contains(notPublic, top):
		return &NotPublic{domain, fmt.Sprintf("names below %s are not public", top)}
	}
	return nil
}

func (c checker) certificates(settings Settings) {
	ingress := settings.Ingress
	if ingress.TLS == TLSACME {
		c.acmeDomains(settings)
		if ingress.HTTPPort != 80 && ingress.HTTPSPort != 443 {
			c.doubt("ingress.tls", "ACME servers ask at port 80 or 443, and the ingress listens at neither: one of them must be forwarded to it")
		}
	}
	c.acme(ingress.ACME)
	if ingress.TLS != TLSACME && ingress.ACME != (ACME{}) {
		c.doubt("ingress.acme", "it has no effect, because ingress.tls is %q", ingress.TLS)
	}
	for i, files := range ingress.Certificates {
		path := fmt.Sprintf("ingress.certificates[%d]", i)
		c.file(path+".certificate", files.Certificate)
		c.file(path+".key", files.Key)
	}
	_, misread := c.offsets["ingress.certificates[0]"]
	switch {
	case ingress.TLS == TLSFiles && len(ingress.Certificates) == 0 && !misread:
		c.at("ingress.tls", "\"files\" needs ingress.certificates, which is empty")
	case ingress.TLS != TLSFiles && len(ingress.Certificates) > 0:
		c.doubt("ingress.certificates", "it has no effect, because ingress.tls is %q", ingress.TLS)
	}
}

func (c checker) acmeDomains(settings Settings) {
	// The keys' own checks say what else is wrong with them.
	check := func(path, domain string) {
		if err := ACMEDomain(domain, settings.Ingress.ACME.Directory); err != nil && names.Domain(domain) == nil {
			c.at(path, "%v", err)
		}
	}
	switch {
	case settings.PublicAddress != "":
		check("publicAddress", settings.PublicAddress)
	case len(settings.Domains) == 0:
		c.at("ingress.tls", "\"acme\" needs publicAddress: without it names are those of this machine alone, for which no server signs")
	}
	each("domains", settings.Domains, check)
}

func (c checker) acme(acme ACME) {
	if address, err := mail.ParseAddress(acme.Email); acme.Email != "" && (err != nil || address.Address != acme.Email) {
		c.at("ingress.acme.email", "%.64q is no mail address", acme.Email)
	}
	if acme.Directory != "" {
		server, err := url.Parse(acme.Directory)
		switch {
		case err != nil || server.Hostname() == "" || !isPort(server.Port()) || strings.ContainsFunc(acme.Directory, unicode.IsSpace):
			c.at("ingress.acme.directory", "%q is no URL", acme.Directory)
		case server.Scheme != "https" || server.User != nil || server.Fragment != "":
			c.at("ingress.acme.directory", "%q is no https URL of a directory: it must be https://HOST/PATH", acme.Directory)
		}
	}
	if acme.CAFile != "" {
		c.file("ingress.acme.caFile", acme.CAFile)
		if acme.Directory == "" {
			c.at("ingress.acme.caFile", "it is for a server of one's own, and ingress.acme.directory names none")
		}
	}
}

// isPort tells whether a URL can have a port; "" is that of its scheme.
func isPort(port string) bool {
	number, err := strconv.ParseUint(port, 10, 16)
	return port == "" || (err == nil && number > 0)
}

// file checks the path of a file that a service reads.
func (c checker) file(path, file string) {
	switch {
	case file == "":
		c.at(path, "it is missing")
	case !filepath.IsAbs(file) || filepath.Clean(file) != file || strings.ContainsFunc(file, unicode.IsControl):
		c.at(path, "%q is no absolute path of a file", file)
	}
}
