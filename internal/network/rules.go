package network

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// The names of chains and sets, as `nft list ruleset` shows them.
const (
	chainPrerouting  = "prerouting"
	chainInput       = "input"
	chainForward     = "forward"
	chainOutput      = "output"
	chainPostrouting = "postrouting"
	chainPublished   = "published"
	chainFromHost    = "published-to-host"
	chainToHost      = "to-host"
	chainPeers       = "peers"
	chainMetadata    = "metadata"
	chainGuest       = "guest"
	chainGuestIPv6   = "guest-ipv6"

	// Which interface, MAC address and IP address belong together.
	setGuest4, setGuest6 = "guest4", "guest6"
	// Which group an address belongs to, and the reverse.
	mapGroup4, mapGroup6   = "group4", "group6"
	setMember4, setMember6 = "member4", "member6"
	// Which port of the host leads to which container, and what may be reached
	// that way.
	mapForward4, mapForward6 = "forward4", "forward6"
	setOpen4, setOpen6       = "open4", "open6"
)

var (
	typeGuest4  = nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeEtherAddr, nftables.TypeIPAddr)
	typeGuest6  = nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeEtherAddr, nftables.TypeIP6Addr)
	typeMember4 = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeMark)
	typeMember6 = nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeMark)
	typePort    = nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)
	typeTarget4 = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	typeTarget6 = nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetService)
	typeOpen4   = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)
	typeOpen6   = nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetProto, nftables.TypeInetService)
)

// metadataServices are the addresses at which clouds tell a machine its
// secrets. Containers must not reach them; port 53 stays open, because some
// clouds have their resolver there.
var metadataServices = []netip.Prefix{
	netip.MustParsePrefix("169.254.0.0/16"),     // link-local: nearly all clouds
	netip.MustParsePrefix("100.100.100.200/32"), // Alibaba
	netip.MustParsePrefix("168.63.129.16/32"),   // Azure
	netip.MustParsePrefix("192.0.0.192/32"),     // Oracle, older machines
	netip.MustParsePrefix("fe80::/10"),          // link-local
	netip.MustParsePrefix("fd00:ec2::/64"),      // Amazon
	netip.MustParsePrefix("fd20:ce::/64"),       // Google
	netip.MustParsePrefix("fd00:42::/64"),       // Scaleway
}

// ruleset is one nftables table as it shall be, apart from the elements of its
// sets.
type ruleset struct {
	table  *nftables.Table
	chains []*nftables.Chain
	sets   []*nftables.Set
	rules  []*nftables.Rule
}

func newRuleset(family nftables.TableFamily, name string) *ruleset {
	return &ruleset{table: &nftables.Table{Family: family, Name: name}}
}

func (r *ruleset) set(name string, key nftables.SetDatatype) {
	r.sets = append(r.sets, &nftables.Set{Table: r.table, Name: name, KeyType: key, Concatenation: true})
}

func (r *ruleset) markMap(name string, key nftables.SetDatatype) {
	r.sets = append(r.sets, &nftables.Set{Table: r.table, Name: name, KeyType: key, IsMap: true, DataType: nftables.TypeMark})
}

func (r *ruleset) targetMap(name string, target nftables.SetDatatype) {
	r.sets = append(r.sets, &nftables.Set{Table: r.table, Name: name, KeyType: typePort, Concatenation: true, IsMap: true, DataType: target})
}

func (r *ruleset) find(name string) *nftables.Set {
	for _, set := range r.sets {
		if set.Name == name {
			return set
		}
	}
	return nil
}

func (r *ruleset) base(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority nftables.ChainPriority) *chain {
	accept := nftables.ChainPolicyAccept
	return r.add(&nftables.Chain{Table: r.table, Name: name, Type: kind, Hooknum: hook, Priority: &priority, Policy: &accept})
}

func (r *ruleset) chain(name string) *chain {
	return r.add(&nftables.Chain{Table: r.table, Name: name})
}

func (r *ruleset) add(c *nftables.Chain) *chain {
	r.chains = append(r.chains, c)
	return &chain{ruleset: r, chain: c}
}

type chain struct {
	ruleset *ruleset
	chain   *nftables.Chain
}

