package raftmeta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// opOf returns what a call on the wires asks.
func opOf(t *testing.T, data []byte) string {
	var q request
	if err := json.Unmarshal(data, &q); err != nil {
		t.Error(err)
	}
	return q.Op
}

// TestAnyNodeWrites: commands have the same answers on a follower as on the
// leader, and its own view shows them when they return.
func TestAnyNodeWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		for i, n := range c.nodes {
			p := n.addPack(fmt.Sprintf("%d/4", i+1), packID(uint64(i)))
			if got := n.View().Pack(p.ID); got == nil || got.AddIndex != p.AddIndex || p.PackedBy != n.cfg.Node {
				t.Errorf("%s: answered %+v, its view has %+v", n.cfg.Node, p, got)
			}
			key := string(n.cfg.Node)
			if err := n.Set(t.Context(), key, []byte("v"), 0); err != nil {
				t.Fatal(err)
			}
			if v, _, _ := n.View().Setting(key); string(v) != "v" {
				t.Errorf("%s does not see what it has written", n.cfg.Node)
			}
			wantErr(t, n.Set(t.Context(), "node-a", []byte("other"), 99), ErrConflict)
			wantErr(t, n.ForgetUpload(t.Context(), ""), nil)
			wantErr(t, n.AckPack(t.Context(), packID(99), nil), ErrUnknownPack)
			wantErr(t, n.Set(t.Context(), "", nil, 0), ErrInvalid)
			again, err := n.AddPack(t.Context(), testPack(Lease{Token: p.Token, Job: Job{Range: p.Range}}, p.ID))
			if err != nil || again.AddIndex != p.AddIndex || again.ModIndex != p.ModIndex {
				t.Errorf("repeated: %+v, %v", again, err)
			}
			v, err := n.Confirm(t.Context())
			if err != nil || v.Pack(p.ID) == nil {
				t.Errorf("%s: %v", n.cfg.Node, err)
			}
		}
		c.converge()
	})
}

// TestErrorsKeepTheirIdentityBetweenNodes: each one that a command may be
// answered with, and all of this package are thought of.
func TestErrorsKeepTheirIdentityBetweenNodes(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range codes() {
		if seen[c.code] {
			t.Errorf("code %s is used twice", c.code)
		}
		seen[c.code] = true
		data, err := json.Marshal(response{Refused: refuse(fmt.Errorf("somewhere: %w", c.err))})
		if err != nil {
			t.Fatal(err)
		}
		var r response
		if err := json.Unmarshal(data, &r); err != nil {
			t.Fatal(err)
		}
		wantErr(t, r.Refused.err(), c.err)
		if got := r.Refused.err().Error(); !strings.HasPrefix(got, "somewhere: ") {
			t.Errorf("its text is %q", got)
		}
	}
	local := map[string]bool{ // about the process that was asked, or made by the one who asks
		"ErrNotLeader": true, "ErrLagging": true, "ErrStateLost": true, "ErrLocked": true, "ErrOtherNode": true,
		"ErrOtherCluster": true, "ErrStorage": true, "ErrClosed": true, "ErrSnapshot": true, "ErrNoState": true, "ErrRolledBack": true,
	}
	file, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := 0
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && !local[v.Names[0].Name] {
			declared++
		}
		return true
	})
	if declared != len(codes())-1 { // and errMoved
		t.Errorf("%d errors of commands are declared, %d have a code", declared, len(codes())-1)
	}
	for _, err := range []error{ErrStorage, ErrClosed, context.DeadlineExceeded, raft.ErrLeadershipLost, errors.New("any")} {
		if got := refuse(err).err(); !isMoving(got) {
			t.Errorf("%v is answered as %v, which is not repeated", err, got)
		}
	}
	newer := (&refusal{Text: "x", Codes: []string{"of a newer version"}}).err()
	if newer == nil || isMoving(newer) {
		t.Errorf("an error that only a newer version knows is %v", newer)
	}
}

