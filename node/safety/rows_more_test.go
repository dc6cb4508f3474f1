package safety

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

func (t *rows) Deletable(ctx context.Context, pack desformat.PackID, packedBefore time.Time, after string, limit int) ([]source.Row, error) {
	return t.list(ctx, after, limit, func(r *row) bool {
		return r.State == source.Packed && r.Pack == pack && r.PackedAt.Before(packedBefore) && r.ErrorCode == ""
	})
}

func claimable(seen *source.Row, claim string) error {
	if seen.State != source.Packed || seen.Pack.IsZero() || claim == "" {
		return fmt.Errorf("row %s is %s, claim %q", seen.ID, seen.State, claim)
	}
	return nil
}

func (t *rows) Claim(ctx context.Context, seen source.Row, claim string) (ok bool, err error) {
	if err := claimable(&seen, claim); err != nil {
		return false, err
	}
	err = t.update(ctx, func() error {
		r := t.find(&seen)
		if r == nil || r.Pack != seen.Pack || r.Claim != seen.Claim && r.Claim != claim {
			return nil
		}
		ok = true
		return t.change(r, func(r *row) { r.Claim = claim })
	})
	return ok && err == nil, err
}

// claimed returns the row as last seen that claim holds.
func (t *rows) claimed(seen *source.Row, claim string) *row {
	if r := t.find(seen); r != nil && r.Pack == seen.Pack && r.Claim == claim {
		return r
	}
	return nil
}

func (t *rows) Unclaim(ctx context.Context, seen source.Row, claim, code, text string, at time.Time) error {
	if err := claimable(&seen, claim); err != nil {
		return err
	}
	return t.update(ctx, func() error {
		r := t.claimed(&seen, claim)
		if r == nil {
			return nil
		}
		return t.change(r, func(r *row) {
			r.Claim = ""
			if code != "" {
				r.LastAttempt = at.UTC()
				r.fail(code, text)
			}
		})
	})
}

func (t *rows) Deleted(ctx context.Context, seen source.Row, claim string, at time.Time) (ok bool, err error) {
	if err := claimable(&seen, claim); err != nil {
		return false, err
	}
	err = t.update(ctx, func() error {
		if r := t.claimed(&seen, claim); r != nil {
			ok = true
			return t.change(r, func(r *row) { r.State, r.deletedAt = source.DeletedSource, at.UTC() })
		}
		r := t.byID[idOf(seen.ID)]
		ok = r != nil && r.State == source.DeletedSource && r.Pack == seen.Pack && r.Claim == claim && r.Version == seen.Version
		return nil
	})
	return ok && err == nil, err
}

func (t *rows) Sharing(ctx context.Context, seen source.Row, fileID string, paths []string) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	own := int64(0)
	if seen.Source == t.name {
		own = idOf(seen.ID)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n, unknown := 0, false
	for _, r := range t.byID {
		if r.id == own || r.State == source.DeletedSource {
			continue
		}
		unknown = unknown || r.FileID == ""
		if fileID != "" && r.FileID == fileID || slices.Contains(paths, r.Path) {
			n++
		}
	}
	if n == 0 && unknown {
		return 0, source.ErrUnidentified
	}
	return n, nil
}

func (t *rows) Unidentified(ctx context.Context, after string, limit int) ([]source.Row, error) {
	return t.list(ctx, after, limit, func(r *row) bool { return r.FileID == "" && r.State != source.DeletedSource })
}

