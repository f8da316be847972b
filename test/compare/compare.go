//go:build linux

// Package compare measures our server beside others, on the same questions about the same services, one after the other
// in every round, and puts the ratios into a table with the bounds that they must keep.
//
// Absolute figures move with what else the machine does; ratios that are paired within a round do so much less. Every
// figure is therefore the median of those of the rounds.
package compare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/compare/world"
	"github.com/clusterset-dns/clusterset-dns/test/kube"
	"github.com/clusterset-dns/clusterset-dns/test/measure"
	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// Options say what is measured.
type Options struct {
	// Services is the size of the world, from 200. Bounds are meant for 10,000.
	Services int
	// Rounds is how often everything is measured, from 1. Bounds are meant for medians of 5 and more.
	Rounds int
	// Only are the groups that are measured; none means all.
	Only []Group
	// Burst is how long a server is asked at a time.
	Burst time.Duration
	// Keep is a folder for the control planes. What an earlier run has left there is used again. By default they are
	// temporary.
	Keep string
	// Progress is told what is going on.
	Progress io.Writer
}

func (o Options) has(groups ...Group) bool {
	return slices.ContainsFunc(groups, func(g Group) bool { return slices.Contains(o.Only, g) })
}

// Run measures. It leaves nothing running.
func Run(ctx context.Context, o Options) (results *Results, err error) {
	if o.Services < 2*world.Namespaces || o.Rounds < 1 {
		return nil, fmt.Errorf("%d services in %d rounds are too few", o.Services, o.Rounds)
	}
	if len(o.Only) == 0 {
		o.Only = allGroups
	}
	p, err := build(ctx, o.Progress)
	if err != nil {
		return nil, err
	}
	if o.Keep == "" {
		if o.Keep, err = os.MkdirTemp("", "clusterset-dns-compare-"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.Keep)) }()
	}
	c := &comparison{Options: o, programs: p, results: &Results{Services: o.Services, Groups: o.Only}}
	for range o.Rounds {
		c.results.Rounds = append(c.results.Rounds, Round{})
	}
	if awake, err := measure.KeepAwake(); err == nil {
		defer awake.Close()
	} else {
		c.results.Notes = append(c.results.Notes, fmt.Sprintf("Processors fell asleep between questions, and p99 says much about how they wake up: %s.", err))
	}
	for _, phase := range c.phases() {
		if err := c.run(ctx, phase); err != nil {
			return nil, err
		}
	}
	return c.results, nil
}

func build(ctx context.Context, w io.Writer) (p programs, err error) {
	if p.controlPlane, err = clusters.Build(ctx, w); err != nil {
		return p, err
	}
	if p.coredns, err = server.Build(ctx, w); err != nil {
		return p, err
	}
	if p.stock, err = server.BuildStock(ctx, w); err != nil {
		return p, err
	}
	p.floor, err = server.BuildFloor(ctx, w)
	return p, err
}

// comparison is one run.
type comparison struct {
	Options
	programs programs
	results  *Results
	// planes and running are what runs in a phase: the control planes, and who is asked from its first round to its last.
	planes  planes
	running []*running
	round   int              // from 0
	empty   map[string]int64 // live heap of a server that watches nothing, by subject
}

// phase is measured while nothing runs but what it needs: who does nothing takes a processor now and then, and who watches the
// same control plane is told every update too.
type phase struct {
	groups []Group // that it is for
	planes []plane
	// prepare is called before the first round, if it is not nil.
	prepare func(context.Context) error
	steps   []step
}

// step measures something in a round.
type step struct {
	group   Group
	measure func(context.Context, Round) error
}

// phases are all of them, in order.
func (c *comparison) phases() []phase {
	return []phase{
		{[]Group{CPU, Latency}, []plane{everything, imports}, c.startAll, []step{{CPU, c.eachRunning(c.cost)}, {Latency, c.eachRunning(c.latency)}}},
		{[]Group{Churn, Change}, []plane{everything}, nil, []step{{Churn, c.churn}, {Change, c.change}}},
		{[]Group{Start}, []plane{nothing}, c.measureEmpty, nil},
		{[]Group{Start}, []plane{everything, imports}, nil, []step{{Start, c.starts}}},
		{[]Group{Kubeadm}, []plane{few, usual}, nil, []step{{Kubeadm, c.kubeadm}}},
	}
}

// run measures a phase, if one of its groups is wanted.
func (c *comparison) run(ctx context.Context, p phase) (err error) {
	if !c.has(p.groups...) {
		return nil
	}
	if c.planes, err = startPlanes(ctx, c.Progress, c.programs.controlPlane, c.Keep, c.Services, p.planes...); err != nil {
		return err
	}
	defer func() {
		for _, r := range c.running {
			err = errors.Join(err, r.stop())
		}
		err = errors.Join(err, c.planes.stop())
		c.running, c.planes = nil, nil
	}()
	if c.results.Versions == nil {
		if c.results.Versions, err = c.versions(); err != nil {
			return err
		}
	}
	if p.prepare != nil {
		if err := p.prepare(ctx); err != nil {
			return err
		}
	}
	for c.round = range c.Rounds {
		for _, s := range p.steps {
			if !c.has(s.group) {
				continue
			}
			fmt.Fprintf(c.Progress, "round %d of %d: %s\n", c.round+1, c.Rounds, s.group)
			if err := s.measure(ctx, c.results.Rounds[c.round]); err != nil {
				return fmt.Errorf("measure %s: %w", s.group, err)
			}
		}
	}
	return nil
}

// startAll starts who is asked in turn.
func (c *comparison) startAll(ctx context.Context) error {
	for _, s := range []subject{ours, kubernetes, kubernetesHere, inTree, prebuilt, fixed, chain, chainOurs} {
		r, err := s.startPinned(ctx, c.programs, c.planes, c.Services)
		if err != nil {
			return err
		}
		c.running = append(c.running, r)
	}
	all, missing, err := startPeers(ctx, c.Services)
	c.running, c.results.Notes = append(c.running, all...), append(c.results.Notes, missing...)
	return err
}

// inTurn returns them in this order, in every other round from the last to the first.
func inTurn[T any](round int, all ...T) []T {
	order := slices.Clone(all)
	if round%2 == 1 {
		slices.Reverse(order)
	}
	return order
}

// eachRunning measures one after the other of those that are asked.
func (c *comparison) eachRunning(measure func(context.Context, *running, Round) error) func(context.Context, Round) error {
	return func(ctx context.Context, round Round) error {
		for _, r := range inTurn(c.round, c.running...) {
			if err := c.tolerate(r, measure(ctx, r, round)); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
		}
		return nil
	}
}

// tolerate makes a note of answers that were lost: a busy machine loses some, and other rounds are good.
func (c *comparison) tolerate(r *running, err error) error {
	if !errors.Is(err, measure.ErrLost) {
		return err
	}
	c.results.Notes = append(c.results.Notes, fmt.Sprintf("A figure of %s was left out of round %d: %s", r.name, c.round+1, err))
	return nil
}

// collectGarbage lets the API servers do so: otherwise that is part of whatever is measured when it becomes due.
func (c *comparison) collectGarbage(ctx context.Context) error {
	for _, p := range c.planes {
		client, err := kube.New(p)
		if err != nil {
			return err
		}
		if _, err := client.Core.Discovery().RESTClient().Get().AbsPath("/debug/pprof/heap").Param("gc", "1").DoRaw(ctx); err != nil {
			return err
		}
	}
	return nil
}
