package network

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// otherFilter builds a packet filter of somebody else's in the lab.
type otherFilter struct {
	conn  *nftables.Conn
	table *nftables.Table
}

func (o *otherFilter) forward(name string, policy nftables.ChainPolicy) *nftables.Chain {
	return o.conn.AddChain(&nftables.Chain{
		Table: o.table, Name: name, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &policy,
	})
}

func (o *otherFilter) chain(name string) *nftables.Chain {
	return o.conn.AddChain(&nftables.Chain{Table: o.table, Name: name})
}

func (o *otherFilter) rule(chain *nftables.Chain, parts ...[]expr.Any) {
	// Every rule of iptables counts.
	parts = append([][]expr.Any{{&expr.Counter{}}}, parts...)
	o.conn.AddRule(&nftables.Rule{Table: o.table, Chain: chain, Exprs: concat(parts...)})
}

func goTo(chain string) []expr.Any { return verdict(expr.VerdictGoto, chain) }
func fallBack() []expr.Any         { return verdict(expr.VerdictReturn, "") }

// xtConntrack is "-m conntrack --ctstate" as iptables-nft writes it.
func xtConntrack(states uint16) []expr.Any {
	return []expr.Any{&expr.Match{Name: "conntrack", Rev: 3, Info: &xt.ConntrackMtinfo3{
		ConntrackMtinfo2: xt.ConntrackMtinfo2{
			ConntrackMtinfoBase: xt.ConntrackMtinfoBase{MatchFlags: uint16(xt.ConntrackState)},
			StateMask:           states,
		},
	}}}
}

const answers = uint16(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)

// stateMap is "ct state vmap { established : accept, new : jump ... }".
func (o *otherFilter) stateMap(name string, verdicts map[uint32]*expr.Verdict) []expr.Any {
	set := &nftables.Set{Table: o.table, Name: name, IsMap: true, KeyType: nftables.TypeCTState, DataType: nftables.TypeVerdict}
	var elements []nftables.SetElement
	for state, verdict := range verdicts {
		elements = append(elements, nftables.SetElement{Key: nativeEndian(state), VerdictData: verdict})
	}
	if err := o.conn.AddSet(set, elements); err != nil {
		panic(err)
	}
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: register},
		&expr.Lookup{SourceRegister: register, IsDestRegSet: true, DestRegister: unix.NFT_REG_VERDICT, SetName: name, SetID: set.ID},
	}
}

// foreignCase is a filter of somebody else's, and what is to be found.
type foreignCase struct {
	name   string
	family nftables.TableFamily
	table  string
	build  func(*otherFilter)
	// what and remedy are parts of the finding, "" when there must be none.
	what, remedy string
}

// forwards are those of the host: one in the cases that say so.
func (c foreignCase) forwards() []Forward {
	if !strings.Contains(c.name, "forwarded") {
		return nil
	}
	return []Forward{{Protocol: "tcp", HostPort: 8080, GuestPort: 80, Addresses: Addresses{IPv4: netip.MustParseAddr("10.231.0.2"), IPv6: netip.MustParseAddr("fd00::2")}}}
}

