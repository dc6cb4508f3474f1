package safety

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/backup"
	"github.com/datavision/desnode/raftmeta"
)

// Backups are made, one after the other, and the older one goes: what is listed
// is in the store, whole, and nothing else is.
func TestCrashPointBackup(t *testing.T) {
	scenario{
		prepare: func(w *world) {
			w.keep = true
			w.add("a", "content of a")
			w.live(6, w.archived)
			w.backups = true
		},
		run: func(w *world) {
			w.live(12, func() bool { return w.backedUp >= 2 && len(w.objects("backups/")) == 1 })
			w.wantEnd()
			w.wantTidy()
			list, err := backup.List(w.view())
			if err != nil || len(list) != 1 {
				w.judge.Errorf("backups %v, %v", list, err)
				return
			}
			if v, err := backup.Load(w.judge.Context(), w.store, list[0].Key); err != nil || len(packsOf(v)) != len(packsOf(w.view())) {
				w.judge.Errorf("backup %s: %v", list[0].Key, err)
			}
		},
		least: 2065,
	}.all(t)
}

// All disks are gone, and so is what desnode wrote to the rows: the manifest is
// made of what the store holds, and the rows get their columns back.
func TestCrashPointRebuild(t *testing.T) {
	scenario{
		prepare: func(w *world) {
			w.settle()
			w.add("a", "content of a")
			w.files.write(theRoot+"/keep", []byte("of nobody"), w.now())
			w.live(6, w.archived)
			w.forgetRows()
			w.begin(newLife{rows: true})
		},
		run: func(w *world) {
			w.live(12, w.restored)
			w.wantEnd()
			w.wantTidy()
			w.wantSamePacks()
		},
		least: 3814,
	}.all(t)
}

// The cluster is restored from a backup; a pack that was written after it is
// found by its footer, and an upload that was cut before it stays dead.
func TestCrashPointRestore(t *testing.T) {
	scenario{
		prepare: func(w *world) {
			w.settle()
			w.keep, w.backups = true, true
			w.add("a", "content of a")
			w.events["store.Put"] = func() { w.node.kill() }
			w.live(6, w.archived)
			w.stop()
			list, err := backup.List(w.view())
			if err != nil || len(list) != 1 {
				w.judge.Errorf("backups %v, %v", list, err)
				return
			}
			w.backups = false
			w.add("b", "content of b")
			w.live(6, w.archived)
			w.begin(newLife{base: list[0].Key})
			w.pass(25 * time.Hour)
		},
		run: func(w *world) {
			w.live(12, w.restored)
			for weeks := 0; weeks < 4 && !w.until(2, func() bool { return len(w.objects("packs/"))+len(w.objects("quarantine/")) == 2 }); weeks++ {
				w.pass(8 * 24 * time.Hour)
			}
			w.wantEnd()
			w.wantTidy()
			w.wantSamePacks()
		},
		least: 12856,
		pairs: 2000, // each lives through an archive and a backup first
	}.all(t)
}

// wantSamePacks holds the packs against those that the life before had.
func (w *world) wantSamePacks() {
	now := packsOf(w.view())
	for id, p := range packsOf(w.newLife.before) {
		q := now[id]
		if q == nil || q.Range != p.Range || q.Size != p.Size || q.SHA256 != p.SHA256 || q.Records != p.Records ||
			q.MaxSeq != p.MaxSeq || q.Catalog != p.Catalog || q.Index != p.Index || !slices.Equal(q.Dead, p.Dead) {
			w.judge.Errorf("pack %s was %+v, is %+v", id, p, q)
		}
		delete(now, id)
	}
	for id := range now {
		w.judge.Errorf("pack %s is new", id)
	}
}

func packsOf(v *raftmeta.View) map[desformat.PackID]*raftmeta.Pack {
	all := map[desformat.PackID]*raftmeta.Pack{}
	for p := range v.Packs() {
		all[p.ID] = p
	}
	return all
}

// settle makes the store the cluster's own, as its first node does.
func (w *world) settle() {
	w.put("cluster.json", fmt.Appendf(nil, `{"cluster":%q}`, theCluster))
	w.put("generations/1", fmt.Appendf(nil, `{"cluster":%q,"node":%q}`, theCluster, theNode))
}