// rule adds a rule. Its comment ends with a hash of what it does, by which a
// rule that somebody changed, or an older devhost wrote, is told from this one.
func (c *chain) rule(comment string, parts ...[]expr.Any) {
	var exprs []expr.Any
	hash := sha256.New()
	for _, part := range parts {
		for _, e := range part {
			// Only expressions with bad values fail, and all are made below.
			marshalled, err := expr.Marshal(byte(c.ruleset.table.Family), e)
			if err != nil {
				panic(fmt.Sprintf("rule %q: %v", comment, err))
			}
			hash.Write(marshalled)
			exprs = append(exprs, e)
		}
	}
	comment = fmt.Sprintf("%s [%s]", comment, hex.EncodeToString(hash.Sum(nil)[:4]))
	c.ruleset.rules = append(c.ruleset.rules, &nftables.Rule{
		Table: c.ruleset.table, Chain: c.chain, Exprs: exprs,
		UserData: userdata.AppendString(nil, userdata.TypeComment, comment),
	})
}

// Registers, as 32-bit ones (NFT_REG32_00 is 8): one value starts at register
// 8; concatenations continue at the next multiple of four bytes.
const (
	register       = unix.NFT_REG32_00
	afterInterface = register + unix.IFNAMSIZ/4
	afterMAC       = afterInterface + 2
	afterIPv4      = register + 1
	afterIPv6      = register + 4
)

const (
	ethernetSource = 6  // offset in the Ethernet header
	ethernetType   = 12 // likewise
	ipv4Source     = 12 // offset in the IPv4 header
	ipv4Target     = 16
	ipv6Source     = 8 // offset in the IPv6 header
	ipv6Target     = 24
	arpSenderMAC   = 8 // offset in an ARP packet for Ethernet and IPv4
	arpSenderIP    = 14
	ndTarget       = 8 // offset of the target in a neighbour advertisement
)

func meta(key expr.MetaKey) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: register}}
}

func equal(data []byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: data}}
}

func payload(base expr.PayloadBase, offset, length, into uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: into, Base: base, Offset: offset, Len: length}}
}

func inSet(name string) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: register, SetName: name}}
}

func verdict(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}
}

func accept() []expr.Any           { return verdict(expr.VerdictAccept, "") }
func drop() []expr.Any             { return verdict(expr.VerdictDrop, "") }
func jump(chain string) []expr.Any { return verdict(expr.VerdictJump, chain) }
func masquerade() []expr.Any       { return []expr.Any{&expr.Masq{}} }
func nativeEndian(v uint32) []byte { return binaryutil.NativeEndian.PutUint32(v) }
func setMark() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: register}}
}
func concat(p ...[]expr.Any) (all []expr.Any) {
	for _, part := range p {
		all = append(all, part...)
	}
	return all
}

// reject answers "administratively prohibited", so that a program inside fails
// at once instead of waiting.
func reject() []expr.Any {
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
}

func interfaceName(name string) []byte {
	data := make([]byte, unix.IFNAMSIZ)
	copy(data, name)
	return data
}

func from(name string) []expr.Any {
	return concat(meta(expr.MetaKeyIIFNAME), equal(interfaceName(name)))
}
func to(name string) []expr.Any { return concat(meta(expr.MetaKeyOIFNAME), equal(interfaceName(name))) }

func notFrom(name string) []expr.Any {
	return concat(meta(expr.MetaKeyIIFNAME), []expr.Any{&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: interfaceName(name)}})
}

func notTo(name string) []expr.Any {
	return concat(meta(expr.MetaKeyOIFNAME), []expr.Any{&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: interfaceName(name)}})
}

// fromPrefix matches all interfaces whose names begin so.
func fromPrefix(prefix string) []expr.Any {
	return concat(meta(expr.MetaKeyIIFNAME), equal([]byte(prefix)))
}

func protocol(family byte) []expr.Any {
	return concat(meta(expr.MetaKeyNFPROTO), equal([]byte{family}))
}

func transport(protocol byte) []expr.Any {
	return concat(meta(expr.MetaKeyL4PROTO), equal([]byte{protocol}))
}

func etherType(kind uint16) []expr.Any {
	return concat(payload(expr.PayloadBaseLLHeader, ethernetType, 2, register), equal(binaryutil.BigEndian.PutUint16(kind)))
}

