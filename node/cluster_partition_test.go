package node

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/node/source"
)

// withDeletion deletes originals as soon as they are safe.
func withDeletion(w *world) {
	w.config = func(cfg *config.Config) { cfg.Archive.DeleteSource, cfg.Archive.DeleteGrace = true, 0 }
}

// originals counts the originals that are left.
func (w *world) originals() int {
	w.t.Helper()
	left, err := os.ReadDir(w.docs)
	if err != nil {
		w.t.Fatal(err)
	}
	return len(left)
}

// deleted waits until no original is left, looking after each step of time.
func (w *world) deleted(limit time.Duration, look func()) {
	w.t.Helper()
	w.within(limit, "originals deleted", func() error {
		look()
		if left := w.originals(); left > 0 {
			return fmt.Errorf("%d are left", left)
		}
		return nil
	})
}

// forgetRows takes all rows out of the source, as a customer may.
func (w *world) forgetRows() {
	w.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(w.dir, "files.db"))
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = db.ExecContext(w.t.Context(), "DELETE FROM files")
	if err = errors.Join(err, db.Close()); err != nil {
		w.t.Fatal(err)
	}
}

// answersNoMiss holds every answer to be the file, or that nobody can say.
func (m *member) answersNoMiss() (served int) {
	m.w.t.Helper()
	for _, name := range m.w.names() {
		got := m.read(name)
		switch {
		case got.Code == http.StatusOK && got.Body.String() == m.w.holds(name):
			served++
		case got.Code == http.StatusServiceUnavailable:
		default:
			m.w.t.Fatalf("%s answers %s: %d %s", m.ip, name, got.Code, got.Body)
		}
	}
	return served
}

// The life of files at a node that sees nothing of it: packed, verified, their
// originals deleted.
func TestNodeCutOffNeverAnswersNotFoundAndKeepsOriginalsAlive(t *testing.T) {
	const files = 5
	for _, back := range []bool{true, false} {
		name := "then it is removed"
		if back {
			name = "then it comes back"
		}
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				withDeletion(w)
				a, b, c := w.formThree()
				leader, others := w.leader(a, b, c)
				away, other := others[0], others[1]
				w.write(0, files)
				leader.imports()
				w.cutOff(away)
				away.answersNoMiss()
				other.archives(files)
				for range 10 { // deletion has every chance
					w.pass(30 * time.Second)
					if got := w.originals(); got != files {
						t.Fatalf("%d of %d originals are left although a member has not applied their pack", got, files)
					}
					away.answersNoMiss()
				}
				if back {
					w.cutOff()
					w.deleted(10*time.Minute, func() { away.answersNoMiss() })
					w.settled(3, a, b, c)
					w.mustServe(a, b, c)
					return
				}
				if err := leader.RemoveMember(t.Context(), api.RemoveMemberRequest{Node: away.id.Node}); err != nil {
					t.Fatal(err)
				}
				w.deleted(10*time.Minute, func() { away.answersNoMiss() })
				w.forgetRows() // so that not even the source speaks for the files
				if got := away.answersNoMiss(); got != 0 {
					t.Errorf("%d files served, of which the node knows nothing and no original is left", got)
				}
				w.mustServe(leader, other)
			})
		})
	}
}

func TestReadsGoOnAndWorkWaitsWhileTheQuorumIsLost(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		all := w.archivedAll(20)
		leader, others := w.leader(all...)
		last, back := others[0], others[1]
		safe := w.names()
		w.write(20, 5)
		last.imports()
		w.cutOff(last) // so that the others die without a word to it
		leader.stop()
		back.stop()
		w.cutOff()
		w.pass(10 * time.Second)

		if err := last.serves(true, safe...); err != nil {
			t.Errorf("reads by name do not go on: %v", err)
		}
		for _, name := range []string{"no such file", "f0020"} {
			got := last.read(name)
			if got.Code != http.StatusServiceUnavailable || !strings.Contains(got.Body.String(), string(api.CodeUnconfirmed)) || got.Header().Get("Retry-After") == "" {
				t.Errorf("%s, in no pack that the node knows: %d %v %s, want 503 unconfirmed", name, got.Code, got.Header(), got.Body)
			}
		}
		nobody := func(api.ImportEvent) error { return nil }
		if err := last.Import(t.Context(), api.ImportRequest{Dir: filepath.Join(w.dir, "elsewhere")}, nobody); err == nil {
			t.Error("an import was taken without a quorum")
		}
		archived := make(chan error, 1)
		go func() {
			archived <- last.Archive(t.Context(), api.ArchiveRequest{}, func(api.ArchiveEvent) error { return nil })
		}()
		w.pass(5 * time.Second)
		select {
		case err := <-archived:
			t.Fatalf("the run did not wait: %v", err)
		default:
		}
		back.start()
		if err := <-archived; err != nil {
			t.Errorf("the run does not go on when a node returns: %v", err)
		}
		w.leader(last, back)
		w.within(time.Minute, "served from packs", func() error { return errors.Join(last.serves(true), back.serves(true)) })
	})
}

