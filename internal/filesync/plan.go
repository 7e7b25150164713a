package filesync

import (
	"path"
	"strings"
)

// plan is what makes the container equal to the workstation.
type plan struct {
	// clear are paths in the container that are in the way of something of
	// another kind, deepest first; they go before anything is sent.
	clear []string
	// send are paths of the workstation, parents first.
	send []string
	// remove are paths in the container that are too much, deepest first.
	remove []string
	// blocked are paths that cannot be sent, because what is in their way in the
	// container holds something that is excluded.
	blocked []string
}

func (p plan) empty() bool { return len(p.clear)+len(p.send)+len(p.remove)+len(p.blocked) == 0 }

// makePlan compares. The function kept tells what is not to be touched in the
// container; what is in the folders of others is not sent either.
func makePlan(here, there *listing, foreign []string, kept func(name string, folder bool) bool) plan {
	var p plan
	// holds are folders of the container with something below that stays.
	holds := map[string]bool{}
	var extra []string
	for i := len(there.order) - 1; i >= 0; i-- {
		name := there.order[i]
		found := there.entries[name]
		ours, wanted := here.entries[name]
		switch {
		case wanted && ours.kind == found.kind:
		case kept(name, found.kind == dir):
			for above := path.Dir(name); above != "." && !holds[above]; above = path.Dir(above) {
				holds[above] = true
			}
		case !wanted && !holds[name]:
			extra = append(extra, name)
		}
	}
	// changing are the folders of the container that become something else; what
	// is in them goes before.
	changing := map[string]bool{}
	skip := map[string]bool{}
	for _, name := range here.order {
		if skip[path.Dir(name)] || insideAny(name, foreign) {
			skip[name] = true
			continue
		}
		wanted := here.entries[name]
		found, exists := there.entries[name]
		switch {
		case exists && wanted.same(found):
			continue
		case exists && wanted.kind != found.kind && (holds[name] || kept(name, found.kind == dir)):
			p.blocked = append(p.blocked, name)
			skip[name] = true
			continue
		case exists && wanted.kind != found.kind:
			changing[name] = true
		}
		p.send = append(p.send, name)
	}
	for _, name := range extra {
		if len(changing) > 0 && belowAny(name, changing) {
			p.clear = append(p.clear, name)
		} else {
			p.remove = append(p.remove, name)
		}
	}
	for i := len(there.order) - 1; i >= 0 && len(changing) > 0; i-- {
		if changing[there.order[i]] {
			p.clear = append(p.clear, there.order[i])
		}
	}
	return p
}

// belowAny tells whether a path is below one of the folders.
func belowAny(name string, folders map[string]bool) bool {
	for above := path.Dir(name); above != "."; above = path.Dir(above) {
		if folders[above] {
			return true
		}
	}
	return false
}

// insideAny tells whether a path is one of the names or below it.
func insideAny(name string, folders []string) bool {
	for _, folder := range folders {
		if name == folder || strings.HasPrefix(name, folder+"/") {
			return true
		}
	}
	return false
}
