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
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/compare/world"
	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// warm is how long a server is asked before anything is measured.
const warm = 300 * time.Millisecond

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

// Run measures. It takes the time of Rounds, and about a minute to fill control planes for 10,000 services.
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
	planes, err := startPlanes(ctx, o.Progress, p.controlPlane, o.Keep, o.Services, everything)
	if err != nil {
		return nil, err
	}
	c := &comparison{Options: o, programs: p, planes: planes, results: &Results{Services: o.Services, Groups: o.Only}}
	err = c.run(ctx)
	for _, r := range c.running {
		err = errors.Join(err, r.server.Stop())
	}
	for _, plane := range planes {
		err = errors.Join(err, plane.Stop())
	}
	return c.results, err
}

func build(ctx context.Context, w io.Writer) (p programs, err error) {
	if p.controlPlane, err = clusters.Build(ctx, w); err != nil {
		return p, err
	}
	if p.coredns, err = server.Build(ctx, w); err != nil {
		return p, err
	}
	p.floor, err = server.BuildFloor(ctx, w)
	return p, err
}

// comparison is one run.
type comparison struct {
	Options
	programs programs
	planes   map[string]*clusters.Cluster
	running  []*running
	results  *Results
}

func (c *comparison) run(ctx context.Context) error {
	for _, s := range []subject{ours, kubernetes, prebuilt, fixed, chain, chainOurs} {
		r, err := s.start(ctx, c.programs, c.planes, c.Services)
		if err != nil {
			return err
		}
		c.running = append(c.running, r)
		c.results.Subjects = append(c.results.Subjects, r.name)
		if _, err := r.untilRight(ctx); err != nil {
			return err
		}
	}
	for n := range c.Rounds {
		fmt.Fprintf(c.Progress, "round %d of %d\n", n+1, c.Rounds)
		round := Round{}
		for _, r := range c.running {
			if err := c.ask(r, round); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
		}
		c.results.Rounds = append(c.results.Rounds, round)
	}
	return nil
}

// ask measures what a query costs.
func (c *comparison) ask(r *running, round Round) error {
	g, err := newGenerator(r.server.Port("DNS"), r.questions)
	if err != nil {
		return err
	}
	defer g.close()
	var (
		answered int
		used     time.Duration
	)
	err = onThread(func() error {
		if _, err := g.flood(warm); err != nil {
			return err
		}
		before, err := cpuTime(r.server.PID())
		if err != nil {
			return err
		}
		begin := time.Now()
		if answered, err = g.flood(c.Burst); err != nil {
			return err
		}
		round.set(r.name, queriesPerSecond, float64(answered)/time.Since(begin).Seconds())
		after, err := cpuTime(r.server.PID())
		used = after - before
		return err
	})
	if err != nil {
		return err
	}
	if err := g.checkLost(); err != nil {
		return err
	}
	round.set(r.name, cpuPerQuery, float64(used.Nanoseconds())/1e3/float64(answered))
	return nil
}
