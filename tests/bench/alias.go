package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"devhost/internal/execx"
)

// ingressServer is a running devhost ingress.
type ingressServer struct {
	address string
	roots   *x509.CertPool
	stop    func() error
}

const domain = "devhost.localhost"

// startIngress starts the ingress on a free port and waits until it serves.
func (b *bench) startIngress(ctx context.Context) (*ingressServer, error) {
	running, cancel := context.WithCancel(ctx)
	lines, ended := make(chan string, 16), make(chan error, 1)
	said := &execx.LineWriter{Line: func(line string) {
		select {
		case lines <- line:
		default:
		}
	}}
	go func() {
		err := b.runner.Run(running, execx.Command{
			Name: b.program, Args: []string{"--state-dir", b.layout.State, "ingress", "--domain", domain, "--https", "127.0.0.1:0", "--http", ""},
			Dir: "/", Stderr: said,
		})
		ended <- err
	}()
	server := &ingressServer{roots: x509.NewCertPool(), stop: func() error {
		cancel()
		err := <-ended
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	}}
	patience := time.After(bootTimeout)
	for {
		select {
		case line := <-lines:
			if rest, found := strings.CutPrefix(line, "serving https at "); found {
				server.address, _, _ = strings.Cut(rest, " ")
			}
			path, found := strings.CutPrefix(line, "root certificate: ")
			if !found {
				continue
			}
			certificate, err := os.ReadFile(path)
			if err == nil && !server.roots.AppendCertsFromPEM(certificate) {
				err = fmt.Errorf("%s holds no certificate", path)
			}
			if err != nil {
				return nil, errors.Join(err, server.stop())
			}
			return server, nil
		case err := <-ended:
			cancel()
			return nil, fmt.Errorf("the ingress ended: %w", err)
		case <-patience:
			return nil, errors.Join(errors.New("the ingress does not serve"), server.stop())
		}
	}
}

// get fetches the page of a name over a connection of its own.
func (s *ingressServer) get(ctx context.Context, name string) (int, error) {
	transport := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: s.roots, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, s.address)
		},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+name+"/", nil)
	if err != nil {
		return 0, err
	}
	response, err := (&http.Client{Transport: transport, Timeout: bootTimeout}).Do(request)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, errors.Join(err, response.Body.Close())
}

// aliasPoll is the time between two tries to fetch a page.
const aliasPoll = 5 * time.Millisecond

// alias: how long after the end of ensure a new alias answers through a
// running ingress.
func (b *bench) alias(ctx context.Context) (err error) {
	if _, err := b.devhost(ctx, "ensure", "web", "--channel", b.channel, "--provision", b.demo, "--alias", "www"); err != nil {
		return err
	}
	server, err := b.startIngress(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	number := 0
	taken, err := b.alternate(ctx, func(ctx context.Context) (time.Duration, error) {
		number++
		alias := fmt.Sprintf("alias-%d", number)
		name := alias + ".web." + domain
		if status, err := server.get(ctx, name); err == nil && status == http.StatusOK {
			return 0, fmt.Errorf("%s answers before it is an alias", name)
		}
		if _, err := b.devhost(ctx, "ensure", "web", "--alias", "www", "--alias", alias); err != nil {
			return 0, err
		}
		began := time.Now()
		for {
			status, err := server.get(ctx, name)
			if err == nil && status == http.StatusOK {
				return time.Since(began), nil
			}
			if time.Since(began) > bootTimeout {
				return 0, fmt.Errorf("%s does not answer: status %d: %w", name, status, err)
			}
			select {
			case <-ctx.Done():
				return 0, ctx.Err()
			case <-time.After(aliasPoll):
			}
		}
	})
	if err != nil {
		return err
	}
	most := taken[0].at(1)
	const bound = time.Second
	b.table.bound("new alias answers after ensure is done",
		fmt.Sprintf("%s (most %s)", inMilliseconds(taken[0].median()), inMilliseconds(most)), "<= 1000 ms", len(taken[0]), most <= bound)
	return nil
}
