package ingress

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// defaultHTTPSPort is the port that a URL need not name.
const defaultHTTPSPort = 443

// redirector answers plain http: it sends clients to https.
type redirector struct {
	directory directory
	// https are the addresses that serve https.
	https []netip.AddrPort
	// trouble is that of keeper.
	trouble func(name string) error
}

// ServeHTTP implements http.Handler.
func (d redirector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := hostOf(r.Host)
	_, _, err := d.directory.find(name)
	var unknown *unknownName
	switch {
	case errors.As(err, &unknown):
		pageUnknown(unknown).serve(w, r)
		return
	case err != nil:
		pageLookupFailed(name).serve(w, r)
		return
	}
	if err := d.trouble(name); err != nil {
		// Over https, a browser would say nothing of use.
		pageNoCertificate(normalize(name), err).serve(w, r)
		return
	}
	target := "https://" + normalize(name)
	if port := d.port(r); port != defaultHTTPSPort {
		target += ":" + strconv.Itoa(int(port))
	}
	// "OPTIONS *" and CONNECT name no path.
	if path := r.URL.RequestURI(); strings.HasPrefix(path, "/") {
		target += path
	} else {
		target += "/"
	}
	// Browsers keep such a redirect for good, but the port may change.
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, target, http.StatusPermanentRedirect)
}

// port is the one that https is served on at the address that the client used.
func (d redirector) port(r *http.Request) uint16 {
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		here := addressOf(local).Addr()
		for _, address := range d.https {
			if address.Addr() == here || address.Addr().IsUnspecified() {
				return address.Port()
			}
		}
	}
	return d.https[0].Port()
}
