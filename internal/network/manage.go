package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Network changes the network of one Host. All its methods can be called again
// at any time, by several processes at once.
type Network struct {
	host Host
	lock string
}

// New returns the network of a recorded Host. Changes are serialized by a lock
// on the file lockPath, which is made if needed; it must be a file of its own,
// not one that the caller holds locked.
func New(host Host, lockPath string) (*Network, error) {
	if err := host.validate(); err != nil {
		return nil, err
	}
	// A host that was booted without IPv6 since still runs its containers.
	if !kernelHasIPv6() {
		host.IPv6 = netip.Prefix{}
	}
	return &Network{host: host, lock: lockPath}, nil
}

// locked runs do under the lock.
func (n *Network) locked(ctx context.Context, do func() error) error {
	const poll = 5 * time.Millisecond
	if err := os.MkdirAll(filepath.Dir(n.lock), 0o700); err != nil {
		return explain("make", filepath.Dir(n.lock), err)
	}
	lock := flock.New(n.lock, flock.SetPermissions(0o600))
	if _, err := lock.TryLockContext(ctx, poll); err != nil {
		return explain("lock", n.lock, err)
	}
	defer func() { _ = lock.Unlock() }()
	return do()
}

// Ensure makes the network what it shall be: packet filter, bridge, IP
// forwarding. When nothing is missing, nothing is written and no lock is taken;
// that takes a millisecond or two. Rules that are wrong are replaced in one
// transaction, and containers that run keep theirs. The error is *Error or
// *Overlap.
func (n *Network) Ensure(ctx context.Context) error {
	// An error here may be due to a change that is under way in another
	// process; if not, it comes again below.
	if current, err := n.Current(); err == nil && current {
		return nil
	}
	return n.locked(ctx, func() error {
		filter, err := openFirewall(n.host)
		if err != nil {
			return err
		}
		defer filter.close()
		// The filter comes first: nothing passes the bridge without it.
		current, err := filter.current()
		if err != nil {
			return err
		}
		if !current {
			if err := filter.rebuild(); err != nil {
				return err
			}
		}
		if err := n.host.ensureBridge(); err != nil {
			return err
		}
		return n.host.enableForwarding()
	})
}

// Current says whether Ensure has nothing to do: bridge, packet filter and the
// kernel's settings are as they shall be. It takes a millisecond or two.
func (n *Network) Current() (bool, error) {
	// The cheaper half is first.
	if current, err := n.host.bridgeCurrent(); err != nil || !current {
		return false, err
	}
	filter, err := openFirewall(n.host)
	if err != nil {
		return false, err
	}
	defer filter.close()
	return filter.current()
}

// Remove deletes the bridge, cables that are left over, and the nftables
// tables; it is no error when there are none. IP forwarding stays on.
func (n *Network) Remove(ctx context.Context) error {
	return n.locked(ctx, func() error {
		if err := n.host.removeLinks(); err != nil {
			return err
		}
		filter, err := openFirewall(n.host)
		if err != nil {
			return err
		}
		defer filter.close()
		return filter.destroy()
	})
}

// CableMissing says that the interface of a container did not appear.
type CableMissing struct {
	Interface string
	Err       error
}

func (c *CableMissing) Error() string {
	return fmt.Sprintf("the container's network interface %s did not appear on the host: %v; systemd-nspawn makes it when it starts, so look into the container's log", c.Interface, c.Err)
}

func (c *CableMissing) Unwrap() error { return c.Err }

// Attach lets a container send and receive: it admits its addresses to the
// packet filter, waits until the host's end of its cable is there, and connects
// that to the bridge. It waits as long as ctx allows; then, the error is
// *CableMissing. Ensure must have been called before.
func (n *Network) Attach(ctx context.Context, addresses Addresses) error {
	addresses, err := n.known(addresses)
	if err != nil {
		return err
	}
	if err := n.locked(ctx, func() error { return n.admit(addresses) }); err != nil {
		return err
	}
	link, err := waitForLink(ctx, addresses.HostInterface)
	if err != nil {
		return &CableMissing{Interface: addresses.HostInterface, Err: err}
	}
	// The interface may have been connected by SetPolicy meanwhile.
	return n.locked(ctx, func() error { return n.connect(link, addresses) })
}

