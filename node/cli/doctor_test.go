package cli

import (
	"net"
	"strings"
	"testing"

	"github.com/datavision/desnode/node/config"
)

func TestDoctorJudgesSpace(t *testing.T) {
	for _, tc := range []struct {
		name       string
		free       int64
		result     string
		wantDetail string
	}{
		{"too little to start", startSpace - 1, resultFail, "32.0 MiB free, a node needs 32.0 MiB to start"},
		{"just enough to start", startSpace, resultWarn, "32.0 MiB free, less than 1.00 GiB"},
		{"almost enough", enoughSpace - 1, resultWarn, "1.00 GiB free, less than 1.00 GiB"},
		{"enough", enoughSpace, resultOK, "1.00 GiB free"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := plain("disk", tc.result, tc.wantDetail)
			if got := judgeSpace("disk", tc.free, startSpace, enoughSpace); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestDoctorJudgesUDPBuffers(t *testing.T) {
	for limit, want := range map[int64]string{enoughUDP - 1: resultWarn, enoughUDP: resultOK} {
		if got := judgeUDP(limit); got.Result != want || (want == resultWarn) != strings.Contains(got.Set, "net.core.rmem_max=7500000") {
			t.Errorf("%d: got %+v, want %s", limit, got, want)
		}
	}
}

func TestDoctorFindsTakenPorts(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for _, tc := range []struct{ name, addr, result, say string }{
		{"free", "127.0.0.1:0", resultOK, "127.0.0.1:0 is free"},
		{"TCP taken", tcp.Addr().String(), resultFail, "in use by another process"},
		{"UDP taken", udp.LocalAddr().String(), resultFail, "in use by another process"},
		{"another machine's", "192.0.2.1:7947", resultFail, "192.0.2.1:7947"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := ports(t.Context(), "cluster", tc.addr); got.Check != "cluster" || got.Result != tc.result || !strings.Contains(got.Detail, tc.say) {
				t.Errorf("got %+v, want %s and %q", got, tc.result, tc.say)
			}
		})
	}
}

func TestDoctorSaysWhoCanCall(t *testing.T) {
	for _, tc := range []struct{ cluster, advertise, say string }{
		{"", "", "only nodes on this machine can call 127.0.0.1"},
		{"10.0.0.1:7947", "", "they call 10.0.0.1"},
		{"0.0.0.0:7947", "node1.example.com", "they call node1.example.com"},
	} {
		c := config.Default("/d")
		c.Cluster, c.Advertise = tc.cluster, tc.advertise
		if got := announced(c); got.Detail != tc.say || got.Result != resultOK {
			t.Errorf("%+v: got %+v", tc, got)
		}
	}
}
