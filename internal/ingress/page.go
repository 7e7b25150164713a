package ingress

import (
	"fmt"
	"html"
	"net/http"
	"strconv"
	"strings"

	"devhost/internal/engine"
)

// page is what a person sees instead of an application's answer: what is wrong,
// why, and what to do about it.
type page struct {
	status int
	title  string
	// why holds one paragraph each.
	why []string
	// remedies are tried in this order.
	remedies []remedy
	// retryAfter is in seconds; 0 gives no such header.
	retryAfter int
}

// remedy is a thing to do. command is the line for it, "" when there is none.
type remedy struct {
	text    string
	command string
}

// serve writes the page as HTML for who asks for that (browsers do), else as
// plain text (curl, scripts, fetch).
func (p page) serve(w http.ResponseWriter, r *http.Request) {
	content, kind := p.text(), "text/plain; charset=utf-8"
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		content, kind = p.html(), "text/html; charset=utf-8"
	}
	header := w.Header()
	header.Set("Content-Type", kind)
	header.Set("Content-Length", strconv.Itoa(len(content)))
	header.Set("Vary", "Accept")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	if p.retryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(p.retryAfter))
	}
	w.WriteHeader(p.status)
	// When this fails the client is gone.
	_, _ = w.Write([]byte(content))
}

func (p page) footer() string {
	return fmt.Sprintf("%d %s - said by the devhost ingress, not by the application.", p.status, http.StatusText(p.status))
}

func (p page) text() string {
	var text strings.Builder
	text.WriteString(p.title + "\n\n")
	for _, paragraph := range p.why {
		text.WriteString(paragraph + "\n")
	}
	for _, remedy := range p.remedies {
		text.WriteString("\n" + remedy.text + "\n")
		if remedy.command != "" {
			text.WriteString("    " + remedy.command + "\n")
		}
	}
	text.WriteString("\n" + p.footer() + "\n")
	return text.String()
}

const pageStyle = `:root{color-scheme:light dark}
body{margin:0;font:1rem/1.5 system-ui,sans-serif;background:#f6f7f9;color:#1d2330}
main{max-width:38rem;margin:12vh auto 2rem;padding:2rem 2.25rem;background:#fff;border:1px solid #dfe3ea;border-radius:.75rem;overflow-wrap:anywhere}
h1{margin:0 0 1rem;font-size:1.4rem;line-height:1.3}
p{margin:.75rem 0 .4rem}
pre{margin:0;padding:.6rem .8rem;background:#eef1f5;border-radius:.4rem;font:.95rem/1.4 ui-monospace,monospace;white-space:pre-wrap}
footer{margin-top:1.75rem;font-size:.85rem;color:#667085}
@media (max-width:42rem){main{margin:1rem;padding:1.25rem}}
@media (prefers-color-scheme:dark){body{background:#14171d;color:#e6e9ef}main{background:#1c2028;border-color:#2e3440}pre{background:#272c36}footer{color:#98a2b3}}`

func (p page) html() string {
	var text strings.Builder
	fmt.Fprintf(&text, `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>%[1]s</title>
<style>%[2]s</style>
</head>
<body>
<main>
<h1>%[1]s</h1>
`, html.EscapeString(p.title), pageStyle)
	for _, paragraph := range p.why {
		fmt.Fprintf(&text, "<p>%s</p>\n", html.EscapeString(paragraph))
	}
	for _, remedy := range p.remedies {
		fmt.Fprintf(&text, "<p>%s</p>\n", html.EscapeString(remedy.text))
		if remedy.command != "" {
			fmt.Fprintf(&text, "<pre>%s</pre>\n", html.EscapeString(remedy.command))
		}
	}
	fmt.Fprintf(&text, "<footer>%s</footer>\n</main>\n</body>\n</html>\n", html.EscapeString(p.footer()))
	return text.String()
}

func pageUnknown(unknown *unknownName) page {
	list := remedy{"See which containers and aliases there are, on the dev host:", "devhost list"}
	switch {
	case unknown.Registered:
		return page{
			status: http.StatusNotFound,
			title:  fmt.Sprintf("Container %s has no alias %s", unknown.Container, unknown.Alias),
			why:    []string{fmt.Sprintf("You asked for %s. The container exists, but that name is not one of its aliases.", unknown.Host)},
			remedies: []remedy{
				list,
				{"To add it, run ensure as before and name it besides the aliases that are to stay:", fmt.Sprintf("devhost ensure %s --alias %s ...", unknown.Container, unknown.Alias)},
			},
		}
	case unknown.Container != "":
		return page{
			status: http.StatusNotFound,
			title:  fmt.Sprintf("There is no container %s", unknown.Container),
			why:    []string{fmt.Sprintf("You asked for %s. Perhaps the name is mistyped, or the container was deleted.", unknown.Host)},
			remedies: []remedy{
				list,
				{"To make it:", fmt.Sprintf("devhost ensure %s ...", unknown.Container)},
			},
		}
	}
	asked := "You named no host."
	if unknown.Host != "" {
		asked = fmt.Sprintf("You asked for %s.", unknown.Host)
	}
	return page{
		status: http.StatusNotFound,
		title:  "Nothing is served under this name",
		why: []string{
			asked,
			fmt.Sprintf("Names here have the form CONTAINER.%s or ALIAS.CONTAINER.%s.", unknown.Domain, unknown.Domain),
		},
		remedies: []remedy{list},
	}
}

