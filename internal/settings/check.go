package settings

import (
	"cmp"
	"fmt"
	"net/netip"
	"net/url"
	"os/user"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/docker/go-units"

	"devhost/internal/names"
	"devhost/internal/sshaccess"
)

// The least that a container can work with.
const (
	LeastMemory = 64 << 20
	LeastCPUs   = 0.01
	MostCPUs    = 4096
	LeastTasks  = 64
	LeastDisk   = 64 << 20
	MostIO      = 10000
)

// checker holds the values of a file against each other and the host.
type checker struct{ *decoder }

// at reports a problem of a key: where it stands, or, where the file does not
// have it, where the nearest outer one does.
func (c checker) at(path, reason string, values ...any) {
	offset, found := c.offsets[path]
	for outer := path; !found && outer != ""; {
		outer = outer[:max(strings.LastIndexAny(outer, ".["), 0)]
		offset, found = c.offsets[outer]
	}
	c.report(offset, path, fmt.Sprintf(reason, values...))
}

// doubt is at for what does not keep the file from being used.
func (c checker) doubt(path, reason string, values ...any) {
	c.at(path, reason, values...)
	last := &c.problems[len(c.problems)-1]
	last.Warning, last.Example = true, ""
}

// each calls a function with the path of each element of a list.
func each(path string, list []string, action func(path, value string)) {
	for i, value := range list {
		action(fmt.Sprintf("%s[%d]", path, i), value)
	}
}

func check(settings Settings, d *decoder) {
	// What could not be read has been reported.
	c := checker{d}
	c.domains(settings)
	c.groups("allowedGroups", settings.AllowedGroups)
	c.groups("adminGroups", settings.AdminGroups)
	each("allowedChannels", settings.AllowedChannels, c.channel)
	each("allowedURIs", settings.AllowedURIs, c.uri)
	each("authorizedKeys", settings.AuthorizedKeys, func(path, key string) {
		if _, err := sshaccess.ParseKey(key); err != nil {
			c.at(path, "it is no public key as ssh-keygen writes it: TYPE KEY COMMENT")
		}
	})
	c.limits("defaults", settings.Defaults)
	c.limits("maximum", settings.Maximum)
	c.defaultsFit(settings)
	if settings.DefaultNesting && !settings.AllowNesting {
		c.doubt("defaultNesting", "it has no effect, because allowNesting is false")
	}
	c.network(settings.Network)
	c.expiry(settings.Expiry)
	c.ingress(settings.Ingress)
	c.certificates(settings)
}

func (c checker) domains(settings Settings) {
	if settings.PublicAddress != "" {
		c.domain("publicAddress", settings.PublicAddress)
	}
	seen := map[string]bool{settings.PublicAddress: true}
	each("domains", settings.Domains, func(path, domain string) {
		c.domain(path, domain)
		if seen[domain] {
			c.doubt(path, "%s is there twice", domain)
		}
		seen[domain] = true
	})
}

func (c checker) domain(path, domain string) {
	if err := names.Domain(domain); err != nil {
		c.at(path, "%v", err)
	}
}

func (c checker) groups(path string, groups []string) {
	each(path, groups, func(path, group string) {
		if group == "" || len(group) > 256 || strings.ContainsAny(group, ":,/") || strings.ContainsFunc(group, unicode.IsControl) {
			c.at(path, "%q is no name of a group", group)
			return
		}
		// Which of sudo and wheel there is depends on the distribution.
		usual := strings.HasPrefix(path, "adminGroups") && slices.Contains(Default().AdminGroups, group)
		if _, err := user.LookupGroup(group); err != nil && !usual {
			c.doubt(path, "there is no group %s on this host; make it with: groupadd --system %[1]s", group)
			c.problems[len(c.problems)-1].OfHost = true
		}
	})
}

// schemeAndHost is the part of a reference that says whom to ask.
var schemeAndHost = regexp.MustCompile(`^[a-z0-9+.-]+://([^/]*)(/?)`)

func (c checker) channel(path, pattern string) {
	if pattern == "" || strings.ContainsFunc(pattern, func(letter rune) bool { return unicode.IsSpace(letter) || unicode.IsControl(letter) }) {
		c.at(path, "%q is no pattern of channels: it is empty, or has blanks in it", pattern)
		return
	}
	found := schemeAndHost.FindStringSubmatch(pattern)
	if found != nil && (strings.Contains(found[1], "*") || (found[2] == "" && strings.HasSuffix(pattern, "*"))) {
		c.at(path, "the * in %q can stand for a part of the host's name, and so for anybody's host; end the host's name with a / before the first *", pattern)
	}
}

