// Package channel turns what a person calls a channel into a pin, and a pin
// with a provision into a system.
package channel

import (
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Kind says where a channel comes from. The values are those of
// registry.Pin.Kind.
type Kind string

// The kinds of channel.
const (
	Folder  Kind = "folder"
	Flake   Kind = "flake"
	Tarball Kind = "tarball"
)

// Reference is a channel as a person names it, understood but not looked at.
type Reference struct {
	// Text is what the person wrote, made absolute if it is a folder.
	Text string
	Kind Kind
	// Folder is the absolute path of a folder.
	Folder string
	// URL is where a tarball comes from, with scheme http, https or file.
	URL string
	// Flake are the attributes of a flake reference for builtins.fetchTree.
	Flake map[string]any
	// bare says that the person wrote a flake's registry name without
	// "flake:"; it could be meant as a folder.
	bare bool
}

// BadReference says why a text does not name a channel.
type BadReference struct {
	Text, Reason string
}

func (b *BadReference) Error() string {
	return fmt.Sprintf("%q does not name a channel: %s; a channel is a folder (/path, ./path), a flake reference (github:NixOS/nixpkgs/nixos-26.05, git+https://..., flake:nixpkgs) or the URL of an archive (https://.../nixexprs.tar.xz, file:///.../nixexprs.tar.xz)",
		b.Text, b.Reason)
}

// longestReference bounds a reference, bytes.
const longestReference = 4096

// archiveSuffixes are what Nix unpacks.
var archiveSuffixes = []string{".tar.xz", ".tar.gz", ".tar.bz2", ".tar.zst", ".tgz", ".tar"}

var (
	schemePattern   = regexp.MustCompile(`^([a-z][a-z0-9+.-]*):`)
	registryPattern = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_-]*$`)
	refPattern      = regexp.MustCompile(`^[a-zA-Z0-9@][a-zA-Z0-9_./@+-]*$`)
	revPattern      = regexp.MustCompile(`^[0-9a-f]{40}([0-9a-f]{24})?$`)
	ownerPattern    = regexp.MustCompile(`^[a-zA-Z0-9~_][a-zA-Z0-9._~-]*$`)
	hostPattern     = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9.-]*(:[0-9]+)?$`)
)

// Parse understands a channel reference. A relative folder is taken relative
// to the working directory. The error is *BadReference, or that of a working
// directory that cannot be found.
func Parse(text string) (Reference, error) {
	reference, reason, err := parse(text)
	if err != nil {
		return Reference{}, err
	}
	if reason != "" {
		return Reference{}, &BadReference{Text: HideSecret(text), Reason: reason}
	}
	return reference, nil
}

func parse(text string) (reference Reference, reason string, err error) {
	switch {
	case text == "":
		return reference, "it is empty", nil
	case len(text) > longestReference:
		return reference, fmt.Sprintf("it is longer than %d bytes", longestReference), nil
	case !utf8.ValidString(text):
		return reference, "it is not UTF-8", nil
	case strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) || !unicode.IsPrint(r) }):
		return reference, "it holds a control character", nil
	case strings.HasPrefix(text, "-"):
		return reference, "it looks like an option", nil
	case strings.HasPrefix(text, "~"):
		return reference, "the shell did not replace ~ (is it quoted?)", nil
	case isFolder(text):
		return folder(text)
	}
	match := schemePattern.FindStringSubmatch(text)
	if match == nil {
		reference, reason = registryName(text, text)
		reference.bare = true
		return reference, reason, nil
	}
	scheme, rest := match[1], text[len(match[0]):]
	switch scheme {
	case "path":
		if strings.Contains(rest, "?") {
			return reference, "a path: reference with parameters is not supported", nil
		}
		if !isFolder(rest) {
			rest = "./" + rest
		}
		return folder(rest)
	case "flake":
		reference, reason = registryName(text, rest)
	case "github", "gitlab", "sourcehut":
		reference, reason = forge(text, scheme, rest)
	case "git+https", "git+http", "git+ssh", "git+file", "git":
		reference, reason = git(text)
	case "http", "https", "file":
		return archive(text, text)
	case "tarball+http", "tarball+https", "tarball+file":
		return archive(text, strings.TrimPrefix(text, "tarball+"))
	default:
		reason = fmt.Sprintf("%q is no scheme that is known here", scheme+":")
	}
	return reference, reason, nil
}

func isFolder(text string) bool {
	return text == "." || text == ".." || strings.HasPrefix(text, "/") || strings.HasPrefix(text, "./") || strings.HasPrefix(text, "../")
}

func folder(text string) (Reference, string, error) {
	absolute, err := filepath.Abs(text)
	if err != nil {
		return Reference{}, "", fmt.Errorf("cannot make %s absolute: %w", text, err)
	}
	return Reference{Text: absolute, Kind: Folder, Folder: absolute}, "", nil
}

