package rig

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// MountMemory puts a file system of that many bytes of memory at dir: a disk
// that can be full. It takes root's rights.
func MountMemory(dir string, size int) error {
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("size=%d,mode=700", size)); err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	return nil
}

// Unmount takes it away, as soon as nobody has a file of it open.
func Unmount(dir string) error {
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}
