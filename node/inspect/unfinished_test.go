package inspect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// unfinished returns what is found, as "severity kind subject".
func (w *world) unfinished() (words []string, findings []Finding) {
	w.t.Helper()
	findings, err := w.inspector().Unfinished(w.t.Context())
	w.check(err)
	for _, f := range findings {
		if f.Why == "" || f.Cure == "" || f.Subject == "" || !slices.Contains(Kinds(), f.Kind) || !slices.Contains(severities[:], f.Severity) {
			w.t.Errorf("a finding that says too little: %+v", f)
		}
		if f.Destructive && !f.Fixable {
			w.t.Errorf("destructive and not fixable: %+v", f)
		}
		words = append(words, fmt.Sprintf("%s %s %s", f.Severity, f.Kind, f.Subject))
	}
	return words, findings
}

func (w *world) wantUnfinished(want ...string) []Finding {
	w.t.Helper()
	got, findings := w.unfinished()
	if !slices.Equal(got, want) {
		w.t.Errorf("found\n  %s\nwant\n  %s\n%+v", strings.Join(got, "\n  "), strings.Join(want, "\n  "), findings)
	}
	return findings
}

// recovered runs Recover and returns what became of each finding, as "word kind".
func (w *world) recovered(opts Options) (words []string, t Totals) {
	w.t.Helper()
	t, err := w.inspector().Recover(w.t.Context(), opts, func(o Outcome, _ Totals) error {
		words = append(words, o.Word+" "+o.Finding.Kind)
		return nil
	})
	w.check(err)
	return words, t
}

func (w *world) wantRecovered(opts Options, want ...string) {
	w.t.Helper()
	if got, t := w.recovered(opts); !slices.Equal(got, want) {
		w.t.Errorf("became %q, want %q (%+v)", got, want, t)
	}
}

func TestNothingIsUnfinished(t *testing.T) {
	w := newWorld(t)
	w.archived("a", "b")
	w.wantUnfinished()
	w.wantRecovered(Options{Fix: true, Yes: true})
}

