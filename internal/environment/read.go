package environment

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"devhost/internal/names"
)

// Methods of a provisioner. Both are the same here: batou's word, and ours.
var methods = []string{"fc-nixos-dev-container", "devhost"}

// Keys by section. The silent ones are batou's own and mean nothing here.
var (
	environmentKeys   = []string{"service_user", "platform", "update_method", "secrets-command"}
	silentEnvironment = []string{"branch", "connect_method", "develop", "host_domain", "jobs", "repository_root", "repository_url", "require_sudo", "require_v4", "require_v6", "target_directory", "timeout"}
	provisionerKeys   = []string{"method", "host", "channel"}
	hostKeys          = []string{"components", "provision-dynamic-hostname", "provision-aliases", "provisioner"}
	silentHost        = []string{"ignore", "platform", "require_sudo", "service_user"}
	syncKeys          = []string{"folders", "exclude", "host"}
	sectionKinds      = []string{"environment", "provisioner:default", "host:NAME", "component:NAME", "sync"}
	silentSections    = []string{"hosts", "resolver", "vfs"}
)

// noProvisioner is batou's word for a host that is there already.
const noProvisioner = "none"

// reader turns an INI file into an environment.
type reader struct {
	*Environment
	file         *file
	problems     []Problem
	provisioners map[string]*Provisioner
}

func (r *reader) problem(line int, format string, arguments ...any) {
	r.problems = append(r.problems, Problem{Line: line, Text: fmt.Sprintf(format, arguments...)})
}

func (r *reader) warn(line int, format string, arguments ...any) {
	r.Warnings = append(r.Warnings, at(r.shown(r.File), line)+fmt.Sprintf(format, arguments...))
}

func (r *reader) read() {
	r.provisioners = map[string]*Provisioner{}
	for _, section := range r.file.sections {
		kind, name, named := strings.Cut(section.name, ":")
		switch {
		case section.name == "environment":
			r.environment(section)
		case section.name == "sync":
			r.sync(section)
		case named && name == "" && slices.Contains([]string{"provisioner", "host", "component"}, kind):
			r.problem(section.line, "the section [%s] has no name behind the colon; [%s:NAME] was expected", section.name, kind)
		case named && kind == "provisioner":
			r.provisioner(section, name)
		case named && kind == "host":
		case named && kind == "component":
			r.component(section, name)
		case slices.Contains(silentSections, section.name):
		default:
			r.warn(section.line, "the section [%s] means nothing here%s", section.name, meant(section.name, sectionKinds))
		}
	}
	for _, section := range r.file.sections {
		if name, isHost := strings.CutPrefix(section.name, "host:"); isHost && name != "" {
			r.host(section, name)
		}
	}
	for _, host := range r.Hosts {
		// In the ssh_config of the environment, the way to the dev host would be
		// that to the container, which leads through the dev host.
		if r.isDevHost(host.Key) {
			r.problem(host.Line, "host %s has the name of the dev host, so ssh could not tell them apart; give one of them another name", host.Key)
		}
	}
	if len(r.Hosts) == 0 && len(r.problems) == 0 {
		r.problem(0, "it has no host to provision; a section such as [host:app] was expected")
	}
	if r.Sync.Host != "" && !slices.ContainsFunc(r.Hosts, func(host *Host) bool { return host.Key == r.Sync.Host }) && len(r.problems) == 0 {
		r.problem(r.file.section("sync").entry("host").line, "there is no section [host:%s]", r.Sync.Host)
	}
}

func meant(word string, known []string) string {
	if closest := names.Closest(word, known); closest != "" {
		return fmt.Sprintf("; did you mean %s?", closest)
	}
	return ""
}

// keys warns about keys that nobody reads.
func (r *reader) keys(section *section, known, silent []string) {
	for _, entry := range section.entries {
		if slices.Contains(known, entry.key) || slices.Contains(silent, entry.key) || slices.Contains(r.file.defaults.entries, entry) {
			continue
		}
		if section.name != "environment" && strings.HasPrefix(entry.key, "data-") {
			continue
		}
		r.warn(entry.line, "the key %s means nothing in [%s]%s", entry.key, section.name, meant(entry.key, append(slices.Clone(known), silent...)))
	}
}

