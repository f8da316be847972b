//go:build linux

package scale

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/measure"
	"github.com/clusterset-dns/clusterset-dns/test/members"
)

// watched is the cluster that many servers watch.
var watched = members.World{Members: 1, Services: 20, Endpoints: endpointsEach, Same: true}

// settled is how long the number of open watches must not have changed until everybody has what he wants.
const settled = 3 * time.Second

// Return is what an API server hears of its clients when it comes back after an outage.
type Return struct {
	// Watches is how many watches were open before.
	Watches int
	// Seconds are those since it was back, up to the one in which the last server knew what had changed meanwhile and all
	// watches were open again.
	Seconds []Second
	// Back is when all watches were open again, Known when all servers knew what had changed: since it was back.
	Back, Known time.Duration
}

// Second is what an API server hears in one second.
type Second struct {
	Connections, Requests, Watches int
	// Known is how many servers knew what had changed, at its end.
	Known int
}

// comeBack lets many servers watch one API server that is away for a while. The servers are the members of one process that
// are all the same cluster: each has its own connection, its own watches and its own patience, as if it were alone.
func (s *scale) comeBack(ctx context.Context) (r Return, err error) {
	var names []string
	for i := range s.Clients {
		names = append(names, fmt.Sprintf("c%d", i))
	}
	b, err := s.startWith(ctx, watched, names, func(c *members.Server, dir string) (paths []string, err error) {
		for i, name := range names {
			path := filepath.Join(dir, name)
			if err := c.Members()[0].Kubeconfig(path, members.ClientName(i)); err != nil {
				return nil, err
			}
			paths = append(paths, path)
		}
		return paths, nil
	})
	if err != nil {
		return r, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w; the log of the server ends with:\n%s", err, tail(b.server.Log()))
		}
		err = errors.Join(err, b.stop())
	}()
	m := b.clusters.Members()[0]
	questions, err := askAll(names, watched.Address(0, 0, 0))
	if err != nil {
		return r, err
	}
	if err := b.untilRight(ctx, syncWithin, questions, func(int) {}); err != nil {
		return r, err
	}
	if r.Watches, err = steadyWatches(ctx, m); err != nil {
		return r, err
	}
	m.Down()
	moved := m.Move(0)
	if err := measure.Sleep(ctx, s.Outage); err != nil {
		return r, err
	}
	up := time.Now()
	if err := m.Up(); err != nil {
		return r, err
	}
	if questions, err = askAll(names, moved); err != nil {
		return r, err
	}
	known := make([]time.Duration, 0, len(names))
	if err := b.untilRight(ctx, syncWithin, questions, func(int) { known = append(known, time.Since(up)) }); err != nil {
		return r, err
	}
	r.Known = time.Since(up)
	for m.Watches() < r.Watches {
		if time.Since(up) > syncWithin {
			return r, fmt.Errorf("%d watches are open again, not %d", m.Watches(), r.Watches)
		}
		if err := measure.Sleep(ctx, 10*time.Millisecond); err != nil {
			return r, err
		}
	}
	r.Back = time.Since(up)
	r.count(b.clusters.Traffic(), up, known)
	return r, nil
}

// askAll makes a question for each server about the first endpoint of the first service.
func askAll(names []string, address netip.Addr) (all []measure.Question, err error) {
	for _, name := range names {
		q, err := measure.Ask(members.EndpointLabel(address)+"."+name+"."+watched.FQDN(0, 0, zone), 1)
		if err != nil {
			return nil, err
		}
		all = append(all, q)
	}
	return all, nil
}

// steadyWatches waits until no more watches are opened, and returns how many there are.
func steadyWatches(ctx context.Context, m *members.Member) (n int, err error) {
	for since := time.Now(); time.Since(since) < settled; {
		if now := m.Watches(); now != n {
			n, since = now, time.Now()
		}
		if err := measure.Sleep(ctx, 10*time.Millisecond); err != nil {
			return n, err
		}
	}
	return n, nil
}

// count puts the traffic into seconds.
func (r *Return) count(all []members.Traffic, up time.Time, known []time.Duration) {
	r.Seconds = make([]Second, int(max(r.Back, r.Known).Seconds())+1)
	for _, t := range all {
		second := int(t.At.Sub(up).Seconds())
		if t.At.Before(up) || second >= len(r.Seconds) {
			continue
		}
		switch to := &r.Seconds[second]; t.Kind {
		case members.Connection:
			to.Connections++
		case members.Watch:
			to.Watches++
		default:
			to.Requests++
		}
	}
	for _, at := range known {
		for second := int(at.Seconds()); second < len(r.Seconds); second++ {
			r.Seconds[second].Known++
		}
	}
}
