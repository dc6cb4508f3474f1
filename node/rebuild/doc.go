// Package rebuild brings a cluster back from its store.
package rebuild
