// Package hypervisortest holds programs that play QEMU, Tart, ssh and the like
// in tests. Each is the main function of a program: see testscript.Main.
package hypervisortest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"devhost/internal/execx"
	"devhost/internal/seed"
	"devhost/internal/seed/seedtest"
)

// FakeQEMU is the variable of the environment that says what QEMU does: words
// with blanks between them.
//
//	kvm=exit             with the accelerator kvm, it ends at once
//	kvm=internal-error   with kvm, the guest stops
//	deaf                 the guest ignores the power button
//	busy                 the monitor does not say that the button was pressed,
//	                     and the guest powers off a second later
//	io-error             the disk of the host is full
//	install=fail         the installer fails; install=none: it says nothing;
//	                     install=slow: it runs until it is told to power off;
//	                     install=panic: its kernel panics, and it runs on
//	nossh                no sshd greets
const FakeQEMU = "FAKE_QEMU"

// QEMU plays qemu-system-*.
func QEMU() {
	machine := &fakeMachine{arguments: os.Args[1:], quit: make(chan int, 1)}
	os.Exit(machine.run())
}

type fakeMachine struct {
	arguments []string
	quit      chan int
	mutex     sync.Mutex
	status    string
}

func says(word string) bool {
	for _, one := range strings.Fields(os.Getenv(FakeQEMU)) {
		if one == word {
			return true
		}
	}
	return false
}

// find is the first group of a pattern in the arguments, "" for none.
func (f *fakeMachine) find(pattern string) string {
	match := regexp.MustCompile(pattern).FindStringSubmatch(strings.Join(f.arguments, "\n") + "\n")
	if match == nil {
		return ""
	}
	return match[1]
}

func (f *fakeMachine) run() int {
	accelerator := f.find(`(?m)^-accel\n([a-z]+)`)
	if says(accelerator + "=exit") {
		fmt.Fprintf(os.Stderr, "qemu: failed to initialize %s: Operation not permitted\n", accelerator)
		return 1
	}
	f.status = "running"
	if says(accelerator + "=internal-error") {
		fmt.Fprintln(os.Stderr, "KVM internal error. Suberror: 1")
		f.status = "internal-error"
	}
	if says("io-error") {
		f.status = "io-error"
	}
	listener, err := listen("unix", strings.ReplaceAll(f.find(`unix:(.*),server=on`), ",,", ","))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	console, err := os.Create(strings.ReplaceAll(f.find(`id=console,path=(.*)`), ",,", ","))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if f.status == "running" {
		fmt.Fprint(console, "firmware\r\n")
		go f.guest(console)
	}
	go f.serve(listener)
	status := <-f.quit
	listener.Close()
	return status
}

// guest is what runs in the machine.
func (f *fakeMachine) guest(console *os.File) {
	if f.find(`(media=cdrom)`) != "" {
		f.install(console)
		return
	}
	fmt.Fprint(console, "\x1b[1mNixOS\x1b[0m boots\r\nlogin: ")
	if says("nossh") {
		return
	}
	listener, err := listen("tcp", "127.0.0.1:"+f.find(`hostfwd=tcp:127\.0\.0\.1:([0-9]+)-:22`))
	if err != nil {
		fmt.Fprintln(console, err)
		return
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		_, _ = connection.Write([]byte("SSH-2.0-fake\r\n"))
		connection.Close()
	}
}

// HostKey is that of the guest.
const HostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDmxVNLDMAXXpYWzFkm9T4hLm9Yk0b8mUuFtUhPz4o3A"

func (f *fakeMachine) install(console *os.File) {
	if says("install=none") {
		fmt.Fprint(console, "reboot: Power down\r\n")
		f.quit <- 0
		return
	}
	if says("install=panic") {
		fmt.Fprint(console, "[    1.206182] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n[    1.206811] CPU: 0 PID: 1 Comm: swapper/0\r\n")
		return
	}
	events := []seed.Event{
		{Kind: seed.PhaseEvent, Phase: "partition", State: seed.Started, Number: 1, Count: 2},
		{Kind: seed.PhaseEvent, Phase: "partition", State: seed.Done, Number: 1, Count: 2},
	}
	switch {
	case says("install=slow"):
		var printed bytes.Buffer
		_ = (&seed.Reporter{Console: &printed}).Report(events[0])
		_, _ = console.Write(printed.Bytes())
		return
	case says("install=fail"):
		events = append(events, seed.Event{Kind: seed.VerdictEvent, Verdict: seed.InstallFails, Phase: "partition", Message: "the disk /dev/vda holds data\n\x1b[2Jtake an empty one"})
	default:
		events = append(events, seed.Event{Kind: seed.HostKeyEvent, HostKey: HostKey}, seed.Event{Kind: seed.VerdictEvent, Verdict: seed.Installed})
	}
	var printed bytes.Buffer
	if image := f.find(`id=seed,format=raw,file=(.*)`); image != "" {
		if err := seedtest.Report(strings.ReplaceAll(image, ",,", ","), &printed, events...); err != nil {
			fmt.Fprintln(console, err)
		}
		if says("torn") {
			_ = os.Truncate(strings.ReplaceAll(image, ",,", ","), 0)
		}
	}
	_, _ = console.Write(printed.Bytes())
	f.quit <- 0
}