func icmpType(kind byte) []expr.Any {
	return concat(transport(unix.IPPROTO_ICMP), payload(expr.PayloadBaseTransportHeader, 0, 1, register), equal([]byte{kind}))
}

func icmp6Type(kind byte) []expr.Any {
	return concat(transport(unix.IPPROTO_ICMPV6), payload(expr.PayloadBaseTransportHeader, 0, 1, register), equal([]byte{kind}))
}

func established() []expr.Any {
	return connection(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED, expr.CmpOpNeq)
}

// connection compares bits of what is known of the connection with none.
func connection(key expr.CtKey, bits uint32, than expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: nativeEndian(bits), Xor: nativeEndian(0)},
		&expr.Cmp{Op: than, Register: register, Data: nativeEndian(0)},
	}
}

// Bits of a connection's status (enum ip_conntrack_status).
const (
	statusExpected  = 1 << 0
	statusTargetNAT = 1 << 5
)

// fromWhoBegan matches packets of the side that began the connection.
func fromWhoBegan() []expr.Any {
	const original = 0 // IP_CT_DIR_ORIGINAL
	return concat([]expr.Any{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: register}}, equal([]byte{original}))
}

// targetPort loads the transport protocol and the port that a packet goes to.
func targetPort(into uint32) []expr.Any {
	return concat(
		[]expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: into}},
		payload(expr.PayloadBaseTransportHeader, 2, 2, into+1),
	)
}

// toHostAddress matches packets to any address of the host.
func toHostAddress() []expr.Any { return toAddress(unix.RTN_LOCAL) }

// toAddress matches packets by what the kernel takes their receiver for.
func toAddress(kind uint32) []expr.Any {
	return concat([]expr.Any{&expr.Fib{Register: register, FlagDADDR: true, ResultADDRTYPE: true}}, equal(nativeEndian(kind)))
}

// admitResolvers lets through what goes to port 53.
func (c *chain) admitResolvers(comment string) {
	const dnsPort = 53
	for _, protocol := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		c.rule(comment,
			transport(protocol),
			payload(expr.PayloadBaseTransportHeader, 2, 2, register),
			equal(binaryutil.BigEndian.PutUint16(dnsPort)),
			accept())
	}
}

// addressIn matches packets whose address at the offset lies in the prefix.
func addressIn(prefix netip.Prefix, offset4, offset6 uint32) []expr.Any {
	family, offset := byte(unix.NFPROTO_IPV4), offset4
	if prefix.Addr().Is6() {
		family, offset = unix.NFPROTO_IPV6, offset6
	}
	address := prefix.Masked().Addr().AsSlice()
	mask := make([]byte, len(address))
	for bit := range prefix.Bits() {
		mask[bit/8] |= 0x80 >> (bit % 8)
	}
	return concat(
		protocol(family),
		payload(expr.PayloadBaseNetworkHeader, offset, uint32(len(address)), register),
		[]expr.Any{&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: uint32(len(address)), Mask: mask, Xor: make([]byte, len(address))}},
		equal(address),
	)
}

// notAddress keeps what the host itself sends from its gateway address out of
// a rule that is for containers.
func notAddress(address netip.Addr, offset4, offset6 uint32) []expr.Any {
	offset := offset4
	if address.Is6() {
		offset = offset6
	}
	data := address.AsSlice()
	return concat(
		payload(expr.PayloadBaseNetworkHeader, offset, uint32(len(data)), register),
		[]expr.Any{&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: data}},
	)
}

