package source

import (
	"net"
	"testing"
)

func TestConnectionsWithoutTLSAreJudgedByWhereTheyLead(t *testing.T) {
	for _, tc := range []struct {
		name string
		to   net.Addr
		want Level
	}{
		{"this machine", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5432}, LevelOK},
		{"this machine by IPv6", &net.TCPAddr{IP: net.IPv6loopback, Port: 5432}, LevelOK},
		{"a socket", &net.UnixAddr{Name: "/run/postgresql/.s.PGSQL.5432", Net: "unix"}, LevelOK},
		{"another machine", &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 5432}, LevelWarn},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if f := unprotected(tc.to, "role marker"); f.Level != tc.want {
				t.Errorf("got %+v, want %s", f, tc.want)
			}
		})
	}
}
