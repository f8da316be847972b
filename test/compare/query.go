//go:build linux

package compare

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/compare/world"
	"github.com/clusterset-dns/clusterset-dns/test/kube"
	"github.com/clusterset-dns/clusterset-dns/test/measure"
	"github.com/clusterset-dns/clusterset-dns/test/propagation"
)

const (
	// rate is how many queries per second the latency is measured at.
	rate = 5000
	// updates is how many EndpointSlices are written per second while there is churn, by as many writers at a time.
	updates      = 200
	churnWriters = 8
)

// cost measures what a query costs, while a server is asked as fast as it answers.
func (c *comparison) cost(ctx context.Context, r *running, round Round) error {
	g, err := measure.NewGenerator(r.port, r.questions)
	if err != nil {
		return err
	}
	defer g.Close()
	if err := measure.OnThread(func() error { _, err := g.Flood(measure.Warm); return err }); err != nil {
		return err
	}
	var before, after measure.Heap
	if r.pprof != "" {
		if before, err = measure.HeapOf(ctx, r.pprof, false); err != nil {
			return err
		}
	}
	all := g.Answered() // those of both bursts allocate
	var (
		answered int
		used     time.Duration
		took     time.Duration
	)
	err = measure.OnThread(func() error {
		// The pause in between has let the server go idle.
		if _, err := g.Flood(measure.Warm / 3); err != nil {
			return err
		}
		begin := time.Now()
		before, err := r.cpu()
		if err != nil {
			return err
		}
		if answered, err = g.Flood(c.Burst); err != nil {
			return err
		}
		after, err := r.cpu()
		used, took = after-before, time.Since(begin)
		return err
	})
	if err == nil {
		err = g.CheckLost()
	}
	if err != nil {
		return err
	}
	round.set(r.name, cpuPerQuery, float64(used.Nanoseconds())/1e3/float64(answered))
	round.set(r.name, queriesPerSecond, float64(answered)/took.Seconds())
	if r.pprof == "" {
		return nil
	}
	if after, err = measure.HeapOf(ctx, r.pprof, false); err != nil {
		return err
	}
	n := float64(g.Answered() - all)
	round.set(r.name, allocationsPerQuery, float64(after.Allocations-before.Allocations)/n)
	round.set(r.name, octetsPerQuery, float64(after.Allocated-before.Allocated)/n)
	return nil
}

// latency measures how long answers take while the server has little to do.
func (c *comparison) latency(_ context.Context, r *running, round Round) error {
	return c.atRate(r, round, quietly)
}

// atRate measures the latency of a server that is alone on its processor, at the fixed rate.
func (c *comparison) atRate(r *running, round Round, f timely) error {
	t, err := r.alone(func() (times, error) { return r.steady(r.questions, c.steadily()) })
	if err == nil {
		round.setTimely(r.name, f, t)
	}
	return err
}

// micro returns a quantile in microseconds.
func micro(took []time.Duration, share float64) float64 {
	return float64(propagation.Result{Took: took}.Quantile(share).Nanoseconds()) / 1e3
}

// times are what asking at the fixed rate has shown.
type times struct {
	measure.Latencies
	// collecting is the share of the time in which the server collected garbage; collects is whether it is one that says so.
	collecting float64
	collects   bool
}

// alone measures while nothing but the server is on its processor: control planes and servers that wait do something now and then.
func (r *running) alone(do func() (times, error)) (t times, err error) {
	err = measure.Aside(func() (err error) {
		t, err = do()
		return err
	}, measure.Family(r.pid)...)
	return t, err
}

// steady asks a server at the fixed rate.
func (r *running) steady(questions []measure.Question, d time.Duration) (t times, err error) {
	t.collects = r.server != nil
	began, already := time.Now(), collecting(r.log())
	t.Latencies, err = measure.Steady(r.port, questions, rate, d)
	t.collecting = (collecting(r.log()) - already).Seconds() / time.Since(began).Seconds()
	return t, err
}

// steadily is how long a server is asked at the fixed rate: so little garbage is made meanwhile that it is collected every few
// seconds, and some of that must be in each round.
func (c *comparison) steadily() time.Duration { return 3 * c.Burst }

// churn measures the latency of ours and kubernetes, each alone, while nothing changes, and while endpoints become ready and not
// ready through the API; and that of ours while they change in simulated clusters, five times as often: faster than an API server
// takes it.
func (c *comparison) churn(ctx context.Context, round Round) error {
	for _, s := range inTurn(c.round, ours, kubernetes) {
		r, err := s.startPinned(ctx, c.programs, c.planes, c.Services)
		if err != nil {
			return err
		}
		if err := errors.Join(c.calmAndChurn(ctx, r, round), r.stop()); err != nil {
			return err
		}
	}
	return c.churnSimulated(ctx, round)
}

func (c *comparison) calmAndChurn(ctx context.Context, r *running, round Round) error {
	if err := c.tolerate(r, c.calm(r, round)); err != nil {
		return err
	}
	return c.whileUpdating(ctx, r.name, round, func() error {
		t, err := r.steady(changing(r.questions), c.steadily())
		if err == nil {
			round.setTimely(r.name, underUpdates, t)
		}
		return c.tolerate(r, err)
	})
}

// calm measures the latency while nothing changes, of a server that has been asked for a while: what is made for a first answer is
// there then.
func (c *comparison) calm(r *running, round Round) error {
	if err := warm(r, c.Burst); err != nil {
		return err
	}
	return c.atRate(r, round, before)
}

// warm asks a server as fast as it answers.
func warm(r *running, d time.Duration) error {
	g, err := measure.NewGenerator(r.port, r.questions)
	if err != nil {
		return err
	}
	err = measure.OnThread(func() error { _, err := g.Flood(d); return err })
	return errors.Join(err, g.Close())
}

// whileUpdating calls do while EndpointSlices of the last hundred services are written, of which one endpoint is ready
// and not ready in turn. In the end all are ready again. How many updates there really were is a figure of the subject.
func (c *comparison) whileUpdating(ctx context.Context, name string, round Round, do func() error) error {
	client, err := kube.New(c.planes[everything.name])
	if err != nil {
		return err
	}
	updating, stop := context.WithCancel(ctx)
	defer stop()
	var (
		writers sync.WaitGroup
		mu      sync.Mutex
		errs    []error
		written int
	)
	begin := time.Now()
	for w := range churnWriters {
		writers.Go(func() {
			ticks := time.NewTicker(churnWriters * time.Second / updates)
			defer ticks.Stop()
			for n := w; ; n += churnWriters {
				select {
				case <-updating.Done():
					return
				case <-ticks.C:
				}
				err := c.update(ctx, client, n%world.Namespaces, n/world.Namespaces%2 == 1)
				mu.Lock()
				written++
				if err != nil {
					errs = append(errs, err)
				}
				mu.Unlock()
			}
		})
	}
	err = do()
	stop()
	writers.Wait()
	round.set(name, updatesPerSecond, float64(written)/time.Since(begin).Seconds())
	err = errors.Join(append([]error{err}, errs...)...)
	return errors.Join(err, each(ctx, world.Namespaces, func(ctx context.Context, i int) error {
		return c.update(ctx, client, i, true)
	}))
}

// update writes the slice of one of the last services.
func (c *comparison) update(ctx context.Context, client kube.Client, fromEnd int, ready bool) error {
	s := simple(world.Service(c.Services - 1 - fromEnd))
	if !ready {
		s.NotReady = map[string]bool{s.Addresses[0]: true}
	}
	return client.UpdateSlice(ctx, s.Slice())
}
