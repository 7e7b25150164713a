package deploy

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"devhost/internal/environment"
	"devhost/internal/execx"
	"devhost/internal/sshlink"
	"devhost/internal/terminal"
)

// prelude defines COPY, RUN, RUN_AS and ECHO.
//
//go:embed prelude.sh
var prelude string

// What reads in the container what the prelude sends. USER is a login that was
// checked. A single argument of RUN is a command line; several are run as they
// are, after leading assignments.
const (
	decode     = `mapfile -d "" -t a && exec </dev/null || exit; `
	runDecoded = `if [ ${#a[@]} = 1 ]; then eval "${a[0]}"; else set -- "${a[@]}"; unset a; while [[ $# -gt 1 && $1 =~ ^[A-Za-z_][A-Za-z0-9_]*= ]]; do export "$1"; shift; done; "$@"; fi`
	remoteRun  = `sudo -n bash -c '` + decode + runDecoded + `'`
	remoteAs   = `sudo -n -H -u USER bash -c 'cd || cd /; ` + decode + runDecoded + `'`
	remoteEcho = `sudo -n -u USER bash -c '` + decode + `printf "%s\n" "${a[1]}" > "${a[0]}"'`
)

// ScriptFailed says that provision.sh failed.
type ScriptFailed struct {
	// Path is the script's, Line where it failed (0 where that is not known) and
	// Source that line.
	Path   string
	Line   int
	Source string
	// Last is the line of the last COPY, RUN, RUN_AS or ECHO, 0 for none.
	Last   int
	Status int
	// Tail are the last lines that it wrote.
	Tail []string
	// Container is up all the same.
	Container string
}

func (s *ScriptFailed) Error() string {
	var text strings.Builder
	text.WriteString(s.Path)
	if s.Line > 0 {
		fmt.Fprintf(&text, ":%d: %s", s.Line, s.Source)
	}
	fmt.Fprintf(&text, ": ended with exit status %d", s.Status)
	if s.Status == lost {
		text.WriteString(" (as ssh does when it loses the connection)")
	}
	if s.Line == 0 && s.Last > 0 {
		fmt.Fprintf(&text, "; the last of COPY, RUN, RUN_AS and ECHO was in line %d", s.Last)
	}
	for _, line := range s.Tail {
		text.WriteString("\n  " + line)
	}
	state := "is up"
	if s.Status == lost {
		state = "was up when the script began"
	}
	fmt.Fprintf(&text, "\nContainer %s %s; the lines before took effect, this one may have in part, and the next deploy runs all of %s again.", s.Container, state, s.Path)
	return text.String()
}

// provisioning is one run of a script for one host.
type provisioning struct {
	runner execx.Runner
	e      *environment.Environment
	host   *environment.Host
	// control is the socket of the connection to the container.
	control string
	// variables are those beside the caller's environment.
	variables map[string]string
	mask      *strings.Replacer
	// step is called with each line of the script that calls one of our functions,
	// line with each line that it writes.
	step func(line int)
	line func(text string)
}

// arguments are what the prelude takes. The text is what is run, "" for
// provision.sh.
func (p *provisioning) arguments(text string) []string {
	user := p.e.ServiceUserOf(p.host)
	rsh := sshlink.RsyncShell([]string{"ssh", "-F", p.e.SSHConfig(), "-o", "ControlPath=" + configValue(p.control), "-o", "ControlMaster=no", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "RemoteCommand=none"})
	return []string{
		"./provision.sh", p.e.SSHConfig(), configValue(p.control), p.host.Name, user,
		remoteRun, remoteAs, strings.ReplaceAll(remoteEcho, "USER", user), "sudo -n -u " + user + " rsync", rsh, text,
	}
}

