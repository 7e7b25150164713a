package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// usualIOWeight is what a cgroup has that nobody gave a weight.
const usualIOWeight = 100

// ioWeightFile is a control file for weights, and what it takes.
type ioWeightFile struct {
	name string
	// value writes a weight of 1 to 10000 in the file's own measure.
	value func(weight int64) string
}

// ioWeightFiles are those that a kernel may have, the best first: v2's, BFQ's in
// v1 (1 to 1000), and that of the scheduler CFQ, which Linux 5.0 dropped (10 to
// 1000). The measures are those of systemd.
var ioWeightFiles = []ioWeightFile{
	{"io.weight", func(weight int64) string { return "default " + strconv.FormatInt(weight, 10) }},
	{"io.bfq.weight", bfqWeight},
	{"blkio.bfq.weight", bfqWeight},
	{"blkio.weight", func(weight int64) string {
		const usual = 500
		return strconv.FormatInt(min(max(weight*usual/usualIOWeight, 10), 1000), 10)
	}},
}

// bfqWeight keeps weights up to the usual one and presses those above into what
// is left.
func bfqWeight(weight int64) string {
	const most, mostOurs = 1000, 10000
	if weight > usualIOWeight {
		weight = usualIOWeight + (weight-usualIOWeight)*(most-usualIOWeight)/(mostOurs-usualIOWeight)
	}
	return strconv.FormatInt(weight, 10)
}

// IOWeight says whether weights for disks count on this machine. In v2 the root
// has no weight to look at; whether the disk's scheduler heeds it is its own affair.
func (t *Tree) IOWeight() bool {
	return slices.ContainsFunc(t.hierarchies, func(one hierarchy) bool {
		switch {
		case one.unified:
			return slices.Contains(one.controllers, "io")
		case !slices.Contains(one.controllers, "blkio"):
			return false
		}
		return slices.ContainsFunc(ioWeightFiles, func(file ioWeightFile) bool {
			_, err := os.Stat(filepath.Join(one.mount, file.name))
			return err == nil
		})
	})
}

// setIOWeight gives the container its share of the disks' time. A weight is a
// wish, not a limit: where the kernel has none, that is no error.
func (g *Group) setIOWeight(weight int64) error {
	folder, _, found := g.controlled("io")
	if !found {
		folder, _, found = g.controlled("blkio")
	}
	if !found {
		return nil
	}
	if weight == 0 {
		weight = usualIOWeight
	}
	for _, file := range ioWeightFiles {
		err := writeFile(filepath.Join(folder, file.name), file.value(weight))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return err
	}
	return nil
}