// one is a value of one line, "" where the key is missing.
func (r *reader) one(section *section, key string) (string, int) {
	entry := section.entry(key)
	if entry == nil {
		return "", section.line
	}
	lines := entry.filled()
	switch len(lines) {
	case 0:
		return "", entry.line
	case 1:
		return lines[0].text, lines[0].line
	}
	r.problem(lines[1].line, "%s goes on in a second line; one line was expected", key)
	return lines[0].text, lines[0].line
}

func (r *reader) login(section *section, key string) string {
	user, line := r.one(section, key)
	if user != "" && !loginName.MatchString(user) {
		r.problem(line, "%s is %s, which is no login name; lower-case letters, digits, _ and - were expected, such as %s", key, shown(user), DefaultServiceUser)
		return ""
	}
	return user
}

func (r *reader) environment(section *section) {
	r.keys(section, environmentKeys, silentEnvironment)
	if user := r.login(section, "service_user"); user != "" {
		r.ServiceUser = user
	}
	if platform, line := r.one(section, "platform"); platform != "" && platform != "nixos" {
		r.warn(line, "the platform is %s; containers of a dev host are nixos", shown(platform))
	}
	if method, line := r.one(section, "update_method"); method != "" && method != "rsync" {
		r.warn(line, "update_method is %s; devhost-deploy always uses rsync", shown(method))
	}
	r.SecretsCommand, _ = r.one(section, "secrets-command")
}

func (r *reader) provisioner(section *section, name string) {
	r.keys(section, provisionerKeys, nil)
	provisioner := &Provisioner{Name: name}
	r.provisioners[name] = provisioner
	method, line := r.one(section, "method")
	switch {
	case method == "":
		r.problem(line, "[%s] has no method; method = %s was expected", section.name, methods[0])
	case !slices.Contains(methods, method):
		r.problem(line, "the method %s is not known; %s was expected%s", shown(method), strings.Join(methods, " or "), meant(method, methods))
	}
	provisioner.Host, line = r.one(section, "host")
	switch {
	case provisioner.Host == "":
		r.problem(line, "[%s] has no host; host = dev.example.org, the dev host, was expected", section.name)
	case destinationProblem(provisioner.Host) != "":
		r.problem(line, "%s", destinationProblem(provisioner.Host))
	}
	provisioner.Channel, line = r.one(section, "channel")
	if provisioner.Channel != "" && !channelForm.MatchString(provisioner.Channel) {
		r.problem(line, "the channel %s is neither a URL nor a flake reference nor a folder of the dev host; it must not have blanks or start with a hyphen", shown(provisioner.Channel))
	}
}

func (r *reader) host(section *section, key string) {
	r.keys(section, hostKeys, silentHost)
	host := &Host{Key: key, Line: section.line}
	if r.truth(section, "ignore") {
		r.warn(section.line, "host %s is left out, as it says ignore", key)
		return
	}
	wanted, line := r.one(section, "provisioner")
	if wanted == noProvisioner {
		r.warn(line, "host %s is left out, as it has no provisioner", key)
		return
	}
	switch {
	case wanted != "":
		host.Provisioner = r.provisioners[wanted]
		if host.Provisioner == nil {
			known := make([]string, 0, len(r.provisioners))
			for name := range r.provisioners {
				known = append(known, name)
			}
			r.problem(line, "there is no section [provisioner:%s]%s", wanted, meant(wanted, known))
		}
	default:
		host.Provisioner = r.provisioners["default"]
		if host.Provisioner == nil {
			r.problem(section.line, "host %s has no provisioner; a section [provisioner:default], or provisioner = NAME with a section [provisioner:NAME], was expected", key)
		}
	}
	host.Dynamic = r.truth(section, "provision-dynamic-hostname")
	host.ServiceUser = r.login(section, "service_user")
	if !host.Dynamic {
		host.Name = key
		if err := names.Container(key); err != nil {
			r.problem(section.line, "%v; or let it have a random one: provision-dynamic-hostname = True", err)
		}
	} else if !environmentName.MatchString(key) {
		r.problem(section.line, "%s cannot be the name of a host; letters, digits and . _ - were expected", shown(key))
	}
	if aliases := section.entry("provision-aliases"); aliases != nil {
		for _, word := range aliases.words() {
			switch err := names.Alias(word.text); {
			case err != nil:
				r.problem(word.line, "%v", err)
			case slices.Contains(host.Aliases, word.text):
				r.problem(word.line, "alias %s is there twice", word.text)
			default:
				host.Aliases = append(host.Aliases, word.text)
			}
		}
	}
	r.Hosts = append(r.Hosts, host)
}

