//go:build linux

package compare

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/measure"
)

// The subjects that are started in every round. They may use all processors.
var (
	oursThree = subject{name: "ours, three members", zone: clusterSetZone,
		corefile: watching(everything, func(kubeconfig string) string { return stanza(three(kubeconfig)...) })}
	oursNoNodes = subject{name: "ours, locality without nodes", zone: clusterSetZone,
		corefile: watching(everything, func(kubeconfig string) string { return withoutNodes(oneMember(kubeconfig)) })}
)

// withoutNodes leaves the addresses of Nodes and endpoints out of locality.
func withoutNodes(stanza string) string {
	before, after, _ := strings.Cut(stanza, "nodes ")
	_, after, _ = strings.Cut(after, "\n")
	return before + after
}

// settle is how long a server is left alone after a start before its memory is read.
func (c *comparison) settle() time.Duration { return c.Burst }

// starts measures the start, and what a server holds after it.
func (c *comparison) starts(ctx context.Context, round Round) error {
	for _, s := range inTurn(c.round, ours, oursThree, oursNoNodes, kubernetes, inTree) {
		if err := c.collectGarbage(ctx); err != nil {
			return err
		}
		if err := c.startOnce(ctx, s, round); err != nil {
			return err
		}
	}
	return nil
}

func (c *comparison) startOnce(ctx context.Context, s subject, round Round) (err error) {
	begin := time.Now()
	r, err := s.start(ctx, c.programs, c.planes, c.Services)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	right, err := r.untilRight(ctx)
	if err != nil {
		return err
	}
	round.set(s.name, startTime, right.Sub(begin).Seconds())
	if err := measure.Sleep(ctx, c.settle()); err != nil {
		return err
	}
	holds, err := measure.MemoryOf(r.pid)
	if err != nil {
		return err
	}
	round.set(s.name, resident, float64(holds.Resident)/1e6)
	round.set(s.name, residentPeak, float64(holds.Peak)/1e6)
	h, err := measure.HeapOf(ctx, r.pprof, true)
	if err != nil {
		return err
	}
	round.set(s.name, liveHeap, float64(h.Live)/1e6)
	if empty, ok := c.empty[s.name]; ok {
		round.set(s.name, heapPerService, float64(h.Live-empty)/1e3/float64(c.Services))
	}
	return nil
}

// measureEmpty measures the live heap of servers that watch a control plane with nothing in it.
func (c *comparison) measureEmpty(ctx context.Context) error {
	c.empty = map[string]int64{}
	bare := planes{everything.name: c.planes[nothing.name], imports.name: c.planes[nothing.name]}
	for _, s := range []subject{ours, oursNoNodes, kubernetes, inTree} {
		live, err := c.liveHeap(ctx, s, bare)
		if err != nil {
			return fmt.Errorf("with an empty control plane: %w", err)
		}
		c.empty[s.name] = live
	}
	return nil
}

func (c *comparison) liveHeap(ctx context.Context, s subject, p planes) (live int64, err error) {
	r, err := s.start(ctx, c.programs, p, c.Services)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	r.questions = measure.Denied(r.questions)
	if _, err := r.untilRight(ctx); err != nil {
		return 0, err
	}
	if err := measure.Sleep(ctx, c.settle()); err != nil {
		return 0, err
	}
	h, err := measure.HeapOf(ctx, r.pprof, true)
	return h.Live, err
}
