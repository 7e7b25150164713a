package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// webServer is a provision with a page over https that tells which name was
// asked for.
const webServer = `{ config, pkgs, ... }:
let certificate = config.devhost.guest.selfSignedCertificate; in {
  devhost.guest.selfSignedCertificate.enable = true;
  services.nginx = {
    enable = true;
    virtualHosts.web = {
      default = true;
      forceSSL = true;
      sslCertificate = certificate.certificate;
      sslCertificateKey = certificate.key;
      root = pkgs.writeTextDir "index.html" "this is <!--# echo var=\"hostname\" -->, asked for <!--# echo var=\"host\" -->\n";
      locations."/".extraConfig = "ssi on;";
    };
  };
}
`

// runningIngress is a "devhost ingress" process.
type runningIngress struct {
	t           *testing.T
	process     *exec.Cmd
	https, http string
	client      *http.Client
	// warnings are what it says besides where it serves.
	warnings []string
}

// startIngress starts the ingress on free ports of loopback, and stops it at
// the end of the test.
func startIngress(h *host, args ...string) *runningIngress {
	h.t.Helper()
	ingress := &runningIngress{t: h.t, process: h.command(append([]string{"ingress", "--https", "127.0.0.1:0", "--http", "127.0.0.1:0"}, args...)...)}
	output, err := ingress.process.StderrPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := ingress.process.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { ingress.stop() })
	var root, elsewhere string
	lines := bufio.NewScanner(output)
	for root == "" && elsewhere == "" && lines.Scan() {
		line := lines.Text()
		if rest, ok := strings.CutPrefix(line, "serving https at "); ok {
			ingress.https, _, _ = strings.Cut(rest, " ")
		} else if rest, ok := strings.CutPrefix(line, "redirecting http at "); ok {
			ingress.http = rest
		} else if rest, ok := strings.CutPrefix(line, "root certificate: "); ok {
			root = rest
		} else if rest, ok := strings.CutPrefix(line, "certificates from: "); ok {
			elsewhere = rest
		} else if rest, ok := strings.CutPrefix(line, "certificate: "); ok {
			elsewhere = rest
		} else {
			ingress.warnings = append(ingress.warnings, line)
		}
	}
	go io.Copy(io.Discard, output)
	if ingress.https == "" || ingress.http == "" || root+elsewhere == "" {
		h.t.Fatalf("the ingress does not say where it serves: %+v, root %q", ingress, root)
	}
	if elsewhere != "" {
		// The test knows whom to trust.
		ingress.client = ingress.clientWith(x509.NewCertPool())
		return ingress
	}
	certificate, err := os.ReadFile(root)
	if err != nil {
		h.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(certificate) {
		h.t.Fatalf("%s holds no certificate", root)
	}
	ingress.client = ingress.clientWith(pool)
	return ingress
}

