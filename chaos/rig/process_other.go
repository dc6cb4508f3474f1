//go:build !linux

package rig

import "syscall"

// DieWithParent needs Linux: here such a process outlives us.
func DieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
