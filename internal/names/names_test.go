package names

import (
	"errors"
	"net/netip"
	"regexp"
	"strings"
	"testing"
)

func TestLabels(t *testing.T) {
	long := strings.Repeat("a", MaxLabel)
	cases := []struct {
		name    string
		reason  string // part of the message, "" when the name is good
		example string // the suggested name, "" for any
	}{
		{name: "a"},
		{name: "demo"},
		{name: "web-shop"},
		{name: "a-b-c-1"},
		{name: "1a2b3c4d5e6"},
		{name: "0xyz"},
		{name: "0a"},
		{name: "08-15"},
		{name: "3d"},
		{name: "1e5"},
		{name: long},
		{name: "1" + long[1:]},

		{name: "", reason: "it is empty"},
		{name: long + "a", reason: "it has 64 characters, and a DNS label has at most 63"},
		{name: "Demo", reason: "write it in lower case", example: "demo"},
		{name: "../x", reason: "it has the character '.'", example: "x"},
		{name: "a/b", reason: "it has the character '/'", example: "a-b"},
		{name: "a.b", reason: "it has the character '.'", example: "a-b"},
		{name: "a_b", reason: "it has the character '_'", example: "a-b"},
		{name: "a b", reason: "it has the character ' '", example: "a-b"},
		{name: "a\n", reason: `it has the character '\n'`, example: "a"},
		{name: "a\x00b", reason: `it has the character '\x00'`},
		{name: "bücher", reason: "it has the character 'ü'", example: "b-cher"},
		{name: "\xff", reason: "it has the character '\ufffd'"},
		{name: "-a", reason: "it starts with a hyphen", example: "a"},
		{name: "a-", reason: "it ends with a hyphen", example: "a"},
		{name: "-", reason: "it starts with a hyphen"},
		{name: "--help", reason: "it starts with a hyphen", example: "help"},
		{name: "a--b", reason: "two hyphens in a row", example: "a-b"},
		{name: "xn--a", reason: "xn--", example: "a"},
		{name: "1234", reason: "it reads as a number", example: "box-1234"},
		{name: "0", reason: "it reads as a number"},
		{name: "017", reason: "it reads as a number"},
		{name: "08", reason: "it reads as a number"},
		{name: "99999999999", reason: "it reads as a number"},
		{name: strings.Repeat("9", MaxLabel), reason: "it reads as a number"},
		{name: "0x7f", reason: "it reads as a number", example: "box-0x7f"},
		{name: "0x", reason: "it reads as a number"},
		{name: "0xdeadbeefdeadbeef", reason: "it reads as a number"},
		{name: "localhost", reason: "the machine itself"},
	}
	kinds := map[string]func(string) error{"container": Container, "alias": Alias}
	for kind, check := range kinds {
		for _, c := range cases {
			t.Run(kind+" "+c.name, func(t *testing.T) {
				err := check(c.name)
				if c.reason == "" {
					if err != nil {
						t.Fatalf("refused: %v", err)
					}
					return
				}
				var invalid *Invalid
				if !errors.As(err, &invalid) {
					t.Fatalf("error = %v, want *Invalid", err)
				}
				if !strings.Contains(err.Error(), c.reason) {
					t.Errorf("message %q does not say %q", err, c.reason)
				}
				if !strings.Contains(invalid.What, kind) {
					t.Errorf("message %q does not say that it is about a %s", err, kind)
				}
				if c.example != "" && invalid.Example != c.example {
					t.Errorf("suggests %q, want %q", invalid.Example, c.example)
				}
				if suggested := check(invalid.Example); suggested != nil {
					t.Errorf("the suggested name is refused: %v", suggested)
				}
			})
		}
	}
}

