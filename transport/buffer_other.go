//go:build !unix

package transport

import "net"

// receiveBuffer is not known here.
func receiveBuffer(net.PacketConn) (int, error) { return 0, nil }
