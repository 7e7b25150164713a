package network

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// sysctlRoot is where the kernel shows the network settings of the network
// namespace of the calling thread (Documentation/networking/ip-sysctl.rst).
const sysctlRoot = "/proc/sys/net"

// setSysctl writes a setting unless it has the value already.
func setSysctl(name, value string) error {
	path := filepath.Join(sysctlRoot, name)
	current, err := os.ReadFile(path)
	if err != nil {
		return explain("read", path, err)
	}
	if strings.TrimSpace(string(current)) == value {
		return nil
	}
	return explain("write "+value+" to", path, os.WriteFile(path, []byte(value), 0o644))
}

func sysctlIs(name, value string) bool {
	current, err := os.ReadFile(filepath.Join(sysctlRoot, name))
	return err == nil && strings.TrimSpace(string(current)) == value
}

// bridgeSysctls are the settings of the bridge.
func (h Host) bridgeSysctls() [][2]string {
	settings := [][2]string{
		{"ipv4/conf/" + h.Bridge + "/forwarding", "1"},
		{"ipv4/conf/" + h.Bridge + "/accept_redirects", "0"},
		{"ipv4/conf/" + h.Bridge + "/send_redirects", "0"},
	}
	if !h.IPv6.IsValid() {
		return settings
	}
	// Not forwarding: for IPv6, only the setting for all interfaces counts, and
	// writing that of one makes the kernel forget routes of the others.
	ipv6 := "ipv6/conf/" + h.Bridge
	return append(settings, [][2]string{
		// The host may have IPv6 off by default for new interfaces.
		{ipv6 + "/disable_ipv6", "0"},
		{ipv6 + "/accept_ra", "0"},
		{ipv6 + "/autoconf", "0"},
		{ipv6 + "/accept_redirects", "0"},
		// Duplicate address detection would keep the gateway address from
		// being used for a second or two; nobody else can have it.
		{ipv6 + "/accept_dad", "0"},
		{ipv6 + "/dad_transmits", "0"},
	}...)
}

// sysctlsCurrent says whether nothing of what follows is left to do.
func (h Host) sysctlsCurrent() bool {
	for _, setting := range h.bridgeSysctls() {
		if !sysctlIs(setting[0], setting[1]) {
			return false
		}
	}
	return sysctlIs("ipv4/ip_forward", "1") && (!h.IPv6.IsValid() || sysctlIs("ipv6/conf/all/forwarding", "1"))
}

func (h Host) setBridgeSysctls() error {
	for _, setting := range h.bridgeSysctls() {
		if err := setSysctl(setting[0], setting[1]); err != nil {
			return err
		}
	}
	return nil
}

// enableForwarding turns on IP forwarding where it is off. The kernel ignores
// router advertisements on an interface that forwards, and drops the routes
// that it learned from them, unless accept_ra is 2: so 1 becomes 2 first.
// Forwarding stays on when the network is removed: by then, others may rely on
// it, and which value was there first says nothing about that.
func (h Host) enableForwarding() error {
	if err := setSysctl("ipv4/ip_forward", "1"); err != nil {
		return err
	}
	if !h.IPv6.IsValid() || sysctlIs("ipv6/conf/all/forwarding", "1") {
		return nil
	}
	interfaces, err := os.ReadDir(filepath.Join(sysctlRoot, "ipv6/conf"))
	if err != nil {
		return explain("list", "the interfaces with IPv6", err)
	}
	for _, entry := range interfaces {
		// "all" has no effect; "default" is for interfaces to come, which would
		// learn no route.
		if entry.Name() == "all" {
			continue
		}
		setting := filepath.Join("ipv6/conf", entry.Name(), "accept_ra")
		if !sysctlIs(setting, "1") {
			continue
		}
		// An interface that is gone by now needs nothing.
		if err := setSysctl(setting, "2"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return setSysctl("ipv6/conf/all/forwarding", "1")
}