func TestDomain(t *testing.T) {
	cases := []struct {
		name   string
		reason string
	}{
		{name: "example.org"},
		{name: "dev.example.org"},
		{name: "localhost"},
		{name: "test"},
		{name: "127-0-0-1.example.org"},
		{name: "1.2.example.org"},
		{name: "xn--bcher-kva.example"},
		{name: "a--b.example"},
		{name: strings.Repeat("a.", (maxDomain-1)/2) + "b"},

		{name: "", reason: "it is empty"},
		{name: ".", reason: "it ends with a dot"},
		{name: "example.org.", reason: "it ends with a dot"},
		{name: ".example.org", reason: `in its part "", it is empty`},
		{name: "a..b", reason: "it is empty"},
		{name: "Example.org", reason: "lower case"},
		{name: "exa mple.org", reason: "character ' '"},
		{name: "-a.org", reason: `in its part "-a", it starts with a hyphen`},
		{name: "example.org:443", reason: "character ':'"},
		{name: "*.example.org", reason: "character '*'"},
		{name: strings.Repeat("a", 64) + ".org", reason: "at most 63"},
		{name: strings.Repeat("aa.", 41) + "org", reason: "only 125 fit"},
		{name: "127.0.0.1", reason: "IP address"},
		{name: "example.0x7f", reason: "IP address"},
		{name: "1234", reason: "IP address"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			err := Domain(c.name)
			switch {
			case c.reason == "" && err != nil:
				t.Fatalf("refused: %v", err)
			case c.reason != "" && err == nil:
				t.Fatal("accepted")
			case c.reason != "" && !strings.Contains(err.Error(), c.reason):
				t.Errorf("message %q does not say %q", err, c.reason)
			}
		})
	}
	if alias := strings.Repeat("a", MaxLabel) + "." + strings.Repeat("c", MaxLabel) + "." + strings.Repeat("d", maxDomain); len(alias) != maxName {
		t.Errorf("the longest name has %d characters, want %d", len(alias), maxName)
	}
}

// FuzzLabel holds Container against an independent description of a label.
func FuzzLabel(f *testing.F) {
	for _, seed := range []string{"demo", "../x", "1234", "0x7f", "017", "xn--a", "a--b", "-a", "a-", "A", "1a2b3c4d5e6", "", "localhost", "ü", strings.Repeat("a", 64)} {
		f.Add(seed)
	}
	shape := regexp.MustCompile(`\A[a-z0-9](-?[a-z0-9])*\z`)
	numeric := regexp.MustCompile(`\A([0-9]+|0x[0-9a-f]*)\z`)
	f.Fuzz(func(t *testing.T, name string) {
		want := shape.MatchString(name) && len(name) <= MaxLabel && !numeric.MatchString(name) && name != "localhost"
		err := Container(name)
		if (err == nil) != want {
			t.Fatalf("Container(%q) = %v, want accepted = %v", name, err, want)
		}
		if err == nil {
			if strings.ContainsAny(name, "/.\x00") {
				t.Fatalf("%q could leave a folder", name)
			}
			if _, err := netip.ParseAddr(name); err == nil {
				t.Fatalf("%q is an address", name)
			}
			return
		}
		var invalid *Invalid
		if !errors.As(err, &invalid) {
			t.Fatalf("error of %q is %T", name, err)
		}
		if Container(invalid.Example) != nil {
			t.Fatalf("the name suggested for %q is refused: %q", name, invalid.Example)
		}
	})
}

// FuzzDomain looks for a domain that is accepted and does not make a DNS name.
func FuzzDomain(f *testing.F) {
	for _, seed := range []string{"example.org", "a..b", ".", "127.0.0.1", "xn--a.b", "a.0x7f", "A.b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if Domain(name) != nil {
			return
		}
		full := strings.Repeat("a", MaxLabel) + "." + strings.Repeat("c", MaxLabel) + "." + name
		if len(full) > maxName {
			t.Fatalf("%q is too long", full)
		}
		for label := range strings.SplitSeq(name, ".") {
			if malformed(label) != "" {
				t.Fatalf("accepted %q with the part %q", name, label)
			}
		}
		if _, err := netip.ParseAddr(name); err == nil {
			t.Fatalf("%q is an address", name)
		}
	})
}