// routed is the table for what goes through, to or from the host.
func (h Host) routed() *ruleset {
	const (
		icmpRedirect      = 5
		icmpEcho          = 8
		icmp6Echo         = 128
		icmp6Solicitation = 135
		icmp6Advert       = 136
		icmp6Redirect     = 137
	)
	table := newRuleset(nftables.TableFamilyINet, h.Table)
	table.markMap(mapGroup4, nftables.TypeIPAddr)
	table.markMap(mapGroup6, nftables.TypeIP6Addr)
	table.set(setMember4, typeMember4)
	table.set(setMember6, typeMember6)
	table.targetMap(mapForward4, typeTarget4)
	table.targetMap(mapForward6, typeTarget6)
	table.set(setOpen4, typeOpen4)
	table.set(setOpen6, typeOpen6)

	// Chains that are jumped to must exist before the rules that jump.
	toHost := table.chain(chainToHost)
	toHost.rule("answers to the host", established(), accept())
	toHost.rule("ping", icmpType(icmpEcho), accept())
	toHost.rule("ping", icmp6Type(icmp6Echo), accept())
	toHost.rule("who has this address", icmp6Type(icmp6Solicitation), accept())
	toHost.rule("who has this address", icmp6Type(icmp6Advert), accept())
	toHost.rule("no service of the host", reject())

	// The group of the sender goes into the packet's mark, because a set can
	// only be asked for what is in registers; the mark is 0 again afterwards.
	peers := table.chain(chainPeers)
	peers.rule("no group yet", []expr.Any{&expr.Immediate{Register: register, Data: nativeEndian(0)}}, setMark())
	for _, family := range []struct {
		number                         byte
		source, target, length, behind uint32
		group, member                  string
	}{
		{unix.NFPROTO_IPV4, ipv4Source, ipv4Target, 4, afterIPv4, mapGroup4, setMember4},
		{unix.NFPROTO_IPV6, ipv6Source, ipv6Target, 16, afterIPv6, mapGroup6, setMember6},
	} {
		peers.rule("the sender's group",
			protocol(family.number),
			payload(expr.PayloadBaseNetworkHeader, family.source, family.length, register),
			[]expr.Any{&expr.Lookup{SourceRegister: register, DestRegister: register, IsDestRegSet: true, SetName: family.group}},
			setMark())
		peers.rule("the receiver is of the same group",
			protocol(family.number),
			payload(expr.PayloadBaseNetworkHeader, family.target, family.length, register),
			[]expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: family.behind}},
			inSet(family.member),
			[]expr.Any{&expr.Immediate{Register: register, Data: nativeEndian(0)}}, setMark(),
			accept())
	}
	peers.rule("no other container", reject())

	metadata := table.chain(chainMetadata)
	metadata.admitResolvers("a resolver of the cloud")
	metadata.rule("no metadata service", reject())

	// Before destination NAT of others: a port that somebody else publishes on
	// the host is a service of the host, too.
	prerouting := table.base(chainPrerouting, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, *nftables.ChainPriorityMangle)
	prerouting.rule("a port that is not on the bridge", fromPrefix(h.portPrefix()), drop())
	prerouting.rule("from a container to the host", from(h.Bridge), toHostAddress(), jump(chainToHost))

	input := table.base(chainInput, nftables.ChainTypeFilter, nftables.ChainHookInput, *nftables.ChainPriorityFilter)
	input.rule("from a container to the host", from(h.Bridge), jump(chainToHost))

	forward := table.base(chainForward, nftables.ChainTypeFilter, nftables.ChainHookForward, *nftables.ChainPriorityFilter)
	forward.rule("not ours", notFrom(h.Bridge), notTo(h.Bridge), accept())
	forward.rule("between containers", from(h.Bridge), to(h.Bridge), jump(chainPeers))
	h.openPorts(forward)
	forward.rule("answers from outside", to(h.Bridge), established(), accept())
	forward.rule("from outside", to(h.Bridge), drop())
	for _, service := range metadataServices {
		forward.rule("metadata service of a cloud", addressIn(service, ipv4Target, ipv6Target), jump(chainMetadata))
	}

	// What comes in by the bridge and leaves by it looks to the kernel as if
	// the sender should know a shorter way. It must not, and the setting that
	// turns this off is the whole host's for IPv4, and missing for IPv6.
	output := table.base(chainOutput, nftables.ChainTypeFilter, nftables.ChainHookOutput, *nftables.ChainPriorityFilter)
	output.rule("containers have no shorter way", to(h.Bridge), icmpType(icmpRedirect), drop())
	output.rule("containers have no shorter way", to(h.Bridge), icmp6Type(icmp6Redirect), drop())

	h.restrictBuilders(table)
	h.publishPorts(table)
	postrouting := table.base(chainPostrouting, nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource)
	for _, pool := range h.translated() {
		postrouting.rule("from containers to outside",
			addressIn(pool, ipv4Source, ipv6Source), notAddress(pool.Masked().Addr().Next(), ipv4Source, ipv6Source), notTo(h.Bridge), masquerade())
	}
	return table
}

