package rig

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLacks(t *testing.T) {
	nodes := []*Node{{Name: "n1", ID: "a"}, {Name: "n2", ID: "b"}}
	alive := func(ids ...string) (m []Member) {
		for _, id := range ids {
			m = append(m, Member{Node: id, Alive: true})
		}
		return m
	}
	for _, tc := range []struct {
		name string
		list MemberList
		want string // part of the error; empty: nothing is lacking
	}{
		{"all well", MemberList{Members: alive("a", "b"), Leader: "a", Quorum: true}, ""},
		{"another one dead", MemberList{Members: append(alive("a", "b"), Member{Node: "c"}), Leader: "a", Quorum: true}, ""},
		{"one unknown", MemberList{Members: alive("a"), Leader: "a", Quorum: true}, "n2 is not alive"},
		{"one dead", MemberList{Members: append(alive("a"), Member{Node: "b"}), Leader: "a", Quorum: true}, "n2 is not alive"},
		{"no leader", MemberList{Members: alive("a", "b"), Quorum: true}, "no leader"},
		{"no quorum", MemberList{Members: alive("a", "b"), Leader: "a"}, "no quorum"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.list.Lacks(nodes)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("lacks = %v, want %q", err, tc.want)
			}
		})
	}
}

func TestWantedVoters(t *testing.T) {
	for members, want := range []int{0: 1, 1: 1, 2: 1, 3: 3, 4: 3, 5: 5, 6: 5, 20: 5} {
		if want != 0 && wantedVoters(members) != want {
			t.Errorf("%d members: %d voters, want %d", members, wantedVoters(members), want)
		}
	}
}

func TestAwait(t *testing.T) {
	missing := errors.New("one is missing")
	for _, tc := range []struct {
		name  string
		after time.Duration // what is awaited comes
		ctx   time.Duration // the context ends
		want  []error
	}{
		{"at once", 0, time.Hour, nil},
		{"later", 30 * time.Second, time.Hour, nil},
		{"never", time.Hour, 2 * time.Hour, []error{ErrTimeout, missing}},
		{"given up", time.Hour, time.Second, []error{context.DeadlineExceeded}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), tc.ctx)
				defer cancel()
				began := time.Now()
				err := Await(ctx, "something", time.Minute, func(context.Context) error {
					if time.Since(began) < tc.after {
						return missing
					}
					return nil
				})
				if (err == nil) != (tc.want == nil) {
					t.Fatalf("await = %v", err)
				}
				for _, want := range tc.want {
					if !errors.Is(err, want) {
						t.Errorf("await = %v, want %v", err, want)
					}
				}
			})
		})
	}
}