// truth reads a Python literal, as batou does, and the words of configparser.
func (r *reader) truth(section *section, key string) bool {
	text, line := r.one(section, key)
	switch strings.ToLower(text) {
	case "", "false", "no", "off", "0", "none":
		return false
	case "true", "yes", "on", "1":
		return true
	}
	r.problem(line, "%s is %s; True or False was expected", key, shown(text))
	return false
}

func (r *reader) component(section *section, name string) {
	values := map[string]string{}
	for _, entry := range section.entries {
		values[entry.key] = entry.value()
	}
	r.Components[name] = values
}

func (r *reader) sync(section *section) {
	r.keys(section, syncKeys, nil)
	r.Sync.Host, _ = r.one(section, "host")
	if exclude := section.entry("exclude"); exclude != nil {
		for _, line := range exclude.filled() {
			r.Sync.Exclude = append(r.Sync.Exclude, line.text)
		}
	}
	folders := section.entry("folders")
	if folders == nil {
		r.problem(section.line, "[sync] has no folders; folders = SOURCE:TARGET was expected")
		return
	}
	for _, line := range folders.filled() {
		folder, err := r.ParseSyncFolder(r.Root, line.text)
		if err != nil {
			r.problem(line.line, "%v", err)
			continue
		}
		folder.Line = line.line
		r.Sync.Folders = append(r.Sync.Folders, folder)
	}
}

// ParseSyncFolder reads SOURCE:TARGET; a relative source is below base.
func (e *Environment) ParseSyncFolder(base, text string) (SyncFolder, error) {
	at := strings.LastIndexByte(text, ':')
	if at <= 0 || at == len(text)-1 {
		return SyncFolder{}, fmt.Errorf("%s is no folder to sync; SOURCE:TARGET was expected, such as src/:/srv/%s/src", shown(text), e.ServiceUser)
	}
	folder := SyncFolder{Source: strings.TrimSpace(text[:at]), Target: strings.TrimSpace(text[at+1:])}
	if !strings.HasPrefix(folder.Target, "/") {
		return SyncFolder{}, fmt.Errorf("the target of %s must be an absolute path in the container, such as /srv/%s/src", shown(text), e.ServiceUser)
	}
	slash := strings.HasSuffix(folder.Source, "/")
	if !filepath.IsAbs(folder.Source) {
		folder.Source = filepath.Join(base, folder.Source)
	}
	folder.Source = filepath.Clean(folder.Source)
	if slash && folder.Source != "/" {
		folder.Source += "/"
	}
	return folder, nil
}

// ParseSecrets reads secrets in the form of environment.cfg: [COMPONENT] or
// [component:COMPONENT], and attribute = value in it. batou's own section [batou]
// is left out. Errors have nothing of the values.
func ParseSecrets(data []byte) (map[string]map[string]string, error) {
	parsed, problems := readINI(data)
	if len(problems) > 0 {
		return nil, fmt.Errorf("something is wrong in its line %d; lines such as [component] and attribute = value were expected", problems[0].Line)
	}
	secrets := map[string]map[string]string{}
	for _, section := range parsed.sections {
		if section.name == "batou" {
			continue
		}
		component := strings.TrimPrefix(section.name, "component:")
		if secrets[component] == nil {
			secrets[component] = map[string]string{}
		}
		for _, entry := range section.entries {
			secrets[component][entry.key] = entry.value()
		}
	}
	return secrets, nil
}
