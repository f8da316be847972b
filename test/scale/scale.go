//go:build linux

// Package scale measures how what our server needs grows with what it watches: the real binary watches a hundred clusters
// that are simulated (see members), with more and more endpoints. And it measures what one API server hears of hundreds of
// such servers when it comes back after an outage.
package scale

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/measure"
	"github.com/clusterset-dns/clusterset-dns/test/members"
	"github.com/clusterset-dns/clusterset-dns/test/server"
)

const (
	zone = "clusterset.local."
	// endpointsEach is how many endpoints each service has.
	endpointsEach = 10
	// syncWithin bounds the wait for right answers about all members.
	syncWithin = 5 * time.Minute
	// shownWithin bounds the wait for the answer that shows one change.
	shownWithin = 30 * time.Second
)

// Options say what is measured.
type Options struct {
	// Endpoints are the sizes: how many endpoints all clusters have together, ascending. Each must be Members times 10 times
	// the number of services per cluster.
	Endpoints []int
	// Members is how many clusters there are, from 2.
	Members int
	// Changes is how many changes are timed, from 1.
	Changes int
	// Burst is how long a server is asked at a time.
	Burst time.Duration
	// Clients is how many servers watch one API server that is away for Outage.
	Clients int
	Outage  time.Duration
	// Profiles is a folder for a profile of the live heap in each world, "" for none.
	Profiles string
	// Progress is told what is going on.
	Progress io.Writer
}

func (o Options) check() error {
	if o.Members < 2 || o.Changes < 1 || o.Clients < 1 || len(o.Endpoints) == 0 || !slices.IsSorted(o.Endpoints) {
		return errors.New("there must be two members or more, a change, a client, and sizes that grow")
	}
	for _, n := range o.Endpoints {
		if each := o.Members * endpointsEach; n < each || n%each != 0 {
			return fmt.Errorf("%d endpoints cannot be shared out: use multiples of %d, for %d members with services of %d endpoints", n, each, o.Members, endpointsEach)
		}
	}
	return nil
}

// worlds are the two ways to name services.
var worlds = []struct {
	name string
	same bool
}{
	{"distinct names", false},
	{"the same names in all members", true},
}

// Run measures. It leaves nothing running.
func Run(ctx context.Context, o Options) (*Results, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	coredns, err := server.Build(ctx, o.Progress)
	if err != nil {
		return nil, err
	}
	r := &Results{Options: o}
	if r.Versions, err = measure.Versions(coredns); err != nil {
		return nil, err
	}
	s := scale{Options: o, coredns: coredns}
	if s.empty, err = s.measureEmpty(ctx); err != nil {
		return nil, fmt.Errorf("members without services: %w", err)
	}
	r.Empty = s.empty
	for _, world := range worlds {
		for _, endpoints := range o.Endpoints {
			w := members.World{Members: o.Members, Services: endpoints / o.Members / endpointsEach, Endpoints: endpointsEach, Same: world.same}
			figures, err := s.world(ctx, world.name, w)
			if err != nil {
				return nil, fmt.Errorf("%s, %d endpoints: %w", world.name, endpoints, err)
			}
			r.Worlds = append(r.Worlds, World{Name: world.name, Endpoints: endpoints, Figures: figures})
		}
	}
	fmt.Fprintf(o.Progress, "%d servers and one API server that is away for %s\n", o.Clients, o.Outage)
	if r.Return, err = s.comeBack(ctx); err != nil {
		return nil, fmt.Errorf("%d servers and one API server: %w", o.Clients, err)
	}
	r.Notes = s.notes
	return r, nil
}

// scale is one run.
type scale struct {
	Options
	coredns string
	// empty is the live heap of a server whose members have no services, in octets.
	empty int64
	// notes are sentences about what was not measured, and why.
	notes []string
}
