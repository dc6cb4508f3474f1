package api

import (
	"fmt"
	"testing"
	"time"

	"github.com/datavision/desnode/node/retriever"
)

var _ retriever.Limiter = (*MissLimiter)(nil)

func TestMissesAreLimitedByClient(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	m := NewMissLimiter(MissLimits{PerSecond: 1, Burst: 3, Now: func() time.Time { return now }})
	for i := range 3 {
		if !m.Allow("192.0.2.1") {
			t.Fatalf("miss %d of a burst of 3 refused", i+1)
		}
		m.Missed("192.0.2.1")
	}
	if m.Allow("192.0.2.1") {
		t.Error("a fourth miss allowed")
	}
	if !m.Allow("192.0.2.2") {
		t.Error("another client is limited as well")
	}
	now = now.Add(time.Second)
	if !m.Allow("192.0.2.1") {
		t.Error("still refused after a token came back")
	}
	m.Missed("192.0.2.1")
	if m.Allow("192.0.2.1") {
		t.Error("more than one a second allowed")
	}
}

func TestAskingCostsNothing(t *testing.T) {
	m := NewMissLimiter(MissLimits{PerSecond: 1, Burst: 1})
	for range 100 {
		if !m.Allow("192.0.2.1") {
			t.Fatal("limited without a miss")
		}
	}
}

func TestClientNetwork(t *testing.T) {
	for _, tc := range []struct {
		name, a, b string
		same       bool
	}{
		{"two IPv4 addresses", "192.0.2.1", "192.0.2.2", false},
		{"IPv4 inside IPv6", "192.0.2.1", "[::ffff:192.0.2.1]", true},
		{"one IPv6 network", "[2001:db8::1]", "[2001:db8::ffff:2]", true},
		{"two IPv6 networks", "[2001:db8:0:1::1]", "[2001:db8:0:2::1]", false},
		{"zones do not count", "[fe80::1%eth0]", "[fe80::2%eth1]", true},
		{"no addresses", "@", "pipe", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := clientNetwork(tc.a) == clientNetwork(tc.b); got != tc.same {
				t.Errorf("%s and %s: same is %v", tc.a, tc.b, got)
			}
		})
	}
}

func TestMissTableIsBounded(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	m := NewMissLimiter(MissLimits{PerSecond: 1, Burst: 1, Clients: 10, Now: func() time.Time { return now }})
	for i := range 1000 {
		m.Missed(fmt.Sprintf("10.0.%d.%d", i/256, i%256))
		m.Missed("192.0.2.1") // a client that keeps asking is not forgotten
		if n := len(m.young) + len(m.old); n > 20 {
			t.Fatalf("%d clients remembered, want at most 20", n)
		}
		if m.Allow("192.0.2.1") {
			t.Fatalf("the busy client was forgotten after %d others", i+1)
		}
	}
}