// TestEachThingUnfinishedIsFoundAndMended: how it comes about, what is told, what
// becomes of it with Fix, and with Yes as well, and what is found after that.
func TestEachThingUnfinishedIsFoundAndMended(t *testing.T) {
	away := errors.New("away")
	for _, tc := range []struct {
		name  string
		do    func(w *world) (subject string)
		found string   // severity and kind
		fix   string   // what becomes of it
		yes   string   // likewise; "": it is gone by then
		after []string // severity and kind of what is found at last
	}{
		{
			name: "an upload under a live lease", do: func(w *world) string {
				var key string
				w.leased(raftmeta.Job{Kind: raftmeta.JobPack}, func(ctx context.Context, l raftmeta.Lease) { w.register("a"); key, _, _ = w.upload(ctx, l) })
				return key
			},
			found: "note upload-uncommitted", fix: Left, yes: Left, after: []string{"note upload-uncommitted"},
		},
		{
			name: "young garbage", do: func(w *world) string { w.register("a"); return w.abandon() },
			found: "note upload-uncommitted", fix: Left, yes: Left, after: []string{"note upload-uncommitted"},
		},
		{
			name: "old garbage", do: func(w *world) string {
				w.register("a")
				key := w.abandon()
				w.clock.advance(25 * time.Hour)
				return key
			},
			found: "repairable upload-uncommitted", fix: NeedsYes, yes: Fixed, after: []string{"note object-quarantined"},
		},
		{
			name: "garbage that holds what nothing else does", do: func(w *world) string {
				w.register("a")
				key := w.abandon()
				w.check(os.Remove(filepath.Join(w.root, "a")))
				w.clock.advance(25 * time.Hour)
				return key
			},
			found: "repairable upload-uncommitted", fix: NeedsYes, yes: Failed, after: []string{"at-risk object-kept"},
		},
		{
			name: "quarantine that is over", do: func(w *world) string {
				w.register("a")
				key := w.abandon()
				w.clock.advance(25 * time.Hour)
				w.check(w.keeper.CollectNow(w.t.Context()))
				w.clock.advance(8 * 24 * time.Hour)
				list, err := w.cfg.Log.Quarantined(w.meta.View())
				w.check(err)
				if len(list) != 1 || list[0].Key != key {
					w.t.Fatalf("in quarantine: %+v", list)
				}
				return list[0].Place
			},
			found: "repairable object-quarantined", fix: NeedsYes, yes: Fixed,
		},
		{
			name: "parts that nobody completes", do: func(w *world) string {
				p := w.archived("a")
				w.parts.open = []store.Upload{{Key: p.Copies[0].Key, ID: "1", Begun: w.clock.Now().Add(-25 * time.Hour)}}
				return p.Copies[0].Key
			},
			found: "repairable multipart-open", fix: NeedsYes, yes: Fixed,
		},
		{
			name: "young parts", do: func(w *world) string {
				p := w.archived("a")
				w.parts.open = []store.Upload{{Key: p.Copies[0].Key, ID: "1", Begun: w.clock.Now()}}
				return p.Copies[0].Key
			},
			found: "note multipart-open", fix: Left, yes: Left, after: []string{"note multipart-open"},
		},
		{
			name: "parts of a lease that may live", do: func(w *world) string {
				key := desformat.PackKey(desformat.Range{}, desformat.Token{Generation: 1, Index: 1 << 40}, desformat.PackID{1})
				w.parts.open = []store.Upload{{Key: key, ID: "1", Begun: w.clock.Now().Add(-25 * time.Hour)}}
				return key
			},
			found: "note multipart-open", fix: Left, yes: Left, after: []string{"note multipart-open"},
		},
		{
			name: "parts of somebody else", do: func(w *world) string {
				w.parts.open = []store.Upload{{Key: "packs/x", ID: "1", Begun: w.clock.Now().Add(-25 * time.Hour)}}
				return "packs/x"
			},
			found: "note multipart-open", fix: Left, yes: Left, after: []string{"note multipart-open"},
		},
		{
			name: "rows not acknowledged", do: func(w *world) string {
				w.register("a")
				p := w.pack()
				_, err := w.keeper.VerifyNow(w.t.Context(), p.ID)
				w.check(err)
				return "pack " + p.ID.String()
			},
			found: "repairable pack-unacknowledged", fix: Fixed,
		},
		{
			name: "never read back", do: func(w *world) string {
				w.register("a")
				p := w.pack()
				w.check(w.keeper.Acknowledge(w.t.Context(), p))
				w.clock.advance(2 * time.Hour)
				return "pack " + p.ID.String()
			},
			found: "repairable pack-unverified", fix: Fixed,
		},
		{
			name: "not read back yet", do: func(w *world) string {
				w.register("a")
				p := w.pack()
				w.check(w.keeper.Acknowledge(w.t.Context(), p))
				return "pack " + p.ID.String()
			},
			found: "note pack-unverified", fix: Fixed,
		},
		{
			name: "read back long ago", do: func(w *world) string {
				p := w.archived("a")
				w.clock.advance(61 * 24 * time.Hour)
				return "pack " + p.ID.String()
			},
			found: "repairable pack-stale", fix: Fixed,
		},
		{
			name: "damaged", do: func(w *world) string {
				p := w.archived("a")
				w.store.Damage(p.Copies[0].Key, func(b []byte) []byte { b[100] ^= 1; return b })
				w.clock.advance(time.Minute)
				damage, err := w.keeper.VerifyNow(w.t.Context(), p.ID)
				w.check(err)
				if damage == "" {
					w.t.Fatal("not noticed")
				}
				return "pack " + p.ID.String()
			},
			found: "at-risk pack-damaged", fix: Failed, yes: Failed, after: []string{"at-risk pack-damaged"},
		},
		{
			name: "failed in a way that may pass", do: func(w *world) string {
				w.fail(source.CodeReadError)
				return "files read-error"
			},
			found: "repairable rows-failed", fix: Fixed,
		},
		{
			name: "failed for good", do: func(w *world) string {
				w.fail(source.CodeInvalidName)
				return "files invalid-name"
			},
			found: "repairable rows-failed", fix: Left, yes: Left, after: []string{"repairable rows-failed"},
		},
		{
			name: "originals that two rows share", do: func(w *world) string {
				w.fail(source.CodeShared)
				return "files shared-file"
			},
			found: "note rows-failed", fix: Left, yes: Left, after: []string{"note rows-failed"},
		},
		{
			name: "a table that does not answer", do: func(w *world) string { w.rows.err = away; return "files" },
			found: "repairable source-down", fix: Left, yes: Left, after: []string{"repairable source-down"},
		},
		{
			name: "a store that does not answer", do: func(w *world) string { w.parts.err = away; return "open uploads" },
			found: "repairable store-down", fix: Left, yes: Left, after: []string{"repairable store-down"},
		},
		{
			name: "no quorum", do: func(w *world) string { w.meta.err = away; return string(testNode) },
			found: "repairable no-quorum", fix: Left, yes: Left, after: []string{"repairable no-quorum"},
		},
		{
			name: "a source that this node lacks", do: func(w *world) string {
				w.cfg.Lacking = func() ([]string, error) { return []string{"photos"}, nil }
				return "photos"
			},
			found: "repairable source-missing", fix: Left, yes: Left, after: []string{"repairable source-missing"},
		},
		{
			name: "a pause that forgot its end", do: func(w *world) string {
				w.cfg.Pauses = func() []Pause {
					return []Pause{{Work: "mark", Reason: "audit", By: "anna"}, {Work: "pack", Reason: "x", Until: w.clock.Now().Add(time.Hour)}}
				}
				return "mark"
			},
			found: "repairable pause-endless", fix: Left, yes: Left, after: []string{"repairable pause-endless"},
		},
		{
			name: "a member that is not seen", do: func(w *world) string {
				w.cfg.Members = func(context.Context) ([]Member, error) {
					return []Member{{Node: testNode, Alive: true, State: "alive"}, {Node: "node-b", State: "unreachable"}}, nil
				}
				return "node-b"
			},
			found: "repairable member-unreachable", fix: Left, yes: Left, after: []string{"repairable member-unreachable"},
		},
		{
			name: "a member that leaves", do: func(w *world) string {
				w.cfg.Members = func(context.Context) ([]Member, error) {
					return []Member{{Node: testNode, Alive: true, State: "alive"}, {Node: "node-b", Alive: true, State: "alive", Leaving: true}}, nil
				}
				return "node-b"
			},
			found: "note member-leaving", fix: Left, yes: Left, after: []string{"note member-leaving"},
		},
		{
			name: "a lease of a member that is not seen", do: func(w *world) string {
				job := raftmeta.Job{Kind: raftmeta.JobMark, Source: "files"}
				w.leased(job, func(context.Context, raftmeta.Lease) {})
				w.cfg.Members = func(context.Context) ([]Member, error) { return []Member{{Node: testNode, State: "unreachable"}}, nil }
				return job.String()
			},
			found: "note lease-orphaned", fix: Left, yes: Left, after: []string{"note lease-orphaned"},
		},
		{
			name: "no backup", do: func(w *world) string {
				w.archived("a")
				w.clock.advance(4 * time.Hour)
				w.backups()
				return "generation 1"
			},
			found: "repairable backup-missing", fix: Fixed,
		},
		{
			name: "no backup yet", do: func(w *world) string { w.archived("a"); w.backups(); return "generation 1" },
			found: "note backup-missing", fix: Fixed,
		},
		{
			name: "an old backup", do: func(w *world) string {
				w.backups(Backup{Key: "backups/1-7", Generation: 1, At: w.clock.Now()}, Backup{Key: "backups/1-5", Generation: 1, At: w.clock.Now().Add(-time.Hour)})
				w.clock.advance(27 * time.Hour)
				return "backups/1-7"
			},
			found: "note backup-old", fix: Fixed,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			subject := tc.do(w)
			before := w.meta.View().Applied()
			f := w.wantUnfinished(tc.found + " " + subject)
			if len(f) != 1 {
				return
			}
			if now := w.meta.View().Applied(); now != before {
				t.Errorf("telling has changed the state: %d, then %d", before, now)
			}
			kind := f[0].Kind
			w.wantRecovered(Options{Fix: true}, tc.fix+" "+kind)
			if fixable := tc.fix != Left; f[0].Fixable != fixable || f[0].Destructive != (tc.fix == NeedsYes) {
				t.Errorf("told as fixable %v, destructive %v", f[0].Fixable, f[0].Destructive)
			}
			var yes []string
			if tc.yes != "" {
				yes = []string{tc.yes + " " + kind}
			}
			w.wantRecovered(Options{Fix: true, Yes: true}, yes...)
			got, _ := w.unfinished()
			for i, words := range got {
				got[i] = strings.Join(strings.Fields(words)[:2], " ")
			}
			if !slices.Equal(got, tc.after) {
				t.Errorf("found at last %q, want %q", got, tc.after)
			}
		})
	}
}

