package network

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Finding is something of somebody else's that keeps containers from the
// outside.
type Finding struct {
	// Family is "ip", "ip6" or "inet", as nft and iptables name it.
	Family string
	Table  string
	Chain  string
	// What says what is dropped, and by what: a policy, or a rule.
	What string
	// Remedy is what to run or to set.
	Remedy string
}

// Trouble is something about the containers' network that an admin should know.
type Trouble struct {
	What string
	// Remedy is what to do about it.
	Remedy string
}

// ForeignForwardDrops finds packet filters of others that drop what containers
// send to the outside, or the answers: docker's, firewalld's, ufw's, for
// example. Every nftables chain at the forward hook (iptables-nft is among
// them) is followed for a new connection from a container and for its answer;
// a condition that cannot be known counts as not met. Where there are forwarded
// ports, a connection to one is followed too. Filters made by the legacy
// iptables cannot be read this way, and are named if there are any.
func ForeignForwardDrops(host Host, forwards []Forward) ([]Finding, error) {
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, explain("open", "nftables", err)
	}
	defer func() { _ = conn.CloseLasting() }()
	chains, err := conn.ListChains()
	if err != nil {
		return nil, explain("list", "the chains of nftables", err)
	}
	var findings []Finding
	for _, base := range chains {
		if base.Hooknum == nil || *base.Hooknum != *nftables.ChainHookForward || strings.HasPrefix(base.Table.Name, "devhost-") {
			continue
		}
		for _, packet := range packetsFor(host, base.Table.Family, forwards) {
			walk := walker{conn: conn, table: base.Table, packet: packet}
			dropped, err := walk.base(base)
			if err != nil {
				return nil, explain("read", "nftables table "+base.Table.Name, err)
			}
			if dropped != "" {
				findings = append(findings, Finding{
					Family: familyName(base.Table.Family), Table: base.Table.Name, Chain: base.Name,
					What:   packet.name + " " + dropped,
					Remedy: remedyFor(host.Bridge, base, chains, len(forwards) > 0),
				})
				break // one finding a chain is enough to act upon
			}
		}
	}
	legacy, err := legacyFilters(host.Bridge, len(forwards) > 0)
	return append(findings, legacy...), err
}

func familyName(family nftables.TableFamily) string {
	switch family {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	default:
		return "inet"
	}
}

// remedyFor is the way of the owner of the chain, if it is known whose it is.
// inbound says that there are forwarded ports: then all that goes to containers
// must pass, and devhost's own filter decides.
func remedyFor(bridge string, base *nftables.Chain, all []*nftables.Chain, inbound bool) string {
	has := func(name string) bool {
		return slices.ContainsFunc(all, func(chain *nftables.Chain) bool {
			return chain.Name == name && chain.Table.Name == base.Table.Name && chain.Table.Family == base.Table.Family
		})
	}
	iptables := map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "iptables", nftables.TableFamilyIPv6: "ip6tables"}[base.Table.Family]
	switch {
	case base.Table.Name == "firewalld":
		return fmt.Sprintf("tell firewalld: firewall-cmd --permanent --zone=trusted --add-interface=%s && firewall-cmd --reload", bridge)
	case base.Table.Name == "nixos-fw" && inbound:
		return fmt.Sprintf(`in the NixOS configuration, set networking.firewall.extraForwardRules = ''iifname "%[1]s" accept; oifname "%[1]s" accept'';`, bridge)
	case base.Table.Name == "nixos-fw":
		return fmt.Sprintf(`in the NixOS configuration, set networking.firewall.extraForwardRules = ''iifname "%s" accept'';`, bridge)
	case has("DOCKER-USER") && iptables != "":
		return "tell docker: " + iptablesRemedy(iptables, "DOCKER-USER", bridge, inbound)
	case has("ufw-user-forward") || has("ufw6-user-forward"):
		if inbound {
			return fmt.Sprintf("tell ufw: ufw route allow in on %[1]s; ufw route allow out on %[1]s", bridge)
		}
		return "tell ufw: ufw route allow in on " + bridge
	case base.Name == "FORWARD" && iptables != "":
		return "run: " + iptablesRemedy(iptables, "FORWARD", bridge, inbound)
	default:
		insert := fmt.Sprintf("nft insert rule %s %s %s", familyName(base.Table.Family), base.Table.Name, base.Name)
		which := "ct state established,related "
		if inbound {
			which = ""
		}
		return fmt.Sprintf(`run: %s iifname "%s" accept; %s oifname "%s" %saccept`, insert, bridge, insert, bridge, which)
	}
}

func iptablesRemedy(iptables, chain, bridge string, inbound bool) string {
	which := "-m conntrack --ctstate RELATED,ESTABLISHED "
	if inbound {
		which = ""
	}
	return fmt.Sprintf("%s -I %s -i %s -j ACCEPT; %s -I %s -o %s %s-j ACCEPT",
		iptables, chain, bridge, iptables, chain, bridge, which)
}

