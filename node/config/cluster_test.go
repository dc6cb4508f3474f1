package config

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWhereTheOthersFindANode(t *testing.T) {
	cases := []struct {
		name, yaml      string
		cluster, gossip string
	}{
		{"nothing configured", "", "127.0.0.1:7947", "127.0.0.1:7946"},
		{"another HTTP port", "http: 127.0.0.1:9000", "127.0.0.1:7947", "127.0.0.1:7946"},
		{"a free HTTP port", "http: 127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"},
		{"a free HTTP port of another host", "http: '[::1]:0'", "[::1]:0", "[::1]:0"},
		{"a free HTTP port of a name, padded", "http: localhost:00", "127.0.0.1:0", "127.0.0.1:0"},
		{"a free HTTP port of all hosts", "http: ':0'", "127.0.0.1:0", "127.0.0.1:0"},
		{"a free HTTP port of all IPv6 hosts", "http: '[::]:0'", "127.0.0.1:0", "127.0.0.1:0"},
		{"one given beside a free HTTP port", "http: 127.0.0.1:0\ncluster: 127.0.0.1:5", "127.0.0.1:5", "127.0.0.1:0"},
		{"both given", "cluster: 10.0.0.1:1\ngossip: 10.0.0.1:2", "10.0.0.1:1", "10.0.0.1:2"},
		{"all addresses, one announced", "cluster: ':1'\ngossip: '0.0.0.0:2'\nadvertise: node1.example.com", "0.0.0.0:1", "0.0.0.0:2"},
		{"all IPv6 addresses, one announced", "cluster: '[::]:1'\nadvertise: '2001:db8::1'", "[::]:1", "127.0.0.1:7946"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c, err := Load(Input{File: write(t, tc.yaml)})
			if err != nil {
				t.Fatal(err)
			}
			if c.ClusterAddr() != tc.cluster || c.GossipAddr() != tc.gossip {
				t.Errorf("got %s and %s, want %s and %s", c.ClusterAddr(), c.GossipAddr(), tc.cluster, tc.gossip)
			}
			for _, v := range c.Values() {
				if v.Key == "cluster" && v.Value != tc.cluster || v.Key == "gossip" && v.Value != tc.gossip {
					t.Errorf("%s is said to be %s", v.Key, v.Value)
				}
			}
		})
	}
}

func TestPlaceInTheClusterFromEveryLayer(t *testing.T) {
	c, err := Load(Input{
		File:    write(t, "zone: room 1\nseeds: ['10.0.0.1:7947']\ndead_after: 1h"),
		Environ: []string{"DESNODE_SEEDS=10.0.0.2:7947, node3:7947", "DESNODE_ADVERTISE=node1"},
		Flags:   map[string]string{"zone": "room 2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Zone != "room 2" || !slices.Equal(c.Seeds, []string{"10.0.0.2:7947", "node3:7947"}) || c.Advertise != "node1" || c.DeadAfter != time.Hour {
		t.Errorf("got %+v", c)
	}
}

func TestPlacesInTheClusterThatAreRefused(t *testing.T) {
	cases := []struct {
		name, yaml string
		want       []string // the whole error
	}{
		{"cluster without a port", "cluster: localhost", []string{`cluster: "localhost" is not an address of this machine; write ip:port, such as 127.0.0.1:7947`}},
		{"a name", "gossip: localhost:1", []string{`gossip: "localhost:1" is not an address of this machine; write ip:port, such as 127.0.0.1:7946`}},
		{"gossip with a huge port", "gossip: 127.0.0.1:65536", []string{`gossip: "127.0.0.1:65536" is not an address of this machine; write ip:port, such as 127.0.0.1:7946`}},
		{"a named port", "gossip: 127.0.0.1:http", []string{`gossip: "127.0.0.1:http" is not an address of this machine; write ip:port, such as 127.0.0.1:7946`}},
		{"a URL", "cluster: http://localhost:7947", []string{`cluster: "http://localhost:7947" is not an address of this machine; write ip:port, such as 127.0.0.1:7947`}},
		{"all addresses", "cluster: 0.0.0.0:7947", []string{
			`cluster: "0.0.0.0:7947" stands for every address of this machine, and no other node could call it; set advertise to the host that they know it by`,
		}},
		{"all IPv6 addresses", "gossip: '[::]:7946'", []string{
			`gossip: "[::]:7946" stands for every address of this machine, and no other node could call it; set advertise to the host that they know it by`,
		}},
		{"all addresses in IPv6's form", "gossip: '[::ffff:0.0.0.0]:7946'", []string{
			`gossip: "[::ffff:0.0.0.0]:7946" stands for every address of this machine, and no other node could call it; set advertise to the host that they know it by`,
		}},
		{"advertise with a port", "advertise: node1:7947", []string{`advertise: "node1:7947" is not the name or address of one host; write it without a port`}},
		{"advertise in brackets", "advertise: '[::1]'", []string{`advertise: "[::1]" is not the name or address of one host; write it without a port`}},
		{"advertise of all addresses", "cluster: ':1'\nadvertise: '::'", []string{`advertise: "::" is not the name or address of one host; write it without a port`}},
		{"a zone with a line break", `zone: "a\nb"`, []string{`zone: "a\nb" is not 0 to 64 bytes of printable text`}},
		{"a long zone", "zone: " + strings.Repeat("ż", 33), []string{`zone: "` + strings.Repeat("ż", 33) + `" is not 0 to 64 bytes of printable text`}},
		{"bad seeds", "seeds: [node1, ':7947', 'node2:0', '0.0.0.0:7947', 'node3:1', 'node3:1']", []string{
			`seeds: "node1" is not the cluster address of a node; write host:port`,
			`seeds: ":7947" is not the cluster address of a node; write host:port`,
			`seeds: "node2:0" is not the cluster address of a node; write host:port`,
			`seeds: "0.0.0.0:7947" is not the cluster address of a node; write host:port`,
			`seeds: "node3:1" stands there twice`,
		}},
		{"a hasty leader", "dead_after: 30s", []string{"dead_after: 30s is shorter than 1m0s: a node that restarts would be removed for ever"}},
		{"one port for two", "cluster: 127.0.0.1:8080\ngossip: 127.0.0.1:7947", []string{"cluster: 127.0.0.1:8080 is the address of http too"}},
		{"one port for both", "cluster: 127.0.0.1:1\ngossip: 127.0.0.1:1", []string{"gossip: 127.0.0.1:1 is the address of cluster too"}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Load(Input{File: write(t, tc.yaml)})
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("got %v, want ErrInvalid", err)
			}
			if want := strings.Join(tc.want, "\n"); err.Error() != want {
				t.Errorf("got\n%s\nwant\n%s", err, want)
			}
		})
	}
}