// Detach takes back what Attach did; it is no error when there is nothing. The
// container's membership in a group (SetPolicy) is not changed.
func (n *Network) Detach(ctx context.Context, addresses Addresses) error {
	addresses, err := n.known(addresses)
	if err != nil {
		return err
	}
	return n.locked(ctx, func() error {
		// First the cable: without it, there is nothing to filter.
		link, err := netlink.LinkByName(addresses.HostInterface)
		if err == nil {
			err = netlink.LinkDel(link)
		}
		if err != nil && !isGone(err) {
			return explain("remove", "interface "+addresses.HostInterface, err)
		}
		if err := n.forget(addresses); err != nil {
			return err
		}
		filter, err := openFirewall(n.host)
		if err != nil {
			return err
		}
		defer filter.close()
		if exists, err := filter.exists(filter.bridged); err != nil || !exists {
			return err
		}
		return filter.admit(addresses, false)
	})
}

// known checks addresses from a state file.
func (n *Network) known(addresses Addresses) (Addresses, error) {
	if !n.host.IPv6.IsValid() {
		addresses.IPv6 = netip.Addr{}
	}
	return addresses, addresses.validate(n.host)
}

// admit adds a container to the packet filter.
func (n *Network) admit(addresses Addresses) error {
	filter, err := openFirewall(n.host)
	if err != nil {
		return err
	}
	defer filter.close()
	return filter.admit(addresses, true)
}

// admit makes addresses, if wanted, the only ones of their interface, and the
// interface the only one with these addresses: what a killed process left does
// not matter.
func (f *firewall) admit(addresses Addresses, wanted bool) error {
	for _, family := range []struct {
		set     string
		address netip.Addr
	}{{setGuest4, addresses.IPv4}, {setGuest6, addresses.IPv6}} {
		set := f.bridged.find(family.set)
		elements, err := f.elements(set)
		if err != nil {
			return err
		}
		others := slices.DeleteFunc(elements, func(element nftables.SetElement) bool {
			hostInterface, address, ok := guestOf(element.Key)
			return ok && (hostInterface == addresses.HostInterface || address == family.address)
		})
		if wanted && family.address.IsValid() {
			others = append(others, nftables.SetElement{Key: guestKey(addresses.HostInterface, addresses.hardware(), family.address)})
		}
		if _, err := f.become(set, others); err != nil {
			return err
		}
	}
	return f.flush()
}

