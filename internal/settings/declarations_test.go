package settings

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDeclarationProblems: each mistake is said with its place.
func TestDeclarationProblems(t *testing.T) {
	const good = `{"version": 1, "containers": [{"name": "ci", "channel": "/srv/channel"%s}]}`
	more := func(text string) string { return strings.Replace(good, "%s", text, 1) }
	for name, test := range map[string]struct{ text, want string }{
		"good":          {more(""), ""},
		"nothing":       {`{"version": 1, "containers": []}`, ""},
		"empty":         {"", `1:1: it is empty`},
		"no version":    {`{"containers": []}`, `1:1: version: it is missing`},
		"other version": {`{"version": 2}`, `1:13: version: it has version 2, this devhost reads version 1`},
		"unknown key":   {more(`, "domain": 1`), `1:73: containers[0].domain: there is no such key`},
		"name":          {`{"version": 1, "containers": [{"name": "12", "channel": "/c"}]}`, `1:40: containers[0].name: `},
		"twice": {`{"version": 1, "containers": [{"name": "a", "channel": "/c"}, {"name": "a", "channel": "/c"}]}`,
			`1:72: containers[1].name: containers[0] has that name too`},
		"no system":        {`{"version": 1, "containers": [{"name": "a"}]}`, `1:31: containers[0]: it must have a channel, or a system`},
		"both":             {more(`, "system": "/nix/store/x"`), `1:83: containers[0].system: there is a channel too`},
		"no store path":    {`{"version": 1, "containers": [{"name": "a", "system": "/srv/system"}]}`, `"/srv/system" is not the path of an object in the store`},
		"relative channel": {`{"version": 1, "containers": [{"name": "a", "channel": "./c"}]}`, `containers[0].channel: a folder must be an absolute path`},
		"bad channel":      {`{"version": 1, "containers": [{"name": "a", "channel": "ftp://x/y"}]}`, `1:56: containers[0].channel: `},
		"provision":        {more(`, "provision": "x"`), `containers[0].provision: it must be an absolute path`},
		"built with more":  {`{"version": 1, "containers": [{"name": "a", "system": "/nix/store/` + strings.Repeat("a", 32) + `-s", "provision": "/x"}]}`, `build it in`},
		"alias":            {more(`, "aliases": ["a_b"]`), `1:85: containers[0].aliases[0]: `},
		"alias twice":      {more(`, "aliases": ["a", "a"]`), `1:90: containers[0].aliases[1]: it is there twice`},
		"environment":      {more(`, "environment": "a b"`), `containers[0].environment: `},
		"key":              {more(`, "authorizedKeys": ["alice"]`), `containers[0].authorizedKeys[0]: `},
		"protocol":         {more(`, "forwardPorts": [{"protocol": "sctp", "hostPort": 1, "guestPort": 1}]`), `"sctp" is no protocol`},
		"no port":          {more(`, "forwardPorts": [{"protocol": "tcp", "hostPort": 8080}]`), `hostPort and guestPort must be 1 to 65535`},
		"port twice": {more(`, "forwardPorts": [{"protocol": "tcp", "hostPort": 8080, "guestPort": 80}, {"protocol": "tcp", "hostPort": 8080, "guestPort": 81}]`),
			`port 8080/tcp of the host is that of containers[0].forwardPorts[0] too`},
		"network":          {more(`, "network": "bridge"`), `1:84: containers[0].network: "bridge" is no network: it must be "private" or "host"`},
		"private network":  {more(`, "network": "private", "aliases": ["www"], "nesting": true`), ""},
		"host's network":   {more(`, "network": "host"`), ""},
		"host and aliases": {more(`, "network": "host", "aliases": ["www"]`), `containers[0].aliases: with the host's network it has no port 443`},
		"host and ports":   {more(`, "network": "host", "forwardPorts": [{"protocol": "tcp", "hostPort": 8080, "guestPort": 80}]`), `containers[0].forwardPorts: with the host's network its ports are the host's own already; leave that out, or take the network "private"`},
		"host and nesting": {more(`, "network": "host", "nesting": true`), `containers[0].nesting: container engines inside`},
		"limit":            {more(`, "limits": {"memory": "4M"}`), `1:94: containers[0].limits.memory: it is less than 64M`},
		"null":             {more(`, "autoStart": null`), `it must be true or false, not null; leave the key out for its default`},
		"bind":             {more(`, "bindMounts": [{"guestPath": "/srv/a", "hostPath": "/srv/a", "isReadOnly": false, "owner": 1000}]`), ""},
		"bind of nobody":   {more(`, "bindMounts": [{"guestPath": "/srv/a", "hostPath": "/srv/a", "isReadOnly": false}]`), `containers[0].bindMounts[0]: nobody inside could write there`},
		"bind as root":     {more(`, "bindMounts": [{"guestPath": "/srv/a", "hostPath": "/srv/a", "owner": 65534}]`), `it must be the uid of a user inside`},
		"bind over own":    {more(`, "bindMounts": [{"guestPath": "/run/devhost", "hostPath": "/srv/a"}]`), `/run is the container's own`},
		"bind not plain":   {more(`, "bindMounts": [{"guestPath": "/srv/../run", "hostPath": "/srv/a"}]`), `"/srv/../run" is not the absolute path of a folder below /`},
		"bind of all":      {more(`, "bindMounts": [{"guestPath": "/srv/a", "hostPath": "/"}]`), `"/" is not the absolute path of a folder below /`},
		"bind with a line": {more(`, "bindMounts": [{"guestPath": "/srv/a\nb", "hostPath": "/srv/a"}]`), `a character that does not belong into a path`},
		"binds nested":     {more(`, "bindMounts": [{"guestPath": "/srv/a", "hostPath": "/srv/a"}, {"guestPath": "/srv/a/b", "hostPath": "/srv/b"}]`), `in one another`},
	} {
		t.Run(name, func(t *testing.T) {
			_, problems := ParseDeclarations([]byte(test.text), nil)
			got := reported(problems)
			if test.want == "" && got != "" || !strings.Contains(got, test.want) {
				t.Errorf("%q lacks %q", got, test.want)
			}
		})
	}
}

