package clusterset

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestHosts plays the life of two load balancer names. The clock is synctest's.
func TestHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // for the race detector: the clock of synctest orders, but does not synchronise
		zone := map[string][]string{}
		set := func(host string, addrs ...string) {
			mu.Lock()
			defer mu.Unlock()
			if zone[host] = addrs; len(addrs) == 0 {
				delete(zone, host)
			}
		}
		asked := map[string]int{}
		told := map[string][]netip.Addr{}
		h := newHosts(func(_ context.Context, _, host string) ([]netip.Addr, error) {
			mu.Lock()
			defer mu.Unlock()
			asked[host]++
			texts, ok := zone[host]
			if !ok {
				return nil, errors.New("no such host")
			}
			var out []netip.Addr
			for _, text := range texts {
				out = append(out, netip.MustParseAddr(text))
			}
			return out, nil
		}, func(host string, addrs []netip.Addr) { told[host] = addrs })
		defer h.close()

		for _, step := range []struct {
			name   string
			do     func()
			a, b   string // what was told last of a.example.org and b.example.org
			askedA int
		}{
			{"a new name is resolved at once", func() { set("a.example.org.", "192.0.2.1"); h.want([]string{"a.example.org"}) }, "192.0.2.1", "", 1},
			{"another new name does not ask for the first again", func() {
				set("b.example.org.", "2001:db8::1", "192.0.2.2")
				h.want([]string{"a.example.org", "b.example.org"})
			}, "192.0.2.1", "192.0.2.2 2001:db8::1", 1},
			{"a change is seen within half a minute", func() {
				set("a.example.org.", "192.0.2.9")
				time.Sleep(resolveEvery)
			}, "192.0.2.9", "192.0.2.2 2001:db8::1", 2},
			{"a failure keeps the last good result", func() { set("a.example.org."); time.Sleep(resolveEvery) }, "192.0.2.9", "192.0.2.2 2001:db8::1", 3},
			{"so does an answer of nothing but loopback", func() { set("a.example.org.", "127.0.0.1"); time.Sleep(resolveEvery) }, "192.0.2.9", "192.0.2.2 2001:db8::1", 4},
			{"of a mixed answer the usable part counts", func() {
				set("a.example.org.", "::ffff:192.0.2.3", "169.254.1.1")
				time.Sleep(resolveEvery)
			}, "192.0.2.3", "192.0.2.2 2001:db8::1", 5},
			{"a name that nobody needs is forgotten", func() { h.want([]string{"a.example.org"}) }, "192.0.2.3", "", 5},
		} {
			step.do()
			synctest.Wait()
			for host, want := range map[string]string{"a.example.org": step.a, "b.example.org": step.b} {
				var got []string
				for _, a := range told[host] {
					got = append(got, a.String())
				}
				if text := join(got); text != want {
					t.Errorf("%s: %s has %q, want %q", step.name, host, text, want)
				}
			}
			if asked["a.example.org."] != step.askedA {
				t.Errorf("%s: a.example.org was asked for %d times, want %d", step.name, asked["a.example.org."], step.askedA)
			}
		}
	})
}

func join(texts []string) string {
	slices.Sort(texts)
	out := ""
	for i, s := range texts {
		if i > 0 {
			out += " "
		}
		out += s
	}
	return out
}
