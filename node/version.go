package node

import "runtime/debug"

// Version returns the module version of this binary as the Go command stamped
// it, "devel" when it did not.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}
