package cli

import "syscall"

// childAttributes keep Ctrl-C from the child: it is for the parent, which stops
// it. A child that does not outlive its parent is killed by the system when the
// parent dies without having stopped it.
func childAttributes(outlives bool) *syscall.SysProcAttr {
	attributes := &syscall.SysProcAttr{Setpgid: true}
	if !outlives {
		attributes.Pdeathsig = syscall.SIGKILL
	}
	return attributes
}
