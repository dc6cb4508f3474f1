package backup

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

const (
	// listSetting is the replicated setting that names the backups.
	listSetting = "backup/list"
	// Prefix is where backups stand in the store.
	Prefix = "backups/"
	// lateWrites is how long a key that was announced and not listed is deleted
	// again and again: its writer may have lost its lease, but not its connection.
	lateWrites = 24 * time.Hour
)

// Entry is one backup.
type Entry struct {
	Key        string          `json:"key"`
	Generation uint64          `json:"generation"`
	Index      uint64          `json:"index"` // Raft index up to which it goes
	At         time.Time       `json:"at"`    // by the clock of who made it; of one found by Find, the store's
	Packs      int             `json:"packs"` // 0 of one found by Find: it is not known
	Bytes      int64           `json:"bytes"` // of the object
	Digest     raftmeta.Digest `json:"digest"`
}

// newerFirst orders backups by how much they know.
func newerFirst(a, b Entry) int {
	return cmp.Or(cmp.Compare(b.Generation, a.Generation), cmp.Compare(b.Index, a.Index))
}

// Key returns the key of the backup of a state.
func Key(generation, index uint64) string {
	return fmt.Sprintf("%s%d-%020d", Prefix, generation, index)
}

// parseKey is Key's inverse.
func parseKey(key string) (generation, index uint64, ok bool) {
	g, i, _ := strings.Cut(strings.TrimPrefix(key, Prefix), "-")
	generation, err1 := strconv.ParseUint(g, 10, 64)
	index, err2 := strconv.ParseUint(i, 10, 64)
	return generation, index, err1 == nil && err2 == nil && key == Key(generation, index)
}

// list is the value of the setting.
type list struct {
	Generation uint64   `json:"generation"` // of the life that keeps it
	Backups    []Entry  `json:"backups"`    // newest first
	Doomed     []doomed `json:"doomed,omitempty"`
}

// doomed is a key below Prefix that is to be empty: of a backup that has been
// dropped, or of one that is being written, unless it is listed in the end.
type doomed struct {
	Key     string    `json:"key"`
	Writing bool      `json:"writing,omitempty"` // it may be listed yet, and is not deleted before
	Until   time.Time `json:"until,omitzero"`    // it is deleted again until then
}

// errOvertaken: another node has taken this one's lease, and given up its backup.
var errOvertaken = errors.New("another node makes backups meanwhile")

func isList(key string) bool { return key == listSetting }

// readList returns the list of the view's own life, which is empty at first.
func readList(v *raftmeta.View) (list, error) {
	l := list{Generation: v.Generation()}
	b, _, ok := v.Setting(listSetting)
	if !ok {
		return l, nil
	}
	var kept list
	if err := json.Unmarshal(b, &kept); err != nil {
		return l, fmt.Errorf("setting %s: %w", listSetting, err)
	}
	if kept.Generation == v.Generation() {
		return kept, nil
	}
	return l, nil
}

// List returns the backups that a state knows of, newest first: those that its
// own life has made or inherited.
func List(v *raftmeta.View) ([]Entry, error) {
	l, err := readList(v)
	return l.Backups, err
}

// change changes the list. It is called under the lease, so nobody else does;
// when the lease was lost, the index that Set is conditional on shows it.
func (b *Backup) change(ctx context.Context, f func(*list) error) error {
	v := b.cfg.Manifest.View()
	l, err := readList(v)
	if err != nil {
		return err
	}
	if err := f(&l); err != nil {
		return err
	}
	value, err := json.Marshal(l)
	if err != nil {
		return err
	}
	_, at, _ := v.Setting(listSetting)
	return b.cfg.Manifest.Set(ctx, listSetting, value, at)
}

// known reports whether the list has anything of its life on it.
func (l *list) known() bool {
	return len(l.Backups) > 0 && l.Backups[0].Generation == l.Generation
}

// inherit lists, once in a life that began with a rebuild, what earlier ones
// have left: nobody else would ever delete it.
func (b *Backup) inherit(ctx context.Context, l *list) error {
	if l.Generation == 1 || len(l.Backups)+len(l.Doomed) > 0 {
		return nil
	}
	all, err := Find(ctx, b.cfg.Store)
	if err != nil {
		return err
	}
	l.Backups = slices.DeleteFunc(all, func(e Entry) bool { return e.Generation >= l.Generation })
	return nil
}

// announce notes a key that is about to be written. Whatever was being written
// before is given up: whoever did it has lost its lease.
func (l *list) announce(key string, until time.Time) {
	for i := range l.Doomed {
		l.Doomed[i].Writing = false
	}
	l.Doomed = append(l.Doomed, doomed{Key: key, Writing: true, Until: until.UTC()})
}

// add puts a backup on the list that was announced, and is in the store. A node
// that stood still finds there that its successor may have deleted it:
// errOvertaken.
func (l *list) add(e Entry) error {
	i := slices.IndexFunc(l.Doomed, func(d doomed) bool { return d.Key == e.Key && d.Writing })
	if i < 0 {
		return errOvertaken
	}
	l.Doomed = slices.Delete(l.Doomed, i, i+1)
	l.Backups = append(l.Backups, e)
	slices.SortFunc(l.Backups, newerFirst)
	return nil
}

// forget drops the doomed of which nothing can come any more.
func (l *list) forget(now time.Time) {
	l.Doomed = slices.DeleteFunc(l.Doomed, func(d doomed) bool { return !d.Writing && !now.Before(d.Until) })
}

// expire dooms what is neither among the newest nor the last of a day that is
// kept. A day in the future is kept: some clock was wrong, perhaps this one.
func (l *list) expire(now time.Time, keep, days int) {
	first := day(now) - days
	taken := map[int]bool{}
	kept := l.Backups[:0:0]
	for i, e := range l.Backups {
		d := day(e.At)
		daily := days > 0 && d > first && !taken[d]
		taken[d] = true
		if i < max(keep, 1) || daily {
			kept = append(kept, e)
			continue
		}
		l.Doomed = append(l.Doomed, doomed{Key: e.Key})
	}
	l.Backups = kept
}

// day numbers the days of UTC.
func day(t time.Time) int { return int(t.Unix() / int64(24*time.Hour/time.Second)) }

// Find lists the backups that are in the store, newest first, for a restore:
// whatever a state may know of them. Objects of other names are passed over.
func Find(ctx context.Context, s Lister) ([]Entry, error) {
	var all []Entry
	err := s.List(ctx, Prefix, "", func(o store.Object) error {
		if g, i, ok := parseKey(o.Key); ok {
			all = append(all, Entry{Key: o.Key, Generation: g, Index: i, At: o.Modified.UTC(), Bytes: o.Size})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", Prefix, err)
	}
	slices.SortFunc(all, newerFirst)
	return all, nil
}

// Lister is what Find needs of a store.
type Lister interface {
	List(ctx context.Context, prefix, after string, f func(store.Object) error) error
}

var errNoKey = errors.New("not the key of a backup")
