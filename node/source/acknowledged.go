package source

import "github.com/datavision/desnode/desformat"

// acknowledged is what a row holds that an acknowledgement did not change.
type acknowledged struct {
	name    string // des_name; "": none
	version uint32
	pack    desformat.PackID // zero: none
}

// judge says what that means for the record.
func (h acknowledged) judge(ack *Ack) AckResult {
	switch {
	case !h.pack.IsZero() && h.pack == ack.Pack && h.name == ack.Name:
		return AckDone
	case !h.pack.IsZero() && h.pack != ack.Pack:
		return AckOtherPack
	case h.name != "" && h.name != ack.Name:
		return AckNoRow // the id is another file's by now
	case h.version < ack.Version:
		return AckOlder
	}
	return AckGone
}
