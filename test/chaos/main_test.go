// Package chaos hurts three real clusters, or the way to them, while the real binary is asked hundreds of questions a
// second, and looks at every answer: none may be wrong, and all must be right again soon after. README.md says how it
// went, and how to read that.
//
// The server belongs to east. It reaches west and north through a proxy that can delay, reset and swallow.
package chaos

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/kube"
	"github.com/clusterset-dns/clusterset-dns/test/server"
	"github.com/clusterset-dns/clusterset-dns/test/suite"
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
)

func TestMain(m *testing.M) { os.Exit(suite.Run(m, start, leftByProxies()...)) }

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

var must, within = suite.Must, suite.Within
