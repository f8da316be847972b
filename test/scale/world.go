//go:build linux

package scale

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/compare"
	"github.com/clusterset-dns/clusterset-dns/test/measure"
	"github.com/clusterset-dns/clusterset-dns/test/members"
	"github.com/clusterset-dns/clusterset-dns/test/propagation"
)

const (
	// rate is how many queries per second the latency is measured at.
	rate = 5000
	// costRate is how many changes per second the cost of one is measured at.
	costRate = 1000
	// tries is how often the same is measured.
	tries = 3
	// noticed is how long the Go runtime takes at most to notice that it has one processor only.
	noticed = 2 * time.Second
)

// rates are how many updates per second there are while a server is asked.
var rates = []int{0, 200, 1000}

// measureEmpty returns the live heap of a server whose members have no services.
func (s *scale) measureEmpty(ctx context.Context) (live int64, err error) {
	b, err := s.start(ctx, members.World{Members: s.Members, Endpoints: endpointsEach})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	// A name of which nobody can say that it does not exist until all clusters have said what they have.
	nothing, err := measure.AskDenied("nothing.team0.svc." + zone)
	if err != nil {
		return 0, err
	}
	if err := b.untilRight(ctx, syncWithin, []measure.Question{nothing}, func(int) {}); err != nil {
		return 0, err
	}
	return b.live(ctx)
}

// world measures everything in one world.
func (s *scale) world(ctx context.Context, name string, w members.World) (f Figures, err error) {
	f = Figures{}
	tell := func(what string) { fmt.Fprintf(s.Progress, "%s, %d endpoints: %s\n", name, w.Total(), what) }
	tell("start")
	b, err := s.start(ctx, w)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w; the log of the server ends with:\n%s", err, tail(b.server.Log()))
		}
		err = errors.Join(err, b.stop())
	}()
	if err := s.sync(ctx, b, w, f); err != nil {
		return nil, err
	}
	if err := b.profile(ctx, s.Profiles, fmt.Sprintf("%s-%d.pprof", strings.ReplaceAll(name, " ", "-"), w.Total())); err != nil {
		return nil, err
	}
	tell("ask for everything once")
	if err := s.compile(ctx, b, w, f); err != nil {
		return nil, err
	}
	tell("change something")
	if err := s.changes(ctx, b, f); err != nil {
		return nil, err
	}
	tell("ask, while there are updates")
	return f, s.ask(ctx, name, b, f)
}

// tail returns the end of a log.
func tail(log string) string { return log[max(0, len(log)-2000):] }

// sync waits until the server knows all members, and reads what it holds then.
func (s *scale) sync(ctx context.Context, b *bench, w members.World, f Figures) error {
	questions, err := known(w)
	if err != nil {
		return err
	}
	if err := b.untilRight(ctx, syncWithin, questions, func(int) {}); err != nil {
		return err
	}
	f[syncTime] = time.Since(b.began).Seconds()
	f[received] = float64(b.clusters.Written()) / 1e6
	holds, err := measure.MemoryOf(b.server.PID())
	if err != nil {
		return err
	}
	f[residentPeak] = float64(holds.Peak) / 1e6
	live, err := b.live(ctx)
	if err != nil {
		return err
	}
	f[facts] = float64(live-s.empty) / 1e6
	f[factsEach] = float64(live-s.empty) / float64(w.Total())
	return nil
}

// compile asks for every name once, and reads what is kept of the answers.
func (s *scale) compile(ctx context.Context, b *bench, w members.World, f Figures) error {
	before, err := b.live(ctx)
	if err != nil {
		return err
	}
	questions, err := names(w)
	if err != nil {
		return err
	}
	g, err := measure.NewGenerator(b.server.Port("DNS"), questions)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(syncWithin); err == nil && g.Answered() < len(questions) && time.Now().Before(deadline); {
		_, err = g.Flood(s.Burst / 10)
	}
	if err := errors.Join(err, g.Close()); err != nil {
		return err
	}
	if g.Answered() < len(questions) {
		return fmt.Errorf("%d of %d names were answered within %s", g.Answered(), len(questions), syncWithin)
	}
	after, err := b.live(ctx)
	if err != nil {
		return err
	}
	f[compiled] = float64(after-before) / 1e6
	f[compiledEach] = float64(after-before) / float64(len(questions))
	holds, err := measure.MemoryOf(b.server.PID())
	if err != nil {
		return err
	}
	f[resident] = float64(holds.Resident) / 1e6
	return nil
}

// names makes a question for every service of the world.
func names(w members.World) (all []measure.Question, err error) {
	for m := range w.Members {
		for i := range w.Services {
			if m > 0 && (w.Same || i == 0) {
				continue // the first cluster has it too
			}
			q, err := measure.Ask(w.FQDN(m, i, zone), w.Records(i))
			if err != nil {
				return nil, err
			}
			all = append(all, q)
		}
	}
	return all, nil
}

// changes measures how long it takes from an event to the answer that shows it, and what an event costs.
func (s *scale) changes(ctx context.Context, b *bench, f Figures) error {
	w := b.clusters.World()
	random := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // a reproducible draw, no secret
	eventBefore, workBefore, err := b.published(ctx)
	if err != nil {
		return err
	}
	took, err := s.shown(ctx, b, func() (member, service int) { return random.IntN(w.Members), random.IntN(w.Services) &^ 1 })
	if err != nil {
		return err
	}
	event, work, err := b.published(ctx)
	if err != nil {
		return err
	}
	f[shownMedian], f[shown99] = quantile(took, 0.5), quantile(took, 0.99)
	f[eventMean] = event.since(eventBefore).mean() * 1e3
	f[workMean] = work.since(workBefore).mean() * 1e3
	if !w.Same {
		took, err := s.shown(ctx, b, func() (member, service int) { return random.IntN(w.Members), 0 })
		if err != nil {
			return err
		}
		f[commonMedian], f[common99] = quantile(took, 0.5), quantile(took, 0.99)
	}
	used, err := measure.CPUTime(b.server.PID())
	if err != nil {
		return err
	}
	updating, stop := context.WithTimeout(ctx, s.Burst)
	defer stop()
	updates := b.clusters.Update(updating, costRate)
	after, err := measure.CPUTime(b.server.PID())
	if err != nil {
		return err
	}
	f[cpuPerUpdate] = float64((after - used).Microseconds()) / float64(max(updates, 1))
	return ctx.Err()
}