func TestForeignForwardDrops(t *testing.T) {
	const ours = "dh-1a2b3c4d"
	pass, block := nftables.ChainPolicyAccept, nftables.ChainPolicyDrop
	docker := func(o *otherFilter, remedied bool) {
		user := o.chain("DOCKER-USER")
		if remedied {
			o.rule(user, from(ours), accept())
			o.rule(user, to(ours), xtConntrack(answers), accept())
		}
		o.rule(user, fallBack())
		forward := o.forward("FORWARD", block)
		o.rule(forward, jump("DOCKER-USER"))
		o.rule(forward, to("docker0"), xtConntrack(answers), accept())
		o.rule(forward, from("docker0"), notTo("docker0"), accept())
	}
	cases := []foreignCase{
		{"docker", nftables.TableFamilyIPv4, "filter", func(o *otherFilter) { docker(o, false) },
			"a connection from a container to the outside (IPv4) is dropped by the chain's policy", "iptables -I DOCKER-USER -i " + ours + " -j ACCEPT"},
		{"docker, remedied", nftables.TableFamilyIPv4, "filter", func(o *otherFilter) { docker(o, true) }, "", ""},
		{"docker, IPv6", nftables.TableFamilyIPv6, "filter", func(o *otherFilter) { docker(o, false) },
			"(IPv6) is dropped by the chain's policy", "ip6tables -I DOCKER-USER"},
		{"plain iptables", nftables.TableFamilyIPv4, "filter", func(o *otherFilter) { o.forward("FORWARD", block) },
			"policy", "iptables -I FORWARD -i " + ours},
		{"ufw", nftables.TableFamilyIPv4, "filter", func(o *otherFilter) {
			before := o.chain("ufw-before-forward")
			o.rule(before, xtConntrack(answers), accept())
			o.chain("ufw-user-forward")
			forward := o.forward("FORWARD", block)
			o.rule(forward, jump("ufw-before-forward"))
			o.rule(forward, jump("ufw-user-forward"))
		}, "policy", "ufw route allow in on " + ours},
		{"only answers are dropped", nftables.TableFamilyIPv4, "filter", func(o *otherFilter) {
			o.rule(o.forward("FORWARD", block), from(ours), accept())
		}, "the answer to a connection", "RELATED,ESTABLISHED"},
		{"firewalld", nftables.TableFamilyINet, "firewalld", func(o *otherFilter) {
			o.rule(o.chain("filter_FWD_public"), reject())
			o.rule(o.chain("filter_FWD_trusted"), accept())
			zones := o.chain("filter_FORWARD_ZONES")
			o.rule(zones, from("docker0"), goTo("filter_FWD_trusted"))
			o.rule(zones, goTo("filter_FWD_public"))
			forward := o.forward("filter_FORWARD", pass)
			o.rule(forward, established(), accept())
			o.rule(forward, from("lo"), accept())
			o.rule(forward, jump("filter_FORWARD_ZONES"))
			o.rule(forward, reject())
		}, "is rejected by rule 1 of chain filter_FWD_public", "firewall-cmd --permanent --zone=trusted --add-interface=" + ours},
		{"firewalld, remedied", nftables.TableFamilyINet, "firewalld", func(o *otherFilter) {
			o.rule(o.chain("filter_FWD_trusted"), accept())
			zones := o.chain("filter_FORWARD_ZONES")
			o.rule(zones, from(ours), goTo("filter_FWD_trusted"))
			forward := o.forward("filter_FORWARD", pass)
			o.rule(forward, established(), accept())
			o.rule(forward, jump("filter_FORWARD_ZONES"))
			o.rule(forward, reject())
		}, "", ""},
		{"nixos", nftables.TableFamilyINet, "nixos-fw", func(o *otherFilter) {
			o.rule(o.chain("forward-allow"), from("wg0"), accept())
			o.rule(o.forward("forward", block), o.stateMap("states", map[uint32]*expr.Verdict{
				expr.CtStateBitINVALID:     {Kind: expr.VerdictDrop},
				expr.CtStateBitESTABLISHED: {Kind: expr.VerdictAccept},
				expr.CtStateBitNEW:         {Kind: expr.VerdictJump, Chain: "forward-allow"},
			}))
		}, "a connection from a container to the outside (IPv4) is dropped by the chain's policy", "networking.firewall.extraForwardRules"},
		{"nixos, remedied", nftables.TableFamilyINet, "nixos-fw", func(o *otherFilter) {
			o.rule(o.chain("forward-allow"), from(ours), accept())
			o.rule(o.forward("forward", block), o.stateMap("states", map[uint32]*expr.Verdict{
				expr.CtStateBitESTABLISHED: {Kind: expr.VerdictAccept},
				expr.CtStateBitNEW:         {Kind: expr.VerdictJump, Chain: "forward-allow"},
			}))
		}, "", ""},
		{"docker with the remedy for no forwarded port", nftables.TableFamilyIPv4, "filter", func(o *otherFilter) { docker(o, true) },
			"from outside to the forwarded port 8080/tcp (IPv4) is dropped", "-o " + ours + " -j ACCEPT"},
		{"docker with the remedy for a forwarded one", nftables.TableFamilyIPv6, "filter", func(o *otherFilter) {
			o.rule(o.chain("DOCKER-USER"), from(ours), accept())
			o.rule(o.chain("DOCKER-USER"), to(ours), accept())
			o.rule(o.forward("FORWARD", block), jump("DOCKER-USER"))
		}, "", ""},
		{"firewalld with a forwarded port", nftables.TableFamilyINet, "firewalld", func(o *otherFilter) {
			forward := o.forward("filter_FORWARD", block)
			o.rule(forward, established(), accept())
			o.rule(forward, connection(expr.CtKeySTATUS, statusTargetNAT, expr.CmpOpNeq), accept())
			o.rule(forward, from(ours), accept())
		}, "", ""},
		{"nixos with a forwarded port", nftables.TableFamilyINet, "nixos-fw", func(o *otherFilter) {
			forward := o.forward("forward", block)
			o.rule(forward, established(), accept())
			o.rule(forward, from(ours), accept())
		}, "to the forwarded port", `oifname "` + ours + `" accept`},
		{"a rule for private addresses", nftables.TableFamilyINet, "mine", func(o *otherFilter) {
			o.rule(o.forward("guard", pass), addressIn(netip.MustParsePrefix("10.0.0.0/8"), ipv4Source, ipv6Source), drop())
		}, "is dropped by rule 1 of chain guard", `nft insert rule inet mine guard iifname "` + ours + `" accept`},
		{"a rule for all bridges of devhost", nftables.TableFamilyINet, "mine", func(o *otherFilter) {
			o.rule(o.forward("guard", pass), fromPrefix("dh-"), drop())
		}, "is dropped by rule 1", "nft insert rule"},
		{"xtables' REJECT", nftables.TableFamilyIPv4, "filter", func(o *otherFilter) {
			o.rule(o.forward("FORWARD", pass), xtConntrack(uint16(expr.CtStateBitNEW)), []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 3}})
		}, "is rejected by rule 1", "iptables -I FORWARD"},
		{"rules for others", nftables.TableFamilyINet, "mine", func(o *otherFilter) {
			guard := o.forward("guard", pass)
			o.rule(guard, from("docker0"), drop())
			o.rule(guard, to("docker0"), drop())
			o.rule(guard, addressIn(netip.MustParsePrefix("172.17.0.0/16"), ipv4Source, ipv6Source), drop())
			o.rule(guard, transport(unix.IPPROTO_TCP), payload(expr.PayloadBaseTransportHeader, 2, 2, register), equal(binary.BigEndian.AppendUint16(nil, 25)), drop())
			o.rule(guard, []expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: 1, Unit: expr.LimitTimeSecond}}, drop())
		}, "", ""},
		{"a chain at another hook", nftables.TableFamilyINet, "mine", func(o *otherFilter) {
			o.conn.AddChain(&nftables.Chain{Table: o.table, Name: "in", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter, Policy: &block})
		}, "", ""},
	}
	l := newLab(t)
	l.ensure()
	for _, c := range cases {
		l.run(c.name, func(t *testing.T) {
			table := &nftables.Table{Family: c.family, Name: c.table}
			l.do(func() error {
				other := &otherFilter{conn: &nftables.Conn{}, table: table}
				other.conn.AddTable(table)
				c.build(other)
				return other.conn.Flush()
			})
			defer l.do(func() error {
				conn := &nftables.Conn{}
				conn.DelTable(table)
				return conn.Flush()
			})
			var findings []Finding
			l.do(func() error {
				var err error
				findings, err = ForeignForwardDrops(l.config, c.forwards())
				return err
			})
			if c.what == "" {
				if len(findings) != 0 {
					t.Errorf("found %v", findings)
				}
				return
			}
			if len(findings) != 1 {
				t.Fatalf("found %v, want one", findings)
			}
			finding := findings[0]
			if !strings.Contains(finding.What, c.what) {
				t.Errorf("found %q, want %q", finding.What, c.what)
			}
			if !strings.Contains(finding.Remedy, c.remedy) {
				t.Errorf("remedy %q, want %q", finding.Remedy, c.remedy)
			}
			if finding.Table != c.table || finding.Family != familyName(c.family) || finding.Chain == "" {
				t.Errorf("found %+v", finding)
			}
		})
	}
}

func TestLegacyFilters(t *testing.T) {
	cases := []struct {
		names string
		want  bool
	}{{"", false}, {"nat\n", false}, {"nat\nfilter\n", true}, {"filter\n", true}, {"filters\n", false}}
	for _, c := range cases {
		t.Run(c.names, func(t *testing.T) {
			findings := legacyFindings(c.names, "ip", "iptables-legacy", "dh-1a2b3c4d", false)
			if (len(findings) == 1) != c.want {
				t.Fatalf("found %v", findings)
			}
			if c.want && !strings.Contains(findings[0].Remedy, "iptables-legacy -S FORWARD") {
				t.Errorf("remedy %q", findings[0].Remedy)
			}
		})
	}
}
