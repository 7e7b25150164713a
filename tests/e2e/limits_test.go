package e2e

import (
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// limit reads a limit from the container's cgroup, on a host with the first or
// the second version of cgroups. Without a limit it is -1.
func (h *host) limit(name string, files ...string) string {
	h.t.Helper()
	below := filepath.Join("devhost-"+h.layout.Instance(), name)
	for _, pattern := range []string{filepath.Join("/sys/fs/cgroup", below), filepath.Join("/sys/fs/cgroup/*", below)} {
		for _, file := range files {
			if found, _ := filepath.Glob(filepath.Join(pattern, file)); len(found) > 0 {
				text := strings.TrimSpace(readFile(h.t, found[0]))
				text, _, _ = strings.Cut(text, " ")
				if text == "max" || len(text) > 18 {
					text = "-1"
				}
				return text
			}
		}
	}
	h.t.Fatalf("container %s has no file %v in its cgroup", name, files)
	return ""
}

type limits struct{ memory, cpu, tasks string }

func (h *host) limits(name string) limits {
	h.t.Helper()
	return limits{
		memory: h.limit(name, "memory.max", "memory.limit_in_bytes"),
		cpu:    h.limit(name, "cpu.max", "cpu.cfs_quota_us"),
		tasks:  h.limit(name, "pids.max"),
	}
}

// checkLimits changes limits while the container runs.
func checkLimits(t *testing.T, h *host) {
	path, called := poisoned(t, everyProgram...)
	quick := h.with(t)
	quick.env = []string{"PATH=" + path}
	before := h.status("trial").StartedAt
	none := limits{"-1", "-1", "-1"}
	if found := h.limits("trial"); found != none {
		t.Errorf("without limits, the cgroup says %+v", found)
	}
	for _, test := range []struct {
		args []string
		want limits
	}{
		{[]string{"--memory", "700M", "--cpus", "1.5", "--tasks", "500"}, limits{strconv.Itoa(700 << 20), "150000", "500"}},
		{[]string{"--memory", "1G"}, limits{strconv.Itoa(1 << 30), "150000", "500"}},
		{[]string{"--memory", "600M", "--cpus", "0.5"}, limits{strconv.Itoa(600 << 20), "50000", "500"}},
		{nil, limits{strconv.Itoa(600 << 20), "50000", "500"}},
	} {
		quick.must(append([]string{"ensure", "trial"}, test.args...)...)
		if found := h.limits("trial"); found != test.want {
			t.Errorf("after %v the cgroup says %+v, not %+v", test.args, found, test.want)
		}
	}
	if status := h.status("trial"); !status.StartedAt.Equal(before) || status.Limits.MemoryBytes != 600<<20 || status.Limits.CPUs != 0.5 || status.Limits.Tasks != 500 {
		t.Errorf("status says %+v; started at %s before", status, before)
	}
	if calls := called(); calls != "" {
		t.Errorf("a change of limits called:\n%s", calls)
	}
	// They hold: a guest cannot have more tasks.
	const script = "for i in $(seq 600); do sleep 86396 & done; echo all"
	greedy := h.command("exec", "trial", "--", "sh", "-c", script)
	output := &lines{}
	greedy.Stdout, greedy.Stderr = output, output
	if err := greedy.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "there are no more processes to be had", func() bool { return strings.Contains(output.text(), "fork") })
	// Other tasks of the guest's end now and then, and make room for a moment.
	waitFor(t, "there are as many tasks as there may be", func() bool { return h.limit("trial", "pids.current") == "500" })
	// It tries again for a while and hears nothing meanwhile.
	kill(t, findProcess("sh\x00-c\x00"+script+"\x00"))
	if err := greedy.Wait(); err == nil || strings.Contains(output.text(), "all") {
		t.Errorf("600 processes started: %s", output.text())
	}
	// A guest without room for a process cannot power off: make some.
	for _, pid := range findProcesses("sleep\x0086396\x00") {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	// The limits are there after a restart, and can be taken away.
	h.must("restart", "trial")
	if found, want := h.limits("trial"), (limits{strconv.Itoa(600 << 20), "50000", "500"}); found != want {
		t.Errorf("after a restart the cgroup says %+v, not %+v", found, want)
	}
	quick.must("ensure", "trial", "--memory", "0", "--cpus", "0", "--tasks", "0")
	if found := h.limits("trial"); found != none {
		t.Errorf("without limits again, the cgroup says %+v", found)
	}
	for _, args := range [][]string{{"--memory", "1K"}, {"--memory", "-1"}, {"--memory", "lots"}, {"--cpus", "-1"}, {"--cpus", "NaN"}, {"--tasks", "3"}, {"--tasks", "x"}} {
		h.fails(2, []string{args[0][2:]}, append([]string{"ensure", "trial"}, args...)...)
	}
}