// legacyFilters names the filter tables of iptables-legacy.
func legacyFilters(bridge string, inbound bool) ([]Finding, error) {
	var findings []Finding
	for _, legacy := range []struct{ names, family, program string }{
		{"/proc/thread-self/net/ip_tables_names", "ip", "iptables-legacy"},
		{"/proc/thread-self/net/ip6_tables_names", "ip6", "ip6tables-legacy"},
	} {
		content, err := os.ReadFile(legacy.names)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return findings, explain("read", legacy.names, err)
		}
		findings = append(findings, legacyFindings(string(content), legacy.family, legacy.program, bridge, inbound)...)
	}
	return findings, nil
}

// legacyFindings reads the names of the tables that iptables-legacy has made.
func legacyFindings(names, family, program, bridge string, inbound bool) []Finding {
	if !slices.Contains(strings.Fields(names), "filter") {
		return nil
	}
	return []Finding{{
		Family: family, Table: "filter", Chain: "FORWARD",
		What:   "there are rules of the legacy iptables, which cannot be looked into from here; they may drop what containers send",
		Remedy: fmt.Sprintf("look at them with: %s -S FORWARD; if they drop, run: %s", program, iptablesRemedy(program, "FORWARD", bridge, inbound)),
	}}
}

// packet is an example of what containers need to get through.
type packet struct {
	name            string
	family          byte   // unix.NFPROTO_IPV4 or _IPV6
	in, out         string // interfaces, "" where not known
	state           uint32 // conntrack state bit
	status          uint32 // conntrack status bits
	source, target  netip.Addr
	sport, dport    uint16
	transportNumber byte
}

// packetsFor are a container's first packet to the outside, the answer, and the
// first packet to a forwarded port, in the families that a table sees.
func packetsFor(host Host, family nftables.TableFamily, forwards []Forward) []packet {
	var packets []packet
	add := func(proto byte, name string, guest netip.Addr, outside string) {
		uplink := uplinkOf(proto)
		there := packet{
			name:   fmt.Sprintf("a connection from a container to the outside (%s)", name),
			family: proto, in: host.Bridge, out: uplink, state: expr.CtStateBitNEW,
			source: guest, target: netip.MustParseAddr(outside), sport: 40000, dport: 443, transportNumber: unix.IPPROTO_TCP,
		}
		back := there
		back.name = strings.Replace(there.name, "a connection", "the answer to a connection", 1)
		back.in, back.out, back.state = there.out, there.in, expr.CtStateBitESTABLISHED
		back.source, back.target, back.sport, back.dport = there.target, there.source, there.dport, there.sport
		packets = append(packets, there, back)
		if len(forwards) == 0 {
			return
		}
		forward := forwards[0]
		inbound := back
		inbound.name = fmt.Sprintf("a connection from outside to the forwarded port %d/%s (%s)", forward.HostPort, forward.Protocol, name)
		inbound.state, inbound.status = expr.CtStateBitNEW, statusTargetNAT
		inbound.sport, inbound.dport, inbound.transportNumber = there.sport, forward.GuestPort, transportNumber(forward.Protocol)
		inbound.target = forward.Addresses.IPv4
		if proto == unix.NFPROTO_IPV6 {
			inbound.target = forward.Addresses.IPv6
		}
		if inbound.target.IsValid() {
			packets = append(packets, inbound)
		}
	}
	if family == nftables.TableFamilyIPv4 || family == nftables.TableFamilyINet {
		add(unix.NFPROTO_IPV4, "IPv4", host.Gateway4().Next(), "9.9.9.9")
	}
	if host.IPv6.IsValid() && (family == nftables.TableFamilyIPv6 || family == nftables.TableFamilyINet) {
		add(unix.NFPROTO_IPV6, "IPv6", host.Gateway6().Next(), "2620:fe::fe")
	}
	return packets
}

// uplinkOf is the interface of the default route, "" when there is none.
func uplinkOf(proto byte) string {
	family, target := netlink.FAMILY_V4, "9.9.9.9"
	if proto == unix.NFPROTO_IPV6 {
		family, target = netlink.FAMILY_V6, "2620:fe::fe"
	}
	routes, err := retryDump(func() ([]netlink.Route, error) { return netlink.RouteList(nil, family) })
	if err != nil {
		return ""
	}
	for _, route := range routes {
		if route.Dst == nil || route.Dst.Contains(netip.MustParseAddr(target).AsSlice()) {
			if link, err := netlink.LinkByIndex(route.LinkIndex); err == nil {
				return link.Attrs().Name
			}
		}
	}
	return ""
}

// walker follows a packet through the chains of a table.
type walker struct {
	conn   *nftables.Conn
	table  *nftables.Table
	packet packet
	depth  int
}

