// Command generate writes the Go source that links the plugins of a plugin list
// into package plugins.
//
//	generate PLUGIN.CFG OUTPUT.GO
package main

import (
	"fmt"
	"os"

	"github.com/clusterset-dns/clusterset-dns/cmd/coredns/internal/plugincfg"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: generate PLUGIN.CFG OUTPUT.GO")
		os.Exit(2)
	}
	if err := generate(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func generate(list, output string) error {
	f, err := os.Open(list)
	if err != nil {
		return err
	}
	defer f.Close()
	plugins, err := plugincfg.Parse(f)
	if err != nil {
		return fmt.Errorf("%s: %w", list, err)
	}
	source, err := plugincfg.Source("plugins", plugins)
	if err != nil {
		return fmt.Errorf("%s: %w", list, err)
	}
	return os.WriteFile(output, source, 0o644)
}
