//go:build unix

package transport

import (
	"fmt"
	"net"
	"runtime"
	"syscall"
)

// receiveBuffer returns the bytes that the kernel keeps of a socket's datagrams
// that nobody has read yet; 0: the socket is not a real one.
func receiveBuffer(pc net.PacketConn) (int, error) {
	sc, ok := pc.(syscall.Conn)
	if !ok {
		return 0, nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("size of the receive buffer: %w", err)
	}
	var size int
	var sysErr error
	if err := raw.Control(func(fd uintptr) {
		size, sysErr = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF)
	}); err != nil {
		return 0, fmt.Errorf("size of the receive buffer: %w", err)
	}
	if sysErr != nil {
		return 0, fmt.Errorf("size of the receive buffer: %w", sysErr)
	}
	if runtime.GOOS == "linux" {
		size /= 2 // Linux tells twice what was set, its own bookkeeping included
	}
	return size, nil
}