// TestLostAnswersAreAskedForAgain: the command takes effect once.
func TestLostAnswersAreAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		lead := c.leaderAmong(c.nodes...)
		n := c.others(lead)[0]
		lost := 0
		c.wires.set(func(w *wires) {
			w.lose = func(from, _ NodeID, data []byte) bool {
				if from != n.cfg.Node || opOf(t, data) != opPropose || lost > 0 {
					return false
				}
				lost++
				return true
			}
		})
		held := make(chan struct{})
		go func() { // the answer never comes: only another leader makes the caller ask again
			time.Sleep(3 * time.Second)
			_ = lead.raft.LeadershipTransfer().Error()
		}()
		err := n.WithLease(t.Context(), Job{Kind: JobCollect}, func(context.Context, Lease) error {
			close(held)
			if got := n.View().Leases(); len(got) != 1 {
				t.Errorf("leases: %+v", got)
			}
			return nil
		})
		if err != nil || lost != 1 {
			t.Fatal(err, lost)
		}
		<-held
		time.Sleep(time.Minute) // virtual
		if got := n.View().Leases(); len(got) != 0 {
			t.Errorf("a second lease: %+v", got)
		}
	})
}

// TestLeaderChangesUnderCommands: each is answered, once its effect is there
// and nothing but its effect.
func TestLeaderChangesUnderCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		var group sync.WaitGroup
		const each = 40
		for _, n := range c.nodes {
			group.Go(func() {
				for i := range each {
					if err := n.Set(t.Context(), fmt.Sprintf("%s/%d", n.cfg.Node, i), []byte{1}, 0); err != nil {
						t.Errorf("%s, %d: %v", n.cfg.Node, i, err)
					}
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
		reigns := map[*reign]bool{}
		for range 4 {
			lead := c.leaderAmong(c.nodes...)
			reigns[lead.leading.now()] = true
			time.Sleep(500 * time.Millisecond) // virtual
			_ = lead.raft.LeadershipTransfer().Error()
			time.Sleep(100 * time.Millisecond) // virtual
		}
		group.Wait()
		if len(reigns) < 3 {
			t.Errorf("%d reigns", len(reigns))
		}
		c.converge()
		n := 0
		for range c.nodes[0].View().Settings("node-") {
			n++
		}
		if n != each*len(c.nodes) {
			t.Errorf("%d settings, want %d", n, each*len(c.nodes))
		}
	})
}

// TestForwardedCommandIsTheCallersOwn: nobody proposes in another's name.
func TestForwardedCommandIsTheCallersOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		lead := c.leaderAmong(c.nodes...)
		send := func(from NodeID, q request) error {
			q.Version = callVersion
			data, err := json.Marshal(q)
			if err != nil {
				t.Fatal(err)
			}
			data, err = lead.ServeCall(t.Context(), from, data)
			if err != nil {
				return err
			}
			var r response
			if err := json.Unmarshal(data, &r); err != nil {
				t.Fatal(err)
			}
			return r.Refused.err()
		}
		command, err := encodeCommand("node-b", &setCommand{Key: "k", Value: []byte("v")})
		if err != nil {
			t.Fatal(err)
		}
		before := lead.raft.LastIndex()
		wantErr(t, send("node-c", request{Op: opPropose, Command: command}), ErrInvalid)
		wantErr(t, send("stranger", request{Op: opPropose, Command: command}), ErrNotMember)
		wantErr(t, send("node-b", request{Op: opPropose, Command: json.RawMessage(`{"v":99,"kind":"set"}`)}), ErrUnknownCommand)
		wantErr(t, send("node-b", request{Op: "dance"}), ErrUnknownCommand)
		wantErr(t, send("node-b", request{Op: opReport}), ErrInvalid)
		l := lead.grant(Job{Kind: JobCollect})
		before++
		wantErr(t, send("node-b", request{Op: opRenew, Token: l.Token}), ErrStale) // another's lease
		if after := lead.raft.LastIndex(); after != before {
			t.Errorf("%d entries were written", after-before)
		}
		if err := send("node-b", request{Op: opPropose, Command: command}); err != nil {
			t.Error(err)
		}
		_, err = lead.ServeCall(t.Context(), "node-b", []byte("{"))
		wantErr(t, err, ErrInvalid)
		_, err = lead.ServeCall(t.Context(), "node-b", []byte(`{"v":9}`))
		wantErr(t, err, ErrUnknownCommand)
		follower := c.others(lead)[0]
		data, err := follower.ServeCall(t.Context(), lead.cfg.Node, []byte(`{"v":1,"op":"confirm"}`))
		var r response
		if err := errors.Join(err, json.Unmarshal(data, &r)); err != nil || !isMoving(r.Refused.err()) {
			t.Errorf("a follower confirms: %s, %v", data, err)
		}
	})
}