// connect makes the host's end of the cable a port of the bridge.
func (n *Network) connect(link netlink.Link, addresses Addresses) error {
	port := "interface " + link.Attrs().Name
	bridge, err := netlink.LinkByName(n.host.Bridge)
	if err != nil {
		return explain("find", "bridge "+n.host.Bridge, err)
	}
	if err := n.pin(bridge, addresses); err != nil {
		return err
	}
	isolated, err := isIsolated(link)
	if err != nil {
		return err
	}
	if link.Attrs().MasterIndex == bridge.Attrs().Index && isolated && link.Attrs().Flags&unix.IFF_UP != 0 {
		return nil
	}
	// Down until it is isolated: before that, a port reaches the others.
	if err := netlink.LinkSetDown(link); err != nil {
		return explain("take down", port, err)
	}
	if n.host.IPv6.IsValid() {
		// The port itself has no address and says nothing.
		if err := setSysctl("ipv6/conf/"+link.Attrs().Name+"/disable_ipv6", "1"); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetMaster(link, bridge); err != nil {
		return explain("connect", port+" to bridge "+n.host.Bridge, err)
	}
	if err := netlink.LinkSetIsolated(link, true); err != nil {
		return explain("isolate", port, err)
	}
	return explain("bring up", port, netlink.LinkSetUp(link))
}

func isIsolated(link netlink.Link) (bool, error) {
	if link.Attrs().MasterIndex == 0 {
		return false, nil
	}
	information, err := netlink.LinkGetProtinfo(link)
	if err != nil {
		return false, explain("look at", "interface "+link.Attrs().Name, err)
	}
	return information.Isolated, nil
}

// pin writes the container's MAC address into the host's neighbour table. The
// host need not ask then, which a container that is starting would not answer
// for up to a second, and nobody else can answer.
func (n *Network) pin(bridge netlink.Link, addresses Addresses) error {
	for _, address := range addresses.all() {
		if err := netlink.NeighSet(neighbour(bridge, address, addresses)); err != nil {
			return explain("add "+address.String()+" to the neighbours of", "bridge "+n.host.Bridge, err)
		}
	}
	return nil
}

func neighbour(bridge netlink.Link, address netip.Addr, addresses Addresses) *netlink.Neigh {
	family := netlink.FAMILY_V4
	if address.Is6() {
		family = netlink.FAMILY_V6
	}
	return &netlink.Neigh{
		LinkIndex: bridge.Attrs().Index, Family: family, State: netlink.NUD_PERMANENT,
		IP: address.AsSlice(), HardwareAddr: addresses.hardware(),
	}
}

// forget takes back what pin did.
func (n *Network) forget(addresses Addresses) error {
	bridge, err := netlink.LinkByName(n.host.Bridge)
	if isGone(err) {
		return nil
	}
	if err != nil {
		return explain("find", "bridge "+n.host.Bridge, err)
	}
	for _, address := range addresses.all() {
		if err := netlink.NeighDel(neighbour(bridge, address, addresses)); err != nil && !errors.Is(err, unix.ENOENT) {
			return explain("remove "+address.String()+" from the neighbours of", "bridge "+n.host.Bridge, err)
		}
	}
	return nil
}

func isGone(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound) || errors.Is(err, unix.ENODEV)
}

// waitForLink returns the interface as soon as there is one of that name.
func waitForLink(ctx context.Context, name string) (netlink.Link, error) {
	for {
		link, err := waitOnce(ctx, name)
		if !errors.Is(err, errMissedNews) {
			return link, err
		}
	}
}

// errMissedNews: the kernel had more news about interfaces than fit.
var errMissedNews = errors.New("news about interfaces were lost")

func waitOnce(ctx context.Context, name string) (netlink.Link, error) {
	news := make(chan netlink.LinkUpdate)
	done := make(chan struct{})
	if err := netlink.LinkSubscribe(news, done); err != nil {
		return nil, explain("watch", "the interfaces of this host", err)
	}
	defer func() {
		close(done)
		// The sender must not block on a channel that nobody reads.
		go func() {
			for range news {
			}
		}()
	}()
	for {
		// Looking after subscribing: whatever comes from now on is news.
		link, err := netlink.LinkByName(name)
		if err == nil || !isGone(err) {
			return link, err
		}
		for named := false; !named; {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case update, open := <-news:
				if !open {
					return nil, errMissedNews
				}
				named = update.Attrs().Name == name
			}
		}
	}
}

// Policy is what holds for the containers of a state folder beside what always
// holds.
type Policy struct {
	// Groups are the containers that reach each other: those in one group, and
	// no others. The keys name the groups (owner and environment, say) and only
	// have to be stable. A container may be in one group only.
	Groups map[string][]Addresses
	// Forwards are the open ports. Of two with one port of the host, the first
	// one holds.
	Forwards []Forward
	// Containers are all that there are. Those whose cable is there are
	// admitted and connected, if they are not: somebody else may have removed
	// the bridge or the packet filter.
	Containers []Addresses
}

// SetPolicy makes the packet filter hold what wanted returns, instead of what
// was set before. wanted is called while the network's lock is held, so that of
// two calls at once, the one that sets last has also looked last; it must not
// call this Network. An error of it changes nothing and is returned.
//
// SetPolicy must be called when a container is added or removed: addresses are
// used again. Connections that are no longer allowed stop at once.
func (n *Network) SetPolicy(ctx context.Context, wanted func() (Policy, error)) error {
	return n.locked(ctx, func() error {
		policy, err := wanted()
		if err != nil {
			return err
		}
		members, err := n.number(policy.Groups)
		if err != nil {
			return err
		}
		ports, err := n.forwards(policy.Forwards)
		if err != nil {
			return err
		}
		filter, err := openFirewall(n.host)
		if err != nil {
			return err
		}
		defer filter.close()
		changed := false
		for set, elements := range map[string][]nftables.SetElement{
			mapGroup4: members.group4, setMember4: members.member4, mapForward4: ports.forward4, setOpen4: ports.open4,
			mapGroup6: members.group6, setMember6: members.member6, mapForward6: ports.forward6, setOpen6: ports.open6,
		} {
			change, err := filter.become(filter.routed.find(set), elements)
			if err != nil {
				return err
			}
			changed = changed || change
		}
		if changed {
			if err := filter.flush(); err != nil {
				return err
			}
		}
		return n.reconnect(filter, policy.Containers)
	})
}

