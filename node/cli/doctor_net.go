package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/datavision/desnode/node/config"
)

// enoughUDP is the receive buffer that QUIC wants of the kernel, in bytes.
const enoughUDP = 7_500_000

// receiveLimit says how large a program may make its UDP buffers; Linux alone
// has it.
const receiveLimit = "/proc/sys/net/core/rmem_max"

// port checks that a TCP address is free.
func port(ctx context.Context, check, addr string) finding {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err == nil {
		err = l.Close()
	}
	return freePort(check, addr, err)
}

// ports checks that an address is free on TCP and on UDP.
func ports(ctx context.Context, check, addr string) finding {
	f := port(ctx, check, addr)
	if f.Result != resultOK {
		return f
	}
	var lc net.ListenConfig
	p, err := lc.ListenPacket(ctx, "udp", addr)
	if err == nil {
		err = p.Close()
	}
	return freePort(check, addr, err)
}

func freePort(check, addr string, err error) finding {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return plain(check, resultFail, addr+" is in use by another process")
	case err != nil:
		return plain(check, resultFail, err.Error())
	}
	return plain(check, resultOK, addr+" is free")
}

// announced says by which host the other nodes will know this one.
func announced(c config.Config) finding {
	host := c.Advertise
	if host == "" {
		host, _, _ = net.SplitHostPort(c.ClusterAddr()) // Validate has read it
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		return finding{
			Check: "other nodes", Result: resultOK, Detail: "only nodes on this machine can call " + host,
			Means: "nodes on other machines can't join", Set: "cluster and gossip to an address that they reach, or advertise",
		}
	}
	return plain("other nodes", resultOK, "they call "+host)
}

// udpBuffer looks at the bound of UDP receive buffers.
func udpBuffer() finding {
	b, err := os.ReadFile(receiveLimit)
	if err != nil {
		return plain("UDP buffers", resultUntold, "their bound can be read on Linux only")
	}
	limit, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return plain("UDP buffers", resultUntold, err.Error())
	}
	return judgeUDP(limit)
}

func judgeUDP(limit int64) finding {
	detail := fmt.Sprintf("up to %s", formatBytes(limit))
	if limit >= enoughUDP {
		return plain("UDP buffers", resultOK, detail)
	}
	return finding{
		Check: "UDP buffers", Result: resultWarn, Detail: detail,
		Means: "bursts from other nodes may be lost, and reads through them slow down; a node alone does not mind",
		Set:   fmt.Sprintf("sysctl -w net.core.rmem_max=%d net.core.wmem_max=%d", enoughUDP, enoughUDP),
	}
}