func (t *rows) Identify(ctx context.Context, list []source.Row, fileIDs []string) error {
	if len(list) > source.MaxBatch || len(list) != len(fileIDs) {
		return fmt.Errorf("%d rows, %d file ids", len(list), len(fileIDs))
	}
	return t.update(ctx, func() error {
		for i := range list {
			if r := t.find(&list[i]); r != nil && r.FileID == "" {
				if err := t.change(r, func(r *row) { r.FileID = fileIDs[i] }); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// forget makes rows unknown whose file id is one of those.
func (t *rows) forget(ctx context.Context, those func(fileID string) bool) error {
	return t.update(ctx, func() error {
		for _, r := range t.byID {
			if r.State != source.DeletedSource && r.FileID != "" && those(r.FileID) {
				if err := t.change(r, func(r *row) { r.FileID = "" }); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (t *rows) ForgetMissing(ctx context.Context) error {
	return t.forget(ctx, func(id string) bool { return id == source.NoFileID })
}

func (t *rows) ForgetFiles(ctx context.Context) error {
	return t.forget(ctx, func(id string) bool { return !strings.HasPrefix(id, "s3:") })
}

// one returns the only row that pick takes.
func (t *rows) one(ctx context.Context, what string, pick func(*row) bool) (source.Row, error) {
	found, err := t.list(ctx, "", 1, pick)
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("%s: %w", what, source.ErrNotFound)
	}
	if err != nil {
		return source.Row{}, err
	}
	return found[0], nil
}

func (t *rows) ByName(ctx context.Context, name string) (source.Row, error) {
	return t.one(ctx, "name "+strconv.Quote(name), func(r *row) bool {
		return r.served() == name && (r.DesName != "" || r.State == source.Active)
	})
}

func (t *rows) ByID(ctx context.Context, id string) (source.Row, error) {
	n := idOf(id)
	return t.one(ctx, "id "+strconv.Quote(id), func(r *row) bool { return n != 0 && r.id == n })
}

func (t *rows) Rows(ctx context.Context, after string, limit int) ([]source.Row, error) {
	return t.list(ctx, after, limit, func(*row) bool { return true })
}

func (t *rows) ByIDs(ctx context.Context, ids []string) ([]source.Row, error) {
	if len(ids) > source.MaxBatch {
		return nil, errBatch
	}
	return t.list(ctx, "", source.MaxBatch, func(r *row) bool { return slices.Contains(ids, r.ID) })
}

// tallies sums up rows by a key.
func tallies[K comparable](ctx context.Context, t *rows, key func(*row) (K, bool)) (map[K]source.Tally, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	sums := map[K]source.Tally{}
	for _, r := range t.byID {
		k, ok := key(r)
		if !ok {
			continue
		}
		s := sums[k]
		s.Rows, s.Bytes = s.Rows+1, s.Bytes+r.Size
		if s.Oldest.IsZero() || r.ModTime.Before(s.Oldest) {
			s.Oldest = r.ModTime
		}
		if s.Newest.IsZero() || r.ModTime.After(s.Newest) {
			s.Newest = r.ModTime
		}
		sums[k] = s
	}
	return sums, nil
}

func (t *rows) Counts(ctx context.Context) (map[source.State]source.Tally, error) {
	return tallies(ctx, t, func(r *row) (source.State, bool) { return r.State, true })
}

func (t *rows) Pending(ctx context.Context) (marked, failed source.Tally, err error) {
	sums, err := t.Counts(ctx)
	for state, to := range map[source.State]*source.Tally{source.Marked: &marked, source.Failed: &failed} {
		to.Rows, to.Bytes = sums[state].Rows, sums[state].Bytes
	}
	return marked, failed, err
}

func (t *rows) EligibleTally(ctx context.Context, before time.Time) (eligible, young source.Tally, err error) {
	sums, err := tallies(ctx, t, func(r *row) (bool, bool) {
		return r.ModTime.Before(before) || r.Version > 0 || r.eligible, r.State == source.Active
	})
	return sums[true], sums[false], err
}

func (t *rows) FailureTally(ctx context.Context) (map[string]source.Tally, error) {
	return tallies(ctx, t, func(r *row) (string, bool) { return r.ErrorCode, r.ErrorCode != "" })
}

func (t *rows) Failures(ctx context.Context, code, after string, limit int) ([]source.Row, error) {
	return t.list(ctx, after, limit, func(r *row) bool { return r.ErrorCode != "" && (code == "" || r.ErrorCode == code) })
}

func (t *rows) Retry(ctx context.Context, which source.Selection, at time.Time) (n int64, err error) {
	err = t.update(ctx, func() error {
		for _, r := range t.byID {
			named := len(which.Names) == 0 || slices.Contains(which.Names, r.Name) || slices.Contains(which.Names, r.DesName)
			if r.ErrorCode == "" || !named || which.Code != "" && which.Code != r.ErrorCode {
				continue
			}
			n++
			err := t.change(r, func(r *row) {
				switch {
				case r.State == source.Failed && r.MarkedAt.IsZero():
					r.State = source.Active
				case r.State == source.Failed:
					r.State, r.MarkedAt = source.Marked, at.UTC()
				}
				r.forgive()
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// add inserts a row as the source system does.
func (t *rows) add(f source.File, eligible bool) {
	t.last++
	t.byID[t.last] = &row{id: t.last, eligible: eligible, Row: source.Row{
		Source: t.name, ID: strconv.FormatInt(t.last, 10), Name: f.Name, Path: f.Path, Size: f.Size, ModTime: f.ModTime.UTC(),
		State: source.Active, FileID: f.FileID, SHA256: f.SHA256, ContentType: f.ContentType,
	}}
}

func (t *rows) Register(ctx context.Context, files []source.File) ([]source.Registered, error) {
	if len(files) > source.MaxBatch {
		return nil, errBatch
	}
	results := make([]source.Registered, len(files))
	err := t.update(ctx, func() error {
		last := t.last
		for i := range files {
			var err error
			if results[i], err = t.register(&files[i], last); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

func (t *rows) register(f *source.File, last int64) (source.Registered, error) {
	for _, r := range t.byID {
		if r.Path == f.Path {
			return t.again(r, f, last)
		}
	}
	for _, r := range t.byID {
		if r.served() == f.Name {
			return source.RegisteredTaken, nil
		}
	}
	t.add(*f, true)
	return source.RegisteredNew, nil
}

// again refreshes a row whose path is registered again.
func (t *rows) again(r *row, f *source.File, last int64) (source.Registered, error) {
	done := source.RegisteredUnchanged
	if r.id > last {
		done = source.RegisteredNew
	} else if r.Name != f.Name {
		done |= source.RegisteredOtherName
	}
	changed := r.Size != f.Size || !r.ModTime.Equal(f.ModTime) || r.State == source.DeletedSource
	if changed && r.id <= last {
		done = source.RegisteredChanged | done&source.RegisteredOtherName
		err := t.change(r, func(r *row) {
			r.State, r.Size, r.ModTime, r.eligible, r.Claim = source.Active, f.Size, f.ModTime.UTC(), true, ""
			r.SHA256, r.ContentType = f.SHA256, cmp.Or(f.ContentType, r.ContentType)
			r.forgive()
		})
		if err != nil {
			return done, err
		}
		return done, t.change(r, func(r *row) { r.FileID = f.FileID })
	}
	return done, t.change(r, func(r *row) {
		r.FileID, r.ContentType = cmp.Or(f.FileID, r.FileID), cmp.Or(f.ContentType, r.ContentType)
		if f.SHA256 != nil {
			r.SHA256 = f.SHA256
		}
	})
}

// ClaimCluster is the claim of a source by a cluster in a generation.
func (t *rows) ClaimCluster(ctx context.Context, id desformat.ClusterID, generation uint64) error {
	return t.update(ctx, func() error {
		if t.cluster != (desformat.ClusterID{}) && t.cluster != id {
			return errors.New("another cluster has claimed this source")
		}
		if generation < t.newest {
			return source.ErrSuperseded
		}
		t.cluster, t.newest = id, generation
		return nil
	})
}

// Restore is RestorerRows' method.
func (t *rows) Restore(ctx context.Context, list []source.Restored) ([]source.RestoreResult, error) {
	if len(list) > source.MaxBatch {
		return nil, errBatch
	}
	for _, f := range list {
		if f.Name == "" || f.Version == 0 || f.Pack.IsZero() || f.PackedAt.IsZero() || f.State != source.Packed && f.State != source.DeletedSource {
			return nil, fmt.Errorf("row %s: no record is like this: %+v", f.ID, f)
		}
	}
	results := make([]source.RestoreResult, len(list))
	err := t.update(ctx, func() error {
		for i := range list {
			results[i] = t.restore(&list[i])
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

func (t *rows) restore(f *source.Restored) source.RestoreResult {
	r := t.byID[idOf(f.ID)]
	switch {
	case r == nil:
		return source.RestoreMissing
	case r.Pack == f.Pack && (r.State == source.Packed || r.State == source.DeletedSource):
		return source.RestoreAlready
	}
	fits := r.served() == f.Name || f.Generated && r.DesName == ""
	pending := r.State == source.Active || r.State == source.Marked
	same := r.Size == f.Size && r.ModTime.Equal(f.ModTime) && (r.SHA256 == nil || *r.SHA256 == f.SHA256)
	taken := t.refused[r.id]
	for _, other := range t.byID {
		taken = taken || other != r && other.served() == f.Name
	}
	if !fits || !pending || !same || !r.Pack.IsZero() {
		if fits && (pending || r.State == source.Failed) && r.Version < f.Version && !taken {
			r.Version, r.DesName = f.Version, f.Name // what is packed anew is of no version that a record has
		}
		return source.RestoreNewer
	}
	if taken {
		return source.RestoreRefused
	}
	r.State, r.DesName, r.hash = f.State, f.Name, int64(desformat.HashName(f.Name).Top32())
	r.Version, r.Pack, r.sum = max(r.Version, f.Version), f.Pack, f.SHA256
	r.MarkedAt, r.PackedAt = f.PackedAt.UTC(), f.PackedAt.UTC()
	r.forgive()
	r.Claim = ""
	if f.State == source.DeletedSource {
		r.Claim, r.deletedAt = "restored", cmp.Or(f.DeletedAt, f.PackedAt).UTC()
	}
	return source.RestoreDone
}
