package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// stuckAfter is how long the last life may go without getting on.
const stuckAfter = time.Minute

// finish lets the node live, waits until all is archived and deleted, and
// checks everything.
func (r *run) finish(ctx context.Context) error {
	if err := r.led.addWave(r.src, len(r.led.files)); err != nil {
		return err
	}
	if err := r.node.start(); err != nil {
		return err
	}
	if err := r.node.ready(ctx); err != nil {
		return err
	}
	c := client{"http://" + r.node.addr}
	if err := r.checkAlive(ctx, c); err != nil {
		return err
	}
	if err := r.work(ctx, c, make(chan struct{})); err != nil {
		r.bad.add("last life: %v", err)
	}
	if err := r.settled(ctx, c); err != nil {
		return err
	}
	began := time.Now()
	if err := r.checkRead(ctx, c, r.led.files); err != nil {
		return err
	}
	fmt.Printf("last life: %d files read back in %.1fs\n", len(r.led.files), time.Since(began).Seconds())
	if err := r.checkLocated(ctx, c); err != nil {
		return err
	}
	packs, err := r.packs(ctx, c)
	if err != nil {
		return err
	}
	if err := r.checkStore(ctx, c); err != nil {
		return err
	}
	if !r.node.kill() {
		r.bad.add("last life: %v; see the end of %s", errEnded, r.node.log)
	}
	if gone := r.checkOriginals(time.Now()); gone != len(r.led.files) {
		r.bad.add("at the end %d of %d originals are gone", gone, len(r.led.files))
	}
	if err := r.checkPacks(ctx, packs); err != nil {
		return err
	}
	return errors.Join(r.checkLeftovers(), r.checkAudit())
}

// settled waits until every row is DELETED_SOURCE.
func (r *run) settled(ctx context.Context, c client) error {
	last, since := "", time.Now()
	for {
		var s status
		if err := c.getJSON(ctx, "/cluster/status", &s); err != nil {
			return err
		}
		done, all, text := tally(s)
		if done == int64(len(r.led.files)) && all == done {
			return nil
		}
		if text != last {
			last, since = text, time.Now()
		}
		if time.Since(since) > stuckAfter {
			r.bad.add("at the end the rows are %s, of %d files, and get no further", text, len(r.led.files))
			return nil
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// tally returns the rows that are DELETED_SOURCE, all rows, and the states as text.
func tally(s status) (done, all int64, text string) {
	for _, src := range s.Sources {
		for _, state := range []string{"ACTIVE", "MARKED", "PACKED", "DELETED_SOURCE", "FAILED"} {
			n := src.States[state].Rows
			all += n
			if state == "DELETED_SOURCE" {
				done += n
			}
			text += fmt.Sprintf("%s %s %d, ", src.Name, state, n)
		}
	}
	return done, all, strings.TrimSuffix(text, ", ")
}

// checkLocated asks for the place of every name.
func (r *run) checkLocated(ctx context.Context, c client) error {
	return each(ctx, r.led.files, func(f *file) error {
		var l located
		err := c.getJSON(ctx, "/cluster/locate/"+escape(f.name), &l)
		switch {
		case errors.Is(err, errStatus):
			r.bad.add("locate %q: %v", f.name, err)
		case err != nil:
			return err
		case l.In != "pack" || l.State != "DELETED_SOURCE" || l.SHA256 != hex.EncodeToString(f.sum[:]) || l.Size != f.size:
			r.bad.add("locate %q: in %q, state %q, %d bytes, SHA-256 %s", f.name, l.In, l.State, l.Size, l.SHA256)
		}
		return nil
	})
}

// checkPacks counts live records: by the manifest exactly one a file, and by
// the packs' own listings nothing but the ledger's names. Every name has been
// located, so the sums leave no room for two live records of one name.
func (r *run) checkPacks(ctx context.Context, packs map[string]packInfo) error {
	var live, records, dead int64
	listed := map[string]int{}
	for _, p := range packs {
		live += p.Records - p.Dead
		records += p.Records
		dead += p.Dead
		names, err := r.packNames(ctx, filepath.Join(r.store, filepath.FromSlash(p.Key)))
		if err != nil {
			r.bad.add("pack ls %s: %v", p.Key, err)
			continue
		}
		if int64(len(names)) != p.Records {
			r.bad.add("pack %s lists %d records, the manifest says %d", p.ID, len(names), p.Records)
		}
		for _, n := range names {
			listed[n]++
		}
	}
	if live != int64(len(r.led.files)) {
		r.bad.add("the manifest has %d live records for %d files", live, len(r.led.files))
	}
	for _, f := range r.led.files {
		if listed[f.name] == 0 {
			r.bad.add("no pack lists %q", f.name)
		}
		delete(listed, f.name)
	}
	for n := range listed {
		r.bad.add("a pack lists %q, which was never made", n)
	}
	fmt.Printf("last life: %d packs, %d records, %d of them dead\n", len(packs), records, dead)
	return nil
}

// packNames runs `desnode pack ls` on an object.
func (r *run) packNames(ctx context.Context, path string) (names []string, err error) {
	cmd := exec.CommandContext(ctx, r.o.bin, "pack", "ls", "-o", "json", path) // #nosec G204 -- the binary under test
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return parseListing(out)
}

// parseListing reads the names off a listing, one JSON object a record.
func parseListing(out []byte) (names []string, err error) {
	dec := json.NewDecoder(bytes.NewReader(out))
	for dec.More() {
		var rec struct {
			Name *string `json:"name"`
		}
		if err := dec.Decode(&rec); err != nil {
			return nil, err
		}
		if rec.Name == nil {
			return nil, errors.New("a record without a name")
		}
		names = append(names, *rec.Name)
	}
	return names, nil
}

// checkLeftovers finds quarantined originals that were forgotten.
func (r *run) checkLeftovers() error {
	return filepath.WalkDir(r.src, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), quarantinePrefix) {
			r.bad.add("%s was left behind", path)
		}
		return err
	})
}

// checkAudit holds the audit log against what is gone: an intent, then the
// deletion, for every original.
func (r *run) checkAudit() error {
	logs, err := filepath.Glob(filepath.Join(r.o.dir, "data", "audit.log*"))
	if err != nil {
		return err
	}
	events := map[string]map[string]int{"intent": {}, "deleted": {}}
	for _, path := range logs {
		if err := readAudit(path, events); err != nil {
			return err
		}
	}
	for _, f := range r.led.files {
		if events["intent"][f.name] == 0 || events["deleted"][f.name] == 0 {
			r.bad.add("the audit log names %q %d times as intended, %d times as deleted", f.name, events["intent"][f.name], events["deleted"][f.name])
		}
	}
	return nil
}

func readAudit(path string, events map[string]map[string]int) error {
	f, err := os.Open(path) // #nosec G304 -- a file of this run
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var rec struct{ Event, Name string }
		if err := json.Unmarshal(lines.Bytes(), &rec); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if e := events[rec.Event]; e != nil {
			e[rec.Name]++
		}
	}
	return lines.Err()
}
