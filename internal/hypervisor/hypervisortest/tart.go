package hypervisortest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"devhost/internal/seed"
)

// FakeTart is the variable of the environment with what Tart does: words with
// blanks between them.
//
//	fail=VERB       tart VERB fails
//	noip            tart ip knows no address
//	print=ADDRESS   the guest prints its address
const FakeTart = "FAKE_TART"

// Tart plays tart. It keeps its state below $TART_HOME: a folder vms/NAME a VM,
// with its state in the file "state", and all calls in the file "calls".
func Tart() {
	if err := tart(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// TartMAC is the MAC address of every VM.
const TartMAC = "2a:01:0f:00:03:09"

func tart(arguments []string) error {
	home := os.Getenv("TART_HOME")
	log, err := os.OpenFile(filepath.Join(home, "calls"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	fmt.Fprintln(log, strings.Join(arguments, " "))
	log.Close()
	behaviour := strings.Fields(os.Getenv(FakeTart))
	verb := arguments[0]
	if slices.Contains(behaviour, "fail="+verb) {
		return fmt.Errorf("tart: %s failed as asked", verb)
	}
	name := arguments[len(arguments)-1]
	if verb != "run" {
		for _, argument := range arguments[1:] {
			if !strings.HasPrefix(argument, "-") {
				name = argument
				break
			}
		}
	}
	folder := filepath.Join(home, "vms", name)
	state := func(text string) error { return os.WriteFile(filepath.Join(folder, "state"), []byte(text), 0o600) }
	if _, err := os.Stat(folder); err != nil && verb != "create" && verb != "list" {
		return fmt.Errorf("the specified VM %q does not exist", name)
	}
	switch verb {
	case "create":
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, "config.json"), []byte(`{"macAddress": "`+TartMAC+`"}`), 0o600); err != nil {
			return err
		}
		return state("stopped")
	case "delete":
		return os.RemoveAll(folder)
	case "stop":
		return state("stopped")
	case "ip":
		if slices.Contains(behaviour, "noip") {
			return fmt.Errorf("no IP address found, is your VM running?")
		}
		fmt.Fprintln(os.Stdout, "192.168.64.3")
	case "list":
		return tartList(home)
	case "run":
		return tartRun(arguments, behaviour, folder, state)
	}
	return nil
}

func tartList(home string) error {
	type entry struct{ Name, State, Source string }
	all := []entry{}
	folders, _ := os.ReadDir(filepath.Join(home, "vms"))
	for _, one := range folders {
		text, err := os.ReadFile(filepath.Join(home, "vms", one.Name(), "state"))
		if err == nil {
			all = append(all, entry{one.Name(), string(text), "local"})
		}
	}
	return json.NewEncoder(os.Stdout).Encode(all)
}

// tartRun runs until another tart says stop.
func tartRun(arguments, behaviour []string, folder string, state func(string) error) error {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	if at := slices.Index(arguments, "--serial-path"); at >= 0 {
		console, err := os.OpenFile(arguments[at+1], os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer console.Close()
		fmt.Fprint(console, "the guest boots\n")
		for _, word := range behaviour {
			if address, ok := strings.CutPrefix(word, "print="); ok {
				_ = (&seed.Reporter{Console: console}).Report(seed.Event{Kind: seed.AddressEvent, Address: address})
			}
		}
	}
	if err := state("running"); err != nil {
		return err
	}
	for {
		text, err := os.ReadFile(filepath.Join(folder, "state"))
		if err != nil || string(text) != "running" {
			return nil
		}
		select {
		case <-interrupted:
			return state("stopped")
		case <-time.After(10 * time.Millisecond):
		}
	}
}