// serve plays the monitor, for one client at a time.
func (f *fakeMachine) serve(listener net.Listener) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		f.converse(connection)
	}
}

func (f *fakeMachine) converse(connection net.Conn) {
	defer connection.Close()
	fmt.Fprintln(connection, `{"QMP": {"version": {}, "capabilities": []}}`)
	for lines := bufio.NewScanner(connection); lines.Scan(); {
		var request struct{ Execute string }
		_ = json.Unmarshal(lines.Bytes(), &request)
		// Events may come at any time.
		fmt.Fprintln(connection, `{"event": "RTC_CHANGE", "data": {}}`)
		f.mutex.Lock()
		status := f.status
		f.mutex.Unlock()
		switch request.Execute {
		case "query-status":
			fmt.Fprintf(connection, `{"return": {"status": %q}}`+"\n", status)
		case "query-name":
			fmt.Fprintf(connection, `{"return": {"name": %q}}`+"\n", f.find(`(?m)^-name\n(.*)$`))
		case "system_powerdown":
			if says("busy") {
				time.AfterFunc(time.Second, func() { f.quit <- 0 })
				continue
			}
			fmt.Fprintln(connection, `{"return": {}}`)
			if !says("deaf") {
				f.quit <- 0
				return
			}
		case "quit":
			fmt.Fprintln(connection, `{"return": {}}`)
			f.quit <- 0
			return
		case "qmp_capabilities":
			fmt.Fprintln(connection, `{"return": {}}`)
		default:
			fmt.Fprintf(connection, `{"error": {"class": "CommandNotFound", "desc": "no %s"}}`+"\n", request.Execute)
		}
	}
}

func listen(network, address string) (net.Listener, error) {
	return (&net.ListenConfig{}).Listen(context.Background(), network, address)
}

// QEMUImg plays qemu-img: an image is a file that holds its size in GiB.
func QEMUImg() {
	arguments := os.Args[1:]
	path, size := arguments[len(arguments)-1], ""
	if arguments[0] != "info" {
		path, size = arguments[len(arguments)-2], strings.TrimSuffix(arguments[len(arguments)-1], "G")
	}
	if os.Getenv("FAKE_QEMU_IMG") == "full" {
		fmt.Fprintf(os.Stderr, "qemu-img: %s: No space left on device\n", path)
		os.Exit(1)
	}
	switch arguments[0] {
	case "create", "resize":
		if err := os.WriteFile(path, []byte(size), 0o600); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "info":
		data, err := os.ReadFile(path)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		count, _ := strconv.ParseInt(string(data), 10, 64)
		fmt.Fprintf(os.Stdout, `{"virtual-size": %d}`+"\n", count<<30)
	}
}

// SSH plays ssh. FAKE_SSH says how: "denied", "changed", "" for a login that
// works, or the path of a shell script that is the guest: it finds the remote
// command in $COMMAND. The file that FAKE_SSH_LOG names gets the arguments.
func SSH() {
	if path := os.Getenv("FAKE_SSH_LOG"); path != "" {
		log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err == nil {
			fmt.Fprintln(log, strings.Join(os.Args[1:], " "))
			log.Close()
		}
	}
	switch how := os.Getenv("FAKE_SSH"); how {
	case "":
	case "denied":
		fmt.Fprintln(os.Stderr, "ada@127.0.0.1: Permission denied (publickey).")
		os.Exit(255)
	case "changed":
		fmt.Fprintln(os.Stderr, "Host key verification failed.")
		os.Exit(255)
	default:
		err := execx.New().Run(context.Background(), execx.Command{
			Name: "sh", Args: []string{how}, Env: append(os.Environ(), "COMMAND="+os.Args[len(os.Args)-1]),
			Passthrough: true, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		})
		var failed *execx.Error
		if errors.As(err, &failed) {
			os.Exit(failed.ExitCode)
		}
	}
}
