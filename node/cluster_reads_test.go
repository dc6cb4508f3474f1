package node

import (
	"testing"
	"time"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/config"
)

// The bar is no failed read and less than a second for each.
func TestNodeThatDiesOrFreezesFailsNoReadOfTheOthers(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.config = func(cfg *config.Config) { cfg.Cache.Data = 1 } // nobody has an answer at hand
		leader, others := w.leader(w.archivedAll(20)...)
		for _, dies := range []*member{others[0], leader} {
			var alive []*member
			for _, m := range append(others, leader) {
				if m != dies {
					alive = append(alive, m)
				}
			}
			end := w.readers(alive...)
			w.pass(2 * time.Second)
			w.cutOff(dies)
			w.settledView(2, alive...)
			w.leader(alive...)
			w.pass(5 * time.Second)
			if took := end(); took > time.Second {
				t.Errorf("a read took %v while a node died", took)
			}
			for _, m := range alive {
				if m.route(t, "fallback") == 0 {
					t.Errorf("%s never missed the node that died", m.ip)
				}
			}
			w.cutOff()
			w.settled(3, leader, others[0], others[1])
		}
	})
}

func TestNodeThatJoinsFailsNoReadAndServesAtOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c := w.archived(40)
		end := w.readers(a, b, c)
		d := w.join(b)
		w.mustServe(d)
		w.settled(3, a, b, c, d)
		w.pass(5 * time.Second)
		if took := end(); took > time.Second {
			t.Errorf("a read took %v while a node joined", took)
		}
		w.mustServe(d)
		if d.route(t, "owner") == 0 || a.metric(t, `des_router_served_total{status="ok"}`) == 0 {
			t.Error("the nodes asked each other for nothing")
		}
	})
}

// A node that was away meanwhile finds its way back with keys that nobody uses
// any more.
func TestGossipKeysAreRotatedWhileANodeIsAway(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		all := w.archivedAll(5)
		leader, others := w.leader(all...)
		away := others[1]
		away.stop()
		w.settledView(2, leader, others[0])
		for range 3 {
			var last api.RotateEvent
			err := others[0].RotateKeys(t.Context(), api.RotateRequest{}, func(e api.RotateEvent) error {
				last = e
				return nil
			})
			if err != nil {
				t.Fatalf("%v after %+v", err, last)
			}
		}
		away.start()
		w.settled(3, all...)
		w.mustServe(all...)
		w.join(away)
		w.settledView(4, all...)
	})
}