// bridged is the table for frames as they enter the bridge by a port.
func (h Host) bridged() *ruleset {
	const priorityFilter nftables.ChainPriority = -200 // NF_BR_PRI_FILTER_BRIDGED
	const icmp6RouterAdvert, icmp6Advert, icmp6Redirect = 134, 136, 137
	table := newRuleset(nftables.TableFamilyBridge, h.Table)
	table.set(setGuest4, typeGuest4)
	table.set(setGuest6, typeGuest6)

	interfaceAndMAC := concat(meta(expr.MetaKeyIIFNAME), payload(expr.PayloadBaseLLHeader, ethernetSource, 6, afterInterface))

	ipv6 := table.chain(chainGuestIPv6)
	ipv6.rule("it has its own address",
		icmp6Type(icmp6Advert),
		interfaceAndMAC, payload(expr.PayloadBaseTransportHeader, ndTarget, 16, afterMAC), inSet(setGuest6),
		accept())
	ipv6.rule("it claims another address", icmp6Type(icmp6Advert), drop())
	ipv6.rule("it is no router", icmp6Type(icmp6RouterAdvert), drop())
	ipv6.rule("it is no router", icmp6Type(icmp6Redirect), drop())
	ipv6.rule("other IPv6 packets", accept())

	guest := table.chain(chainGuest)
	guest.rule("IPv4 from its own addresses",
		etherType(unix.ETH_P_IP),
		interfaceAndMAC, payload(expr.PayloadBaseNetworkHeader, ipv4Source, 4, afterMAC), inSet(setGuest4),
		accept())
	guest.rule("IPv6 from its own addresses",
		etherType(unix.ETH_P_IPV6),
		interfaceAndMAC, payload(expr.PayloadBaseNetworkHeader, ipv6Source, 16, afterMAC), inSet(setGuest6),
		jump(chainGuestIPv6))
	guest.rule("ARP about its own addresses",
		etherType(unix.ETH_P_ARP),
		// Ethernet, IPv4, and the lengths of their addresses: so the offsets
		// below are right.
		payload(expr.PayloadBaseNetworkHeader, 0, 6, register), equal([]byte{0, 1, 8, 0, 6, 4}),
		interfaceAndMAC, payload(expr.PayloadBaseNetworkHeader, arpSenderIP, 4, afterMAC), inSet(setGuest4),
		meta(expr.MetaKeyIIFNAME), payload(expr.PayloadBaseNetworkHeader, arpSenderMAC, 6, afterInterface),
		payload(expr.PayloadBaseNetworkHeader, arpSenderIP, 4, afterMAC), inSet(setGuest4),
		accept())
	guest.rule("nothing else", drop())

	prerouting := table.base(chainPrerouting, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, priorityFilter)
	prerouting.rule("from a container", fromPrefix(h.portPrefix()), jump(chainGuest))
	return table
}

// guestKey is an element of setGuest4 or setGuest6.
func guestKey(hostInterface string, mac []byte, address netip.Addr) []byte {
	key := interfaceName(hostInterface)
	key = append(key, mac...)
	key = append(key, 0, 0) // each part is padded to 32 bits
	return append(key, address.AsSlice()...)
}

// guestOf is the reverse of guestKey.
func guestOf(key []byte) (hostInterface string, address netip.Addr, ok bool) {
	const start = unix.IFNAMSIZ + 8
	if len(key) < start {
		return "", netip.Addr{}, false
	}
	address, ok = netip.AddrFromSlice(key[start:])
	return unix.ByteSliceToString(key[:unix.IFNAMSIZ]), address, ok
}

// memberKey is an element of setMember4 or setMember6.
func memberKey(address netip.Addr, group uint32) []byte {
	return append(address.AsSlice(), nativeEndian(group)...)
}

// groupNumber is the preferred number of a group.
func groupNumber(key string) uint32 {
	sum := sha256.Sum256([]byte(key))
	return binary.BigEndian.Uint32(sum[:4])
}
