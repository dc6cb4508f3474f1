package rebuild

import "context"

func (r *Rebuild) restoreRows(context.Context) error { return nil }
