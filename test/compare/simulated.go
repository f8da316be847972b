//go:build linux

package compare

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/compare/world"
	"github.com/clusterset-dns/clusterset-dns/test/measure"
	"github.com/clusterset-dns/clusterset-dns/test/members"
	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// simulatedMembers is how many clusters are simulated, simulatedUpdates how many of their EndpointSlices change per second.
const (
	simulatedMembers = 10
	simulatedUpdates = 1000
)

// oursSimulated watches simulated clusters. It is started by simulate.
var oursSimulated = subject{name: "ours, 10 simulated members", zone: clusterSetZone}

// Simulated returns a Corefile with one server block of ours that watches clusters by their kubeconfigs, with everything
// switched on that takes time: what a query costs there is comparable. Its ports are "DNS" and "pprof".
func Simulated(names, kubeconfigs []string) string {
	var all []member
	for i, name := range names {
		all = append(all, member{name, kubeconfigs[i]})
	}
	return block(stanza(all...))
}

// SimulatedQuestions makes questions about random services of simulated clusters.
func SimulatedQuestions(w members.World) ([]measure.Question, error) {
	return measure.Draw(w.Members*w.Services, func(i int) measure.Service {
		member, service := i%w.Members, i/w.Members
		return measure.Service{Name: w.FQDN(member, service, clusterSetZone), Records: w.Records(service), Port: members.PortName}
	}, 1)
}

// simulation is ours on the processor of servers, and the clusters that it watches.
type simulation struct {
	*running
	clusters *members.Server
	dir      string
}

// simulate starts clusters that have as many services in all, and ours.
func simulate(ctx context.Context, p programs, services int) (s *simulation, err error) {
	s = &simulation{}
	defer func() {
		if err != nil {
			s, err = nil, errors.Join(fmt.Errorf("%s: %w", oursSimulated.name, err), s.stop())
		}
	}()
	w := members.World{Members: simulatedMembers, Services: services / simulatedMembers, Endpoints: world.Endpoints}
	if s.clusters, err = members.Start(w); err != nil {
		return s, err
	}
	if s.dir, err = os.MkdirTemp("", "clusterset-dns-compare-"); err != nil {
		return s, err
	}
	kubeconfigs, err := s.clusters.Kubeconfigs(s.dir)
	if err != nil {
		return s, err
	}
	questions, err := SimulatedQuestions(w)
	if err != nil {
		return s, err
	}
	var names []string
	for i := range w.Members {
		names = append(names, w.Cluster(i))
	}
	started, err := server.Start(ctx, p.coredns, Simulated(names, kubeconfigs), server.Options{Env: onOneProcessor})
	if err != nil {
		return s, err
	}
	s.running = &running{
		name: oursSimulated.name, questions: questions, port: started.Port("DNS"), pid: started.PID(),
		stop: started.Stop, alive: started.Running, server: started,
	}
	if err := s.pin(); err != nil {
		return s, err
	}
	_, err = s.untilRight(ctx)
	return s, err
}

// churnSimulated measures the latency of ours while nothing changes in simulated clusters, and while a lot does.
func (c *comparison) churnSimulated(ctx context.Context, round Round) error {
	s, err := simulate(ctx, c.programs, c.Services)
	if err != nil {
		return err
	}
	err = c.tolerate(s.running, c.calm(s.running, round))
	if err == nil {
		err = c.tolerate(s.running, s.churn(ctx, c.steadily(), round))
	}
	return errors.Join(err, s.stop())
}

func (s *simulation) stop() (err error) {
	if s.running != nil {
		err = s.running.stop()
	}
	if s.clusters != nil {
		err = errors.Join(err, s.clusters.Close())
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// churn measures the latency while a lot changes.
func (s *simulation) churn(ctx context.Context, d time.Duration, round Round) error {
	updating, stop := context.WithCancel(ctx)
	defer stop()
	var (
		running sync.WaitGroup
		updates int
	)
	began := time.Now()
	t, err := s.alone(func() (times, error) {
		running.Go(func() { updates = s.clusters.Update(updating, simulatedUpdates) })
		t, err := s.steady(s.questions, d)
		stop()
		running.Wait()
		return t, err
	})
	round.set(s.name, updatesPerSecond, float64(updates)/time.Since(began).Seconds())
	if err != nil {
		return err
	}
	round.setTimely(s.name, underUpdates, t)
	return nil
}
