package settings

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "write docs/settings.md anew")

func reported(problems []Problem) string {
	lines := make([]string, len(problems))
	for i, problem := range problems {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

// TestProblems: each mistake is said with its place, and what would do.
func TestProblems(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"empty":              {"", `1:1: it is empty; the least that it can hold is { "version": 1 }`},
		"blank":              {" \n", `1:1: it is empty; the least that it can hold is { "version": 1 }`},
		"no JSON":            {"version = 1", `1:1: it is no good JSON: invalid character 'v' at start of value`},
		"trailing comma":     {"{\n  \"version\": 1,\n}", `2:15: it is no good JSON: a comma stands before the closing brace or bracket`},
		"cut off":            {"{\n  \"version\": 1,\n  \"domains\": [\"a.example.org\"", `3:30: it is no good JSON: it ends too early; a brace, bracket or quote is not closed`},
		"a list":             {"[]", `1:1: it must be an object in braces, not a list`},
		"two documents":      {"{\"version\": 1}\n{\"version\": 1}", `2:1: something stands behind the closing brace; the file holds one object`},
		"no version":         {"{}", `1:1: version: it is missing; for example 1`},
		"another version":    {"{\n  \"version\": 7,\n  \"new\": {}\n}", `2:14: version: it has version 7, this devhost reads version 1; for example 1`},
		"version as text":    {`{"version": "1"}`, `1:13: version: it must be a whole number, not a text; for example 1`},
		"unknown key":        {"{\"version\": 1,\n\t\"domain\": []}", `2:2: domain: there is no such key; did you mean "domains"?`},
		"unknown inner key":  {`{"version": 1, "expiry": {"stopafter": "7d"}}`, `1:27: expiry.stopafter: there is no such key; did you mean "expiry.stopAfter"?`},
		"key far from any":   {`{"version": 1, "xyz": {"a": [1, {}]}}`, `1:16: xyz: there is no such key`},
		"twice":              {"{\"version\": 1,\n\"domains\": [],\n\"domains\": []}", `3:1: domains: it is there twice, first in line 2; for example ["dev2.example.org"]`},
		"null":               {`{"version": 1, "domains": null}`, `1:27: domains: it must be a list in brackets, not null; for example ["dev2.example.org"]`},
		"null leaf":          {`{"version": 1, "publicAddress": null}`, `1:33: publicAddress: it must be a text in quotes, not null; leave the key out for its default; for example "dev.example.org"`},
		"text for a list":    {`{"version": 1, "allowedGroups": "devhost"}`, `1:33: allowedGroups: it must be a list in brackets, not a text; for example ["devhost"]`},
		"list for an object": {`{"version": 1, "expiry": []}`, `1:26: expiry: it must be an object in braces, not a list`},
		"number for a size":  {`{"version": 1, "maximum": {"memory": 4}}`, `1:38: maximum.memory: it must be a text in quotes, not a number; for example "16G"`},
		"bad size":           {`{"version": 1, "maximum": {"memory": "much"}}`, `1:38: maximum.memory: "much" is no amount; for example "16G"`},
		"small size":         {`{"version": 1, "maximum": {"memory": "4M"}}`, `1:38: maximum.memory: it is less than 64M, with which no container starts; 0 is for no limit; for example "16G"`},
		"bad length of time": {`{"version": 1, "expiry": {"stopAfter": "a week"}}`, `1:40: expiry.stopAfter: "a week" is no length of time; for example "7d"`},
		"negative":           {`{"version": 1, "maximum": {"tasks": -1, "cpus": -0.5, "ioWeight": 10001}}`, "1:37: maximum.tasks: -1 is less than 64, with which no container starts; 0 is for no limit; for example 32768\n1:49: maximum.cpus: -0.5 is not from 0.01 to 4096; 0 is for no limit; for example 8\n1:67: maximum.ioWeight: 10001 is not from 1 to 10000; 0 is for the usual one; for example 1000"},
		"fraction":           {`{"version": 1, "maximum": {"tasks": 100.5}}`, `1:37: maximum.tasks: it must be a whole number, not 100.5; for example 32768`},
		"port":               {`{"version": 1, "ingress": {"httpPort": 70000}}`, `1:40: ingress.httpPort: it must be a whole number from 0 to 65535, not 70000; for example 80`},
		"no port":            {`{"version": 1, "ingress": {"httpPort": 0}}`, `1:40: ingress.httpPort: 0 is no port to listen on; for example 80`},
		"one port":           {`{"version": 1, "ingress": {"httpsPort": 80}}`, `1:41: ingress.httpsPort: 80 is ingress.httpPort too; for example 443`},
		"TLS":                {`{"version": 1, "ingress": {"tls": "acem"}}`, `1:35: ingress.tls: "acem" is none of internal, acme, files; did you mean "acme"?; for example "internal"`},
		"TLS unlike any":     {`{"version": 1, "ingress": {"tls": "letsencrypt"}}`, `1:35: ingress.tls: "letsencrypt" is none of internal, acme, files; for example "internal"`},
		"ACME at home":       {`{"version": 1, "ingress": {"tls": "acme"}}`, `1:35: ingress.tls: "acme" needs publicAddress: without it names are those of this machine alone, for which no server signs; for example "internal"`},
		"ACME inside":        {`{"version": 1, "publicAddress": "dev.lan", "ingress": {"tls": "acme"}}`, `1:33: publicAddress: no ACME server signs certificates for names below dev.lan: names below lan are not public; set publicAddress to a name that leads here from outside, or ingress.tls to "internal"; for example "dev.example.org"`},
		"ACME for one word":  {`{"version": 1, "publicAddress": "dev.example.org", "domains": ["dev"], "ingress": {"tls": "acme"}}`, `1:64: domains[0]: no ACME server signs certificates for names below dev: it is a single word; set publicAddress to a name that leads here from outside, or ingress.tls to "internal"; for example "dev2.example.org"`},
		"ACME on localhost": {`{"version": 1, "domains": ["dev.localhost"], "ingress": {"tls": "acme", "acme": {"directory": "https://ca.lan/dir"}}}`,
			`1:28: domains[0]: no ACME server signs certificates for names below dev.localhost: names below localhost are each machine itself; set publicAddress to a name that leads here from outside, or ingress.tls to "internal"; for example "dev2.example.org"`},
		"mail":               {`{"version": 1, "ingress": {"acme": {"email": "Admin <a@example.org>"}}}`, `1:46: ingress.acme.email: "Admin <a@example.org>" is no mail address; for example "admin@example.org"`},
		"directory":          {`{"version": 1, "ingress": {"acme": {"directory": "ca.example.org"}}}`, `1:50: ingress.acme.directory: "ca.example.org" is no URL; for example "https://acme-staging-v02.api.letsencrypt.org/directory"`},
		"directory's host":   {`{"version": 1, "ingress": {"acme": {"directory": "https://:443/dir"}}}`, `1:50: ingress.acme.directory: "https://:443/dir" is no URL; for example "https://acme-staging-v02.api.letsencrypt.org/directory"`},
		"directory's port":   {`{"version": 1, "ingress": {"acme": {"directory": "https://ca.lan:99999/dir"}}}`, `1:50: ingress.acme.directory: "https://ca.lan:99999/dir" is no URL; for example "https://acme-staging-v02.api.letsencrypt.org/directory"`},
		"directory's kind":   {`{"version": 1, "ingress": {"acme": {"directory": "http://ca.example.org/dir"}}}`, `1:50: ingress.acme.directory: "http://ca.example.org/dir" is no https URL of a directory: it must be https://HOST/PATH; for example "https://acme-staging-v02.api.letsencrypt.org/directory"`},
		"roots of whom":      {`{"version": 1, "ingress": {"acme": {"caFile": "ca.pem"}}}`, "1:47: ingress.acme.caFile: \"ca.pem\" is no absolute path of a file\n1:47: ingress.acme.caFile: it is for a server of one's own, and ingress.acme.directory names none"},
		"no files":           {`{"version": 1, "ingress": {"tls": "files", "certificates": []}}`, `1:35: ingress.tls: "files" needs ingress.certificates, which is empty; for example "internal"`},
		"half of a pair":     {`{"version": 1, "ingress": {"tls": "files", "certificates": [{"certificate": "/a/../b.pem"}]}}`, "1:61: ingress.certificates[0].key: it is missing\n1:77: ingress.certificates[0].certificate: \"/a/../b.pem\" is no absolute path of a file"},
		"typo in a pair":     {`{"version": 1, "ingress": {"tls": "files", "certificates": [{"certificat": "/b.pem", "key": "/k"}]}}`, `1:62: ingress.certificates[0].certificat: there is no such key; did you mean "ingress.certificates[0].certificate"?`},
		"text for a switch":  {`{"version": 1, "allowNesting": "yes"}`, `1:32: allowNesting: it must be true or false, not a text; for example true`},
		"domain":             {`{"version": 1, "publicAddress": "Dev.example.org"}`, `1:33: publicAddress: "Dev.example.org" cannot be a domain: in its part "Dev", it has upper-case letters; write it in lower case; a good one would be "dev.example.org"; for example "dev.example.org"`},
		"element":            {"{\"version\": 1, \"domains\": [\n  \"a.example.org\",\n  7]}", `3:3: domains[1]: it must be a text in quotes, not a number; for example "dev2.example.org"`},
		"group":              {`{"version": 1, "allowedGroups": ["a:b"]}`, `1:34: allowedGroups[0]: "a:b" is no name of a group; for example "devhost"`},
		"channel":            {`{"version": 1, "allowedChannels": ["https://hydra.example.org*"]}`, `1:36: allowedChannels[0]: the * in "https://hydra.example.org*" can stand for a part of the host's name, and so for anybody's host; end the host's name with a / before the first *; for example "https://hydra.example.org/*"`},
		"channel's host":     {`{"version": 1, "allowedChannels": ["https://*.example.org/x"]}`, `1:36: allowedChannels[0]: the * in "https://*.example.org/x" can stand for a part of the host's name, and so for anybody's host; end the host's name with a / before the first *; for example "https://hydra.example.org/*"`},
		"no channel":         {`{"version": 1, "allowedChannels": [""]}`, `1:36: allowedChannels[0]: "" is no pattern of channels: it is empty, or has blanks in it; for example "https://hydra.example.org/*"`},
		"file URI":           {`{"version": 1, "allowedURIs": ["file:///etc"]}`, `1:32: allowedURIs[0]: "file:///etc" would let evaluations read files of this host; for example "https://github.com/"`},
		"two URIs":           {`{"version": 1, "allowedURIs": ["https://a https://b"]}`, `1:32: allowedURIs[0]: "https://a https://b" is no URI: it needs a scheme, and no blanks; for example "https://github.com/"`},
		"default too large":  {`{"version": 1, "defaults": {"memory": "8G"}, "maximum": {"memory": "4G"}}`, `1:39: defaults.memory: 8GiB is more than maximum.memory, which is 4GiB; for example "4G"`},
		"pool":               {`{"version": 1, "network": {"ipv4Pool": "10.0.0.1/16"}}`, `1:40: network.ipv4Pool: 10.0.0.1/16 has bits behind its length; the prefix is 10.0.0.0/16; for example "10.42.0.0/16"`},
		"no prefix":          {`{"version": 1, "network": {"ipv4Pool": "10.0.0.0"}}`, `1:40: network.ipv4Pool: "10.0.0.0" is no prefix: it must be ADDRESS/BITS; for example "10.42.0.0/16"`},
		"public pool":        {`{"version": 1, "network": {"ipv4Pool": "8.8.8.0/24"}}`, `1:40: network.ipv4Pool: 8.8.8.0/24 is not private: its addresses belong to somebody on the Internet; for example "10.42.0.0/16"`},
		"small pool":         {`{"version": 1, "network": {"ipv4Pool": "10.0.0.0/30"}}`, `1:40: network.ipv4Pool: 10.0.0.0/30 is too small: give at least a /26; for example "10.42.0.0/16"`},
		"public IPv6":        {`{"version": 1, "network": {"ipv6Pool": "2001:db8::/64"}}`, `1:40: network.ipv6Pool: 2001:db8::/64 is not private: set network.ipv6Routed if it is routed to this host, or take a prefix below fd00::/8; for example "fd00:42::/64"`},
		"routed nothing":     {`{"version": 1, "network": {"ipv6Routed": true}}`, `1:42: network.ipv6Routed: network.ipv6Pool does not say which prefix is routed to this host; for example false`},
		"expiry order":       {`{"version": 1, "expiry": {"warnAfter": "8d"}}`, `1:26: expiry.stopAfter: 7d is not later than expiry.warnAfter, which is 8d; for example "7d"`},
		"delete before stop": {`{"version": 1, "expiry": {"deleteAfter": "7d"}}`, `1:42: expiry.deleteAfter: 7d is not later than expiry.warnAfter and expiry.stopAfter, which are 5d and 7d; for example "30d"`},
		"no public key":      {`{"version": 1, "authorizedKeys": ["ssh-rsa nonsense"]}`, `1:35: authorizedKeys[0]: it is no public key as ssh-keygen writes it: TYPE KEY COMMENT; for example "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl alice"`},
		"control characters": {"{\"version\": 1, \"a\\u001b[2Jb\\n\": 1}", `1:16: ab : there is no such key`},
		"several at once": {"{\n  \"version\": 1,\n  \"typo\": 1,\n  \"ingress\": { \"httpPort\": \"x\" },\n  \"domains\": [\"-\"]\n}",
			"3:3: typo: there is no such key\n4:28: ingress.httpPort: it must be a whole number from 0 to 65535, not a text; for example 80\n5:15: domains[0]: \"-\" cannot be a domain: it starts with a hyphen; a good one would be \"dev.example.org\"; for example \"dev2.example.org\""},
	} {
		t.Run(name, func(t *testing.T) {
			_, problems := Parse([]byte(test.text))
			if diff := cmp.Diff(test.want, reported(withoutWarnings(problems))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestGood: what a file says holds, and Default for the rest.
func TestGood(t *testing.T) {
	got, problems := Parse([]byte(`{
  "version": 1,
  "publicAddress": "dev.example.org",
  "allowedGroups": [],
  "allowedChannels": ["/srv/channels/*", "github:NixOS/*", "*"],
  "maximum": { "memory": "4G", "cpus": 1.5 },
  "network": { "ipv6Pool": "2001:db8::/64", "ipv6Routed": true },
  "expiry": { "stopAfter": "1w2d", "deleteAfter": "0s" }
}`))
	if len(problems) > 0 {
		t.Fatal(reported(problems))
	}
	want := Default()
	want.PublicAddress, want.AllowedGroups = "dev.example.org", []string{}
	want.AllowedChannels = []string{"/srv/channels/*", "github:NixOS/*", "*"}
	want.Maximum = Limits{Memory: 4 << 30, CPUs: 1.5}
	want.Network = Network{IPv6Pool: "2001:db8::/64", IPv6Routed: true, NAT: true, RestrictBuilders: true}
	want.Network.ForwardPorts = Default().Network.ForwardPorts
	want.Expiry.StopAfter, want.Expiry.DeleteAfter = Duration(9*24*time.Hour), 0
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// What is printed can be read again.
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	again, problems := Parse(text)
	if diff := cmp.Diff(got, again, cmpopts.EquateEmpty()); diff != "" || len(problems) > 0 {
		t.Errorf("read again (-first +second):\n%s\n%s", diff, reported(problems))
	}
}

// TestWhatIsGoodHolds: one mistake does not make the rest of the file void for
// those who may go on without a good one.
func TestWhatIsGoodHolds(t *testing.T) {
	got, problems := Parse([]byte(`{"version": 1, "allowedGroups": ["team"], "maximum": {"memory": 7}}`))
	if len(withoutWarnings(problems)) != 1 || !cmp.Equal(got.AllowedGroups, []string{"team"}) {
		t.Errorf("%+v\n%s", got, reported(problems))
	}
}

func TestWarnings(t *testing.T) {
	_, problems := Parse([]byte(`{"version": 1, "allowedGroups": ["no such group"], "adminGroups": ["wheel", "sudo", "nor this"], "domains": ["a.org", "a.org"]}`))
	const want = `1:34: warning: allowedGroups[0]: there is no group no such group on this host; make it with: groupadd --system no such group
1:85: warning: adminGroups[2]: there is no group nor this on this host; make it with: groupadd --system nor this
1:119: warning: domains[1]: a.org is there twice`
	if diff := cmp.Diff(want, reported(problems)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var ofHost []bool
	for _, problem := range problems {
		ofHost = append(ofHost, problem.OfHost)
	}
	if diff := cmp.Diff([]bool{true, true, false}, ofHost); diff != "" {
		t.Errorf("what is this host's own matter (-want +got):\n%s", diff)
	}
	for name, test := range map[string]struct{ text, want string }{
		"ports that are not asked": {
			`{"version": 1, "publicAddress": "dev.example.org", "ingress": {"httpPort": 8080, "httpsPort": 8443, "tls": "acme"}}`,
			"1:108: warning: ingress.tls: ACME servers ask at port 80 or 443, and the ingress listens at neither: one of them must be forwarded to it",
		},
		"nesting for nobody":       {`{"version": 1, "allowNesting": false, "defaultNesting": true}`, "1:57: warning: defaultNesting: it has no effect, because allowNesting is false"},
		"nesting for all":          {`{"version": 1, "defaultNesting": true}`, ""},
		"a server of nobody":       {`{"version": 1, "ingress": {"acme": {"email": "a@example.org"}}}`, `1:36: warning: ingress.acme: it has no effect, because ingress.tls is "internal"`},
		"certificates for nothing": {`{"version": 1, "ingress": {"certificates": [{"certificate": "/c", "key": "/k"}]}}`, `1:44: warning: ingress.certificates: it has no effect, because ingress.tls is "internal"`},
		"a server inside":          {`{"version": 1, "publicAddress": "dev.lan", "ingress": {"tls": "acme", "acme": {"directory": "https://ca.lan/dir", "caFile": "/etc/ca.pem"}}}`, ""},
		"staging":                  {`{"version": 1, "publicAddress": "dev.example.org", "ingress": {"tls": "acme", "acme": {"directory": "https://acme-staging-v02.api.letsencrypt.org/directory"}}}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			// The group devhost is not on every host.
			_, problems := Parse([]byte(test.text))
			problems = slices.DeleteFunc(problems, func(problem Problem) bool { return strings.HasPrefix(problem.Key, "allowedGroups") })
			if diff := cmp.Diff(test.want, reported(problems)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "settings.json")
	got, err := Load(path)
	if diff := cmp.Diff(Default(), got); diff != "" || err != nil {
		t.Errorf("a missing file: %v\n%s", err, diff)
	}
	if os.Geteuid() != 0 {
		t.Skip("the file must be root's")
	}
	write := func(text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"version": 1, "domains": ["a.example.org"]}`, 0o644)
	if got, err := Load(path); err != nil || len(got.Domains) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	write(`{"version": 1, "domain": []}`, 0o644)
	_, err = Load(path)
	want := "the settings of this host cannot be used:\n  " + path + `:1:16: domain: there is no such key; did you mean "domains"?` + "\nCorrect the file, and check it with: devhost host check"
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nnot %s", err, want)
	}
	var untrusted *Untrusted
	for _, mode := range []os.FileMode{0o664, 0o646} {
		write(`{"version": 1}`, mode)
		if _, err := Load(path); !errors.As(err, &untrusted) || untrusted.Reason != "can be written by others" {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	write(`{"version": 1}`, 0o644)
	if err := os.Chown(path, 65534, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); !errors.As(err, &untrusted) || untrusted.Reason != "belongs to uid 65534" {
		t.Errorf("somebody else's: %v", err)
	}
	if _, err := Load(t.TempDir()); !errors.As(err, &untrusted) {
		t.Errorf("a folder: %v", err)
	}
}

func TestChannelAllowed(t *testing.T) {
	allowed := Settings{AllowedChannels: []string{"https://hydra.example.org/*/nixexprs.tar.xz", "/srv/channels/*", "flake:nixpkgs"}}
	for reference, want := range map[string]bool{
		"https://hydra.example.org/build/1/nixexprs.tar.xz":            true,
		"https://hydra.example.org/nixexprs.tar.xz":                    false,
		"https://hydra.example.org.evil.org/x/nixexprs.tar.xz":         false,
		"https://evil.org/https://hydra.example.org/1/nixexprs.tar.xz": false,
		"https://hydra.example.org/build/1/nixexprs.tar.xz?x=.tar.gz":  false,
		"/srv/channels/one":  true,
		"/srv/channels":      false,
		"/home/x":            false,
		"flake:nixpkgs":      true,
		"flake:nixpkgs/main": false,
	} {
		if got := allowed.ChannelAllowed(reference); got != want {
			t.Errorf("%s: %v", reference, got)
		}
	}
	if !(Settings{}).ChannelAllowed("anything") {
		t.Error("an empty list allows all")
	}
}

func TestMatches(t *testing.T) {
	for _, test := range []struct {
		pattern, text string
		want          bool
	}{
		{"*", "", true}, {"a", "a", true}, {"a", "ab", false}, {"a*", "a", true}, {"a*a", "a", false}, {"a*a", "aa", true},
		{"a*b*c", "abc", true}, {"a*b*c", "axbxc", true}, {"a*b*c", "acb", false}, {"*b*", "abc", true}, {"**", "x", true}, {"a*bb*b", "abb", false},
	} {
		if got := matches(test.pattern, test.text); got != test.want {
			t.Errorf("matches(%q, %q) = %v", test.pattern, test.text, got)
		}
	}
}

func TestClamped(t *testing.T) {
	maximum := Limits{Memory: 4, CPUs: 2, Tasks: 100, Disk: 9}
	got := Clamped(Limits{Memory: 8, CPUs: 1, IOWeight: 500}, maximum)
	if diff := cmp.Diff(Limits{Memory: 4, CPUs: 1, Tasks: 100, IOWeight: 500, Disk: 9}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := Clamped(Limits{}, Limits{IOWeight: 1000}); got.IOWeight != 0 {
		t.Errorf("the usual weight is below the maximum, but became %d", got.IOWeight)
	}
	if got := Clamped(Limits{}, Limits{IOWeight: 50}); got.IOWeight != 50 {
		t.Errorf("the usual weight is above the maximum, but became %d", got.IOWeight)
	}
}

// TestReference: every key is explained, its example is good, and the page is
// up to date.
func TestReference(t *testing.T) {
	var inStruct, explained []string
	var walk func(value reflect.Type, path string)
	walk = func(kind reflect.Type, path string) {
		for i := range kind.NumField() {
			field := kind.Field(i)
			name := join(path, strings.Split(field.Tag.Get("json"), ",")[0])
			inStruct = append(inStruct, name)
			if field.Type.Kind() == reflect.Struct {
				walk(field.Type, name)
			}
		}
	}
	walk(reflect.TypeFor[Settings](), "")
	for _, key := range keys {
		explained = append(explained, key.path)
		if key.example == "" {
			continue
		}
		text := key.example
		parts := strings.Split(key.path, ".")
		for i := len(parts) - 1; i >= 0; i-- {
			text = `{"` + parts[i] + `": ` + text + `}`
		}
		if key.path != "version" {
			text = `{"version": 1, ` + text[1:]
		}
		if _, problems := Parse([]byte(text)); len(withoutWarnings(problems)) > 0 {
			t.Errorf("the example of %s is no good: %s", key.path, reported(problems))
		}
	}
	if diff := cmp.Diff(inStruct, explained); diff != "" {
		t.Errorf("the keys of the struct and those that are explained (-struct +explained):\n%s", diff)
	}

	const page, begin, end = "../../docs/settings.md", "<!-- keys -->\n", "<!-- end of keys -->\n"
	content, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(content), begin)
	_, after, ends := strings.Cut(rest, end)
	if !found || !ends {
		t.Fatalf("%s has no place for the keys", page)
	}
	want := before + begin + Reference() + end + after
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(content) {
		t.Errorf("%s is not up to date; run: go test ./internal/settings -update", page)
	}
	// The example in it is good, too.
	_, block, _ := strings.Cut(string(content), "```json\n")
	block, _, _ = strings.Cut(block, "```")
	if _, problems := Parse([]byte(block)); len(withoutWarnings(problems)) > 0 {
		t.Errorf("the example in %s is no good:\n%s", page, reported(problems))
	}
}

// FuzzParse: no text makes it fail otherwise than by problems, each within the
// text, and what is accepted keeps to the rules.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{``, `{"version": 1}`, `{"version": 1, "domains": ["a.example.org", 7, null], "expiry": {"stopAfter": "1w"}}`, "{\"version\": 1,\n\"maximum\": {\"memory\": \"4G\"", `{"version":1,"network":{"ipv4Pool":"::/0"}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, problems := Parse(text)
		for _, problem := range problems {
			if problem.Line < 1 || problem.Column < 1 || problem.Line > strings.Count(string(text), "\n")+1 {
				t.Errorf("%+v is not within the text", problem)
			}
		}
		if len(withoutWarnings(problems)) == 0 && (got.Version != Version || len(Exceeded(got.Defaults, got.Maximum)) > 0) {
			t.Errorf("%+v was accepted", got)
		}
	})
}
