package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// deadRecords is which records of each pack are dead, by the pack's id. The
// nodes' answers only count them; a backup, which is text that anybody may
// read, names them.
type deadRecords map[string]map[uint32]bool

// backedUp has a backup made, reads it past the server and holds it against
// the manifest. nil: it could not be made or read, which is told of.
func (c *checker) backedUp(ctx context.Context, packs []packInfo) (deadRecords, error) {
	var key string
	err := errLater
	for try := 0; try < patience && err != nil; try++ {
		if try > 0 && !sleep(ctx, time.Now().Add(patientFor)) {
			return nil, context.Cause(ctx)
		}
		var d door
		if d, err = c.anyDoor(); err == nil {
			key, err = backUp(ctx, d)
		}
	}
	if err != nil {
		c.verdict.breach(badBackups, "none can be made: %v", err)
		return nil, nil
	}
	dead, counted, err := readBackup(filepath.Join(c.objects, filepath.FromSlash(key)))
	if err != nil {
		c.verdict.breach(badBackups, "%s: %v", key, err)
		return nil, nil
	}
	for _, p := range packs {
		switch n, there := counted[p.ID]; {
		case !there:
			c.verdict.breach(badBackups, "%s does not name pack %s", key, p.ID)
		case n != p.Records || len(dead[p.ID]) != p.Dead:
			c.verdict.breach(badBackups, "%s: pack %s has %d records, %d of them dead; the manifest says %d and %d", key, p.ID, n, len(dead[p.ID]), p.Records, p.Dead)
		}
	}
	return dead, nil
}

// backUp has a node make a backup and returns its key.
func backUp(ctx context.Context, d door) (key string, err error) {
	ctx, cancel := context.WithTimeout(ctx, secondWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "/cluster/backup", strings.NewReader("{}"))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := d.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s: %w", d.Name(), resp.Status, errUnexpected)
	}
	var made struct{ Key string }
	err = json.NewDecoder(resp.Body).Decode(&made)
	return made.Key, err
}

// errBadBackup: an object is not a backup as its format is documented.
var errBadBackup = errors.New("not a backup")

// readBackup reads the packs of a backup: which of their records are dead, and
// how many records they have.
func readBackup(path string) (dead deadRecords, counted map[string]int, err error) {
	f, err := os.Open(path) // #nosec G304 -- an object of this run
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	plain, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, nil, err
	}
	defer plain.Close()
	return readSnapshot(plain)
}

// readSnapshot reads the text inside.
func readSnapshot(from io.Reader) (dead deadRecords, counted map[string]int, err error) {
	text := bufio.NewReader(from)
	if first, err := text.ReadString('\n'); err != nil || first != "desnode-raftmeta 1\n" {
		return nil, nil, fmt.Errorf("%w: it begins with %q: %w", errBadBackup, first, err)
	}
	dead, counted = deadRecords{}, map[string]int{}
	for dec := json.NewDecoder(text); ; {
		var l struct {
			Kind string
			Body json.RawMessage
		}
		if err := dec.Decode(&l); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", errBadBackup, err)
		}
		switch l.Kind {
		case "end":
			return dead, counted, nil
		case "pack":
			var p struct {
				Pack struct {
					ID      string
					Records int
				}
				Dead string
			}
			if err := json.Unmarshal(l.Body, &p); err != nil {
				return nil, nil, fmt.Errorf("%w: %w", errBadBackup, err)
			}
			counted[p.Pack.ID] = p.Pack.Records
			if dead[p.Pack.ID], err = ordinals(p.Dead, p.Pack.Records); err != nil {
				return nil, nil, fmt.Errorf("pack %s: %w", p.Pack.ID, err)
			}
		}
	}
}

// ordinals reads the numbers of a pack's dead records: base64 of pairs of
// unsigned varints, the gap since the last run's end and the run's length less
// one.
func ordinals(text string, records int) (map[uint32]bool, error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBadBackup, err)
	}
	out := map[uint32]bool{}
	for at := uint64(0); len(raw) > 0; {
		gap, a := binary.Uvarint(raw)
		more, b := binary.Uvarint(raw[max(a, 0):])
		if a <= 0 || b <= 0 || gap >= uint64(records) || more >= uint64(records) || at+gap+more >= uint64(records) { // #nosec G115 -- counted
			return nil, fmt.Errorf("%w: dead records beyond the %d", errBadBackup, records)
		}
		for at += gap; ; at, more = at+1, more-1 {
			out[uint32(at)] = true // #nosec G115 -- below records
			if more == 0 {
				break
			}
		}
		at++
		raw = raw[a+b:]
	}
	return out, nil
}
