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
	"slices"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/compare/world"
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
func Run(ctx context.Context, o Options) (*Results, error) {
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
	var wanted []plane
	for _, g := range o.Only {
		for _, p := range g.planes() {
			if !slices.ContainsFunc(wanted, func(w plane) bool { return w.name == p.name }) {
				wanted = append(wanted, p)
			}
		}
	}
	all, err := startPlanes(ctx, o.Progress, p.controlPlane, o.Keep, o.Services, wanted...)
	if err != nil {
		return nil, err
	}
	c := &comparison{Options: o, programs: p, planes: all, results: &Results{Services: o.Services, Groups: o.Only}}
	err = c.run(ctx)
	for _, r := range c.running {
		err = errors.Join(err, r.stop())
	}
	if c.simulation != nil {
		err = errors.Join(err, c.simulation.stop())
	}
	return c.results, errors.Join(err, all.stop())
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
	planes   planes
	running  []*running // those that are asked, from the first round to the last
	results  *Results
	// simulation is ours with simulated clusters, nil where that is not measured.
	simulation *simulation
	empty      map[string]int64 // live heap of a server that watches nothing, by subject
}

// step measures something in a round.
type step struct {
	group   Group
	measure func(context.Context, Round) error
}

func (c *comparison) run(ctx context.Context) (err error) {
	if c.results.Versions, err = c.versions(); err != nil {
		return err
	}
	if err := c.prepare(ctx); err != nil {
		return err
	}
	steps := []step{
		{CPU, c.eachRunning(c.cost)},
		{Latency, c.eachRunning(c.latency)},
		{Churn, c.churn},
		{Change, c.change},
		{Start, c.starts},
		{Kubeadm, c.kubeadm},
	}
	for n := range c.Rounds {
		round := Round{}
		for _, s := range steps {
			if !c.has(s.group) {
				continue
			}
			fmt.Fprintf(c.Progress, "round %d of %d: %s\n", n+1, c.Rounds, s.group)
			if err := s.measure(ctx, round); err != nil {
				return fmt.Errorf("measure %s: %w", s.group, err)
			}
		}
		c.results.Rounds = append(c.results.Rounds, round)
	}
	return nil
}

// prepare starts those that are asked, and measures what is the same in every round.
func (c *comparison) prepare(ctx context.Context) error {
	var subjects []subject
	switch {
	case c.has(CPU, Latency):
		subjects = []subject{ours, kubernetes, kubernetesHere, inTree, prebuilt, fixed, chain, chainOurs}
	case c.has(Churn, Change):
		subjects = []subject{ours, kubernetes}
	}
	for _, s := range subjects {
		r, err := s.startPinned(ctx, c.programs, c.planes, c.Services)
		if err != nil {
			return err
		}
		c.running = append(c.running, r)
	}
	if c.has(CPU, Latency) {
		all, missing, err := startPeers(ctx, c.Services)
		c.running, c.results.Notes = append(c.running, all...), missing
		if err != nil {
			return err
		}
	}
	if c.has(Churn) {
		var err error
		if c.simulation, err = simulate(ctx, c.programs, c.Services); err != nil {
			return err
		}
	}
	if c.has(Start) {
		return c.measureEmpty(ctx)
	}
	return nil
}

// eachRunning measures one after the other of those that are asked, in every other round from the last to the first.
func (c *comparison) eachRunning(measure func(context.Context, *running, Round) error) func(context.Context, Round) error {
	return func(ctx context.Context, round Round) error {
		order := slices.Clone(c.running)
		if len(c.results.Rounds)%2 == 1 {
			slices.Reverse(order)
		}
		for _, r := range order {
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
	c.results.Notes = append(c.results.Notes, fmt.Sprintf("A figure of %s was left out of round %d: %s", r.name, len(c.results.Rounds)+1, err))
	return nil
}

// asked returns one of those that are asked.
func (c *comparison) asked(s subject) *running {
	i := slices.IndexFunc(c.running, func(r *running) bool { return r.name == s.name })
	return c.running[i]
}
