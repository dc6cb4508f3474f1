package rig

import "syscall"

// DieWithParent makes the kernel end a process whose starter was killed.
func DieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