type outcome int

const (
	goesOn outcome = iota
	accepted
	dropped
	returned
)

// base says what drops the packet, "" if nothing does.
func (w *walker) base(chain *nftables.Chain) (string, error) {
	result, where, err := w.chain(chain.Name)
	switch {
	case err != nil:
		return "", err
	case result == dropped:
		return where, nil
	case result != accepted && chain.Policy != nil && *chain.Policy == nftables.ChainPolicyDrop:
		return "is dropped by the chain's policy", nil
	}
	return "", nil
}

func (w *walker) chain(name string) (outcome, string, error) {
	const deepest = 16 // NFT_JUMP_STACK_SIZE
	if w.depth++; w.depth > deepest {
		return goesOn, "", nil
	}
	defer func() { w.depth-- }()
	rules, err := w.conn.GetRules(w.table, &nftables.Chain{Name: name})
	if err != nil {
		return goesOn, "", err
	}
	for number, rule := range rules {
		verdict, rejects, err := w.rule(rule)
		if err != nil {
			return goesOn, "", err
		}
		if rejects {
			return dropped, fmt.Sprintf("is rejected by rule %d of chain %s", number+1, name), nil
		}
		if verdict == nil {
			continue
		}
		switch verdict.Kind {
		case expr.VerdictAccept:
			return accepted, "", nil
		case expr.VerdictDrop:
			return dropped, fmt.Sprintf("is dropped by rule %d of chain %s", number+1, name), nil
		case expr.VerdictReturn:
			return returned, "", nil
		case expr.VerdictJump, expr.VerdictGoto:
			result, where, err := w.chain(verdict.Chain)
			if err != nil || result == accepted || result == dropped {
				return result, where, err
			}
			if verdict.Kind == expr.VerdictGoto {
				return returned, "", nil
			}
		}
	}
	return goesOn, "", nil
}

// rule is the verdict of a rule for the packet, nil if it does not match or
// decides nothing.
func (w *walker) rule(rule *nftables.Rule) (verdict *expr.Verdict, rejects bool, err error) {
	registers := map[uint32][]byte{} // a value is nil when it is not known
	for _, e := range rule.Exprs {
		matches := true
		switch e := e.(type) {
		case *expr.Verdict:
			return e, false, nil
		case *expr.Reject:
			return nil, true, nil
		case *expr.Target:
			if e.Name == "REJECT" {
				return nil, true, nil
			}
		case *expr.Meta:
			if !e.SourceRegister {
				registers[e.Register] = w.packet.meta(e.Key)
			}
		case *expr.Ct:
			registers[e.Register] = nil
			switch e.Key {
			case expr.CtKeySTATE:
				registers[e.Register] = nativeEndian(w.packet.state)
			case expr.CtKeySTATUS:
				registers[e.Register] = nativeEndian(w.packet.status)
			}
		case *expr.Payload:
			if e.OperationType == expr.PayloadLoad {
				registers[e.DestRegister] = w.packet.payload(e)
			}
		case *expr.Immediate:
			registers[e.Register] = e.Data
		case *expr.Bitwise:
			registers[e.DestRegister] = bitwise(registers[e.SourceRegister], e)
		case *expr.Cmp:
			matches = compare(registers[e.Register], e)
		case *expr.Lookup:
			var found *expr.Verdict
			found, matches, err = w.lookup(registers, e)
			if err != nil {
				return nil, false, err
			}
			if found != nil {
				return found, false, nil
			}
		case *expr.Match:
			matches = w.packet.match(e)
		case *expr.Counter, *expr.Log, *expr.Objref, *expr.Notrack:
			// They count and tell; they match everything.
		default:
			matches = false
		}
		if !matches {
			return nil, false, nil
		}
	}
	return nil, false, nil
}

func (p packet) meta(key expr.MetaKey) []byte {
	switch key {
	case expr.MetaKeyIIFNAME:
		return p.interfaceName(p.in)
	case expr.MetaKeyOIFNAME:
		return p.interfaceName(p.out)
	case expr.MetaKeyIIF:
		return interfaceIndex(p.in)
	case expr.MetaKeyOIF:
		return interfaceIndex(p.out)
	case expr.MetaKeyNFPROTO:
		return []byte{p.family}
	case expr.MetaKeyL4PROTO:
		return []byte{p.transportNumber}
	case expr.MetaKeyPROTOCOL:
		if p.family == unix.NFPROTO_IPV4 {
			return []byte{8, 0} // ETH_P_IP, as on the wire
		}
		return []byte{0x86, 0xdd} // ETH_P_IPV6
	case expr.MetaKeyMARK:
		return nativeEndian(0)
	default:
		return nil
	}
}

func (p packet) interfaceName(name string) []byte {
	if name == "" {
		return nil
	}
	return interfaceName(name)
}

