//go:build !linux

package bench

import "errors"

// ResetPeak makes PeakMemory begin anew.
func ResetPeak() error { return errors.ErrUnsupported }

// PeakMemory returns the most memory, in bytes, that this process has held at
// once.
func PeakMemory() (int64, error) { return 0, errors.ErrUnsupported }
