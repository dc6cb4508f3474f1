package rig

import "syscall"

// dieWithParent makes the kernel end a node whose starter was killed.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
