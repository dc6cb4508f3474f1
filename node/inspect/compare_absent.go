package inspect

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"slices"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// Whether each row that names a pack is in it can't be asked row by row: a catalog
// has no order of ids, and a hundred million rows have no place in memory. So the
// rows that name a pack were counted while all rows were read, and those found by
// way of its catalog while that was read. Where the former are more, and there
// alone, the catalog is taken into memory and the rows are read once more.

// absentRecords bounds the records whose fingerprints are held at once: 32 MiB.
const absentRecords = 4 << 20

// compareAbsent looks for the rows of suspected packs that those have no record of.
func (c *comparison) compareAbsent(ctx context.Context) error {
	var group []*raftmeta.Pack
	records := 0
	for p := range c.view.Packs() {
		if c.absent[p.ID] == 0 || c.broken[p.ID] {
			continue
		}
		if records += int(p.Records); len(group) > 0 && records > absentRecords {
			if err := c.absentIn(ctx, group); err != nil {
				return err
			}
			group, records = group[:0], int(p.Records)
		}
		group = append(group, p)
	}
	if len(group) == 0 {
		return nil
	}
	return c.absentIn(ctx, group)
}

// absentIn reads the rows once for a group of packs.
func (c *comparison) absentIn(ctx context.Context, group []*raftmeta.Pack) error {
	prints := map[desformat.PackID][]uint64{}
	for _, p := range group {
		copied, _ := ownCopy(p)
		list := make([]uint64, 0, p.Records)
		if err := c.catalog(ctx, p, copied, func(e desformat.Entry) error {
			list = append(list, fingerprint(e.Source, e.ID, e.Version))
			return nil
		}); err != nil {
			return err
		}
		if c.broken[p.ID] {
			continue
		}
		slices.Sort(list)
		prints[p.ID] = list
	}
	missing := func(row source.Row, src string) bool {
		list, suspected := prints[row.Pack]
		if !suspected || !archived(row) {
			return false
		}
		_, in := slices.BinarySearch(list, fingerprint(src, row.ID, row.Version))
		return !in
	}
	for _, s := range c.i.cfg.Sources {
		if err := scan(ctx, s, func(rows []source.Row) error {
			var ids []string
			for _, row := range rows {
				if missing(row, s.Name) {
					ids = append(ids, row.ID)
				}
			}
			return c.absentRows(ctx, s, ids, missing)
		}); err != nil {
			return err
		}
	}
	return nil
}

// absentRows looks at the rows again and reports those that still are not in the
// pack that they name.
func (c *comparison) absentRows(ctx context.Context, s Source, ids []string, missing func(source.Row, string) bool) error {
	if len(ids) == 0 {
		return c.tell(false)
	}
	rows, err := s.Rows.ByIDs(ctx, ids)
	if err != nil {
		return fmt.Errorf("source %s: %w", s.Name, err)
	}
	for _, row := range rows {
		if !missing(row, s.Name) {
			continue
		}
		if err := c.differs(Difference{
			Kind: KindRowAbsent, Severity: AtRisk, Subject: subject(s.Name, row.ID),
			Found: fmt.Sprintf("the row is %s at version %d in pack %s, which has no record of it", row.State, row.Version, row.Pack),
			Cure:  "desnode stat tells whether another pack has the file; if not, archive it again while its original is there (contract.md)",
		}); err != nil {
			return err
		}
	}
	return nil
}

// fingerprint stands for one version of one row. Two of the same fingerprint in one
// pack are less likely than a flipped bit that no checksum notices.
func fingerprint(src, id string, version uint32) uint64 {
	h := fnv.New64a()
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], version)
	_, _ = io.WriteString(h, src) // a hash never fails
	_, _ = h.Write([]byte{0})
	_, _ = io.WriteString(h, id)
	_, _ = h.Write([]byte{0})
	_, _ = h.Write(b[:])
	return h.Sum64()
}
