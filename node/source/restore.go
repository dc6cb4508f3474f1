package source

import (
	"fmt"
	"time"
)

// restoredClaim is the des_claim of rows that were restored as deleted: who had
// deleted the original is not known any more.
const restoredClaim = "restored"

// check finds what no archived row can be.
func (r *Restored) check() error {
	switch {
	case r.State != Packed && r.State != DeletedSource:
		return fmt.Errorf("row %s: restored as %s", r.ID, r.State)
	case r.Name == "" || r.Version == 0 || r.Pack.IsZero() || r.PackedAt.IsZero():
		return fmt.Errorf("row %s: a record without a name, version, pack or time", r.ID)
	}
	return nil
}

func checkRestored(rows []Restored) error {
	if err := checkBatch(len(rows)); err != nil {
		return err
	}
	for i := range rows {
		if err := rows[i].check(); err != nil {
			return err
		}
	}
	return nil
}

func (r *Restored) deleted() bool { return r.State == DeletedSource }

// deletedAt is when the original was deleted, or what is written where nobody
// knows.
func (r *Restored) deletedAt() time.Time {
	if r.DeletedAt.IsZero() {
		return r.PackedAt
	}
	return r.DeletedAt
}

// judge says what a row is that was not restored, and whether its version must
// be raised: the file will be archived again, and under a version that a record
// of the archive has an acknowledgement of that record would be taken for the
// new one's.
func (r *Restored) judge(row *Row) (result RestoreResult, raise bool) {
	if row.Pack == r.Pack && row.DesName == r.Name && (row.State == Packed || row.State == DeletedSource) {
		return RestoreAlready, false
	}
	named := row.DesName == r.Name || row.DesName == "" && (r.Generated || row.Name == r.Name)
	pending := row.State == Active || row.State == Marked || row.State == Failed
	return RestoreNewer, named && pending && row.Version < r.Version
}
