//go:build !chaos

package cli

import "github.com/datavision/desnode/node"

// clockOptions leaves a node the machine's clock.
func clockOptions() []node.Option { return nil }
