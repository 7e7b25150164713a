package devhost

import (
	"fmt"
	"os"
	"time"

	"devhost/internal/doctor"
	"devhost/internal/ingress"
	"devhost/internal/settings"
)

// ingressTLS says where certificates come from.
func ingressTLS(wanted settings.Ingress) ingress.TLS {
	switch wanted.TLS {
	case settings.TLSACME:
		return ingress.TLS{ACME: &ingress.ACME{Email: wanted.ACME.Email, Directory: wanted.ACME.Directory, CAFile: wanted.ACME.CAFile}}
	case settings.TLSFiles:
		files := make([]ingress.CertificateFiles, len(wanted.Certificates))
		for i, one := range wanted.Certificates {
			files[i] = ingress.CertificateFiles{Certificate: one.Certificate, Key: one.Key}
		}
		return ingress.TLS{Files: files}
	}
	return ingress.TLS{}
}

// acmeDomains refuses domains that the ACME server cannot sign for, where there
// is one: they may come from the command line.
func acmeDomains(wanted settings.Ingress, domains []string) error {
	if wanted.TLS != settings.TLSACME {
		return nil
	}
	for _, domain := range domains {
		if err := settings.ACMEDomain(domain, wanted.ACME.Directory); err != nil {
			return err
		}
	}
	return nil
}

// printCertificates says where the certificates come from that are served.
func (a *app) printCertificates(stateDir string, wanted settings.Ingress) {
	tls := ingressTLS(wanted)
	switch {
	case tls.ACME != nil:
		fmt.Fprintf(a.streams.Err, "certificates from: %s\n", tls.ACME.URL())
	case len(tls.Files) > 0:
		for _, files := range tls.Files {
			fmt.Fprintf(a.streams.Err, "certificate: %s\n", files.Certificate)
		}
	default:
		if root, err := ingress.CARoot(stateDir); err == nil {
			fmt.Fprintf(a.streams.Err, "root certificate: %s\n", root)
		}
	}
}

// certificateFindings are what doctor says of the ingress's certificates. Only
// root can read keys.
func certificateFindings(wanted settings.Ingress) []doctor.Finding {
	const check = "certificates"
	if os.Geteuid() != 0 {
		return nil
	}
	tls := ingressTLS(wanted)
	switch {
	case tls.ACME != nil:
		if err := ingress.CheckACME(*tls.ACME); err != nil {
			return []doctor.Finding{{Check: check, Level: doctor.Problem, Detail: err.Error(), Remedy: "correct ingress.acme.caFile of the settings"}}
		}
		return []doctor.Finding{{Check: check, Level: doctor.Good, Detail: "from " + tls.ACME.URL() + " when a name is first asked for"}}
	case len(tls.Files) > 0:
		var findings []doctor.Finding
		for _, found := range ingress.CheckCertificateFiles(tls.Files, time.Now()) {
			level := doctor.Warning
			if found.Serious {
				level = doctor.Problem
			}
			findings = append(findings, doctor.Finding{Check: check, Level: level, Detail: found.Detail, Remedy: found.Remedy})
		}
		if findings == nil {
			findings = []doctor.Finding{{Check: check, Level: doctor.Good, Detail: fmt.Sprintf("%d can be used", len(tls.Files))}}
		}
		return findings
	}
	return nil
}

// printCertificateFindings is the same for who checks the settings of this host.
func (a *app) printCertificateFindings(wanted settings.Ingress) {
	for _, finding := range certificateFindings(wanted) {
		if finding.Level != doctor.Good {
			fmt.Fprintf(a.streams.Err, "warning: %s: %s\n", finding.Detail, finding.Remedy)
		}
	}
}