// shown moves endpoints, and returns how long it took each time until an answer showed the new address, sorted.
func (s *scale) shown(ctx context.Context, b *bench, which func() (member, service int)) (took []time.Duration, err error) {
	w := b.clusters.World()
	for range s.Changes {
		member, service := which()
		began := time.Now()
		address := b.clusters.Members()[member].Move(service)
		q, err := measure.Ask(w.EndpointFQDN(member, service, address, zone), 1)
		if err != nil {
			return nil, err
		}
		if err := b.untilRight(ctx, shownWithin, []measure.Question{q}, func(int) {}); err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took, nil
}

// quantile returns a quantile in milliseconds.
func quantile(took []time.Duration, share float64) float64 {
	return float64(propagation.Result{Took: took}.Quantile(share).Nanoseconds()) / 1e6
}

// ask measures how many questions are answered, and how long it takes at a fixed rate, while there are updates. The server
// has the first processor to itself from here on.
func (s *scale) ask(ctx context.Context, name string, b *bench, f Figures) error {
	questions, err := compare.SimulatedQuestions(b.clusters.World())
	if err != nil {
		return err
	}
	if err := measure.PinProcess(b.server.PID(), measure.ServerProcessor); err != nil {
		return err
	}
	if err := measure.Sleep(ctx, noticed); err != nil {
		return err
	}
	for _, updates := range rates {
		l, err := s.undisturbed(ctx, b, questions, updates)
		switch {
		case errors.Is(err, measure.ErrLost):
			// A busy machine loses some; the figures of the others are good.
			s.notes = append(s.notes, fmt.Sprintf("%s, %s endpoints, %d updates/s: %s", name, thousands(b.clusters.World().Total()), updates, err))
		case err != nil:
			return fmt.Errorf("ask under %d updates/s: %w", updates, err)
		default:
			f[queriesUnder(updates)], f[cpuUnder(updates)] = l.perSecond, l.cpu
			f[medianUnder(updates)], f[p99Under(updates)] = quantile(l.took, 0.5)*1e3, quantile(l.took, 0.99)*1e3
			f[waitedUnder(updates)] = l.waited * 100
		}
	}
	return nil
}

// load is what was measured while a server was asked.
type load struct {
	flood
	// took is how long answers took at the fixed rate, sorted, and waited the share of that time in which the server waited
	// for its processor.
	took   []time.Duration
	waited float64
}

// undisturbed measures the same several times, and returns the time in which the server waited least for its processor, which
// others have then left to it most. The error is ErrLost when answers were lost each time.
func (s *scale) undisturbed(ctx context.Context, b *bench, questions []measure.Question, updates int) (best load, err error) {
	err = measure.ErrLost
	for range tries {
		l, lost := s.load(ctx, b, questions, updates)
		if lost != nil && !errors.Is(lost, measure.ErrLost) {
			return best, lost
		}
		if lost == nil && (err != nil || l.waited < best.waited) {
			best, err = l, nil
		}
	}
	return best, err
}

func (s *scale) load(ctx context.Context, b *bench, questions []measure.Question, updates int) (l load, err error) {
	err = b.whileUpdating(ctx, updates, func() (err error) {
		if l.flood, err = s.flood(b, questions); err != nil {
			return err
		}
		before, err := measure.Waited(b.server.PID())
		if err != nil {
			return err
		}
		began := time.Now()
		steady, err := measure.Steady(b.server.Port("DNS"), questions, rate, s.Burst)
		if err != nil {
			return err
		}
		l.took = steady.Took
		after, err := measure.Waited(b.server.PID())
		l.waited = (after - before).Seconds() / time.Since(began).Seconds()
		return err
	})
	return l, err
}

// whileUpdating calls do while there are so many updates per second.
func (b *bench) whileUpdating(ctx context.Context, perSecond int, do func() error) error {
	updating, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	if perSecond > 0 {
		running.Go(func() { b.clusters.Update(updating, perSecond) })
	}
	err := do()
	stop()
	running.Wait()
	return err
}

// flood is how many questions per second are answered when they come as fast as answers go, and what one costs the server in
// microseconds.
type flood struct{ perSecond, cpu float64 }

func (s *scale) flood(b *bench, questions []measure.Question) (f flood, err error) {
	g, err := measure.NewGenerator(b.server.Port("DNS"), questions)
	if err != nil {
		return f, err
	}
	err = measure.OnThread(func() error {
		if _, err := g.Flood(measure.Warm); err != nil {
			return err
		}
		began := time.Now()
		before, err := measure.CPUTime(b.server.PID())
		if err != nil {
			return err
		}
		n, err := g.Flood(s.Burst)
		if err != nil {
			return err
		}
		f.perSecond = float64(n) / time.Since(began).Seconds()
		after, err := measure.CPUTime(b.server.PID())
		f.cpu = float64((after - before).Nanoseconds()) / 1e3 / float64(max(n, 1))
		return err
	})
	return f, errors.Join(err, g.CheckLost(), g.Close())
}
