package filesync

import (
	"io/fs"
	"time"
)

// kind is what find(1) calls a type.
type kind byte

const (
	file   kind = 'f'
	dir    kind = 'd'
	link   kind = 'l'
	others kind = '?'
)

// entry is a file, folder or link, here or in the container.
type entry struct {
	kind kind
	// mode has the permission bits, with those of set-uid, set-gid and sticky.
	mode uint32
	size int64
	// changed is in nanoseconds since 1970.
	changed int64
	// target is where a link leads to.
	target string
}

// same tells whether nothing is to be sent for the container to have what is
// here. Some versions of rsync set times in whole seconds only.
func (here entry) same(there entry) bool {
	if here.kind != there.kind {
		return false
	}
	switch here.kind {
	case link:
		return here.target == there.target
	case dir:
		return here.mode == there.mode
	}
	second := int64(time.Second)
	return here.mode == there.mode && here.size == there.size &&
		(here.changed == there.changed || there.changed%second == 0 && here.changed/second == there.changed/second)
}

// modeOf is the mode of a file as chmod(1) takes it.
func modeOf(mode fs.FileMode) uint32 {
	bits := uint32(mode.Perm())
	for _, special := range []struct {
		mode fs.FileMode
		bit  uint32
	}{{fs.ModeSetuid, 0o4000}, {fs.ModeSetgid, 0o2000}, {fs.ModeSticky, 0o1000}} {
		if mode&special.mode != 0 {
			bits |= special.bit
		}
	}
	return bits
}
