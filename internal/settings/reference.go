package settings

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"
)

// key is what people are told about a key of the file.
type key struct {
	path, text string
	// example is a value in JSON, "" where the default is one.
	example string
}

// keys are all of them, in the order of the struct; a test holds them against
// it. docs/settings.md is made of them.
var keys = []key{
	{"version", "The version of the file; it must be there.", `1`},
	{"publicAddress", "The host's public name: containers are at `https://ALIAS.CONTAINER.NAME`. Without one it is `devhost.localhost`, for this machine alone.", `"dev.example.org"`},
	{"domains", "Further names below which containers are reached at the same time.", `["dev2.example.org"]`},
	{"allowedGroups", "Groups of the host whose members may use devhost through sudo, and with it every container.", `["devhost"]`},
	{"adminGroups", "Groups whose members are root on this host by sudo anyway. They may use devhost too, and its commands for admins.", `["sudo", "wheel"]`},
	{"allowedChannels", "Channels that containers may be made from, as `--channel` gives them (folders as absolute paths); `*` stands for anything. An empty list allows all. A channel that is recorded already can be used until it is resolved again.", `["https://hydra.example.org/*", "github:NixOS/nixpkgs/*"]`},
	{"allowedURIs", "What an evaluation may fetch: the beginnings of addresses, as `allowed-uris` in nix.conf(5).", `["https://github.com/"]`},
	{"authorizedKeys", "Public keys that may log in to every container as `developer`.", `["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl alice"]`},
	{"defaults", "Limits of a new container that asks for none.", ""},
	{"defaults.memory", "Memory, as a text with K, M, G or T; `\"0\"` for no limit.", `"4G"`},
	{"defaults.cpus", "Processor time in processors, such as 1.5; 0 for no limit.", `2`},
	{"defaults.tasks", "Processes and threads; 0 for no limit.", `4096`},
	{"defaults.ioWeight", "The share of the disks' time, 1 to 10000; 0 for the usual one, 100.", `100`},
	{"defaults.disk", "What the root folder may hold, where the file system has project quotas; `\"0\"` for no limit.", `"20G"`},
	{"maximum", "What no container may go beyond; 0 for nothing. Asking for more is refused, and a container that has more gets the maximum at its next `ensure` or start.", ""},
	{"maximum.memory", "As in `defaults`.", `"16G"`},
	{"maximum.cpus", "As in `defaults`.", `8`},
	{"maximum.tasks", "As in `defaults`.", `32768`},
	{"maximum.ioWeight", "As in `defaults`.", `1000`},
	{"maximum.disk", "As in `defaults`.", `"100G"`},
	{"allowNesting", "Whether people may ask for `--nesting`, which costs some isolation.", `true`},
	{"defaultNesting", "Whether a new container has nesting where `ensure` does not say (`--nesting=false` does).", `true`},
	{"network", "Where containers get their addresses. The network is chosen with the first container of the host, and kept while there is one.", ""},
	{"network.ipv4Pool", "A private prefix, at least a /26; `\"\"` for a free one.", `"10.42.0.0/16"`},
	{"network.ipv6Pool", "A prefix, at least a /112; `\"\"` for a private one.", `"fd00:42::/64"`},
	{"network.ipv6Routed", "The IPv6 prefix is routed to this host: no address translation for it.", `false`},
	{"network.nat", "Containers reach the outside by the host's address.", `true`},
	{"network.forwardPorts", "Ports of this host that may lead to containers (`--forward-port`): ports and ranges of them. An empty list allows none.", `["1024-32767", "8443"]`},
	{"network.restrictBuilders", "Nix' builders that have a network (fixed-output derivations) reach the outside only: no container, no service of this host but its resolver, no metadata service. Turn it off where builders need a proxy or a mirror on this host, or talk to themselves over localhost. A change holds after the next `ensure`, start or `devhost boot`.", `false`},
	{"expiry", "What becomes of containers that nobody deploys to. Times are texts such as `36h` or `7d`, and count from the last deployment.", ""},
	{"expiry.enable", "Whether anything is stopped or deleted at all.", `true`},
	{"expiry.warnAfter", "When people are told that it will be stopped.", `"5d"`},
	{"expiry.stopAfter", "When it is stopped; later than `warnAfter`; `\"0s\"` for never.", `"7d"`},
	{"expiry.deleteAfter", "When it is archived and deleted; later than `stopAfter`; `\"0s\"` for never.", `"30d"`},
	{"expiry.archiveFor", "How long the archive is kept, counted from the deletion; `\"0s\"` for good.", `"30d"`},
	{"batou", "The commands that existing batou projects use.", ""},
	{"batou.enable", "Whether `fc-build-dev-container` and `fc-devhost` make containers, and batou's published key may log in to those.", `true`},
	{"ingress", "What `devhost ingress` is started with.", ""},
	{"ingress.httpPort", "The port that redirects to https.", `80`},
	{"ingress.httpsPort", "The port of https.", `443`},
	{"ingress.tls", "Where its certificates come from: `\"internal\"` (its own certificate authority, which browsers must be told to trust), `\"acme\"` (an ACME server such as Let's Encrypt, one for each name that is used) or `\"files\"` (`certificates`). See [certificates](network.md#certificates).", `"internal"`},
	{"ingress.acme", "For `tls` `\"acme\"`. The server's terms of service are taken as agreed to.", ""},
	{"ingress.acme.email", "Mail address of the account; `\"\"` for none.", `"admin@example.org"`},
	{"ingress.acme.directory", "The server, by the URL of its directory; `\"\"` for Let's Encrypt.", `"https://acme-staging-v02.api.letsencrypt.org/directory"`},
	{"ingress.acme.caFile", "PEM file with the certificates that a server of one's own is trusted by, for `directory`; `\"\"` for those that the host trusts.", ""},
	{"ingress.certificates", "For `tls` `\"files\"`: PEM files, each `certificate` with its chain. They are read again when they change.", `[{"certificate": "/etc/devhost-tls/wildcard.crt", "key": "/etc/devhost-tls/wildcard.key"}]`},
}

