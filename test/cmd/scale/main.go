//go:build linux

// Command scale measures how the needs of our server grow with what it watches, with simulated clusters, and prints tables
// over size (see scale). A full run also writes them to scale/RESULTS.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/scale"
)

// The bounds are meant for such a run. A smaller one is a quick look, and not kept.
const (
	fullMembers = 100
	fullClients = 500
)

var fullSizes = []int{10_000, 100_000, 1_000_000}

func main() {
	o := scale.Options{Endpoints: fullSizes, Progress: os.Stderr}
	flag.Func("endpoints", "`numbers` of endpoints, with commas (default 10000,100000,1000000)", func(s string) (err error) {
		o.Endpoints, err = parseSizes(s)
		return err
	})
	flag.IntVar(&o.Members, "members", fullMembers, "`number` of clusters")
	flag.IntVar(&o.Changes, "changes", 300, "`number` of changes that are timed")
	flag.IntVar(&o.Clients, "clients", fullClients, "`number` of servers that watch one cluster which goes away and comes back")
	flag.DurationVar(&o.Outage, "outage", 15*time.Second, "how long it is away")
	flag.DurationVar(&o.Burst, "burst", 2*time.Second, "how long a server is asked at a time")
	flag.StringVar(&o.Profiles, "profiles", "", "`folder` for a profile of the live heap in each world")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := measure(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func parseSizes(s string) (all []int, err error) {
	for text := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("%q is no number of endpoints", text)
		}
		all = append(all, n)
	}
	return all, nil
}

func measure(ctx context.Context, o scale.Options) error {
	results, err := scale.Run(ctx, o)
	if err != nil {
		return err
	}
	results.Write(os.Stdout)
	if !slices.Equal(o.Endpoints, fullSizes) || o.Members != fullMembers || o.Clients != fullClients {
		return nil
	}
	root, err := clusters.Root()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, "test", "scale", "RESULTS.md"), results.Document(time.Now()), 0o644)
}