// TestEmptyAnswerIsNone: nothing is confirmed or committed by it.
func TestEmptyAnswerIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		lead := c.leaderAmong(c.nodes...)
		n := c.others(lead)[0]
		c.wires.set(func(w *wires) {
			w.forge = func(from NodeID) []byte {
				if from == n.cfg.Node {
					return []byte("{}")
				}
				return nil
			}
		})
		_, err := n.Confirm(t.Context())
		wantErr(t, err, ErrUnconfirmed)
		wantErr(t, n.Set(t.Context(), "k", []byte("v"), 0), ErrNotLeader)
	})
}

// TestLaggingNodeSaysSo: a command whose effect this node cannot show in time
// is known to be committed.
func TestLaggingNodeSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		lead := c.leaderAmong(c.nodes...)
		n := c.others(lead)[0]
		command := &setCommand{Key: "k", Value: []byte("v")}
		data, err := encodeCommand(n.cfg.Node, command)
		if err != nil {
			t.Fatal(err)
		}
		c.wires.set(func(w *wires) { w.trans[lead.cfg.Node].Disconnect(raft.ServerAddress(n.cfg.Node)) }) // calls go on
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err = n.forward(ctx, lead.cfg.Node, command, data)
		wantErr(t, err, ErrLagging)
		if v, _, _ := lead.View().Setting("k"); string(v) != "v" {
			t.Error("it is not committed")
		}
	})
}

// TestRemovedNodeIsRefused: by the state machine, whatever it still believes,
// and its leases run out.
func TestRemovedNodeIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		lead := c.leaderAmong(c.nodes...)
		n := c.others(lead)[0]
		var stopped time.Time
		worked := make(chan error, 1)
		go func() {
			worked <- n.WithLease(context.Background(), Job{Kind: JobCollect}, func(ctx context.Context, _ Lease) error {
				<-ctx.Done()
				stopped = time.Now()
				return context.Cause(ctx)
			})
		}()
		lead.waitFor(func(v *View) bool { return len(v.Leases()) == 1 })
		if err := lead.RemoveMember(t.Context(), n.cfg.Node); err != nil {
			t.Fatal(err)
		}
		wantErr(t, n.Set(t.Context(), "k", []byte("v"), 0), ErrNotMember)
		if len(lead.View().Leases()) != 1 {
			t.Error("its lease was taken from it at once")
		}
		lead.waitFor(func(v *View) bool { return len(v.Leases()) == 0 })
		expired := time.Now()
		wantErr(t, <-worked, ErrStale)
		if !stopped.Before(expired) {
			t.Errorf("it stopped at %s, its lease was over at %s", stopped, expired)
		}
		// As a leader, past every gate but the last.
		data, err := encodeCommand(n.cfg.Node, &setCommand{Key: "k", Value: []byte("v")})
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = lead.apply(t.Context(), data)
		wantErr(t, err, ErrNotMember)
	})
}