func interfaceIndex(name string) []byte {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil
	}
	return nativeEndian(uint32(link.Attrs().Index))
}

func (p packet) payload(load *expr.Payload) []byte {
	source, target := p.source.AsSlice(), p.target.AsSlice()
	offset := uint32(ipv4Source)
	if p.family == unix.NFPROTO_IPV6 {
		offset = ipv6Source
	}
	var known []byte
	switch load.Base {
	case expr.PayloadBaseNetworkHeader:
		known = append(slices.Clone(source), target...)
	case expr.PayloadBaseTransportHeader:
		offset = 0
		known = binary.BigEndian.AppendUint16(known, p.sport)
		known = binary.BigEndian.AppendUint16(known, p.dport)
	}
	if load.Offset < offset || load.Offset-offset+load.Len > uint32(len(known)) {
		return nil
	}
	return known[load.Offset-offset:][:load.Len]
}

func bitwise(value []byte, e *expr.Bitwise) []byte {
	if len(value) < len(e.Mask) || len(e.Mask) != len(e.Xor) || len(e.Mask) == 0 {
		return nil
	}
	result := make([]byte, len(e.Mask))
	for i := range result {
		result[i] = value[i]&e.Mask[i] ^ e.Xor[i]
	}
	return result
}

func compare(value []byte, e *expr.Cmp) bool {
	// The data is shorter than an interface's name where it ends with *.
	if len(value) < len(e.Data) || len(e.Data) == 0 {
		return false
	}
	same := bytes.Equal(value[:len(e.Data)], e.Data)
	switch e.Op {
	case expr.CmpOpEq:
		return same
	case expr.CmpOpNeq:
		return !same
	default:
		return false
	}
}

// lookup asks a set, or a verdict map.
func (w *walker) lookup(registers map[uint32][]byte, e *expr.Lookup) (*expr.Verdict, bool, error) {
	value := registers[e.SourceRegister]
	if value == nil {
		return nil, false, nil
	}
	elements, err := w.conn.GetSetElements(&nftables.Set{Table: w.table, Name: e.SetName})
	if err != nil {
		return nil, false, err
	}
	for _, element := range elements {
		if element.IntervalEnd || len(element.KeyEnd) > 0 {
			return nil, false, nil // ranges are not followed
		}
	}
	for _, element := range elements {
		if !bytes.Equal(element.Key, value) {
			continue
		}
		if !e.IsDestRegSet {
			return nil, !e.Invert, nil
		}
		if e.DestRegister == unix.NFT_REG_VERDICT {
			return verdictOf(element.Val), true, nil
		}
		registers[e.DestRegister] = element.Val
		return nil, true, nil
	}
	return nil, !e.IsDestRegSet && e.Invert, nil
}

// verdictOf reads the attributes of a verdict in a map (nftables'
// NFTA_VERDICT_CODE and NFTA_VERDICT_CHAIN), which the library leaves as they
// are.
func verdictOf(attributes []byte) *expr.Verdict {
	const headerLength = 4
	var verdict *expr.Verdict
	for len(attributes) >= headerLength {
		length := int(binary.NativeEndian.Uint16(attributes))
		if length < headerLength || length > len(attributes) {
			return verdict
		}
		data := attributes[headerLength:length]
		switch kind := binary.NativeEndian.Uint16(attributes[2:]); {
		case kind == unix.NFTA_VERDICT_CODE && len(data) == 4:
			verdict = &expr.Verdict{Kind: expr.VerdictKind(int32(binary.BigEndian.Uint32(data)))}
		case kind == unix.NFTA_VERDICT_CHAIN && verdict != nil:
			verdict.Chain = unix.ByteSliceToString(data)
		}
		attributes = attributes[min((length+3)&^3, len(attributes)):]
	}
	return verdict
}

// match is a match of xtables in a rule of iptables-nft.
func (p packet) match(e *expr.Match) bool {
	switch e.Name {
	case "comment":
		return true
	case "conntrack":
		var flags, inverted, state uint16
		switch information := e.Info.(type) {
		case *xt.ConntrackMtinfo1:
			flags, inverted, state = information.MatchFlags, information.InvertFlags, uint16(information.StateMask)
		case *xt.ConntrackMtinfo2:
			flags, inverted, state = information.MatchFlags, information.InvertFlags, information.StateMask
		case *xt.ConntrackMtinfo3:
			flags, inverted, state = information.MatchFlags, information.InvertFlags, information.StateMask
		}
		// The bits of the states are those of nftables (linux/xt_conntrack.h).
		only := flags&^uint16(xt.ConntrackStateAlias) == uint16(xt.ConntrackState)
		return only && (uint32(state)&p.state != 0) != (inverted&uint16(xt.ConntrackState) != 0)
	default:
		return false
	}
}
