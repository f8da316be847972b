//go:build linux

// Command compare runs our server beside others on the same services and prints what each costs, as ratios with the
// bounds that they must keep (see compare). A full run also writes the tables to compare/RESULTS.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/compare"
)

// The bounds are meant for such a run. A smaller one is a quick look, and not kept.
const (
	fullServices = 10_000
	fullRounds   = 5
)

func main() {
	o := compare.Options{Progress: os.Stderr}
	flag.IntVar(&o.Services, "services", fullServices, "`number` of services, from 200")
	flag.IntVar(&o.Rounds, "rounds", fullRounds, "`number` of rounds")
	flag.DurationVar(&o.Burst, "burst", 2*time.Second, "how long a server is asked at a time")
	flag.StringVar(&o.Keep, "keep", "", "`folder` for the control planes, which the next run uses again")
	flag.Func("only", "`groups` of figures, with commas: "+compare.GroupNames(), func(s string) (err error) {
		o.Only, err = compare.ParseGroups(s)
		return err
	})
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := measure(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

func measure(ctx context.Context, o compare.Options) error {
	results, err := compare.Run(ctx, o)
	if err != nil {
		return err
	}
	results.Write(os.Stdout)
	if o.Services < fullServices || o.Rounds < fullRounds || len(o.Only) > 0 {
		return nil
	}
	root, err := clusters.Root()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, "test", "compare", "RESULTS.md"), results.Document(time.Now()), 0o644)
}