func (c checker) uri(path, text string) {
	parsed, err := url.Parse(text)
	switch {
	case err != nil || parsed.Scheme == "" || strings.ContainsFunc(text, unicode.IsSpace):
		c.at(path, "%q is no URI: it needs a scheme, and no blanks", text)
	case parsed.Scheme == "file" || parsed.Scheme == "path" || strings.HasSuffix(parsed.Scheme, "+file"):
		c.at(path, "%q would let evaluations read files of this host", text)
	}
}

func (c checker) limits(path string, limits Limits) {
	if limits.Memory > 0 && limits.Memory < LeastMemory {
		c.at(path+".memory", "it is less than 64M, with which no container starts; 0 is for no limit")
	}
	if limits.CPUs != 0 && (limits.CPUs < LeastCPUs || limits.CPUs > MostCPUs) {
		c.at(path+".cpus", "%v is not from %v to %v; 0 is for no limit", limits.CPUs, LeastCPUs, MostCPUs)
	}
	if limits.Tasks != 0 && limits.Tasks < LeastTasks {
		c.at(path+".tasks", "%d is less than %d, with which no container starts; 0 is for no limit", limits.Tasks, LeastTasks)
	}
	if limits.IOWeight < 0 || limits.IOWeight > MostIO {
		c.at(path+".ioWeight", "%d is not from 1 to %d; 0 is for the usual one", limits.IOWeight, MostIO)
	}
	if limits.Disk > 0 && limits.Disk < LeastDisk {
		c.at(path+".disk", "it is less than 64M, with which no container starts; 0 is for no limit")
	}
}

func (c checker) defaultsFit(settings Settings) {
	for _, over := range Exceeded(settings.Defaults, settings.Maximum) {
		c.at("defaults."+over.Key, "%s is more than maximum.%s, which is %s", over.Value, over.Key, over.Most)
	}
}

// Excess is a limit that is over its maximum, or none where there is a
// maximum.
type Excess struct {
	// Key is that of the limit in the settings.
	Key string
	// Value and Most are the limit and the maximum, as people write them.
	Value, Most string
}

// Exceeded says which limits are over the maximum. No limit (zero) is not
// among them.
func Exceeded(limits, maximum Limits) []Excess {
	var over []Excess
	compare := func(key string, more bool, value, most string) {
		if more {
			over = append(over, Excess{Key: key, Value: value, Most: most})
		}
	}
	size := func(bytes Bytes) string { return units.BytesSize(float64(bytes)) }
	compare("memory", maximum.Memory > 0 && limits.Memory > maximum.Memory, size(limits.Memory), size(maximum.Memory))
	compare("cpus", maximum.CPUs > 0 && limits.CPUs > maximum.CPUs, fmt.Sprint(limits.CPUs), fmt.Sprint(maximum.CPUs))
	compare("tasks", maximum.Tasks > 0 && limits.Tasks > maximum.Tasks, fmt.Sprint(limits.Tasks), fmt.Sprint(maximum.Tasks))
	compare("ioWeight", maximum.IOWeight > 0 && limits.IOWeight > maximum.IOWeight, fmt.Sprint(limits.IOWeight), fmt.Sprint(maximum.IOWeight))
	compare("disk", maximum.Disk > 0 && limits.Disk > maximum.Disk, size(limits.Disk), size(maximum.Disk))
	return over
}

// usualIO is the weight of who has none, see systemd.resource-control(5).
const usualIO = 100

// Clamped are limits that keep to the maximum: none, too, becomes the maximum.
func Clamped(limits, maximum Limits) Limits {
	limits.Memory = clamped(limits.Memory, maximum.Memory)
	limits.CPUs = clamped(limits.CPUs, maximum.CPUs)
	limits.Tasks = clamped(limits.Tasks, maximum.Tasks)
	if maximum.IOWeight < usualIO || limits.IOWeight != 0 {
		limits.IOWeight = clamped(limits.IOWeight, maximum.IOWeight)
	}
	limits.Disk = clamped(limits.Disk, maximum.Disk)
	return limits
}