var index = regexp.MustCompile(`\[\d+\]$`)

// example is a good value of a key, "" where there is none. That of an element
// is the first one of its list.
func example(path string) string {
	list := index.ReplaceAllString(path, "")
	for _, key := range keys {
		if key.path != list {
			continue
		}
		var elements []json.RawMessage
		if list != path && json.Unmarshal([]byte(key.example), &elements) == nil && len(elements) > 0 {
			return string(elements[0])
		}
		return key.example
	}
	return ""
}

// Reference is the documentation of all keys, in Markdown.
func Reference() string {
	var text strings.Builder
	text.WriteString("| key | default | meaning | example |\n|---|---|---|---|\n")
	defaults := Default()
	for _, key := range keys {
		value := ""
		if field := fieldAt(reflect.ValueOf(defaults), key.path); field.Kind() != reflect.Struct && key.path != "version" {
			value = "`" + inJSON(field) + "`"
		}
		shown := key.example
		if shown != "" {
			shown = "`" + shown + "`"
		}
		fmt.Fprintf(&text, "| `%s` | %s | %s | %s |\n", key.path, value, key.text, shown)
	}
	return text.String()
}

// inJSON is a value as the file would hold it; no list is an empty one.
func inJSON(value reflect.Value) string {
	if value.Kind() == reflect.Slice && value.Len() == 0 {
		return "[]"
	}
	text, err := json.Marshal(value.Interface())
	if err != nil {
		panic(err) // settings always marshal
	}
	return string(text)
}

// fieldAt is the field of a path.
func fieldAt(value reflect.Value, path string) reflect.Value {
	for part := range strings.SplitSeq(path, ".") {
		value = fieldsOf(value)[part]
	}
	return value
}
