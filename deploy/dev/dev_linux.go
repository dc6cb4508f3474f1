package dev

import "syscall"

// dieWithParent makes the kernel end a server whose starter was killed.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGINT, Setpgid: true}
}
