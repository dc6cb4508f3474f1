package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/datavision/desnode/chaos/rig"
)

// pack is what a pack is before and after, by its id.
type pack struct {
	Key          string    `json:"key"`
	Range        string    `json:"range"`
	Token        string    `json:"token"`
	MinSeq       string    `json:"min_seq"`
	MaxSeq       string    `json:"max_seq"`
	Size         int64     `json:"size"`
	SHA256       string    `json:"sha256"`
	Records      uint32    `json:"records"`
	Dead         int       `json:"dead"`
	PayloadBytes int64     `json:"payload_bytes"`
	IndexBytes   int64     `json:"index_bytes"`
	Created      time.Time `json:"created"`
	Acknowledged bool      `json:"acknowledged"`
}

// manifest returns a node's packs.
func manifest(ctx context.Context, n *rig.Node) (map[string]pack, error) {
	var list struct {
		Packs []struct {
			ID string `json:"id"`
			pack
		} `json:"packs"`
	}
	if err := n.Get(ctx, "/cluster/packs", &list); err != nil {
		return nil, err
	}
	packs := make(map[string]pack, len(list.Packs))
	for _, p := range list.Packs {
		packs[p.ID] = p.pack
	}
	if len(packs) == 0 {
		return nil, errors.New("the manifest is empty")
	}
	return packs, nil
}

// table is what desnode's columns say.
type table struct {
	States map[string]int
	Sum    string // over the columns of all rows
}

func rowsOf(ctx context.Context, url string) (t table, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return table{}, err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	rows, err := conn.Query(ctx, `SELECT status::text, count(*) FROM desnode.files GROUP BY 1`)
	if err != nil {
		return table{}, err
	}
	t.States = map[string]int{}
	var state string
	var count int
	if _, err := pgx.ForEachRow(rows, []any{&state, &count}, func() error {
		t.States[state] = count
		return nil
	}); err != nil {
		return table{}, err
	}
	return t, conn.QueryRow(ctx, `SELECT md5(string_agg(md5(ROW(id, status, archive_version, des_name, des_pack, des_sha256,
 des_hash, des_shard)::text), '' ORDER BY id)) FROM desnode.files`).Scan(&t.Sum)
}

// peakMemory is the most memory that a process has held at once, in bytes.
func peakMemory(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no VmHWM in the process's status")
}
