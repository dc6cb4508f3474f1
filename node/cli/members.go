package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/raftmeta"
)

// shortID is how much of a node's id people are shown; JSON has it whole.
const shortID = 8

// minPrefix is how much of a node's id has to be given at least.
const minPrefix = 4

// short returns a node's id for people; "-" for none.
func short(id raftmeta.NodeID) string {
	if id == "" {
		return "-"
	}
	if s := printable(string(id)); len(s) == len(id) && len(s) > shortID {
		return s[:shortID]
	}
	return printable(string(id))
}

func shorts(ids []raftmeta.NodeID) string {
	var out []string
	for _, id := range ids {
		out = append(out, short(id))
	}
	return strings.Join(out, ", ")
}

func (a *app) members() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "members",
		Short: "Print the nodes of the cluster: who is alive, leads, votes, lags",
		Long: `Prints the nodes as the one that answers sees them; it is marked with a star. A voter counts for the quorum, a
nonvoter follows. How long ago a node was HEARD of is known by the leader. JSON has the ids and the addresses whole.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(cmd.Context(), a, http.MethodGet, api.PathMembers, nil, writeMembers)
		},
	}
	a.clients(cmd)
	cmd.AddCommand(a.clients(a.membersRemove())...)
	return cmd
}

func writeMembers(w io.Writer, l api.MemberList) error {
	// A row of a cluster without zones fits into 80 columns.
	zones := slices.ContainsFunc(l.Members, func(m api.MemberInfo) bool { return m.Zone != "" })
	zoned := func(zone string, before []any, after ...any) []any {
		if zones {
			before = append(before, zone)
		}
		return append(before, after...)
	}
	t := newTable(w)
	t.row(zoned("ZONE", []any{"NODE", "STATE", "ROLE"}, "VERSION", "HTTP", "LAG", "SHARDS", "HEARD", "WORK")...)
	alive := 0
	for _, m := range l.Members {
		if m.Alive {
			alive++
		}
		id, heard := short(m.Node), "-"
		if m.Self {
			id += "*"
		}
		if m.LastHeardSeconds != nil {
			heard = formatSpan(time.Duration(*m.LastHeardSeconds * float64(time.Second)).Round(100 * time.Millisecond))
		}
		t.row(zoned(orDash(m.Zone), []any{id, stateText(m), roleOf(m)}, orDash(m.Version), orDash(m.HTTP),
			formatCount(int64(m.Lag)), formatCount(int64(m.Shards)), heard, workOf(m))...)
	}
	if err := t.flush(); err != nil {
		return err
	}
	quorum := "there is a quorum"
	if !l.Quorum {
		quorum = "NO QUORUM"
	}
	_, err := fmt.Fprintf(w, "%s, %d alive; %s, leader %s: %s\n", count(int64(len(l.Members)), "member"), alive, count(int64(l.Voters), "voter"), short(l.Leader), quorum)
	if err == nil && len(l.Removed) > 0 {
		_, err = fmt.Fprintf(w, "removed for ever: %s\n", shorts(l.Removed))
	}
	return err
}

// stateText is the state of a member and what is not well with it.
func stateText(m api.MemberInfo) string {
	parts := []string{printable(string(m.State))}
	if m.HealthScore != nil && *m.HealthScore > 0 {
		parts = append(parts, fmt.Sprintf("slow %d", *m.HealthScore))
	}
	if !m.Self && m.RingAgrees != nil && !*m.RingAgrees { // a node agrees with itself, if not always with what it has told last
		parts = append(parts, "other ring")
	}
	if m.Breaker {
		parts = append(parts, "breaker open")
	}
	return strings.Join(parts, ", ")
}

func roleOf(m api.MemberInfo) string {
	switch {
	case m.Leader:
		return "leader"
	case m.Voter:
		return "voter"
	}
	return "nonvoter"
}

// workOf is what a member takes part in.
func workOf(m api.MemberInfo) string {
	if len(m.Work) == len(config.Default("").Work) {
		return "all"
	}
	return orDash(strings.Join(m.Work, ","))
}

func orDash(s string) string { return cmp.Or(printable(s), "-") }

// removed is what members remove prints as JSON.
type removed struct {
	Node    raftmeta.NodeID `json:"node"`
	Before  bool            `json:"before"` // it had been removed already
	Members api.MemberList  `json:"members"`
}

func (a *app) membersRemove() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "remove NODE",
		Short: "Remove a node that is dead, for ever",
		Long: `Removes a node from the cluster. NODE is its id, or the first 4 characters or more that no other member's id begins
with. A removed node never comes back under its id: emptied, it joins as a new one. Leases that it holds run out by
themselves. A node that is alive had better leave ('desnode leave', on its own machine); it is removed with --force only.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.close()
			r, err := removeMember(cmd.Context(), c, args[0], force)
			if err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) error {
				text := "removed for ever: " + short(r.Node)
				if r.Before {
					text = short(r.Node) + " had been removed before"
				}
				_, err := fmt.Fprintf(w, "%s; %s left\n", text, count(int64(len(r.Members.Members)), "member"))
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "though it is alive")
	return cmd
}

