package network

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// firewall is a connection to nftables, and the two tables of one instance.
type firewall struct {
	conn    *nftables.Conn
	raw     *netlink.Conn
	bridged *ruleset
	routed  *ruleset
}

// openFirewall must be closed.
func openFirewall(host Host) (*firewall, error) {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(socket *netlink.Conn) error {
		// Each message of a batch is acknowledged, and the kernel drops
		// acknowledgements that do not fit; it refuses a batch that does not
		// fit. These are limits: memory is taken for what there is.
		const bytes = 16 << 20
		return errors.Join(socket.SetReadBuffer(bytes), socket.SetWriteBuffer(bytes))
	}))
	if err != nil {
		return nil, explain("open", "nftables", err)
	}
	raw, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, errors.Join(explain("open", "nftables", err), conn.CloseLasting())
	}
	return &firewall{conn: conn, raw: raw, bridged: host.bridged(), routed: host.routed()}, nil
}

func (f *firewall) close() {
	_ = f.conn.CloseLasting()
	_ = f.raw.Close()
}

func (f *firewall) rulesets() []*ruleset { return []*ruleset{f.bridged, f.routed} }

// flush sends what has been collected, as one transaction.
func (f *firewall) flush() error {
	return explain("change", "nftables table "+f.routed.table.Name, f.conn.Flush())
}

// listing is all chains of the kernel, asked for once.
func (f *firewall) listing() ([]*nftables.Chain, error) {
	chains, err := f.conn.ListChains()
	return chains, explain("list", "the chains of nftables", err)
}

// current says whether both tables are there with the chains, rules and sets
// that they shall have. Rules are known by their comments, which hold a hash of
// what the rule does.
func (f *firewall) current() (bool, error) {
	chains, err := f.listing()
	if err != nil {
		return false, err
	}
	for _, wanted := range f.rulesets() {
		if ok, err := f.isCurrent(wanted, chains); err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}

func (f *firewall) isCurrent(wanted *ruleset, all []*nftables.Chain) (bool, error) {
	there := map[string]*nftables.Chain{}
	for _, chain := range all {
		if chain.Table.Name == wanted.table.Name && chain.Table.Family == wanted.table.Family {
			there[chain.Name] = chain
		}
	}
	if len(there) != len(wanted.chains) {
		return false, nil
	}
	for _, chain := range wanted.chains {
		if !sameChain(there[chain.Name], chain) {
			return false, nil
		}
	}
	sets, err := f.conn.GetSets(wanted.table)
	if err != nil {
		return false, explain("list the sets of", "nftables table "+wanted.table.Name, err)
	}
	if len(sets) != len(wanted.sets) {
		return false, nil
	}
	for _, set := range sets {
		if !sameSet(set, wanted.find(set.Name)) {
			return false, nil
		}
	}
	rules, err := f.ruleComments(wanted.table)
	if err != nil {
		return false, explain("list the rules of", "nftables table "+wanted.table.Name, err)
	}
	expected := map[string][]string{}
	for _, rule := range wanted.rules {
		expected[rule.Chain.Name] = append(expected[rule.Chain.Name], string(rule.UserData))
	}
	return maps.EqualFunc(rules, expected, slices.Equal[[]string]), nil
}

// ruleComments are the user data of a table's rules, by chain and in order. The
// library asks for each chain and takes every rule apart, which takes most of
// the time of an Ensure that has nothing to do.
func (f *firewall) ruleComments(table *nftables.Table) (map[string][]string, error) {
	const familyHeader = 4 // struct nfgenmsg
	name, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_RULE_TABLE, Data: append([]byte(table.Name), 0)}})
	if err != nil {
		return nil, err
	}
	answers, err := f.raw.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE, Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{byte(table.Family), unix.NFNETLINK_V0, 0, 0}, name...),
	})
	if err != nil {
		return nil, err
	}
	comments := map[string][]string{}
	for _, answer := range answers {
		if len(answer.Data) < familyHeader {
			continue
		}
		attributes, err := netlink.UnmarshalAttributes(answer.Data[familyHeader:])
		if err != nil {
			return nil, err
		}
		var chain, comment string
		for _, attribute := range attributes {
			switch attribute.Type {
			case unix.NFTA_RULE_CHAIN:
				chain = unix.ByteSliceToString(attribute.Data)
			case unix.NFTA_RULE_USERDATA:
				comment = string(attribute.Data)
			}
		}
		comments[chain] = append(comments[chain], comment)
	}
	return comments, nil
}

func sameChain(a, b *nftables.Chain) bool {
	switch {
	case a == nil || b == nil || (a.Hooknum == nil) != (b.Hooknum == nil):
		return false
	case a.Hooknum == nil:
		return true
	}
	return a.Type == b.Type && *a.Hooknum == *b.Hooknum && *a.Priority == *b.Priority &&
		a.Policy != nil && *a.Policy == *b.Policy
}

