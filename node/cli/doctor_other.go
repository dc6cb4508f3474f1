//go:build !linux

package cli

import "errors"

// fileSystem names the kind of file system at path.
func fileSystem(string) (kind string, network bool, err error) {
	return "", false, errors.New("its kind can be told on Linux only; take a local disk")
}
