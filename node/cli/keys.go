package cli

import (
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/node/api"
)

// rotated is what keys rotate prints as JSON.
type rotated struct {
	What   string        `json:"what"`
	Phases []rotatePhase `json:"phases"` // as far as this run took them
}

// rotatePhase is the last that was heard of one phase.
type rotatePhase struct {
	Phase   string `json:"phase"`
	Applied int    `json:"applied"`
	Of      int    `json:"of"`
}

func (a *app) keys() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Change the cluster's keys",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return usage("say what to do: rotate") },
	}
	cmd.AddCommand(a.clients(a.keysRotate())...)
	return cmd
}

func (a *app) keysRotate() *cobra.Command {
	return &cobra.Command{
		Use:   "rotate",
		Short: "Give gossip a new key and forget the old one",
		Long: `Puts a new key in the place of the one that gossip is encrypted with, in three phases: every living member adds the
new key, uses it, and forgets the old one; each phase ends when the last of them has done it. Members that are away get
the key when they return. A rotation that was cut is continued by running this again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.close()
			result := rotated{What: api.KeysGossip, Phases: []rotatePhase{}}
			err = stream(cmd.Context(), c, api.PathRotateKeys, api.RotateRequest{What: api.KeysGossip}, func(e api.RotateEvent) error {
				if e.Phase == "" {
					return nil
				}
				at := slices.IndexFunc(result.Phases, func(p rotatePhase) bool { return p.Phase == e.Phase })
				now := rotatePhase{e.Phase, e.Applied, e.Of}
				switch {
				case at < 0:
					result.Phases = append(result.Phases, now)
				case result.Phases[at] == now:
					return nil
				default:
					result.Phases[at] = now
				}
				a.note(fmt.Sprintf("%s: %d of %s", printable(e.Phase), e.Applied, count(int64(e.Of), "living member")))
				return nil
			})
			if err != nil {
				return err
			}
			return a.print(result, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, "gossip has a new key, the old one is forgotten")
				return err
			})
		},
	}
}
