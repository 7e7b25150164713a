package network

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Builders are the processes that build for Nix, by the ids that their sockets
// have. Zero stands for none: no builder is root.
//
// The builder of a fixed-output derivation is the one process of somebody
// else's that runs in the host's own network, so it is the host's output that
// must be looked at.
type Builders struct {
	// GID is the group of the build users.
	GID uint32
	// FirstUID to LastUID are the users that Nix allocates.
	FirstUID, LastUID uint32
}

const (
	chainFromBuilders = "from-builders"
	chainBuilder      = "builder"
	chainResolvers    = "builder-resolvers"
)

// everybody are the addresses of more than one receiver, of which the host may
// be one.
var everybody = []netip.Prefix{netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("ff00::/8")}

// restrictBuilders keeps builders from containers, from services of the host and
// from metadata services, and leaves them the outside, which is what they have a
// network for.
func (h Host) restrictBuilders(table *ruleset) {
	var sockets [][]expr.Any
	if h.Builders.GID != 0 {
		sockets = append(sockets, concat(meta(expr.MetaKeySKGID), equal(nativeEndian(h.Builders.GID))))
	}
	if h.Builders.LastUID != 0 {
		sockets = append(sockets, concat(meta(expr.MetaKeySKUID), between(h.Builders.FirstUID, h.Builders.LastUID)))
	}
	if len(sockets) == 0 {
		return
	}

	// Where the resolver of the host is, on itself or in the cloud, differs.
	resolvers := table.chain(chainResolvers)
	resolvers.admitResolvers("a resolver")
	resolvers.refuse("no service of the host, no metadata service")

	builder := table.chain(chainBuilder)
	builder.refuse("no container", to(h.Bridge))
	builder.rule("to the host", to("lo"), jump(chainResolvers))
	builder.rule("to the host", toAddress(unix.RTN_LOCAL), jump(chainResolvers))
	builder.rule("to everybody", toAddress(unix.RTN_BROADCAST), jump(chainResolvers))
	for _, prefix := range everybody {
		builder.rule("to everybody", addressIn(prefix, ipv4Target, ipv6Target), jump(chainResolvers))
	}
	for _, service := range metadataServices {
		builder.rule("metadata service of a cloud", addressIn(service, ipv4Target, ipv6Target), jump(chainResolvers))
	}

	// Before destination NAT, as in prerouting: a forwarded port is one of the
	// host's. What others redirect from outside to a proxy of the host is their
	// affair.
	output := table.base(chainFromBuilders, nftables.ChainTypeFilter, nftables.ChainHookOutput, *nftables.ChainPriorityMangle)
	for _, socket := range sockets {
		output.rule("from a builder", socket, jump(chainBuilder))
	}
}

// refuse is for what the host itself sends. It is the end of a TCP connection:
// an ICMP message comes while connect() has the socket locked, is forgotten, and
// again only a second later.
func (c *chain) refuse(comment string, what ...[]expr.Any) {
	reset := []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}
	c.rule(comment, concat(what...), transport(unix.IPPROTO_TCP), reset)
	c.rule(comment, concat(what...), reject())
}

// between compares a number of the host's byte order.
func between(first, last uint32) []expr.Any {
	return []expr.Any{
		&expr.Byteorder{SourceRegister: register, DestRegister: register, Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Range{Op: expr.CmpOpEq, Register: register, FromData: binaryutil.BigEndian.PutUint32(first), ToData: binaryutil.BigEndian.PutUint32(last)},
	}
}
