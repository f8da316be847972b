// Command dashboard writes the Grafana dashboard to the file of its one argument.
package main

import (
	"fmt"
	"os"

	"github.com/clusterset-dns/clusterset-dns/test/observe"
)

//go:generate go run . ../../../deploy/dashboard.json

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "dashboard:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("got %d arguments: give the one file to write", len(args))
	}
	text, err := observe.Dashboard()
	if err != nil {
		return err
	}
	return os.WriteFile(args[0], text, 0o644)
}
