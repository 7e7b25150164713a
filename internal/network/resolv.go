package network

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/miekg/dns"
)

// resolverFiles are where the resolvers of this host are found: the first one
// that names a resolver which containers can use counts. The first is what
// programs read; the others are where a local cache keeps the resolvers that
// it asks (systemd-resolved; NetworkManager with dnsmasq; Debian's dnsmasq).
var resolverFiles = []string{
	"/etc/resolv.conf",
	"/run/systemd/resolve/resolv.conf",
	"/run/NetworkManager/no-stub-resolv.conf",
	"/run/dnsmasq/resolv.conf",
}

// Resolvers are what containers resolve names with.
type Resolvers struct {
	// Content is a resolv.conf(5) for containers, with the host's search
	// domains and options.
	Content string
	// Upstream are the resolvers in it, in the order of preference. It is
	// empty when the host has none that a container can reach.
	Upstream []netip.Addr
	// Source is the file that they are from.
	Source string
	// Notes say what was left out and why; for doctor, and as comments in
	// Content. What to do about it is ResolverRemedy.
	Notes []string
}

// ResolverRemedy is what to do where resolvers are left out.
const ResolverRemedy = "name the resolver of the network in /etc/resolv.conf, or run systemd-resolved, whose upstream resolvers are found"

// ResolvConf finds the resolvers that containers can use: the host's own ones,
// without those that answer on the host only (loopback addresses, addresses of
// the host itself: containers reach no service of the host).
func ResolvConf() (Resolvers, error) {
	return resolversFrom(resolverFiles, os.ReadFile, net.InterfaceAddrs)
}

func resolversFrom(files []string, read func(string) ([]byte, error), interfaceAddresses func() ([]net.Addr, error)) (Resolvers, error) {
	local, err := localAddresses(interfaceAddresses)
	if err != nil {
		return Resolvers{}, err
	}
	var first *Resolvers
	for _, file := range files {
		content, err := read(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Resolvers{}, explain("read", file, err)
		}
		resolvers, err := parseResolvConf(file, content, local)
		if err != nil {
			return Resolvers{}, explain("read", file, err)
		}
		if len(resolvers.Upstream) > 0 {
			return resolvers, nil
		}
		if first == nil {
			first = &resolvers
		}
	}
	if first == nil {
		first = &Resolvers{}
	}
	first.Notes = append(first.Notes,
		"containers have no resolver: none of "+strings.Join(files, ", ")+" names one that they can reach; "+ResolverRemedy)
	first.render(nil, nil)
	return *first, nil
}

func localAddresses(list func() ([]net.Addr, error)) (map[netip.Addr]bool, error) {
	addresses, err := list()
	if err != nil {
		return nil, explain("list", "the addresses of this host", err)
	}
	local := make(map[netip.Addr]bool, len(addresses))
	for _, address := range addresses {
		if network, ok := address.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(network.IP); ok {
				local[ip.Unmap()] = true
			}
		}
	}
	return local, nil
}

// parseResolvConf reads a resolv.conf(5) and drops what is of no use inside.
func parseResolvConf(file string, content []byte, local map[netip.Addr]bool) (Resolvers, error) {
	config, err := dns.ClientConfigFromReader(bytes.NewReader(content))
	if err != nil {
		return Resolvers{}, err
	}
	resolvers := Resolvers{Source: file}
	for _, server := range config.Servers {
		address, err := netip.ParseAddr(server)
		why := ""
		switch {
		case err != nil:
			why = "it is no IP address"
		case address.Unmap().IsLoopback(), address.IsUnspecified():
			why = "it answers on the host itself only"
		case local[address.WithZone("").Unmap()]:
			why = "it is an address of the host, whose services containers do not reach"
		case address.Is6() && address.IsLinkLocalUnicast():
			why = "it is reached through one interface of the host only"
		}
		if why != "" {
			resolvers.Notes = append(resolvers.Notes, fmt.Sprintf("resolver %q of %s is left out: %s", server, file, why))
			continue
		}
		resolvers.Upstream = append(resolvers.Upstream, address.Unmap())
	}
	resolvers.render(config.Search, resolverOptions(content))
	return resolvers, nil
}

// resolverOptions are the options as they are written: the library keeps some
// of them only.
func resolverOptions(content []byte) []string {
	var options []string
	for line := range strings.Lines(string(content)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "options" {
			options = append(options, fields[1:]...)
		}
	}
	return options
}

func (r *Resolvers) render(search, options []string) {
	var content strings.Builder
	content.WriteString("# Written by devhost; changes are lost.\n")
	for _, note := range r.Notes {
		content.WriteString("# " + note + "\n")
	}
	for _, upstream := range r.Upstream {
		content.WriteString("nameserver " + upstream.String() + "\n")
	}
	if len(search) > 0 {
		content.WriteString("search " + strings.Join(search, " ") + "\n")
	}
	if len(options) > 0 {
		content.WriteString("options " + strings.Join(options, " ") + "\n")
	}
	r.Content = content.String()
}