func sameSet(a, b *nftables.Set) bool {
	return a != nil && b != nil && a.KeyType.Name == b.KeyType.Name && a.IsMap == b.IsMap && a.DataType.Name == b.DataType.Name
}

// rebuild makes both tables what they shall be, in one transaction: no packet
// meets a half of it. What the sets held is kept.
func (f *firewall) rebuild() error {
	for _, wanted := range f.rulesets() {
		exists, err := f.exists(wanted)
		if err != nil {
			return err
		}
		kept := map[string][]nftables.SetElement{}
		if exists {
			if kept, err = f.elementsOf(wanted); err != nil {
				return err
			}
			f.conn.DelTable(wanted.table)
		}
		f.conn.AddTable(wanted.table)
		for _, set := range wanted.sets {
			if err := f.conn.AddSet(set, nil); err != nil {
				return explain("make", "nftables set "+set.Name, err)
			}
			if err := f.add(set, kept[set.Name]); err != nil {
				return err
			}
		}
		for _, chain := range wanted.chains {
			f.conn.AddChain(chain)
		}
		for _, rule := range wanted.rules {
			f.conn.AddRule(rule)
		}
	}
	return f.flush()
}

// elementsOf are the elements of the sets that have the wanted types.
func (f *firewall) elementsOf(wanted *ruleset) (map[string][]nftables.SetElement, error) {
	sets, err := f.conn.GetSets(wanted.table)
	if err != nil {
		return nil, explain("list the sets of", "nftables table "+wanted.table.Name, err)
	}
	elements := map[string][]nftables.SetElement{}
	for _, set := range sets {
		if !sameSet(set, wanted.find(set.Name)) {
			continue
		}
		if elements[set.Name], err = f.elements(set); err != nil {
			return nil, err
		}
	}
	return elements, nil
}

func (f *firewall) elements(set *nftables.Set) ([]nftables.SetElement, error) {
	elements, err := f.conn.GetSetElements(set)
	return elements, explain("list", "nftables set "+set.Table.Name+" "+set.Name, err)
}

// add collects new elements.
func (f *firewall) add(set *nftables.Set, elements []nftables.SetElement) error {
	return inParts(elements, func(part []nftables.SetElement) error { return f.conn.SetAddElements(set, part) })
}

// remove collects elements that shall go.
func (f *firewall) remove(set *nftables.Set, elements []nftables.SetElement) error {
	return inParts(elements, func(part []nftables.SetElement) error { return f.conn.SetDeleteElements(set, part) })
}

// inParts keeps each netlink attribute below its limit of 64 KiB.
func inParts(elements []nftables.SetElement, do func([]nftables.SetElement) error) error {
	const most = 256
	for len(elements) > 0 {
		part := elements[:min(most, len(elements))]
		if err := do(part); err != nil {
			return fmt.Errorf("cannot write elements of an nftables set: %w", err)
		}
		elements = elements[len(part):]
	}
	return nil
}

// become collects what makes the set hold exactly the wanted elements, and
// says whether that is anything.
func (f *firewall) become(set *nftables.Set, wanted []nftables.SetElement) (bool, error) {
	there, err := f.elements(set)
	if err != nil {
		return false, err
	}
	missing, surplus := difference(there, wanted)
	// Removal first: a map refuses a second value for a key.
	if err := f.remove(set, surplus); err != nil {
		return false, err
	}
	if err := f.add(set, missing); err != nil {
		return false, err
	}
	return len(missing)+len(surplus) > 0, nil
}

func difference(there, wanted []nftables.SetElement) (missing, surplus []nftables.SetElement) {
	identity := func(e nftables.SetElement) string { return string(e.Key) + "\x00" + string(e.Val) }
	known := make(map[string]bool, len(there))
	for _, element := range there {
		known[identity(element)] = true
	}
	stays := make(map[string]bool, len(wanted))
	for _, element := range wanted {
		id := identity(element)
		if !known[id] && !stays[id] {
			missing = append(missing, nftables.SetElement{Key: element.Key, Val: element.Val})
		}
		stays[id] = true
	}
	for _, element := range there {
		if !stays[identity(element)] {
			surplus = append(surplus, nftables.SetElement{Key: element.Key, Val: element.Val})
		}
	}
	return missing, surplus
}

// exists says whether there is a table of that name and family.
func (f *firewall) exists(wanted *ruleset) (bool, error) {
	tables, err := f.conn.ListTables()
	if err != nil {
		return false, explain("list", "the tables of nftables", err)
	}
	return slices.ContainsFunc(tables, func(table *nftables.Table) bool {
		return table.Name == wanted.table.Name && table.Family == wanted.table.Family
	}), nil
}

// destroy removes both tables, those that are there.
func (f *firewall) destroy() error {
	for _, wanted := range f.rulesets() {
		exists, err := f.exists(wanted)
		if err != nil {
			return err
		}
		if exists {
			f.conn.DelTable(wanted.table)
		}
	}
	return f.flush()
}