// TestDeclarationsOfHost: what a host's settings refuse is said with its place.
func TestDeclarationsOfHost(t *testing.T) {
	host, problems := Parse([]byte(`{"version": 1, "allowedGroups": [], "allowNesting": false, "maximum": {"memory": "2G", "cpus": 4, "tasks": 500, "ioWeight": 300, "disk": "20G"}, "network": {"forwardPorts": ["8000-8999", "53"]}, "ingress": {"httpsPort": 8443}}`))
	if len(problems) > 0 {
		t.Fatal(reported(problems))
	}
	for name, test := range map[string]struct{ more, want string }{
		"nothing":       {``, ""},
		"all it may":    {`, "limits": {"memory": "2G", "cpus": 4, "tasks": 500, "ioWeight": 0, "disk": "20G"}, "forwardPorts": [{"protocol": "tcp", "hostPort": 8000, "guestPort": 80}]`, ""},
		"nesting":       {`, "nesting": true`, `1:84: containers[0].nesting: it is switched off by the settings of the host (allowNesting)`},
		"memory":        {`, "limits": {"memory": "3G"}`, `1:94: containers[0].limits.memory: it asks for 3GiB, and the settings of the host let no container have more than 2GiB (maximum.memory)`},
		"all memory":    {`, "limits": {"memory": "0"}`, `containers[0].limits.memory: it asks for no limit, and`},
		"all cpus":      {`, "limits": {"cpus": 0}`, `containers[0].limits.cpus: it asks for no limit, and the settings of the host let no container have more than 4`},
		"tasks":         {`, "limits": {"tasks": 501}`, `containers[0].limits.tasks: it asks for 501`},
		"weight":        {`, "limits": {"ioWeight": 301}`, `containers[0].limits.ioWeight: it asks for 301`},
		"disk":          {`, "limits": {"disk": "21G"}`, `containers[0].limits.disk: it asks for 21GiB`},
		"port":          {`, "forwardPorts": [{"protocol": "tcp", "hostPort": 22, "guestPort": 22}]`, `containers[0].forwardPorts[0].hostPort: port 22 of the host cannot lead to a container: the settings of this host allow 8000-8999, 53`},
		"ingress' port": {`, "forwardPorts": [{"protocol": "tcp", "hostPort": 8443, "guestPort": 22}]`, `it is the ingress'`},
		"its udp port":  {`, "forwardPorts": [{"protocol": "udp", "hostPort": 8443, "guestPort": 22}]`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			text := []byte(`{"version": 1, "containers": [{"name": "ci", "channel": "/srv/channel"` + test.more + `}]}`)
			if _, problems := ParseDeclarations(text, nil); len(problems) > 0 {
				t.Errorf("without settings: %s", reported(problems))
			}
			_, problems := ParseDeclarations(text, &host)
			got := reported(problems)
			if test.want == "" && got != "" || !strings.Contains(got, test.want) {
				t.Errorf("%q lacks %q", got, test.want)
			}
		})
	}
}

// TestLoadDeclarations: what others can write is not believed.
func TestLoadDeclarations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "containers.json")
	if _, err := LoadDeclarations(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte(`{"version": 1, "containers": [{"name": "ci"}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	var invalid *InvalidDeclarations
	if _, err := LoadDeclarations(path); !errors.As(err, &invalid) || !strings.Contains(err.Error(), path+":1:31: ") {
		t.Errorf("%v", err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	var untrusted *Untrusted
	if _, err := LoadDeclarations(path); !errors.As(err, &untrusted) {
		t.Errorf("%v", err)
	}
}