// TestHolderThatIsNoMemberStops: as soon as it is told.
func TestHolderThatIsNoMemberStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		n := c.others(c.leaderAmong(c.nodes...))[0]
		began := time.Now()
		err := n.WithLease(t.Context(), Job{Kind: JobCollect}, func(ctx context.Context, _ Lease) error {
			refused, err := json.Marshal(response{Refused: refuse(ErrNotMember)})
			if err != nil {
				return err
			}
			c.wires.set(func(w *wires) {
				w.forge = func(from NodeID) []byte {
					if from == n.cfg.Node {
						return refused
					}
					return nil
				}
			})
			<-ctx.Done()
			c.wires.set(func(w *wires) { w.forge = nil })
			return context.Cause(ctx)
		})
		wantErr(t, err, ErrStale)
		if took := time.Since(began); took > ttl/3+time.Second {
			t.Errorf("stopped after %s", took)
		}
	})
}

// TestWhoMayPropose: the rules of the envelope, entry by entry.
func TestWhoMayPropose(t *testing.T) {
	form := `"kind":"form","body":{"cluster":"01000000000000000000000000000000","shard_bits":10,"generation":1}`
	set := `"kind":"set","body":{"key":"k","value":"dg==","if_mod_index":0}`
	for name, tc := range map[string]struct {
		entries []string
		term    uint64
		want    error
		members []NodeID
	}{
		"who forms is the first member":      {[]string{`{"v":2,"from":"a",` + form + `}`}, 1, nil, []NodeID{"a"}},
		"nobody forms it a second time":      {[]string{`{"v":2,"from":"a",` + form + `}`, `{"v":2,"from":"b",` + form + `}`}, 1, ErrNotMember, []NodeID{"a"}},
		"a member writes":                    {[]string{`{"v":2,"from":"a",` + form + `}`, `{"v":2,"from":"a",` + set + `}`}, 1, nil, []NodeID{"a"}},
		"a stranger does not":                {[]string{`{"v":2,"from":"a",` + form + `}`, `{"v":2,"from":"b",` + set + `}`}, 1, ErrNotMember, []NodeID{"a"}},
		"nor does nobody":                    {[]string{`{"v":2,"from":"a",` + form + `}`, `{"v":2,` + set + `}`}, 1, ErrNotMember, []NodeID{"a"}},
		"an older version did not say":       {[]string{`{"v":1,` + form + `}`, `{"v":1,` + set + `}`}, 1, nil, nil},
		"a dir of an older version":          {[]string{`{"v":1,` + form + `}`, `{"v":2,"from":"a",` + form + `}`}, 1, nil, []NodeID{"a"}},
		"in the term it is meant for":        {[]string{`{"v":2,"from":"a",` + form + `}`, `{"v":2,"term":7,"from":"a",` + set + `}`}, 7, nil, []NodeID{"a"}},
		"not in a later one":                 {[]string{`{"v":2,"from":"a",` + form + `}`, `{"v":2,"term":7,"from":"a",` + set + `}`}, 9, ErrNotLeader, []NodeID{"a"}},
		"an older version knows no proposer": {[]string{`{"v":1,"from":"a",` + set + `}`}, 1, ErrUnknownCommand, nil},
		"nor a term":                         {[]string{`{"v":1,"term":1,` + set + `}`}, 1, ErrUnknownCommand, nil},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(func(error) {})
			var err error
			for i, e := range tc.entries {
				err = m.Apply(&raft.Log{Index: uint64(i + 1), Term: tc.term, Type: raft.LogCommand, Data: []byte(e)}).(answer).err
			}
			wantErr(t, err, tc.want)
			var ids []NodeID
			for _, member := range m.view.Load().Members() {
				ids = append(ids, member.ID)
			}
			if fmt.Sprint(ids) != fmt.Sprint(tc.members) {
				t.Errorf("members %v, want %v", ids, tc.members)
			}
		})
	}
}
