package provision

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"regexp"
)

// Finding is something in a provision that looks like a secret. A provision
// ends in the store, where every container and every user of the host can read
// it. The secret itself is not kept.
type Finding struct {
	// File is the path within the provision, Line counts from 1.
	File string
	Line int
	// What names the kind of secret.
	What string
}

func (f Finding) String() string { return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.What) }

type secretPattern struct {
	what    string
	pattern *regexp.Regexp
	// applies restricts the pattern to some files; nil means all.
	applies func(name string) bool
}

func hasExtension(extensions ...string) func(string) bool {
	return func(name string) bool {
		for _, extension := range extensions {
			if path.Ext(name) == extension {
				return true
			}
		}
		return false
	}
}

var secretPatterns = []secretPattern{
	{what: "a private key", pattern: regexp.MustCompile(`-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY( BLOCK)?-----`)},
	{what: "a private key of age", pattern: regexp.MustCompile(`AGE-SECRET-KEY-1[A-Z0-9]{20}`)},
	{what: "an access key of AWS", pattern: regexp.MustCompile(`\b(AKIA|ASIA)[0-9A-Z]{16}\b`)},
	{what: "a secret key of AWS", pattern: regexp.MustCompile(`(?i)aws_?secret(_?access)?_?key"?\s*[=:]\s*"?[A-Za-z0-9/+]{16}`)},
	{what: "an access token", pattern: regexp.MustCompile(`\b(ghp|gho|ghs|ghu|ghr)_[A-Za-z0-9]{30}|\bgithub_pat_[A-Za-z0-9_]{30}|\bglpat-[A-Za-z0-9_-]{16}|\bxox[abprs]-[A-Za-z0-9-]{10}`)},
	{
		what: "a password or token in clear text", applies: hasExtension(".nix"),
		// name = "literal"; with names such as passwordFile left out, and
		// values that are empty, lock an account, or are taken from elsewhere.
		pattern: regexp.MustCompile(`(?i)\b[a-z0-9_.-]*(password|passwd|passphrase|secret|token|api_?key)"?\s*=\s*"[^"$*!/ ][^"$]*"`),
	},
	{
		what: "a password or token in clear text", applies: hasExtension(".env", ".sh", ".conf", ".ini"),
		pattern: regexp.MustCompile(`(?i)^\s*(export\s+)?[a-z0-9_]*(password|passwd|passphrase|secret|token|api_?key)\s*=\s*["']?[^"'$\s<]{4}`),
	},
}

// hashedPassword is what a password's hash starts with: crypt(5).
var hashedPassword = regexp.MustCompile(`(?i)hashedpassword`)

// largestScanned is the largest file that is searched, bytes.
const largestScanned = 1 << 20

// Secrets lists what looks like a secret, at most one finding a line, in the
// order of files and lines.
func (t *Tree) Secrets() []Finding {
	var findings []Finding
	for _, name := range t.names() {
		member := t.entries[name]
		if member.mode&fs.ModeType != 0 || len(member.data) > largestScanned || bytes.IndexByte(member.data, 0) >= 0 {
			continue
		}
		for number, line := range bytes.Split(member.data, []byte("\n")) {
			if what := secretIn(name, line); what != "" {
				findings = append(findings, Finding{File: name, Line: number + 1, What: what})
			}
		}
	}
	return findings
}

func secretIn(name string, line []byte) string {
	trimmed := bytes.TrimSpace(line)
	isComment := bytes.HasPrefix(trimmed, []byte("#"))
	for _, candidate := range secretPatterns {
		if candidate.applies != nil && (isComment || !candidate.applies(name) || hashedPassword.Match(line)) {
			continue
		}
		if candidate.pattern.Match(line) {
			return candidate.what
		}
	}
	return ""
}