// reconnect admits and connects those of the containers whose cable is there.
// The network's lock is held.
func (n *Network) reconnect(filter *firewall, containers []Addresses) error {
	links, err := retryDump(netlink.LinkList)
	if err != nil {
		return explain("list", "the interfaces of this host", err)
	}
	there := make(map[string]netlink.Link, len(links))
	for _, link := range links {
		there[link.Attrs().Name] = link
	}
	bridge := there[n.host.Bridge]
	if bridge == nil {
		return explain("find", "bridge "+n.host.Bridge, unix.ENODEV)
	}
	admitted, err := filter.admitted()
	if err != nil {
		return err
	}
	for _, addresses := range containers {
		link := there[addresses.HostInterface]
		if link == nil {
			continue
		}
		if addresses, err = n.known(addresses); err != nil {
			return err
		}
		for _, address := range addresses.all() {
			if !admitted[string(guestKey(addresses.HostInterface, addresses.hardware(), address))] {
				if err := filter.admit(addresses, true); err != nil {
					return err
				}
			}
		}
		// A port of the bridge that is up is isolated, see connect.
		if link.Attrs().MasterIndex == bridge.Attrs().Index && link.Attrs().Flags&unix.IFF_UP != 0 {
			continue
		}
		// One that ends at this moment needs nothing.
		if err := n.connect(link, addresses); err != nil && !isGone(err) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// admitted are the keys of the packet filter's guests.
func (f *firewall) admitted() (map[string]bool, error) {
	keys := map[string]bool{}
	for _, set := range []string{setGuest4, setGuest6} {
		elements, err := f.elements(f.bridged.find(set))
		if err != nil {
			return nil, err
		}
		for _, element := range elements {
			keys[string(element.Key)] = true
		}
	}
	return keys, nil
}

type memberElements struct {
	group4, member4, group6, member6 []nftables.SetElement
}

// number gives each group of at least two a number, which depends on the
// group's key, so that changing one group leaves the elements of others alone.
func (n *Network) number(groups map[string][]Addresses) (memberElements, error) {
	var elements memberElements
	keys := make([]string, 0, len(groups))
	for key := range groups {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	numbers := map[uint32]bool{0: true} // 0 is no group
	groupOfAddress := map[netip.Addr]string{}
	for _, key := range keys {
		if len(groups[key]) < 2 {
			continue
		}
		number := groupNumber(key)
		for numbers[number] {
			number++
		}
		numbers[number] = true
		for _, addresses := range groups[key] {
			addresses, err := n.known(addresses)
			if err != nil {
				return elements, err
			}
			for _, address := range addresses.all() {
				if other, twice := groupOfAddress[address]; twice {
					return elements, fmt.Errorf("address %s is in the groups %q and %q; a container can be in one only", address, other, key)
				}
				groupOfAddress[address] = key
			}
			elements.group4 = append(elements.group4, nftables.SetElement{Key: addresses.IPv4.AsSlice(), Val: nativeEndian(number)})
			elements.member4 = append(elements.member4, nftables.SetElement{Key: memberKey(addresses.IPv4, number)})
			if addresses.IPv6.IsValid() {
				elements.group6 = append(elements.group6, nftables.SetElement{Key: addresses.IPv6.AsSlice(), Val: nativeEndian(number)})
				elements.member6 = append(elements.member6, nftables.SetElement{Key: memberKey(addresses.IPv6, number)})
			}
		}
	}
	return elements, nil
}
