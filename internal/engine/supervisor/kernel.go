package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// InotifyInstances is how many inotify instances there shall be at least
// (fs.inotify.max_user_instances): starting a container raises a lower limit.
const InotifyInstances = 8192

// kernelLimits are limits of the kernel that all guests share: a user
// namespace's use is charged to root, who made it. With the default of 128
// inotify instances, the twentieth guest's PID 1 does not start. See inotify(7).
var kernelLimits = map[string]int{
	"fs/inotify/max_user_instances": InotifyInstances,
	"fs/inotify/max_user_watches":   524288,
}

// raiseKernelLimits raises what is lower, and lowers nothing.
func raiseKernelLimits(sysctls string) error {
	for name, least := range kernelLimits {
		path := filepath.Join(sysctls, name)
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		current, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if current >= least {
			continue
		}
		if err := os.WriteFile(path, []byte(strconv.Itoa(least)), 0); err != nil {
			return err
		}
	}
	return nil
}
