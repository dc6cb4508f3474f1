package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the customer's own look into a source
	_ "modernc.org/sqlite"             // likewise

	"github.com/datavision/desnode/chaos/rig"
)

// What must not happen to an archive, whatever happened to its nodes.
const (
	notOnce     = "files that are not in exactly one live record"
	strangeRows = "rows that contradict the manifest"
	strangeRecs = "records that no file explains"
	badPacks    = "packs that do not verify"
	badReads    = "reads that were not answered right afterwards"
)

// whole holds the manifest, the packs' own listings, the source's rows and what
// each of the nodes serves against the ledger.
func (c *cluster) whole(ctx context.Context, files []*rig.File, nodes ...*rig.Node) error {
	rep := c.t.rep
	for _, what := range []string{notOnce, strangeRows, strangeRecs, badPacks, badReads} {
		rep.never(what)
	}
	packs, err := acknowledged(ctx, nodes[0], c.patience)
	if err != nil {
		return err
	}
	if err := c.checkRecords(ctx, files, packs); err != nil {
		return err
	}
	if err := c.checkRows(ctx, files, packs); err != nil {
		return err
	}
	if err := c.checkPlaces(ctx, files, packs, nodes[0]); err != nil {
		return err
	}
	if _, err := nodes[0].CLI(ctx, "verify"); err != nil {
		rep.wrongly(badPacks, "%v", err)
	}
	for _, n := range nodes {
		err := n.ReadAll(ctx, files, func(f *rig.File, a rig.Answer) {
			if !a.Right {
				rep.wrongly(badReads, "%s through %s: %s", f.Name, n.Name, a)
			}
		})
		if err != nil {
			return err
		}
	}
	rep.figure("packs", "%d", len(packs))
	return nil
}

// acknowledged returns the packs once all of them are acknowledged, which the
// manifest learns a moment after the rows; after that time as they are.
func acknowledged(ctx context.Context, n *rig.Node, within time.Duration) (packs []rig.PackInfo, err error) {
	err = rig.Await(ctx, "all packs are acknowledged", within, func(ctx context.Context) error {
		if packs, err = n.Packs(ctx); err != nil {
			return err
		}
		if slices.ContainsFunc(packs, func(p rig.PackInfo) bool { return !p.Acknowledged }) {
			return errUnacknowledged
		}
		return nil
	})
	if errors.Is(err, errUnacknowledged) {
		err = nil // the check of the records tells of them
	}
	return packs, err
}

var errUnacknowledged = errors.New("one is not")

// checkRecords counts: as many live records as files, and no name listed that
// was never made. That each file has one of them checkPlaces finds.
func (c *cluster) checkRecords(ctx context.Context, files []*rig.File, packs []rig.PackInfo) error {
	known := map[string]bool{}
	for _, f := range files {
		known[f.Name] = true
	}
	var live int64
	for _, p := range packs {
		live += p.Records - p.Dead
		if !p.Acknowledged {
			c.t.rep.wrongly(strangeRecs, "pack %s is not acknowledged", p.ID)
		}
		names, err := c.packNames(ctx, p)
		if err != nil {
			return err
		}
		if int64(len(names)) != p.Records {
			c.t.rep.wrongly(strangeRecs, "pack %s lists %d records, the manifest says %d", p.ID, len(names), p.Records)
		}
		for _, name := range names {
			if !known[name] {
				c.t.rep.wrongly(strangeRecs, "pack %s lists %q", p.ID, name)
			}
		}
	}
	if live != int64(len(files)) {
		c.t.rep.wrongly(notOnce, "%d live records for %d files", live, len(files))
	}
	return nil
}

// packNames runs `desnode pack ls` on a pack.
func (c *cluster) packNames(ctx context.Context, p rig.PackInfo) (names []string, err error) {
	object := filepath.Join(c.Store, filepath.FromSlash(p.Key))
	if c.Servers != nil {
		object = c.Servers.Object(p.Key)
	}
	out, err := c.Nodes[0].Run(ctx, "pack", "ls", "-o", "json", object)
	if err != nil {
		return nil, err
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var rec struct{ Name string }
		if err := dec.Decode(&rec); err != nil {
			return nil, err
		}
		names = append(names, rec.Name)
	}
	return names, nil
}

// row is what the source says of one file.
type row struct {
	name, state string
	pack        string // in hex, as ids of packs are written
}

// rows reads the source's table as the customer would.
func (c *cluster) rows(ctx context.Context) (rows []row, err error) {
	driver, place, table := "sqlite", "file:"+c.DB+"?mode=ro&_pragma=busy_timeout(10000)", "files"
	if c.Servers != nil {
		driver, place, table = "pgx", c.Servers.Postgres.URL, "desnode.files"
	}
	db, err := sql.Open(driver, place)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	found, err := db.QueryContext(ctx, "SELECT coalesce(des_name, name), status, des_pack FROM "+table)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	for found.Next() {
		var r row
		var pack []byte
		if err := found.Scan(&r.name, &r.state, &pack); err != nil {
			return nil, err
		}
		r.pack = hex.EncodeToString(pack)
		rows = append(rows, r)
	}
	return rows, found.Err()
}

// checkRows finds files without exactly one row, archived, that names a pack
// of the manifest.
func (c *cluster) checkRows(ctx context.Context, files []*rig.File, packs []rig.PackInfo) error {
	rows, err := c.rows(ctx)
	if err != nil {
		return err
	}
	live := map[string]bool{}
	for _, p := range packs {
		live[p.ID] = true
	}
	count := map[string]int{}
	for _, r := range rows {
		count[r.name]++
		if r.state != "PACKED" && r.state != "DELETED_SOURCE" || !live[r.pack] {
			c.t.rep.wrongly(strangeRows, "%s is %s in pack %q", r.name, r.state, r.pack)
		}
	}
	for _, f := range files {
		if count[f.Name] != 1 {
			c.t.rep.wrongly(strangeRows, "%s has %d rows", f.Name, count[f.Name])
		}
	}
	return nil
}

// checkPlaces asks for the place of every file.
func (c *cluster) checkPlaces(ctx context.Context, files []*rig.File, packs []rig.PackInfo, n *rig.Node) error {
	live := map[string]bool{}
	for _, p := range packs {
		live[p.ID] = true
	}
	for _, f := range files {
		l, err := n.Locate(ctx, f.Name)
		switch {
		case errors.Is(err, rig.ErrStatus):
			c.t.rep.wrongly(notOnce, "%v", err)
		case err != nil:
			return err
		case l.In != "pack" || !live[l.Pack] || l.SHA256 != fmt.Sprintf("%x", f.Sum) || l.Size != f.Size:
			c.t.rep.wrongly(notOnce, "%s: %+v", f.Name, l)
		}
	}
	return nil
}

// states counts the rows by state.
func (c *cluster) states(ctx context.Context) (map[string]int, error) {
	rows, err := c.rows(ctx)
	count := map[string]int{}
	for _, r := range rows {
		count[r.state]++
	}
	return count, err
}
