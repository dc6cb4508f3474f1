package source

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// held is a file that nobody had open for writing when it was looked at, and
// that nobody can open for writing until it is released.
type held struct {
	fd   int
	seen identity
}

// release lets writers in. The file was opened to read: nothing can be lost.
func (h held) release() { _ = unix.Close(h.fd) }

// hold opens the regular file name, in the folder, under a read lease: the
// kernel grants one only while no descriptor and no mapping can write to the
// file, and makes whoever then opens it for writing wait for its end (at most
// /proc/sys/fs/lease-break-time). ErrInUse when somebody writes.
//
// Where there are no leases, on network file systems and for files of other
// users, what was seen is all there is: a writer that has the file open and
// writes after that goes unnoticed.
func (d *folder) hold(name string) (held, error) {
	if err := d.regular(name); err != nil {
		return held{}, err
	}
	where := d.at.sibling(name)
	fd, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.EAGAIN): // another has a lease to write
		return held{}, fmt.Errorf("%s: %w", where.abs(), ErrInUse)
	case errors.Is(err, unix.ELOOP):
		return held{}, fmt.Errorf("%s: %w", where.abs(), ErrNotRegular)
	case err != nil:
		return held{}, explain(d.root, where, err)
	}
	h := held{fd: fd}
	if err := lease(fd); err != nil {
		h.release()
		return held{}, fmt.Errorf("%s: %w", where.abs(), err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		h.release()
		return held{}, fmt.Errorf("%s: %w", where.abs(), err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		h.release()
		return held{}, fmt.Errorf("%s: %w", where.abs(), ErrNotRegular)
	}
	h.seen = identityOf(&st)
	return h, nil
}

// unleased are the file systems that refuse a lease as if somebody wrote when
// their server has not delegated the file to this machine.
var unleased = []int64{unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC}

// lease takes a read lease on the open file where there are leases.
func lease(fd int) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return err
	}
	if slices.Contains(unleased, int64(fs.Type)) { //nolint:unconvert // widths differ between platforms
		return nil
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
	if errors.Is(err, unix.EAGAIN) {
		return ErrInUse
	}
	return nil // any other: no leases here, or not for this file
}
