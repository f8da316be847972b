// Package chaos hurts three real clusters, or the way to them, while the real binary is asked hundreds of questions a
// second, and looks at every answer: none may be wrong, and all must be right again soon after. README.md says how it
// went, and how to read that.
//
// The server belongs to east. It reaches west and north through a proxy that can delay, reset and swallow.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/kube"
	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// cluster is a running cluster, a client for it, and what it exports now.
type cluster struct {
	*clusters.Cluster
	kube.Client
	number int // tells its addresses from those of others
	now    version
	// generations counts the versions that have been.
	generations int
}

// Every row leaves the clusters as it must find them: running, with what their version says.
var east, west, north = &cluster{}, &cluster{}, &cluster{}

// coredns is the binary.
var coredns string

const (
	namespace = "chaos"
	zone      = "clusterset.local."
	// limit bounds every wait that has no bound of its own.
	limit = 60 * time.Second
	// pollEvery is the pause between two looks at a condition.
	pollEvery = 5 * time.Millisecond
)

func TestMain(m *testing.M) {
	stop, err := start(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := errors.Join(stop(), goleak.Find(leftByProxies()...)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// leftByProxies are goroutines of toxiproxy, which never ends those that hold data for a connection that was closed.
func leftByProxies() []goleak.Option {
	var options []goleak.Option
	for _, f := range []string{"toxics.(*LatencyToxic).Pipe", "toxics.(*NoopToxic).Pipe", "stream.(*ChanWriter).Write"} {
		options = append(options, goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/"+f))
	}
	return options
}

// start builds the programs, starts the clusters and fills them.
func start(ctx context.Context) (stop func() error, err error) {
	binaries, err := clusters.Build(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	if coredns, err = server.Build(ctx, os.Stderr); err != nil {
		return nil, err
	}
	started, err := clusters.StartAll(ctx, binaries,
		clusters.Options{Name: "east"}, clusters.Options{Name: "west"}, clusters.Options{Name: "north"})
	if err != nil {
		return nil, err
	}
	stop = func() error { return clusters.StopAll(started...) }
	for i, c := range everybody() {
		c.Cluster, c.number = started[i], i+1
		if c.Client, err = kube.New(started[i]); err == nil {
			err = c.fill(ctx, c.next())
		}
		if err != nil {
			return nil, errors.Join(err, stop())
		}
	}
	return stop, nil
}

func everybody() []*cluster { return []*cluster{east, west, north} }

// must fails the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// within waits until check returns nil.
func within(t *testing.T, limit time.Duration, what string, check func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not within %s: %s: %v", limit, what, err)
		case <-time.After(pollEvery):
		}
	}
}