// removeMember removes the member that the prefix means.
func removeMember(ctx context.Context, c *client, prefix string, force bool) (removed, error) {
	if len(prefix) < minPrefix {
		return removed{}, usage(fmt.Sprintf("%q is too little of a node's id; give %d characters or more", prefix, minPrefix))
	}
	l, err := call[api.MemberList](ctx, c, http.MethodGet, api.PathMembers, nil)
	if err != nil {
		return removed{}, err
	}
	m, err := memberOf(l, prefix)
	if err != nil {
		return removed{}, err
	}
	if slices.Contains(l.Removed, m.Node) {
		return removed{Node: m.Node, Before: true, Members: l}, nil
	}
	switch {
	case m.Self:
		return removed{}, fmt.Errorf("%w: %s is the node that answers; 'desnode leave' lets it leave in order", errFailed, short(m.Node))
	case m.Alive && !force:
		return removed{}, fmt.Errorf("%w: %s is alive; let it leave with 'desnode leave' on its own machine, or remove it all the same with --force", errFailed, short(m.Node))
	}
	l, err = call[api.MemberList](ctx, c, http.MethodPost, api.PathRemoveMember, api.RemoveMemberRequest{Node: m.Node, Force: force})
	return removed{Node: m.Node, Members: l}, err
}

// memberOf returns the member whose id is prefix or, alone, begins with it. Of
// one that was removed only the id is known.
func memberOf(l api.MemberList, prefix string) (api.MemberInfo, error) {
	prefix = strings.ToLower(prefix)
	var found []api.MemberInfo
	all := slices.Clone(l.Members)
	for _, id := range l.Removed {
		all = append(all, api.MemberInfo{Node: id})
	}
	for _, m := range all {
		switch {
		case string(m.Node) == prefix:
			return m, nil
		case strings.HasPrefix(string(m.Node), prefix):
			found = append(found, m)
		}
	}
	switch len(found) {
	case 0:
		return api.MemberInfo{}, fmt.Errorf("%w: no member's id begins with %s; 'desnode members' lists them", errNotFound, printable(prefix))
	case 1:
		return found[0], nil
	}
	var ids []string
	for _, m := range found {
		ids = append(ids, printable(string(m.Node)))
	}
	return api.MemberInfo{}, usage(fmt.Sprintf("%s begins more than one id: %s", printable(prefix), strings.Join(ids, ", ")))
}

// Limits of waiting for a node that has left to end.
const (
	leavePoll = 100 * time.Millisecond
	leaveWait = time.Minute
)

func (a *app) leave() *cobra.Command {
	return &cobra.Command{
		Use:   "leave",
		Short: "Let the node at --addr leave its cluster in order; its process ends",
		Long: `Asks the node at --addr, on this machine, to leave its cluster: it takes no new work, hands over what it leads and
holds, is removed from the members, finishes the reads under way and ends. On another data dir the machine may join
again as a new node. The old one can go, unless the cluster's store or an embedded source lies in it, which is said at the end. A node that only stops (SIGTERM) stays a member and comes back.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.close()
			left, err := a.runLeave(cmd.Context(), c)
			if err != nil {
				return err
			}
			return a.print(left, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s has left the cluster, and its process has ended\n", short(left.Node))
				if err == nil && len(left.Shared) > 0 {
					_, err = fmt.Fprintf(w, "do NOT empty its data dir, the other nodes use what is there: %s\n", printable(strings.Join(left.Shared, ", ")))
				}
				return err
			})
		},
	}
}

// runLeave lets the node leave and waits until it answers no more.
func (a *app) runLeave(ctx context.Context, c *client) (api.Left, error) {
	l, err := call[api.MemberList](ctx, c, http.MethodGet, api.PathMembers, nil)
	if err != nil {
		return api.Left{}, err
	}
	if len(l.Members) == 1 && l.Members[0].Self {
		return api.Left{}, fmt.Errorf("%w: %s is the only member of its cluster, which would end with it; to stop the node, end its process (SIGTERM)", errFailed, short(l.Members[0].Node))
	}
	a.note("the node hands over its work and leaves ...")
	left, err := call[api.Left](ctx, c, http.MethodPost, api.PathLeave, api.LeaveRequest{})
	if err != nil {
		return left, err
	}
	a.note("it is a member no more; waiting for its process to end ...")
	return left, awaitEnd(ctx, c)
}

// awaitEnd waits until nobody answers at the node's address.
func awaitEnd(ctx context.Context, c *client) error {
	limited, cancel := context.WithTimeout(ctx, leaveWait)
	defer cancel()
	tick := time.NewTicker(leavePoll)
	defer tick.Stop()
	for {
		resp, err := c.do(limited, http.MethodGet, livePath, nil)
		if err == nil {
			err = resp.Body.Close()
		}
		if errors.Is(err, errUnavailable) {
			return nil
		}
		select {
		case <-tick.C:
		case <-limited.Done():
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("%w: the node has left its cluster, but still answers after %s; its log says what it waits for", errUnavailable, leaveWait)
		}
	}
}

// note tells a person, not a program, how far a command is.
func (a *app) note(text string) { _, _ = fmt.Fprintln(a.stderr, text) }
