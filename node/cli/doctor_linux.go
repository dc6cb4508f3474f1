package cli

import (
	"fmt"
	"io/fs"
	"syscall"
)

// kinds of file systems by their magic number, from linux/magic.h and statfs(2).
var kinds = map[uint32]struct {
	name    string
	network bool
}{
	0xEF53:     {"ext4", false},
	0x58465342: {"xfs", false},
	0x9123683E: {"btrfs", false},
	0x2FC12FC1: {"zfs", false},
	0x01021994: {"tmpfs", false},
	0x794C7630: {"overlayfs", false},
	0x6969:     {"nfs", true},
	0xFF534D42: {"cifs", true},
	0xFE534D42: {"smb2", true},
	0x517B:     {"smb", true},
	0x00C36400: {"ceph", true},
	0x65735546: {"fuse", false},
	0x01021997: {"9p", false},
	0x6B414653: {"afs", true},
	0x0BD00BD0: {"lustre", true},
	0x01161970: {"gfs2", true},
}

// fileSystem names the kind of file system at path.
func fileSystem(path string) (kind string, network bool, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return "", false, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	magic := uint32(st.Type)
	if k, known := kinds[magic]; known {
		return k.name, k.network, nil
	}
	return fmt.Sprintf("a kind of its own (%#x)", magic), false, nil
}
