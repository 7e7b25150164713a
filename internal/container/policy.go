package container

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"devhost/internal/engine"
	"devhost/internal/registry"
	"devhost/internal/settings"
	"devhost/internal/sshaccess"
)

// Refused says that the host's settings do not allow what was asked for.
type Refused struct{ What, Remedy string }

func (r *Refused) Error() string {
	return fmt.Sprintf("the settings of this host do not allow it: %s; %s", r.What, r.Remedy)
}

// limitFlags are the options for the limits, by their key in the settings.
var limitFlags = map[string]string{"memory": "--memory", "cpus": "--cpus", "tasks": "--tasks", "ioWeight": "--io-weight", "disk": "--disk-size"}

// checkSettings refuses what the host's settings do not allow. The error is
// *Refused.
func (m *Manager) checkSettings(request EnsureRequest) error {
	if request.Nesting != nil && *request.Nesting && !m.Settings.AllowNesting {
		return &Refused{What: "nesting is switched off (allowNesting)", Remedy: "leave --nesting away"}
	}
	asked := settings.DeclaredLimits{
		Memory: (*settings.Bytes)(request.MemoryBytes), CPUs: request.CPUs, Tasks: request.Tasks,
		IOWeight: request.IOWeight, Disk: (*settings.Bytes)(request.DiskBytes),
	}
	exceeded := asked.Exceeding(m.Settings.Maximum)
	if len(exceeded) == 0 {
		return nil
	}
	over := exceeded[0]
	flag := limitFlags[over.Key]
	return &Refused{
		What:   fmt.Sprintf("%s asks for %s, and no container may have more than %s", flag, over.Value, over.Most),
		Remedy: fmt.Sprintf("give at most %s %s", flag, over.Most),
	}
}

// channelAllowed refuses a channel that is about to be resolved. The error is
// *Refused.
func (m *Manager) channelAllowed(reference string) error {
	if m.Settings.ChannelAllowed(reference) {
		return nil
	}
	return &Refused{
		What:   fmt.Sprintf("channel %s is none of those that are allowed", reference),
		Remedy: fmt.Sprintf("take one that matches (* stands for anything) %s", strings.Join(m.Settings.AllowedChannels, " or ")),
	}
}

// keepToSettings brings a record down to what the host's settings allow, and
// says what it took away.
func (m *Manager) keepToSettings(record *registry.Container) (warnings []string) {
	limits := settingsOf(record.Limits)
	allowed := settings.Clamped(limits, m.Settings.Maximum)
	for _, over := range settings.Exceeded(limits, m.Settings.Maximum) {
		warnings = append(warnings, fmt.Sprintf("container %s had a limit of %s for %s; it gets %s, the most that this host's settings allow now", record.Name, over.Value, strings.TrimPrefix(limitFlags[over.Key], "--"), over.Most))
	}
	record.Limits = limitsOf(allowed)
	if record.Nesting && !m.Settings.AllowNesting {
		record.Nesting = false
		warnings = append(warnings, fmt.Sprintf("container %s had nesting, which this host's settings do not allow any more", record.Name))
	}
	var kept []registry.ForwardPort
	for _, port := range record.ForwardPorts {
		if reason := m.Settings.PortRefusal(port.Protocol, port.HostPort); reason != "" {
			warnings = append(warnings, fmt.Sprintf("container %s had port %s of the host, and loses it: %s", record.Name, port.Host(), reason))
		} else {
			kept = append(kept, port)
		}
	}
	record.ForwardPorts = kept
	return warnings
}

// applySettingsNow is keepToSettings for a registered container that is
// started, or runs already.
func (m *Manager) applySettingsNow(ctx context.Context, record *registry.Container) error {
	before := *record
	warnings := m.keepToSettings(record)
	samePorts := slices.Equal(before.ForwardPorts, record.ForwardPorts)
	if before.Limits == record.Limits && before.Nesting == record.Nesting && samePorts {
		return nil
	}
	for _, warning := range warnings {
		m.Reporter.Warn(warning)
	}
	if state, err := m.Engine.State(record.Name); err == nil && state.Status == engine.Running {
		if err := m.changeLimits(ctx, record.Name, before.Limits, record.Limits); err != nil {
			return err
		}
	}
	if err := m.Registry.Save(record); err != nil || samePorts {
		return err
	}
	return m.publish(ctx)
}

func settingsOf(limits registry.Limits) settings.Limits {
	return settings.Limits{
		Memory: settings.Bytes(limits.MemoryBytes), CPUs: limits.CPUs, Tasks: limits.Tasks,
		IOWeight: limits.IOWeight, Disk: settings.Bytes(limits.DiskBytes),
	}
}

func limitsOf(limits settings.Limits) registry.Limits {
	return registry.Limits{
		MemoryBytes: int64(limits.Memory), CPUs: limits.CPUs, Tasks: limits.Tasks,
		IOWeight: limits.IOWeight, DiskBytes: int64(limits.Disk),
	}
}

// loginKeys are the public keys that may log in to a container as its human
// user, besides the container's own.
func loginKeys(record *registry.Container, host settings.Settings) []string {
	keys := record.MemberKeys()
	for _, key := range host.AuthorizedKeys {
		// What is no key was refused with the settings.
		if line, err := sshaccess.ParseKey(key); err == nil {
			keys = append(keys, line)
		}
	}
	if record.Dialect != "" && host.Batou.Enable {
		keys = append(keys, BatouKey)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// authorize writes who may log in. sshd reads it at every login.
func authorize(records *registry.Registry, host settings.Settings, record *registry.Container) error {
	files := sshaccess.Files{Host: records.SSH(record.Name), Guest: records.Guest(record.Name)}
	return files.Authorize([]string{serviceUser}, loginKeys(record, host))
}

// RefreshKeys brings the keys that the host's settings allow into a container.
// Settings that cannot be used change nothing.
func RefreshKeys(records *registry.Registry, name string) error {
	host, err := settings.Load(records.Settings())
	if err != nil {
		// Commands that make or start something say it.
		return nil
	}
	record, err := records.Load(name)
	if err != nil {
		return err
	}
	return authorize(records, host, record)
}
