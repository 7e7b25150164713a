// Package settings is the one versioned JSON file in which a host's admin (or
// the NixOS module) says what holds for all containers: who may use devhost,
// which channels, default and maximum limits, address pools, domains, expiry.
package settings

import (
	"fmt"
	"time"

	"github.com/docker/go-units"
	"github.com/xhit/go-str2duration/v2"
)

// Version is the version of the file.
const Version = 1

// longestText bounds what is parsed by its words, in bytes.
const longestText = 64

// Duration is a length of time, in JSON a text such as "7d", "36h" or "1w2d".
type Duration time.Duration

// UnmarshalText parses it.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := str2duration.ParseDuration(string(text))
	if err != nil || parsed < 0 || len(text) > longestText {
		return fmt.Errorf("%q is no length of time", text)
	}
	*d = Duration(parsed)
	return nil
}

// MarshalText is its reverse.
func (d Duration) MarshalText() ([]byte, error) {
	return []byte(d.String()), nil
}

// String is the duration as people write it: whole days as such, not as weeks.
func (d Duration) String() string {
	const day = 24 * time.Hour
	if days := time.Duration(d) / day; days > 0 && time.Duration(d)%day == 0 {
		return fmt.Sprintf("%dd", days)
	}
	return str2duration.String(time.Duration(d))
}

// Bytes is an amount of memory or disk in bytes, in JSON a text such as "4G"
// (a power of 1024).
type Bytes int64

// UnmarshalText parses it.
func (b *Bytes) UnmarshalText(text []byte) error {
	parsed, err := units.RAMInBytes(string(text))
	if err != nil || parsed < 0 || len(text) > longestText {
		return fmt.Errorf("%q is no amount", text)
	}
	*b = Bytes(parsed)
	return nil
}

// MarshalText is its reverse.
func (b Bytes) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%d", int64(b)), nil }

// Limits are those of one container; zero means none.
type Limits struct {
	Memory Bytes `json:"memory"`
	// CPUs is in processors.
	CPUs  float64 `json:"cpus"`
	Tasks int64   `json:"tasks"`
	// IOWeight is 1 to 10000, see systemd.resource-control(5).
	IOWeight int64 `json:"ioWeight"`
	Disk     Bytes `json:"disk"`
}

// Network is where containers get their addresses.
type Network struct {
	// IPv4Pool and IPv6Pool are prefixes (CIDR), "" to choose free ones.
	IPv4Pool string `json:"ipv4Pool"`
	IPv6Pool string `json:"ipv6Pool"`
	// IPv6Routed says that the IPv6 pool is routed to this host: no address
	// translation.
	IPv6Routed bool `json:"ipv6Routed"`
	// NAT lets containers reach the outside.
	NAT bool `json:"nat"`
	// ForwardPorts are the ports of the host that containers may have.
	ForwardPorts []PortRange `json:"forwardPorts"`
	// RestrictBuilders keeps Nix' builders from containers, services of the
	// host and metadata services.
	RestrictBuilders bool `json:"restrictBuilders"`
}

// Expiry is what becomes of containers that nobody deploys to any more. All
// times count from the last deployment, but ArchiveFor from the deletion.
type Expiry struct {
	Enable      bool     `json:"enable"`
	WarnAfter   Duration `json:"warnAfter"`
	StopAfter   Duration `json:"stopAfter"`
	DeleteAfter Duration `json:"deleteAfter"`
	ArchiveFor  Duration `json:"archiveFor"`
}

// Batou is about the commands that existing batou projects use.
type Batou struct {
	Enable bool `json:"enable"`
}

// Ingress is what devhost ingress is started with.
type Ingress struct {
	HTTPPort  uint16 `json:"httpPort"`
	HTTPSPort uint16 `json:"httpsPort"`
	// TLS is where its certificates come from.
	TLS  TLSMode `json:"tls"`
	ACME ACME    `json:"acme"`
	// Certificates are what it shows with TLSFiles.
	Certificates []CertificateFiles `json:"certificates"`
}

// Settings are those of one host.
type Settings struct {
	Version int `json:"version"`
	// PublicAddress is the host's public name, Domains further ones below
	// which containers are reached.
	PublicAddress string   `json:"publicAddress"`
	Domains       []string `json:"domains"`
	// AllowedGroups are the groups of the host whose members may use devhost
	// through sudo.
	AllowedGroups []string `json:"allowedGroups"`
	// AdminGroups are the groups whose members may be root on this host anyway
	// (by sudo): they may use devhost, and its commands for admins, too.
	AdminGroups []string `json:"adminGroups"`
	// AllowedChannels are patterns of channel references in which * stands for
	// anything; an empty list allows all.
	AllowedChannels []string `json:"allowedChannels"`
	// AllowedURIs are what an evaluation may fetch, see allowed-uris in
	// nix.conf(5).
	AllowedURIs []string `json:"allowedURIs"`
	// AuthorizedKeys are public keys that may log in to every container.
	AuthorizedKeys []string `json:"authorizedKeys"`
	// Defaults hold for a new container, Maximum for every one; zero in
	// Maximum means none.
	Defaults Limits `json:"defaults"`
	Maximum  Limits `json:"maximum"`
	// AllowNesting says that people may ask for nesting, DefaultNesting that a
	// new container has it where nobody says.
	AllowNesting   bool    `json:"allowNesting"`
	DefaultNesting bool    `json:"defaultNesting"`
	Network        Network `json:"network"`
	Expiry         Expiry  `json:"expiry"`
	Batou          Batou   `json:"batou"`
	Ingress        Ingress `json:"ingress"`
}

const day = 24 * time.Hour

// Default is what holds without a file, and for what a file does not say.
func Default() Settings {
	return Settings{
		Version:       Version,
		AllowedGroups: []string{"devhost"},
		AdminGroups:   []string{"sudo", "wheel"},
		AllowNesting:  true,
		// Above what is reserved for root, and below what Linux gives to whoever
		// asks for any port (ip_local_port_range).
		Network: Network{NAT: true, ForwardPorts: []PortRange{{1024, 32767}}, RestrictBuilders: true},
		Expiry: Expiry{
			Enable: true, WarnAfter: Duration(5 * day), StopAfter: Duration(7 * day), DeleteAfter: Duration(30 * day), ArchiveFor: Duration(30 * day),
		},
		Batou:   Batou{Enable: true},
		Ingress: Ingress{HTTPPort: 80, HTTPSPort: 443, TLS: TLSInternal},
	}
}
