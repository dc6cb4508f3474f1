package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// Originals in folders are deleted on one host only, whichever node does it
// there. For two reasons:
//
//   - Which rows share a file is known by device and inode, and device numbers
//     are a host's own: file ids that two hosts have found out say nothing beside
//     each other.
//   - A folder that is not mounted, or another one that is, looks like one whose
//     files are gone. Only who has seen a file there as its row lists it may say
//     that another is missing.
//
// Objects have places that mean the same everywhere: any node deletes them.

// hostSetting is the replicated setting that names the host.
const hostSetting = "keeper/host"

// IsHostSetting reports whether the setting names the host that deletes originals
// in folders. It does not outlive its life of the cluster: a backup of it may be
// older than the last move to another host, whose file ids stand in the rows.
func IsHostSetting(key string) bool { return key == hostSetting }

// filesHost is what it says.
type filesHost struct {
	Host string          `json:"host"`
	Node raftmeta.NodeID `json:"node"` // the node that took it, there
	// Clean says that no row has a file id that another host found out.
	Clean bool `json:"clean"`
}

// hostID names this machine: by its machine id and its name, for clones have the
// same of one of them, or else by the node. A container has no machine id: there
// each node is a host of its own.
func hostID(node raftmeta.NodeID) string {
	id, err := os.ReadFile("/etc/machine-id")
	name, errName := os.Hostname()
	if machine := strings.TrimSpace(string(id)); err == nil && errName == nil && machine != "" {
		return machine + "/" + name
	}
	return "node/" + string(node)
}

// filesHost returns what the setting says in the newest view, and its index.
func (k *Keeper) filesHost() (h filesHost, modIndex uint64, err error) {
	b, modIndex, ok := k.cfg.Manifest.View().Setting(hostSetting)
	if !ok {
		return h, 0, nil
	}
	if err := json.Unmarshal(b, &h); err != nil {
		return h, 0, fmt.Errorf("setting %s: %w", hostSetting, err)
	}
	return h, modIndex, nil
}

// isHere reports whether originals in folders are this host's to delete.
func (k *Keeper) isHere(h filesHost) bool { return h.Host == k.cfg.Host && h.Clean }

// mayDelete reports whether the row's original is this host's to delete. If it
// is nobody's so far, or of a host that the cluster has lost, and this one sees
// it, it is from now on.
func (k *Keeper) mayDelete(ctx context.Context, s source.Source, row source.Row) (may bool, err error) {
	k.hosting.Lock()
	defer k.hosting.Unlock()
	for range maxTakes {
		may, err = k.takeHost(ctx, s, row)
		if !errors.Is(err, raftmeta.ErrConflict) {
			break
		}
	}
	return may, err
}

// maxTakes bounds the looks at a setting that others change at the same moment.
const maxTakes = 3

// takeHost is mayDelete, with raftmeta.ErrConflict when another node was faster.
func (k *Keeper) takeHost(ctx context.Context, s source.Source, row source.Row) (bool, error) {
	h, modIndex, err := k.filesHost()
	if err != nil {
		return false, err
	}
	if k.isHere(h) || isObject(ctx, s.Files, row.Path) {
		return true, nil
	}
	v := k.cfg.Manifest.View()
	mine := filesHost{Host: k.cfg.Host, Node: k.cfg.Node}
	switch {
	case h.Host == k.cfg.Host: // taken, and cut before it was clean
		mine = h
	case h.Host == "" && len(v.Members()) <= 1 && v.Generation() == 1:
		mine.Clean = true // all that is known was found out here
		return true, k.setHost(ctx, mine, modIndex)
	case !k.lost(v, h) || !sees(ctx, s, row):
		return false, nil
	default:
		if err := k.setHost(ctx, mine, modIndex); err != nil {
			return false, err
		}
		k.log.WarnContext(ctx, "originals in folders are deleted on this host from now on", "host", mine.Host, "before", h.Host)
	}
	return true, k.cleanHost(ctx, mine)
}

// lost reports whether no node can be deleting on that host any more: the one
// that took it is this one, which has moved, or is no member, and its leases are
// over.
func (k *Keeper) lost(v *raftmeta.View, h filesHost) bool {
	if h.Host == "" || h.Node == k.cfg.Node {
		return true
	}
	for _, m := range v.Members() {
		if m.ID == h.Node {
			return false
		}
	}
	for _, l := range v.Leases() {
		if l.Holder == h.Node {
			return false
		}
	}
	return true
}

// cleanHost forgets the file ids that another host may have found out.
func (k *Keeper) cleanHost(ctx context.Context, h filesHost) error {
	for name, s := range k.sources {
		if err := s.Rows.ForgetFiles(ctx); err != nil {
			return fmt.Errorf("source %s: %w", name, err)
		}
	}
	now, modIndex, err := k.filesHost()
	if err != nil {
		return err
	}
	if now != h {
		return fmt.Errorf("host %q has taken over: %w", now.Host, raftmeta.ErrConflict)
	}
	h.Clean = true
	return k.setHost(ctx, h, modIndex)
}

func (k *Keeper) setHost(ctx context.Context, h filesHost, modIndex uint64) error {
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if err := k.cfg.Commands.Set(ctx, hostSetting, b, modIndex); err != nil {
		return fmt.Errorf("setting %s: %w", hostSetting, err)
	}
	return nil
}

// isObject reports whether the path leads to an object, whose place means the
// same on every host. A path that can't be followed leads to none.
func isObject(ctx context.Context, files source.Originals, path string) bool {
	id, err := files.FileID(ctx, path)
	return err == nil && source.IsPlace(id)
}

// sees reports whether the row's file stands where the row says, of its size and
// time: then its root is the one that is meant.
func sees(ctx context.Context, s source.Source, row source.Row) bool {
	for _, open := range []func(context.Context, string) (source.Original, error){s.Files.Open, s.Files.OpenHidden} {
		f, err := open(ctx, row.Path)
		if err != nil {
			continue
		}
		info := f.Info()
		_ = f.Close() // read only: nothing to lose
		if info.Size == row.Size && !info.Modified(row.ModTime, s.Rows.TimePrecision()) {
			return true
		}
	}
	return false
}

// errElsewhere says that an original is another host's to delete.
var errElsewhere = errors.New("originals in folders are deleted on another host")

// anyHere reports whether some of the rows have originals that are this host's to
// delete. If none has, a lease on their pack would only keep it from the host
// that they are for.
func (k *Keeper) anyHere(ctx context.Context, s source.Source, rows []source.Row) (bool, error) {
	for _, row := range rows {
		if may, err := k.mayDelete(ctx, s, row); may || err != nil {
			return may, err
		}
	}
	return false, nil
}

// mayIdentify keeps what this host finds out about files from rows whose file
// ids are another's to find out. Until some host is named, nobody deletes files in
// folders, and that a path leads nowhere is worth noting for objects.
func (k *Keeper) mayIdentify(id string) error {
	if source.IsPlace(id) {
		return nil
	}
	h, _, err := k.filesHost()
	switch {
	case err != nil:
		return err
	case k.isHere(h), h.Host == "" && id == source.NoFileID:
		return nil
	}
	return fmt.Errorf("host %q: %w", h.Host, errElsewhere)
}