// registryName understands NAME, NAME/REF, NAME/REV and NAME/REF/REV.
func registryName(text, rest string) (Reference, string) {
	if strings.ContainsAny(rest, "?#") {
		return Reference{}, "a registry name takes no parameters here"
	}
	parts := strings.SplitN(rest, "/", 2)
	if !registryPattern.MatchString(parts[0]) {
		return Reference{}, "it is neither a path that starts with / or ., nor has it a scheme, nor is it a flake's registry name"
	}
	attributes := map[string]any{"type": "indirect", "id": parts[0]}
	if len(parts) > 1 {
		if reason := setRefOrRev(attributes, parts[1], true); reason != "" {
			return Reference{}, reason
		}
	}
	return Reference{Text: text, Kind: Flake, Flake: attributes}, ""
}

// setRefOrRev understands REF, REV and, where both may be given, REF/REV.
func setRefOrRev(attributes map[string]any, text string, both bool) string {
	if both {
		if i := strings.LastIndex(text, "/"); i > 0 && revPattern.MatchString(text[i+1:]) {
			attributes["rev"] = text[i+1:]
			text = text[:i]
		}
	}
	if revPattern.MatchString(text) {
		attributes["rev"] = text
		return ""
	}
	return setRef(attributes, text)
}

func setRef(attributes map[string]any, ref string) string {
	if !refPattern.MatchString(ref) || strings.Contains(ref, "..") || strings.Contains(ref, "//") || strings.HasSuffix(ref, "/") || strings.HasSuffix(ref, ".lock") {
		return fmt.Sprintf("%q is no name of a branch or tag", ref)
	}
	attributes["ref"] = ref
	return ""
}

// forge understands TYPE:OWNER/REPO[/REF-OR-REV][?host=H&ref=R&rev=R].
func forge(text, scheme, rest string) (Reference, string) {
	location, query, reason := splitQuery(rest)
	if reason != "" {
		return Reference{}, reason
	}
	parts := strings.SplitN(location, "/", 3)
	if len(parts) < 2 {
		return Reference{}, "it must be " + scheme + ":OWNER/REPOSITORY or " + scheme + ":OWNER/REPOSITORY/BRANCH"
	}
	for _, part := range parts[:2] {
		// GitLab's sub-groups come as %2F.
		plain := strings.ReplaceAll(strings.ReplaceAll(part, "%2F", "/"), "%2f", "/")
		for _, segment := range strings.Split(plain, "/") {
			if !ownerPattern.MatchString(segment) {
				return Reference{}, fmt.Sprintf("%q is no name of an owner or repository", part)
			}
		}
	}
	attributes := map[string]any{"type": scheme, "owner": parts[0], "repo": parts[1]}
	if len(parts) == 3 {
		if reason := setRefOrRev(attributes, parts[2], false); reason != "" {
			return Reference{}, reason
		}
	}
	for name, value := range query {
		switch name {
		case "host":
			if !hostPattern.MatchString(value) {
				return Reference{}, fmt.Sprintf("%q is no host name", value)
			}
			attributes["host"] = value
		case "ref", "rev":
			if reason := setParameter(attributes, name, value); reason != "" {
				return Reference{}, reason
			}
		default:
			return Reference{}, fmt.Sprintf("the parameter %q is not supported", name)
		}
	}
	if attributes["ref"] != nil && attributes["rev"] != nil {
		return Reference{}, "it names both a branch and a revision"
	}
	return Reference{Text: text, Kind: Flake, Flake: attributes}, ""
}

// setParameter takes ref= and rev=, once.
func setParameter(attributes map[string]any, name, value string) string {
	if attributes[name] != nil {
		return "it names " + name + " twice"
	}
	if name == "rev" {
		if !revPattern.MatchString(value) {
			return fmt.Sprintf("%q is no full revision", value)
		}
		attributes["rev"] = value
		return ""
	}
	return setRef(attributes, value)
}

// git understands git+SCHEME://...[?ref=R&rev=R&shallow=1&submodules=1].
func git(text string) (Reference, string) {
	location, query, reason := splitQuery(strings.TrimPrefix(text, "git+"))
	if reason != "" {
		return Reference{}, reason
	}
	parsed, reason := parseURL(location)
	if reason != "" {
		return Reference{}, reason
	}
	if parsed.Scheme == "file" && (parsed.Host != "" || !path.IsAbs(parsed.Path)) {
		return Reference{}, "a file URL needs three slashes and an absolute path: git+file:///path"
	}
	attributes := map[string]any{"type": "git", "url": location}
	for name, value := range query {
		switch name {
		case "ref", "rev":
			if reason := setParameter(attributes, name, value); reason != "" {
				return Reference{}, reason
			}
		case "shallow", "submodules":
			if value != "0" && value != "1" {
				return Reference{}, "the parameter " + name + " must be 0 or 1"
			}
			attributes[name] = value == "1"
		default:
			return Reference{}, fmt.Sprintf("the parameter %q is not supported", name)
		}
	}
	return Reference{Text: text, Kind: Flake, Flake: attributes}, ""
}

