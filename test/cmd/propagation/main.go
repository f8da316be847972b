//go:build linux

// Command propagation starts two clusters and a server, changes things in the clusters, and prints how long it takes
// from the API server's reply until an answer shows the change. The machine should have nothing else to do.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/propagation"
	"github.com/clusterset-dns/clusterset-dns/test/server"
)

func main() {
	changes := flag.Int("changes", 100, "`number` of changes of each kind")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := measure(ctx, *changes); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func measure(ctx context.Context, changes int) (err error) {
	binaries, err := clusters.Build(ctx, os.Stderr)
	if err != nil {
		return err
	}
	coredns, err := server.Build(ctx, os.Stderr)
	if err != nil {
		return err
	}
	b, err := propagation.Start(ctx, binaries, coredns)
	defer func() { err = errors.Join(err, b.Stop()) }()
	if err != nil {
		return err
	}
	results, err := b.Run(ctx, changes)
	if err != nil {
		return err
	}
	propagation.Write(os.Stdout, results)
	return nil
}