// leased takes a lease that lives until the end of the test, while work has
// returned, as of a node that stands still.
func (w *world) leased(job raftmeta.Job, work func(context.Context, raftmeta.Lease)) {
	w.t.Helper()
	begun, end, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- w.meta.WithLease(context.WithoutCancel(w.t.Context()), job, func(ctx context.Context, l raftmeta.Lease) error {
			work(ctx, l)
			close(begun)
			<-end
			return nil
		})
	}()
	<-begun
	w.t.Cleanup(func() { close(end); w.check(<-ended) })
}

// fail lets a row fail for good with a code.
func (w *world) fail(code string) {
	w.t.Helper()
	w.register("a")
	w.check(w.rows.Refuse(w.t.Context(), w.row("a"), code, "as told", w.clock.Now()))
}

// backups gives the world a list of backups, and a way to make them.
func (w *world) backups(list ...Backup) {
	w.cfg.BackupEvery = time.Hour
	w.cfg.Backups = func() ([]Backup, error) { return list, nil }
	w.cfg.BackUp = func(context.Context) error {
		list = append(list, Backup{Key: "backups/new", Generation: 1, At: w.clock.Now()})
		return nil
	}
}

// TestACutDeletionIsSettled: the original is hidden, its row claimed, the process
// killed. The audit log of the node knows.
func TestACutDeletionIsSettled(t *testing.T) {
	w := newWorld(t)
	p := w.cutDeletion("a", "b")
	f := w.wantUnfinished("repairable deletion-cut pack " + p.ID.String())
	if len(f) == 1 && !strings.Contains(f[0].Why, "killed") {
		t.Errorf("why: %s", f[0].Why)
	}
	w.wantRecovered(Options{Fix: true}, Fixed+" deletion-cut")
	w.wantUnfinished()
	for _, name := range []string{"a", "b"} {
		if b, err := os.ReadFile(filepath.Join(w.root, name)); err != nil || string(b) != "content of "+name {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		if r := w.row(name); r.State != source.Packed || r.Claim != "" {
			t.Errorf("row %s is %s, claimed by %q", name, r.State, r.Claim)
		}
	}
}

// cutDeletion archives files and lets the deletion of their originals be cut.
func (w *world) cutDeletion(names ...string) *raftmeta.Pack {
	w.t.Helper()
	p := w.archived(names...)
	w.clock.advance(2 * time.Hour)
	cut := errors.New("killed")
	src := w.src
	src.Files = stubbornFiles{w.src.Files, cut}
	k := w.newKeeper(src)
	w.cfg.Upkeep, w.cfg.Log = k, upkeep{k}
	if err := k.Once(w.t.Context()); !errors.Is(err, cut) {
		w.t.Fatalf("the deletion was not cut: %v", err)
	}
	if _, err := os.Stat(filepath.Join(w.root, names[0])); !errors.Is(err, os.ErrNotExist) {
		w.t.Fatalf("nothing is hidden: %v", err)
	}
	return p
}

// TestADeletionUnderWayIsNotCut: while its lease lives, somebody is at it.
func TestADeletionUnderWayIsNotCut(t *testing.T) {
	w := newWorld(t)
	p := w.cutDeletion("a")
	w.leased(raftmeta.Job{Kind: raftmeta.JobDelete, Packs: []desformat.PackID{p.ID}}, func(context.Context, raftmeta.Lease) {})
	w.wantUnfinished()
}

// stubbornFiles are originals that can be hidden and not removed.
type stubbornFiles struct {
	source.Originals
	err error
}

func (f stubbornFiles) Remove(context.Context, string, source.Info) error { return f.err }

// TestWhatAnotherDoesIsLeftToIt: no second one is at it.
func TestWhatAnotherDoesIsLeftToIt(t *testing.T) {
	w := newWorld(t)
	w.register("a")
	p := w.pack()
	job := raftmeta.Job{Kind: raftmeta.JobAck, Packs: []desformat.PackID{p.ID}}
	w.leased(job, func(context.Context, raftmeta.Lease) {})
	if got, _ := w.unfinished(); !slices.Contains(got, "note pack-unacknowledged pack "+p.ID.String()) {
		t.Errorf("found %q", got)
	}
	if got, _ := w.recovered(Options{Fix: true}); !slices.Contains(got, Left+" pack-unacknowledged") {
		t.Errorf("became %q", got)
	}
	if w.meta.View().Pack(p.ID).Acknowledged {
		t.Error("acknowledged under another's lease")
	}
}

// TestALeaseTakenMeanwhileIsNoFailure: between the look and the act.
func TestALeaseTakenMeanwhileIsNoFailure(t *testing.T) {
	w := newWorld(t)
	w.register("a")
	w.pack()
	w.cfg.Upkeep = clashing{w.keeper}
	got, totals := w.recovered(Options{Fix: true})
	if !slices.Contains(got, Busy+" pack-unacknowledged") || totals.Left != 1 {
		t.Errorf("became %q, %+v", got, totals)
	}
}

// clashing acknowledges nothing: another does.
type clashing struct{ Upkeep }

func (clashing) AcknowledgeNow(context.Context, desformat.PackID) error {
	return fmt.Errorf("lease: %w", raftmeta.ErrClash)
}

// TestASupersededNodeMendsNothing.
func TestASupersededNodeMendsNothing(t *testing.T) {
	w := newWorld(t)
	w.register("a")
	p := w.pack()
	newer := errors.New("generation 2 has claimed the store")
	w.cfg.Current = func(context.Context) error { return newer }
	before := w.meta.View().Applied()
	got, _ := w.recovered(Options{Fix: true, Yes: true})
	if want := []string{Left + " superseded", Left + " pack-unacknowledged", Left + " pack-unverified"}; !slices.Equal(got, want) {
		t.Errorf("became %q, want %q", got, want)
	}
	if w.meta.View().Applied() != before || w.meta.View().Pack(p.ID).Acknowledged {
		t.Error("a superseded node has changed the state")
	}
}

// TestAnUnfinishedRebuildIsFound: nothing of an earlier generation is garbage until
// it is done.
func TestAnUnfinishedRebuildIsFound(t *testing.T) {
	w := newWorld(t)
	local, err := raftmeta.OpenLocal(raftmeta.LocalConfig{Node: testNode, Cluster: w.meta.View().Cluster(), Journal: &raftmeta.Journal{}, Generation: 2})
	w.check(err)
	w.check(local.PutMember(t.Context(), raftmeta.Member{ID: testNode}))
	id := desformat.PackID{7}
	token := desformat.Token{Generation: 1, Index: 3}
	key := desformat.PackKey(desformat.Range{}, token, id)
	w.check(local.Adopt(t.Context(), raftmeta.Adoption{Uploads: []raftmeta.Upload{{Key: key, Pack: id, Token: token, BeganAt: w.clock.Now()}}}))
	w.clock.advance(48 * time.Hour)
	w.cfg.Manifest = &manifest{Local: local}
	w.cfg.Rebuilding = func() string { return "3 of 7 packs" }
	w.parts.open = []store.Upload{{Key: desformat.PackKey(desformat.Range{}, token, desformat.PackID{8}), ID: "1", Begun: w.clock.Now().Add(-25 * time.Hour)}}
	f := w.wantUnfinished("repairable rebuild-unfinished generation 2", "note upload-uncommitted "+key, "note multipart-open "+w.parts.open[0].Key)
	if len(f) > 0 && !strings.Contains(f[0].Why, "3 of 7 packs") {
		t.Errorf("why: %s", f[0].Why)
	}
	if _, err := w.inspector().Compare(t.Context(), CompareOptions{}, func(Difference) error { return nil }); !errors.Is(err, ErrRebuilding) {
		t.Errorf("compared: %v", err)
	}
	w.check(local.RecordRebuild(t.Context()))
	w.wantUnfinished("repairable upload-uncommitted "+key, "repairable multipart-open "+w.parts.open[0].Key)
}

// TestRecoverEndsWhenNobodyListens: and what was done until then is done.
func TestRecoverEndsWhenNobodyListens(t *testing.T) {
	w := newWorld(t)
	w.register("a")
	w.pack()
	gone := errors.New("the client is gone")
	if _, err := w.inspector().Recover(t.Context(), Options{}, func(Outcome, Totals) error { return gone }); !errors.Is(err, gone) {
		t.Errorf("err = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.inspector().Unfinished(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
}

// TestTheGuideKnowsEveryKind holds docs/operator.md against the kinds.
func TestTheGuideKnowsEveryKind(t *testing.T) {
	b, err := os.ReadFile("../../docs/operator.md")
	if err != nil {
		t.Fatal(err)
	}
	_, guide, _ := strings.Cut(string(b), "## Recovery tools")
	guide, _, _ = strings.Cut(guide, "\n## ")
	findings, differences, _ := strings.Cut(guide, "### Comparing")
	for part, kinds := range map[string][]string{findings: Kinds(), differences: DifferenceKinds()} {
		for _, kind := range kinds {
			if !strings.Contains(part, "`"+kind+"`") {
				t.Errorf("docs/operator.md does not explain %q", kind)
			}
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := newWorld(t).cfg
	for name, change := range map[string]func(*Config){
		"no manifest":       func(c *Config) { c.Manifest = nil },
		"no store":          func(c *Config) { c.Store = nil },
		"no upkeep":         func(c *Config) { c.Upkeep = nil },
		"no log":            func(c *Config) { c.Log = nil },
		"negative interval": func(c *Config) { c.BackupEvery = -1 },
		"negative age":      func(c *Config) { c.VerifiedWithin = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			c := good
			change(&c)
			if _, err := New(c); err == nil {
				t.Error("taken")
			}
		})
	}
}