func clamped[T cmp.Ordered](value, maximum T) T {
	var none T
	if maximum != none && (value == none || value > maximum) {
		return maximum
	}
	return value
}

// The smallest pools that are of use.
const (
	smallestPool4 = 26
	smallestPool6 = 112
)

func (c checker) network(network Network) {
	if network.IPv4Pool != "" {
		if pool, ok := c.prefix("network.ipv4Pool", network.IPv4Pool, smallestPool4); ok {
			// RFC 6598: the address space that providers share.
			shared := netip.MustParsePrefix("100.64.0.0/10")
			isShared := shared.Contains(pool.Addr()) && pool.Bits() >= shared.Bits()
			switch address := pool.Addr(); {
			case !address.Is4():
				c.at("network.ipv4Pool", "%s is no prefix of IPv4", pool)
			case !address.IsPrivate() && !isShared:
				c.at("network.ipv4Pool", "%s is not private: its addresses belong to somebody on the Internet", pool)
			}
		}
	}
	if network.IPv6Pool != "" {
		if pool, ok := c.prefix("network.ipv6Pool", network.IPv6Pool, smallestPool6); ok {
			switch address := pool.Addr(); {
			case !address.Is6() || address.Is4In6():
				c.at("network.ipv6Pool", "%s is no prefix of IPv6", pool)
			case !address.IsGlobalUnicast():
				c.at("network.ipv6Pool", "%s holds no addresses for hosts", pool)
			case !address.IsPrivate() && !network.IPv6Routed:
				c.at("network.ipv6Pool", "%s is not private: set network.ipv6Routed if it is routed to this host, or take a prefix below fd00::/8", pool)
			}
		}
	} else if network.IPv6Routed {
		c.at("network.ipv6Routed", "network.ipv6Pool does not say which prefix is routed to this host")
	}
}

func (c checker) prefix(path, text string, smallest int) (netip.Prefix, bool) {
	prefix, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		c.at(path, "%q is no prefix: it must be ADDRESS/BITS", text)
	case prefix != prefix.Masked():
		c.at(path, "%s has bits behind its length; the prefix is %s", prefix, prefix.Masked())
	case prefix.Bits() > smallest:
		c.at(path, "%s is too small: give at least a /%d", prefix, smallest)
	default:
		return prefix, true
	}
	return prefix, false
}

func (c checker) expiry(expiry Expiry) {
	if !expiry.Enable {
		return
	}
	if expiry.StopAfter != 0 && expiry.WarnAfter >= expiry.StopAfter {
		c.at("expiry.stopAfter", "%s is not later than expiry.warnAfter, which is %s", expiry.StopAfter, expiry.WarnAfter)
	}
	if expiry.DeleteAfter != 0 && expiry.DeleteAfter <= max(expiry.StopAfter, expiry.WarnAfter) {
		c.at("expiry.deleteAfter", "%s is not later than expiry.warnAfter and expiry.stopAfter, which are %s and %s", expiry.DeleteAfter, expiry.WarnAfter, expiry.StopAfter)
	}
}

func (c checker) ingress(ingress Ingress) {
	for _, port := range []struct {
		path  string
		value uint16
	}{{"ingress.httpPort", ingress.HTTPPort}, {"ingress.httpsPort", ingress.HTTPSPort}} {
		if port.value == 0 {
			c.at(port.path, "0 is no port to listen on")
		}
	}
	if ingress.HTTPPort == ingress.HTTPSPort {
		c.at("ingress.httpsPort", "%d is ingress.httpPort too", ingress.HTTPSPort)
	}
}

func sortProblems(problems []Problem) {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// ChannelAllowed tells whether people may use a channel. The reference is as
// it is recorded: folders are absolute paths.
func (s Settings) ChannelAllowed(reference string) bool {
	return len(s.AllowedChannels) == 0 || slices.ContainsFunc(s.AllowedChannels, func(pattern string) bool {
		return matches(pattern, reference)
	})
}

// matches tells whether a text is as a pattern says, in which * stands for
// anything.
func matches(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == text
	}
	first, last := parts[0], parts[len(parts)-1]
	if len(text) < len(first)+len(last) || !strings.HasPrefix(text, first) || !strings.HasSuffix(text, last) {
		return false
	}
	middle := text[len(first) : len(text)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		_, behind, found := strings.Cut(middle, part)
		if !found {
			return false
		}
		middle = behind
	}
	return true
}
