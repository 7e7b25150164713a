// Package sudoers renders what lets members of the allowed groups run devhost
// as root, and nothing else; see sudoers(5).
package sudoers

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"devhost/internal/settings"
)

// BadPath says that a program cannot stand in a rule.
type BadPath struct{ Path string }

func (b *BadPath) Error() string {
	return fmt.Sprintf("sudo rules cannot name the program %q: give an absolute path without blanks and wildcards, such as /usr/local/bin/devhost", b.Path)
}

// usualPath is where programs are on most systems.
const usualPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Text is the file for /etc/sudoers.d: Rules, with the usual path. The error is
// that of Rules.
func Text(host settings.Settings, programs []string) (string, error) {
	rules, err := Rules(host, programs, usualPath)
	if err != nil {
		return "", err
	}
	return `# Made by "devhost host install" from the settings of this host (allowedGroups);
# what is changed here is lost with the next one.
` + rules, nil
}

// Rules let members of the allowed groups run the programs, named by absolute
// path, as root without a password, with the folders of path (colons between
// them) as PATH. devhost itself refuses them what is for admins. Nothing of
// their environment is handed on. The error is *BadPath.
func Rules(host settings.Settings, programs []string, path string) (string, error) {
	if len(programs) == 0 {
		return "", errors.New("no program is given for the sudo rules")
	}
	commands := make([]string, len(programs))
	for i, program := range programs {
		// Wildcards would let a rule match more than is meant; a list of
		// arguments is not given, so that all are allowed.
		if !filepath.IsAbs(program) || filepath.Clean(program) != program || strings.ContainsFunc(program, unusual) {
			return "", &BadPath{Path: program}
		}
		commands[i] = program
	}
	var text strings.Builder
	fmt.Fprintf(&text, "Cmnd_Alias DEVHOST = %s\n", strings.Join(commands, ", "))
	// Where sudo is told to keep variables for all commands, these do not.
	text.WriteString("Defaults!DEVHOST env_reset, !setenv, env_keep=\"COLORTERM NO_COLOR\"\n")
	fmt.Fprintf(&text, "Defaults!DEVHOST secure_path=\"%s\"\n", path)
	text.WriteString("Defaults!DEVHOST !requiretty\n")
	for _, group := range host.AllowedGroups {
		fmt.Fprintf(&text, "%%%s ALL=(root) NOPASSWD: NOSETENV: DEVHOST\n", escape(group))
	}
	return text.String(), nil
}

// unusual are characters that mean something in a rule, or that no program of
// devhost has in its path.
func unusual(letter rune) bool {
	switch {
	case letter >= 'a' && letter <= 'z', letter >= 'A' && letter <= 'Z', letter >= '0' && letter <= '9':
		return false
	}
	return !strings.ContainsRune("/._+-", letter)
}

// escape is the name of a group as a rule reads it: all but letters and digits
// that stand for themselves get a backslash or, where there is no such escape,
// their code.
func escape(group string) string {
	var text strings.Builder
	for _, letter := range []byte(group) {
		switch {
		case letter >= 0x80, !unusual(rune(letter)):
			text.WriteByte(letter)
		case strings.IndexByte(`,:=\ "!()#%@*?[]`, letter) >= 0:
			text.WriteByte('\\')
			text.WriteByte(letter)
		default:
			fmt.Fprintf(&text, `\x%02x`, letter)
		}
	}
	return text.String()
}