// run runs a text with the functions, or provision.sh for "", in the
// environment's folder. A text is constant: it is seen in process lists.
func (p *provisioning) run(ctx context.Context, text string) (*ScriptFailed, error) {
	events, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer events.Close()
	failed := &ScriptFailed{Path: p.e.ShownScript(), Container: p.host.Name}
	output, theirOutput, err := os.Pipe()
	if err != nil {
		_ = theirs.Close()
		return nil, err
	}
	defer output.Close()
	const kept = 40
	said := &execx.LineWriter{Line: func(line string) {
		line = terminal.Line(p.mask.Replace(line))
		failed.Tail = append(failed.Tail, line)
		if len(failed.Tail) > kept {
			failed.Tail = failed.Tail[1:]
		}
		p.line(line)
	}}
	var listening sync.WaitGroup
	listening.Go(func() { p.listen(events, failed) })
	listening.Go(func() {
		_, _ = io.Copy(said, output)
		_ = said.Close()
	})
	err = p.runner.Run(ctx, execx.Command{
		Name: "bash", Args: append([]string{"--noprofile", "--norc", "-c", prelude, "devhost-deploy"}, p.arguments(text)...),
		Dir: p.e.Folder, Env: p.environ(), ExtraFiles: []*os.File{theirs, theirOutput},
		// Without a terminal, what would ask for something fails and does not hang.
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	})
	_, _ = theirs.Close(), theirOutput.Close()
	// What the script left running in the background may still have them open. It is
	// not waited for, and not ended either.
	const moment = time.Second
	_, _ = events.SetReadDeadline(time.Now().Add(moment)), output.SetReadDeadline(time.Now().Add(moment))
	listening.Wait()
	if err == nil {
		return nil, nil
	}
	var ended *execx.Error
	if !errors.As(err, &ended) || ended.Cancelled || ended.Err != nil {
		return nil, err
	}
	if ended.NotFound {
		return nil, errors.New("there is no bash on PATH, which provision.sh needs")
	}
	failed.Status = ended.ExitCode
	if ended.Signal != 0 {
		failed.Status = 128 + int(ended.Signal)
	}
	return failed, nil
}

// listen reads what the prelude says of steps and failures.
func (p *provisioning) listen(events io.Reader, failed *ScriptFailed) {
	lines := bufio.NewScanner(events)
	for lines.Scan() {
		var what string
		var line, status int
		if _, err := fmt.Sscanf(lines.Text(), "%s %d %d", &what, &line, &status); err != nil {
			continue
		}
		if what == "step" {
			failed.Last = line
			p.step(line)
		} else {
			failed.Line = line
		}
	}
}

// environ is the script's environment: the caller's, without what would change
// how bash works, and the variables.
func (p *provisioning) environ() []string {
	drop := []string{"BASH_ENV", "ENV", "SHELLOPTS", "BASHOPTS", "CDPATH", "PROVISION_REBUILD", "POSIXLY_CORRECT", "BASH_XTRACEFD"}
	environ := slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		_, ours := p.variables[name]
		return ours || slices.Contains(drop, name) || strings.HasPrefix(name, "BASH_FUNC_")
	})
	for _, name := range sorted(p.variables) {
		environ = append(environ, name+"="+p.variables[name])
	}
	return environ
}

// variablesOf are the variables of the contract with batou.
func variablesOf(e *environment.Environment, host *environment.Host, components map[string]string, rebuild bool) map[string]string {
	variables := map[string]string{
		"PROVISION_CONTAINER": host.Name,
		"PROVISION_HOST":      host.Provisioner.Host,
		"PROVISION_CHANNEL":   host.Provisioner.Channel,
		"PROVISION_ALIASES":   strings.Join(host.Aliases, " "),
		"SSH_CONFIG":          e.SSHConfig(),
		"RSYNC_RSH":           sshlink.RsyncShell([]string{"ssh", "-F", e.SSHConfig()}),
	}
	if rebuild {
		variables["PROVISION_REBUILD"] = "1"
	}
	for name, value := range components {
		variables[name] = value
	}
	return variables
}