func pageLookupFailed(host string) page {
	return page{
		status:   http.StatusInternalServerError,
		title:    "The dev host cannot read its containers",
		why:      []string{fmt.Sprintf("It could not look up %s. The log of the ingress says why.", host)},
		remedies: []remedy{{"Check the dev host:", "devhost doctor"}},
	}
}

// pageNoCertificate is for a name that https does not work for.
func pageNoCertificate(name string, err error) page {
	return page{
		status:   http.StatusServiceUnavailable,
		title:    fmt.Sprintf("There is no certificate for %s", name),
		why:      []string{"Pages are served over https only, which needs one.", err.Error()},
		remedies: []remedy{{"See what the ingress said, as an admin of the dev host:", "journalctl -u devhost-ingress"}},
	}
}

// pageMisdirected is for a request whose Host header, asked, is not the name
// that the TLS connection was made to.
func pageMisdirected(connected, asked string) page {
	return page{
		status:   http.StatusMisdirectedRequest,
		title:    "This connection is for another name",
		why:      []string{fmt.Sprintf("The connection was made to %s, but the request asks for %s.", connected, hostOf(asked))},
		remedies: []remedy{{"Make a new connection under the name that you ask for. With curl, put the name into the URL instead of a Host header:", fmt.Sprintf("curl https://%s/", asked)}},
	}
}

func pageNoTunnel(container string) page {
	return page{
		status:   http.StatusMethodNotAllowed,
		title:    "The ingress makes no tunnels",
		why:      []string{"The method CONNECT is for forward proxies; the ingress serves the pages of containers."},
		remedies: []remedy{{"To reach another port of the container, forward it over ssh. The configuration for ssh -L is here:", "devhost ssh-config " + container}},
	}
}

// reachable says whether it makes sense to send something to a container.
func reachable(route Route) bool {
	return route.Broken == nil && route.Status == engine.Running
}

// pageNotRunning tells what keeps a container from answering.
func pageNotRunning(route Route) page {
	name := route.Container
	start := remedy{"Start it, on the dev host:", "devhost start " + name}
	logs := remedy{"See what it said:", "devhost logs " + name}
	result := page{status: http.StatusServiceUnavailable}
	switch {
	case route.Broken != nil:
		result.title = fmt.Sprintf("The state of container %s is unreadable", name)
		result.why = []string{"The container is registered, but the dev host cannot tell where it is. The log of the ingress says why."}
		result.remedies = []remedy{{"See what is wrong, on the dev host:", "devhost status " + name}}
	case route.Status == engine.Starting:
		result.title = fmt.Sprintf("Container %s is starting", name)
		result.why = []string{"That takes some seconds. Reload the page then."}
		result.remedies = []remedy{{"If it takes longer, see what it does, on the dev host:", "devhost logs " + name}}
		result.retryAfter = startingRetry
	case route.Status == engine.Stopping:
		result.title = fmt.Sprintf("Container %s is stopping", name)
		result.why = []string{"It was asked to stop, or restarts."}
		result.remedies = []remedy{start}
	case route.Status == engine.Failed:
		result.title = fmt.Sprintf("Container %s failed", name)
		result.why = []string{"It ended by itself, with an error."}
		if route.Detail != "" {
			result.why = []string{"It ended by itself: " + route.Detail}
		}
		result.remedies = []remedy{logs, start}
	default:
		result.title = fmt.Sprintf("Container %s is stopped", name)
		result.why = []string{"It exists, with all its data, but does not run now."}
		result.remedies = []remedy{start}
	}
	return result
}

// pageNoAnswer tells why a running container gave no answer.
func pageNoAnswer(container string, port int, why failure) page {
	result := page{status: http.StatusBadGateway}
	units := remedy{"See which of its services failed, on the dev host:", fmt.Sprintf("devhost exec %s -- systemctl --failed", container)}
	switch why {
	case refused:
		result.title = fmt.Sprintf("Container %s runs, but serves no https", container)
		result.why = []string{fmt.Sprintf("Nothing accepts connections on port %d inside. The web server may still be starting, have failed, or not be set up.", port)}
		result.remedies = []remedy{units}
	case unreachable:
		result.title = fmt.Sprintf("Container %s does not answer", container)
		result.why = []string{fmt.Sprintf("It is said to run, but port %d cannot be reached. A firewall inside may drop the connection, or the container hangs.", port)}
		result.remedies = []remedy{
			{"See how it does, on the dev host:", "devhost status " + container},
			{"Restart it:", "devhost restart " + container},
		}
	case notTLS:
		result.title = fmt.Sprintf("Container %s speaks no TLS on port %d", container, port)
		result.why = []string{"The ingress reaches containers over https only. A self-signed certificate will do."}
		result.remedies = []remedy{{"With nginx, set this for the virtual host in provision.nix, and add a certificate:", "addSSL = true;"}}
	default:
		result.title = fmt.Sprintf("Container %s broke off", container)
		result.why = []string{fmt.Sprintf("The connection to port %d inside was lost before an answer came. The log of the ingress says more.", port)}
		result.remedies = []remedy{units}
	}
	return result
}
