package rig

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// Way is one way of what a host exchanges with another.
type Way string

// The ways.
const (
	In  Way = "in"
	Out Way = "out"
)

// Filter drops, without a word, all packets between the host and some others
// that go one of the ways; others named by an earlier call are let through.
// Unfilter lets all through again. It takes root's rights, and nftables.
func (h *Host) Filter(ctx context.Context, others []*Host, ways ...Way) error {
	var rules strings.Builder
	rules.WriteString("table inet desnode\ndelete table inet desnode\ntable inet desnode {\n")
	for _, way := range ways {
		hook, side := "input", "saddr"
		if way == Out {
			hook, side = "output", "daddr"
		}
		fmt.Fprintf(&rules, "chain %s { type filter hook %s priority 0;\n", way, hook)
		for _, o := range others {
			fmt.Fprintf(&rules, "ip %s %s drop\n", side, o.addr)
		}
		rules.WriteString("}\n")
	}
	rules.WriteString("}\n")
	return h.nft(ctx, rules.String())
}

// Unfilter lets all packets through.
func (h *Host) Unfilter(ctx context.Context) error {
	return h.nft(ctx, "table inet desnode\ndelete table inet desnode\n")
}

func (h *Host) nft(ctx context.Context, rules string) error {
	program := h.inside([]string{nftProgram(), "-f", "-"})
	cmd := exec.CommandContext(ctx, program[0], program[1:]...)
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft in %s: %w: %s", h.ns, err, cut(out))
	}
	return nil
}

// nftProgram finds nftables' nft, which is not on every user's path.
func nftProgram() string {
	if program, err := exec.LookPath("nft"); err == nil {
		return program
	}
	return "/usr/sbin/nft"
}
