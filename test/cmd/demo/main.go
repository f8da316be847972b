// Command demo shows the server at work on three clusters: `make demo`. It stays up until Ctrl-C; with ONCE=1 in the
// environment it ends by itself. The exit status is 0 if every answer was the expected one.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/clusterset-dns/clusterset-dns/test/demo"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	once := os.Getenv("ONCE")
	err := demo.Run(ctx, os.Stdout, demo.Options{
		Once:   once != "" && once != "0",
		Colour: os.Getenv("NO_COLOR") == "" && isTerminal(os.Stdout),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
