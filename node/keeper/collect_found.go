package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/datavision/desnode/raftmeta"
)

// NoteQuarantined puts objects that were found in quarantine on the list, as
// moved there now; those that are on it stay as they are. A rebuild calls it,
// which has lost the list, or has an older one.
func (k *Keeper) NoteQuarantined(ctx context.Context, keys []string) error {
	var err error
	for range maxTakes {
		if err = k.noteQuarantined(ctx, keys); !errors.Is(err, raftmeta.ErrConflict) {
			break
		}
	}
	return err
}

func (k *Keeper) noteQuarantined(ctx context.Context, keys []string) error {
	list, modIndex, err := quarantineList(k.cfg.Manifest.View())
	if err != nil {
		return err
	}
	known := make(map[string]bool, len(list))
	for _, q := range list {
		known[q.place()] = true
	}
	before := len(list)
	for _, key := range keys {
		q := quarantined{Key: key, At: k.cfg.Now()}
		if !q.foundling() {
			return fmt.Errorf("%q is no key of an object in quarantine", key)
		}
		if !known[key] {
			list = append(list, q)
		}
	}
	if len(list) == before {
		return nil
	}
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return k.cfg.Commands.Set(ctx, quarantineSetting, b, modIndex)
}