// clientWith resolves every name to the ingress and trusts the given
// authorities.
func (i *runningIngress) clientWith(pool *x509.CertPool) *http.Client {
	dialer := net.Dialer{Timeout: 10 * time.Second}
	return &http.Client{
		Timeout: time.Minute,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{RootCAs: pool},
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				if strings.HasSuffix(address, ":80") {
					return dialer.DialContext(ctx, network, i.http)
				}
				return dialer.DialContext(ctx, network, i.https)
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// stop interrupts the ingress, once, and tells how it ended.
func (i *runningIngress) stop() int {
	if i.process.ProcessState == nil {
		_ = i.process.Process.Signal(syscall.SIGINT)
		_ = i.process.Wait()
	}
	return i.process.ProcessState.ExitCode()
}

// get fetches a page; it gives the status and the body.
func (i *runningIngress) get(url string) (int, string, error) {
	response, err := i.client.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

// wantPage fetches until the page is as wanted: a name is live at once, but a
// busy machine may take its time.
func (i *runningIngress) wantPage(url, body string) {
	i.t.Helper()
	began := time.Now()
	for {
		status, got, err := i.get(url)
		if err == nil && status == http.StatusOK && got == body {
			i.t.Logf("%s answers %s after ensure returned", url, time.Since(began).Round(time.Millisecond))
			return
		}
		if time.Since(began) > 3*time.Minute {
			i.t.Errorf("%s answers %d %q (%v), not %q", url, status, got, err, body)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// wantRefusal checks that a name gets no certificate.
func (i *runningIngress) wantRefusal(name string) {
	i.t.Helper()
	status, body, err := i.get("https://" + name + "/")
	if err == nil || !strings.Contains(err.Error(), "tls: unrecognized name") {
		i.t.Errorf("https://%s is not refused by TLS but answers %d %q (%v)", name, status, body, err)
	}
}

func TestIngress(t *testing.T) {
	h := newHost(t)
	ingress := startIngress(h)
	ingress.wantRefusal("web.devhost.localhost")

	h.must("ensure", "web", "--channel", offline(t), "--provision", provision(t, webServer), "--alias", "www")
	ingress.wantPage("https://web.devhost.localhost/", "this is web, asked for web.devhost.localhost\n")
	ingress.wantPage("https://www.web.devhost.localhost/", "this is web, asked for www.web.devhost.localhost\n")
	ingress.wantRefusal("shop.web.devhost.localhost")
	ingress.wantRefusal("other.devhost.localhost")
	ingress.wantRefusal("example.org")

	if got := h.must("ensure", "web", "--alias", "shop"); !strings.Contains(got, "unchanged") {
		t.Errorf("a new alias says %q", got)
	}
	ingress.wantPage("https://shop.web.devhost.localhost/", "this is web, asked for shop.web.devhost.localhost\n")
	// An ensure names all aliases.
	ingress.wantRefusal("www.web.devhost.localhost")

	t.Run("name in the request that is not that of the certificate", func(t *testing.T) {
		request, err := http.NewRequest(http.MethodGet, "https://web.devhost.localhost/", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = "example.org"
		response, err := ingress.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode < 400 {
			t.Errorf("it answers %d", response.StatusCode)
		}
	})
	t.Run("plain http", func(t *testing.T) {
		response, err := ingress.client.Get("http://shop.web.devhost.localhost/some/page?x=1")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		_, port, _ := net.SplitHostPort(ingress.https)
		want := "https://shop.web.devhost.localhost:" + port + "/some/page?x=1"
		if got := response.Header.Get("Location"); response.StatusCode/100 != 3 || got != want {
			t.Errorf("it answers %d with %q, not %q", response.StatusCode, got, want)
		}
	})
	t.Run("without the root certificate", func(t *testing.T) {
		var unknown x509.UnknownAuthorityError
		if _, err := ingress.clientWith(x509.NewCertPool()).Get("https://web.devhost.localhost/"); !errors.As(err, &unknown) {
			t.Errorf("the certificate is good without its root: %v", err)
		}
	})
	t.Run("path of the root certificate", func(t *testing.T) {
		path := strings.TrimSpace(h.with(t).must("ingress", "--ca"))
		if content, err := os.ReadFile(path); err != nil || !strings.Contains(string(content), "BEGIN CERTIFICATE") {
			t.Errorf("%s: %v\n%s", path, err, content)
		}
	})
	if !testing.Short() {
		h.must("stop", "web")
		if status, body, err := ingress.get("https://web.devhost.localhost/"); err != nil || status < 500 || !strings.Contains(body, "devhost start web") {
			t.Errorf("of a stopped container it answers %d %q (%v)", status, body, err)
		}
		h.must("start", "web")
		ingress.wantPage("https://web.devhost.localhost/", "this is web, asked for web.devhost.localhost\n")
	}
	h.must("destroy", "web")
	if status, body, err := ingress.get("https://web.devhost.localhost/"); err == nil && status < 400 {
		t.Errorf("of a destroyed container it answers %d %q", status, body)
	}
	if status := ingress.stop(); status != 0 {
		t.Errorf("the interrupted ingress ends with %d", status)
	}
}

// TestIngressKeepsItsAuthority: browsers trust the root once; it is the same
// after a restart, and it is good for nothing but its domain.
func TestIngressKeepsItsAuthority(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	h.must("ensure", "web", "--channel", offline(t), "--provision", provision(t, webServer))
	first := startIngress(h)
	trusted := first.client.Transport.(*http.Transport).TLSClientConfig.RootCAs
	first.wantPage("https://web.devhost.localhost/", "this is web, asked for web.devhost.localhost\n")
	first.stop()

	second := startIngress(h)
	second.client = second.clientWith(trusted)
	second.wantPage("https://web.devhost.localhost/", "this is web, asked for web.devhost.localhost\n")
	second.stop()

	if said := slices.Concat(first.warnings, second.warnings); len(said) != 0 {
		t.Errorf("with the same domain the ingress says %q", said)
	}
	other := startIngress(h, "--domain", "Dev.Example.org.")
	if said := strings.Join(other.warnings, "\n"); len(other.warnings) != 1 || !strings.Contains(said, "certificate authority is replaced") {
		t.Errorf("with another domain the ingress says %q", said)
	}
	other.wantPage("https://web.dev.example.org/", "this is web, asked for web.dev.example.org\n")
	other.wantRefusal("web.devhost.localhost")
	other.client = other.clientWith(trusted)
	var unknown x509.UnknownAuthorityError
	if status, _, err := other.get("https://web.dev.example.org/"); !errors.As(err, &unknown) {
		t.Errorf("the root of one domain is good for another: %d %v", status, err)
	}
}

// TestIngressUnusualNames: names that are as long as they may be, and such as
// begin with a digit.
func TestIngressUnusualNames(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	ingress := startIngress(h)
	long := strings.Repeat("long-", 12) + "end"
	provisioned := provision(t, webServer)
	for _, name := range []string{long, "3com", "0day-1"} {
		alias := strings.Repeat("a", 60) + "-0x"
		if len(long) != 63 || len(alias) != 63 {
			t.Fatal("the names are not as long as they may be")
		}
		h.must("ensure", name, "--channel", offline(t), "--provision", provisioned, "--alias", alias, "--alias", "1st")
		for _, host := range []string{name, alias + "." + name, "1st." + name} {
			host += ".devhost.localhost"
			ingress.wantPage("https://"+host+"/", "this is "+name+", asked for "+host+"\n")
		}
		ingress.wantRefusal("2nd." + name + ".devhost.localhost")
		h.must("ssh", name, "true")
		if got := strings.Fields(tool(t, "getent", "ahosts", name)); len(got) == 0 || got[0] != h.ip(name) && got[0] != h.record(name).Address.IPv6 {
			t.Errorf("on the host %s is %v", name, got)
		}
	}
	ingress.wantRefusal(long + "x.devhost.localhost")
}
