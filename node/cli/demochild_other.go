//go:build !linux

package cli

import "syscall"

// childAttributes keep Ctrl-C from the child: it is for the parent, which stops
// it. Here a child always outlives a parent that dies without having stopped it.
func childAttributes(bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
