//go:build !linux

package rig

import "errors"

var errNoMemoryDisk = errors.New("disks of memory need Linux")

// MountMemory mounts nothing here.
func MountMemory(string, int) error { return errNoMemoryDisk }

// Unmount does nothing.
func Unmount(string) error { return errNoMemoryDisk }