func TestArchiveSaysWhatItWaitsForWithoutAQuorum(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c := w.formThree()
		leader, others := w.leader(a, b, c)
		w.write(0, 5)
		leader.imports()
		w.cutOff(leader)
		w.pass(10 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		err := leader.Archive(ctx, api.ArchiveRequest{}, func(api.ArchiveEvent) error { return nil })
		var told *api.Problem
		if !errors.As(err, &told) || told.Status != http.StatusServiceUnavailable || !strings.Contains(told.Detail, "leader") {
			t.Errorf("archive without a quorum: %v", err)
		}
		others[0].archives(5) // the majority goes on
		w.cutOff()
		w.settled(3, a, b, c)
		w.mustServe(a, b, c)
	})
}

func TestPartitionLongerThanGossipRemembersHeals(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		all := w.archivedAll(20)
		leader, others := w.leader(all...)
		w.cutOff(leader) // the leader is the minority
		w.write(20, 5)
		w.leader(others...)
		others[0].imports()
		others[0].archives(5)
		w.pass(3 * time.Minute)
		if got := leader.answersNoMiss(); got < 20 {
			t.Errorf("the node cut off serves %d of 20 files that it knows", got)
		}
		w.cutOff()
		w.settled(3, all...)
		w.packed(leader)
		w.mustServe(all...)
	})
}

func TestLeaderLostInTheMiddleOfArchivingPacksEveryFileOnce(t *testing.T) {
	for _, lost := range []string{"cut off", "stopped", "leaves"} {
		t.Run(lost, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.config = func(cfg *config.Config) {
					cfg.Archive.PackSize = 64 << 10
					cfg.Archive.Pace.FilesPerSecond = 20
				}
				a, b, c := w.formThree()
				leader, others := w.leader(a, b, c)
				w.writeSized(200, 4<<10)
				leader.imports()
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				defer cancel()
				took := false
				var last api.ArchiveEvent
				err := others[0].Archive(ctx, api.ArchiveRequest{}, func(e api.ArchiveEvent) error {
					last = e
					if took || e.Marked+e.Packed < 50 {
						return nil
					}
					took = true
					switch lost {
					case "cut off":
						w.cutOff(leader)
					case "stopped":
						leader.stop()
					case "leaves":
						go func() { _ = leader.Leave(ctx, api.LeaveRequest{}) }()
					}
					return nil
				})
				if err != nil || !took {
					t.Fatalf("archived: %+v, %v; the leader was lost: %v", last, err, took)
				}
				alive := others
				switch lost {
				case "cut off":
					w.cutOff()
					alive = []*member{a, b, c}
				case "stopped":
					leader.start()
					alive = []*member{a, b, c}
				}
				w.settled([]int{0, 1, 1, 3}[len(alive)], alive...)
				w.packed(alive[0])
				w.mustServe(alive...)
				w.packedOnce(alive[0], 200)
			})
		})
	}
}

// packedOnce holds every row to be PACKED.
func (w *world) packedOnce(m *member, n int64) {
	w.t.Helper()
	counts, err := m.sources[0].Rows.Counts(w.t.Context())
	if err != nil || counts[source.Packed].Rows != n || len(counts) != 1 {
		w.t.Errorf("rows: %+v, %v", counts, err)
	}
}

func TestArchiveWaitsQuietlyForWhatAnotherNodeHolds(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c := w.formThree()
		w.write(0, 5)
		a.imports()
		release := b.holdMarking()
		before := a.meta.View().Applied()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err := c.Archive(ctx, api.ArchiveRequest{}, func(api.ArchiveEvent) error { return nil })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("archived while another marks: %v", err)
		}
		if commands := a.meta.View().Applied() - before; commands > 500 {
			t.Errorf("%d commands in 10 s of waiting", commands)
		}
		release()
		c.archives(5)
	})
}
