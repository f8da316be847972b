//go:build linux

package scale

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/compare"
	"github.com/clusterset-dns/clusterset-dns/test/measure"
	"github.com/clusterset-dns/clusterset-dns/test/members"
	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// bench is a server that watches simulated clusters.
type bench struct {
	clusters *members.Server
	dir      string
	server   *server.Server
	conn     net.Conn
	began    time.Time
}

// metrics is a server block that shows the metrics of the process without being a part of what is asked.
const metrics = ".:{{.Port \"metrics\"}} {\nbind 127.0.0.1\nprometheus {{.Metrics}}\n}\n"

// start starts clusters, and a server that watches each.
func (s *scale) start(ctx context.Context, w members.World) (*bench, error) {
	var names []string
	for i := range w.Members {
		names = append(names, w.Cluster(i))
	}
	return s.startWith(ctx, w, names, func(c *members.Server, dir string) ([]string, error) { return c.Kubeconfigs(dir) })
}

func (s *scale) startWith(ctx context.Context, w members.World, names []string, kubeconfigs func(*members.Server, string) ([]string, error)) (b *bench, err error) {
	b = &bench{}
	defer func() {
		if err != nil {
			b, err = nil, errors.Join(err, b.stop())
		}
	}()
	if b.clusters, err = members.Start(w); err != nil {
		return b, err
	}
	if b.dir, err = os.MkdirTemp("", "clusterset-dns-scale-"); err != nil {
		return b, err
	}
	files, err := kubeconfigs(b.clusters, b.dir)
	if err != nil {
		return b, err
	}
	b.began = time.Now()
	if b.server, err = server.Start(ctx, s.coredns, compare.Simulated(names, files)+metrics, server.Options{}); err != nil {
		return b, err
	}
	b.conn, err = net.Dial("udp", b.server.Addr())
	return b, err
}

func (b *bench) stop() (err error) {
	if b.conn != nil {
		err = b.conn.Close()
	}
	if b.server != nil {
		err = errors.Join(err, b.server.Stop())
	}
	if b.clusters != nil {
		err = errors.Join(err, b.clusters.Close())
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}

// untilRight asks until all questions have been answered right, each at least once. shown is told which, when it was.
func (b *bench) untilRight(ctx context.Context, within time.Duration, questions []measure.Question, shown func(i int)) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	left := make([]int, len(questions))
	for i := range left {
		left[i] = i
	}
	for {
		var last error
		left = slices.DeleteFunc(left, func(i int) bool {
			err := measure.Exchange(b.conn, &questions[i])
			if err != nil {
				last = err
				return false
			}
			shown(i)
			return true
		})
		if len(left) == 0 {
			return nil
		}
		if ctx.Err() != nil || !b.server.Running() {
			return errors.Join(fmt.Errorf("%d of %d answers are not right: %w", len(left), len(questions), last), ctx.Err())
		}
		if len(questions) > 1 {
			time.Sleep(5 * time.Millisecond) // who is busy has better things to do
		}
	}
}

// known makes a question for each cluster, about an endpoint that it alone has.
func known(w members.World) (all []measure.Question, err error) {
	service := (w.Services - 1) &^ 1 // the last that is headless
	for m := range w.Members {
		q, err := measure.Ask(w.EndpointFQDN(m, service, w.Address(m, service, w.Endpoints-1), zone), 1)
		if err != nil {
			return nil, err
		}
		all = append(all, q)
	}
	return all, nil
}

func (b *bench) pprof() string { return fmt.Sprintf("127.0.0.1:%d", b.server.Port("pprof")) }

// live returns the live heap, in octets.
func (b *bench) live(ctx context.Context) (live int64, err error) {
	for range 2 { // what has a finalizer takes two collections
		h, err := measure.HeapOf(ctx, b.pprof(), true)
		if err != nil {
			return 0, err
		}
		live = h.Live
	}
	return live, nil
}

// profile keeps a profile of the live heap.
func (b *bench) profile(ctx context.Context, dir, name string) error {
	if dir == "" {
		return nil
	}
	text, err := measure.HeapProfile(ctx, b.pprof())
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), text, 0o644)
}

// histogram is what a histogram without labels has counted so far, or the sum of all of them.
type histogram struct {
	count uint64
	sum   float64
}

func (h histogram) since(before histogram) histogram {
	return histogram{h.count - before.count, h.sum - before.sum}
}

func (h histogram) mean() float64 {
	if h.count == 0 {
		return 0
	}
	return h.sum / float64(h.count)
}

// published reads how long it has taken from events until snapshots were published, and how much of that was the work of
// merging and publishing.
func (b *bench) published(ctx context.Context) (event, work histogram, err error) {
	families, err := b.server.Metrics(ctx)
	if err != nil {
		return event, work, err
	}
	for name, to := range map[string]*histogram{
		"coredns_clusterset_dns_programming_duration_seconds": &event,
		"coredns_clusterset_snapshot_build_duration_seconds":  &work,
	} {
		for _, metric := range families[name].GetMetric() {
			to.count += metric.GetHistogram().GetSampleCount()
			to.sum += metric.GetHistogram().GetSampleSum()
		}
	}
	return event, work, nil
}
