package clusterset

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Times of resolving the names of load balancers. Clouds give them TTLs of about a minute.
const (
	resolveEvery   = 30 * time.Second
	resolveTimeout = 5 * time.Second
)

// lookup resolves a host name (net.Resolver.LookupNetIP). network is "ip".
type lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)

// hosts resolves the host names of load balancers off the query path, now and then, and keeps the last good result. A
// nil hosts resolves nothing.
type hosts struct {
	lookup lookup
	// tell is called when the addresses of a host change.
	tell func(host string, addrs []netip.Addr)
	stop func()

	mu     sync.Mutex // guards what follows
	wanted []string
	wake   chan struct{}
}

func newHosts(lookup lookup, tell func(string, []netip.Addr)) *hosts {
	h := &hosts{lookup: lookup, tell: tell, wake: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { h.run(ctx) })
	h.stop = func() {
		cancel()
		done.Wait()
	}
	return h
}

func (h *hosts) close() {
	if h != nil {
		h.stop()
	}
}

// want says which names are needed; a new one is resolved at once.
func (h *hosts) want(now []string) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if slices.Equal(now, h.wanted) {
		return
	}
	h.wanted = now
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *hosts) run(ctx context.Context) {
	known := map[string][]netip.Addr{}
	every := time.NewTicker(resolveEvery)
	defer every.Stop()
	for {
		all := false
		select {
		case <-ctx.Done():
			return
		case <-every.C:
			all = true
		case <-h.wake:
		}
		h.mu.Lock()
		wanted := h.wanted
		h.mu.Unlock()
		for host := range known {
			if !slices.Contains(wanted, host) {
				delete(known, host)
				h.tell(host, nil)
			}
		}
		for _, host := range wanted {
			if _, there := known[host]; all || !there {
				h.resolve(ctx, host, known)
			}
		}
	}
}

// resolve brings one host up to date. A failure, or an answer without a single usable address, keeps what was known.
func (h *hosts) resolve(ctx context.Context, host string, known map[string][]netip.Addr) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	found, err := h.lookup(ctx, "ip", host+".")
	addrs := make([]netip.Addr, 0, len(found))
	for _, a := range found {
		if a = a.Unmap(); usable(a) {
			addrs = append(addrs, a)
		}
	}
	if err != nil || len(addrs) == 0 {
		if ctx.Err() == nil || len(known[host]) == 0 {
			log.Debugf("Load balancer %s: no address: %v", host, err)
		}
		return
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	if addrs = slices.Compact(addrs); !slices.Equal(addrs, known[host]) {
		known[host] = addrs
		h.tell(host, addrs)
	}
}

// usable refuses addresses that mean something else on every host: nobody's load balancer has one.
func usable(a netip.Addr) bool {
	return a.IsValid() && a.Zone() == "" && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !a.IsLinkLocalUnicast()
}
