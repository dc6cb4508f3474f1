// Command desnode archives small files into large immutable packs and serves
// each by name. See README.md.
package main

import (
	"os"
	_ "time/tzdata" // windows name zones, and minimal images have no database of them

	"github.com/datavision/desnode/node/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