// archive understands the URL of a tarball; file:// with the path of a folder
// is that folder.
func archive(text, location string) (Reference, string, error) {
	parsed, reason := parseURL(location)
	if reason != "" {
		return Reference{}, reason, nil
	}
	if parsed.Fragment != "" {
		return Reference{}, "it has a fragment (#...)", nil
	}
	isArchive := false
	for _, suffix := range archiveSuffixes {
		isArchive = isArchive || strings.HasSuffix(parsed.Path, suffix)
	}
	if parsed.Scheme == "file" {
		if parsed.Host != "" || !path.IsAbs(parsed.Path) {
			return Reference{}, "a file URL needs three slashes and an absolute path: file:///path", nil
		}
		if !isArchive {
			return folder(parsed.Path)
		}
	}
	if !isArchive {
		return Reference{}, fmt.Sprintf("an http URL must be that of an archive; did you mean %s/nixexprs.tar.xz?", strings.TrimSuffix(location, "/")), nil
	}
	return Reference{Text: text, Kind: Tarball, URL: location}, "", nil
}

// secretParameters carry credentials, which must not end up in a state file.
var secretParameters = regexp.MustCompile(`(?i)(^|_)(token|password|secret|key|auth)$`)

func parseURL(text string) (*url.URL, string) {
	parsed, err := url.Parse(text)
	if err != nil {
		return nil, "it is no URL"
	}
	if parsed.Scheme != "file" && !hostPattern.MatchString(parsed.Host) {
		return nil, "it names no host"
	}
	if parsed.User != nil {
		_, hasPassword := parsed.User.Password()
		if hasPassword || parsed.Scheme != "ssh" {
			return nil, "it holds a user name or password, which would be written to the state file; put it into ~/.netrc (setting netrc-file) or access-tokens of nix.conf"
		}
	}
	for name := range parsed.Query() {
		if secretParameters.MatchString(name) {
			return nil, fmt.Sprintf("its parameter %q looks like a secret, which would be written to the state file; use ~/.netrc (setting netrc-file) or access-tokens of nix.conf", name)
		}
	}
	return parsed, ""
}

// splitQuery takes the parameters off a flake reference. Each may come once.
func splitQuery(text string) (location string, parameters map[string]string, reason string) {
	if strings.Contains(text, "#") {
		return "", nil, "a channel is a whole source tree, without #output"
	}
	location, raw, _ := strings.Cut(text, "?")
	values, err := url.ParseQuery(raw)
	if err != nil {
		return "", nil, "its parameters are not well formed"
	}
	parameters = map[string]string{}
	for name, all := range values {
		if secretParameters.MatchString(name) {
			return "", nil, fmt.Sprintf("its parameter %q looks like a secret, which would be written to the state file; use access-tokens of nix.conf", name)
		}
		if name == "dir" {
			return "", nil, "a channel is a whole source tree, so dir= is not supported"
		}
		if len(all) != 1 {
			return "", nil, "it names " + name + " twice"
		}
		parameters[name] = all[0]
	}
	return location, parameters, ""
}

// secretInURL matches user:password@ and the values of secret parameters.
var secretInURL = regexp.MustCompile(`(?i)(://)[^/@]*@|((?:token|password|secret|key|auth)=)[^&#]*`)

// HideSecret makes a text that may hold an address with a password or a token
// fit to be shown.
func HideSecret(text string) string {
	return secretInURL.ReplaceAllString(text, "${1}${2}***")
}

// locked is the reference that fetches the same revision again, or "".
func (r Reference) locked(revision string) string {
	if !revPattern.MatchString(revision) {
		return ""
	}
	text := func(name string) string { value, _ := r.Flake[name].(string); return value }
	switch text("type") {
	case "indirect":
		return "flake:" + text("id") + "/" + revision
	case "github", "gitlab", "sourcehut":
		result := text("type") + ":" + text("owner") + "/" + text("repo") + "/" + revision
		if host := text("host"); host != "" {
			result += "?host=" + host
		}
		return result
	case "git":
		parameters := url.Values{"rev": {revision}}
		if ref := text("ref"); ref != "" {
			parameters.Set("ref", ref)
		}
		for _, name := range []string{"shallow", "submodules"} {
			if r.Flake[name] == true {
				parameters.Set(name, "1")
			}
		}
		prefix := "git+"
		if strings.HasPrefix(text("url"), "git:") {
			prefix = ""
		}
		return prefix + text("url") + "?" + parameters.Encode()
	}
	return ""
}
