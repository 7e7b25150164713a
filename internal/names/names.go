// Package names says which names devhost accepts for containers, aliases and
// the public domain. Every name becomes a DNS name, a folder and an argument
// of root's commands, so what is not plainly a name is refused, with the
// reason and an example of a good one.
package names

import (
	"fmt"
	"strings"
)

const (
	// MaxLabel is the longest DNS label, in characters (RFC 1035, 2.3.4).
	MaxLabel = 63
	// maxName is the longest DNS name in text form, without the final dot
	// (RFC 1035, 2.3.4: 255 octets on the wire).
	maxName = 253
	// maxDomain leaves room for <alias>.<container>. in front of the domain.
	maxDomain = maxName - 2*(MaxLabel+1)
)

// Invalid says that a name is refused.
type Invalid struct {
	// What is the kind of name, with its article: "a container's name".
	What string
	Name string
	// Reason completes "because ...".
	Reason string
	// Example is a name that would do.
	Example string
}

func (i *Invalid) Error() string {
	return fmt.Sprintf("%q cannot be %s: %s; a good one would be %q", i.Name, i.What, i.Reason, i.Example)
}

// Container checks a container's name: one DNS label of lower-case letters,
// digits and hyphens, at most MaxLabel characters. The error is *Invalid.
func Container(name string) error { return label(name, "a container's name") }

// Alias checks an alias; the rules are those of Container.
func Alias(name string) error { return label(name, "an alias") }

// Snapshot checks the name of a snapshot; the rules are those of Container.
func Snapshot(name string) error { return label(name, "a snapshot's name") }

// Domain checks the public domain below which containers are reached: DNS
// labels with dots between them, in lower case, without a final dot, short
// enough for <alias>.<container>.<domain> to be a DNS name. Internationalized
// domains are given in their xn-- form. The error is *Invalid.
func Domain(name string) error {
	const what, example = "a domain", "dev.example.org"
	refuse := func(reason string) error {
		return &Invalid{What: what, Name: name, Reason: reason, Example: example}
	}
	if name == "" {
		return refuse("it is empty")
	}
	if len(name) > maxDomain {
		return refuse(fmt.Sprintf("it has %d characters, and with a container and an alias in front of it only %d fit into a DNS name", len(name), maxDomain))
	}
	if strings.HasSuffix(name, ".") {
		return refuse("it ends with a dot")
	}
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if reason := malformed(label); reason != "" {
			if len(labels) > 1 {
				reason = fmt.Sprintf("in its part %q, %s", label, reason)
			}
			return refuse(reason)
		}
	}
	// A name is an address to inet_aton(3) and to browsers as soon as its last
	// label is a number.
	if last := labels[len(labels)-1]; number(last) {
		return refuse("its last part reads as a number, so the whole would be taken for an IP address")
	}
	return nil
}

func label(name, what string) error {
	refuse := func(reason, example string) error {
		return &Invalid{What: what, Name: name, Reason: reason, Example: example}
	}
	if reason := malformed(name); reason != "" {
		return refuse(reason, suggestion(name))
	}
	switch {
	case strings.HasPrefix(name, "xn--"):
		return refuse("names that start with xn-- stand for other letters (IDNA)", suggestion(name[len("xn--"):]))
	case strings.Contains(name, "--"):
		return refuse("two hyphens in a row are reserved (IDNA)", suggestion(name))
	case number(name):
		return refuse("it reads as a number, so programs would take it for an IP address (inet_aton)", "box-"+name[:min(len(name), MaxLabel-len("box-"))])
	case name == "localhost":
		return refuse("localhost is the machine itself on every system", "local-box")
	}
	return nil
}

// malformed says why s is no DNS label in lower case, "" if it is one.
func malformed(s string) string {
	switch {
	case s == "":
		return "it is empty"
	case len(s) > MaxLabel:
		return fmt.Sprintf("it has %d characters, and a DNS label has at most %d", len(s), MaxLabel)
	}
	for _, character := range s {
		switch {
		case character >= 'a' && character <= 'z', character >= '0' && character <= '9', character == '-':
		case character >= 'A' && character <= 'Z':
			return "it has upper-case letters; write it in lower case"
		default:
			return fmt.Sprintf("it has the character %q; lower-case letters (a-z), digits and hyphens are allowed", character)
		}
	}
	switch {
	case s[0] == '-':
		return "it starts with a hyphen"
	case s[len(s)-1] == '-':
		return "it ends with a hyphen"
	}
	return ""
}

// number reports whether some resolver reads the label as a number instead of
// asking for a name: decimal, octal with 0 or hexadecimal with 0x. Systems
// differ (glibc refuses 08 and what exceeds 32 bits, BSD and browsers do not),
// so everything that one of them takes counts.
func number(s string) bool {
	digits, hexadecimal := strings.CutPrefix(s, "0x")
	if hexadecimal {
		return strings.Trim(digits, "0123456789abcdef") == ""
	}
	return strings.Trim(s, "0123456789") == ""
}

// suggestion makes a good name that resembles a bad one.
func suggestion(name string) string {
	const fallback = "web-shop"
	var good strings.Builder
	for _, character := range strings.ToLower(name) {
		switch {
		case character >= 'a' && character <= 'z', character >= '0' && character <= '9':
			good.WriteRune(character)
		case good.Len() > 0 && !strings.HasSuffix(good.String(), "-"):
			good.WriteByte('-')
		}
		if good.Len() == MaxLabel {
			break
		}
	}
	candidate := strings.Trim(good.String(), "-")
	if candidate == "" || label(candidate, "") != nil {
		return fallback
	}
	return candidate
}
