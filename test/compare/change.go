//go:build linux

package compare

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/propagation"
)

// changes is how many changes of each kind are made in a round.
const changes = 50

// change measures how long it takes from the API server's reply to a change until an answer shows it, quiet and while
// other endpoints come and go. A server may use every processor.
func (c *comparison) change(ctx context.Context, round Round) error {
	for _, s := range inTurn(c.round, ours, kubernetes) {
		r, err := s.start(ctx, c.programs, c.planes, c.Services)
		if err != nil {
			return err
		}
		if err := errors.Join(c.changeOf(ctx, s, r, round), r.stop()); err != nil {
			return err
		}
	}
	return c.bareChange(ctx, round)
}

func (c *comparison) changeOf(ctx context.Context, s subject, r *running, round Round) error {
	if _, err := r.untilRight(ctx); err != nil {
		return err
	}
	return c.quietAndUpdating(ctx, s.name, round, func() ([]time.Duration, error) { return c.propagate(ctx, s, r) })
}

// quietAndUpdating has changes measured while there are no others, and while there are.
func (c *comparison) quietAndUpdating(ctx context.Context, name string, round Round, measure func() ([]time.Duration, error)) error {
	if err := c.collectGarbage(ctx); err != nil {
		return err
	}
	took, err := measure()
	if err != nil {
		return err
	}
	round.set(name, changeMedian, micro(took, 0.5)/1e3)
	round.set(name, change99, micro(took, 0.99)/1e3)
	if err := c.collectGarbage(ctx); err != nil {
		return err
	}
	err = c.whileUpdating(ctx, name, round, func() error {
		took, err = measure()
		return err
	})
	if err != nil {
		return err
	}
	round.set(name, changeChurnMedian, micro(took, 0.5)/1e3)
	round.set(name, changeChurn99, micro(took, 0.99)/1e3)
	return nil
}

// propagate makes changes of every kind that a subject shows, and returns how long they took, sorted.
func (c *comparison) propagate(ctx context.Context, s subject, r *running) (took []time.Duration, err error) {
	b, err := propagation.On(ctx, c.planes[everything.name], r.server, s.zone == clusterSetZone)
	defer func() { err = errors.Join(err, b.Clear(ctx)) }()
	if err != nil {
		return nil, err
	}
	results, err := b.Run(ctx, min(changes, c.Services/10))
	if err != nil {
		return nil, err
	}
	for _, r := range results {
		took = append(took, r.Took...)
	}
	slices.Sort(took)
	return took, nil
}
