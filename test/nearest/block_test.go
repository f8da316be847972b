package nearest

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// Other plugins of the same server block know nothing of clients. Whatever they do, nobody is given another's answer.
func TestOtherPluginsInTheSameBlock(t *testing.T) {
	const of, list, rounds = "beside", "beside-list", 1500
	for i, c := range []cluster{east, west, north} {
		c.offers(t, service{name: of, endpoints: pods(2, fmt.Sprintf("10.%d.50.1", i+1))})
		c.offers(t, service{name: list, headless: true, endpoints: pods(8, fmt.Sprintf("10.%d.51.1", i+1))})
	}
	s := run(t, block("DNS",
		"cache 3600", "loadbalance", "log . \"{remote} {name} {/clusterset/member} {/clusterset/tier}\"", "metadata",
		"template IN A below.test {\nanswer \"{{\"{{\"}} .Name {{\"}}\"}} 3600 IN A 192.0.2.1\"\n}",
		locality(), clusterset(three(), "prefer cluster region", "ttl 60")))
	everything.add("below.test.", east, "192.0.2.1")

	t.Run("thousands of queries from all sides", func(t *testing.T) {
		var group sync.WaitGroup
		for _, c := range []cluster{east, west, north} {
			for n := range 2 {
				group.Go(func() { asksForItsOwn(t, s, c, c.at(n), []string{name(of), name(list)}, rounds) })
			}
		}
		group.Wait()
	})
	t.Run("the log knows who answered", func(t *testing.T) {
		for _, c := range []cluster{east, west, north} {
			want := fmt.Sprintf("[INFO] %s %s %s 0\n", c.at(0), name(of), c.Name())
			if n := strings.Count(s.Log(), want); n != rounds {
				t.Errorf("%d lines %q, want %d", n, want, rounds)
			}
		}
	})
	t.Run("meanwhile the cache does its work below", func(t *testing.T) {
		expect(t, s, east.at(0), "below.test.", "east")
		expect(t, s, west.at(0), "below.test.", "east")
		within(t, limit, "a hit", shows(t, s, 1, "coredns_cache_hits_total", "type", "success"))
	})
	t.Run("and so does loadbalance", func(t *testing.T) {
		one := dial(t, s, "DNS", north.at(0))
		defer one.close()
		orders := map[string]bool{}
		for range 50 {
			r, err := one.ask(name(list), typeA)
			must(t, err)
			orders[fmt.Sprint(r.addrs)] = true
		}
		if len(orders) < 2 {
			t.Errorf("always in the order %v: it does not shuffle", orders)
		}
	})
}

// asksForItsOwn asks for names again and again, from a client that must be answered by its own cluster alone.
func asksForItsOwn(t *testing.T, s *server.Server, in cluster, from netip.Addr, names []string, rounds int) {
	t.Helper()
	one, err := connect(s, "DNS", from)
	if err != nil {
		t.Error(err)
		return
	}
	defer one.close()
	for range rounds {
		for _, name := range names {
			if err := one.gets(name, typeA, in.Name())(); err != nil {
				t.Errorf("%s in %s: %v", from, in.Name(), err)
				return
			}
		}
	}
}

// Views are chosen by where the client is: every zone has a server block of its own here.
func TestViewsByZone(t *testing.T) {
	const of = "viewed"
	for i, c := range []cluster{east, west, north} {
		c.offers(t, service{name: of, headless: true, endpoints: pods(3, fmt.Sprintf("10.%d.52.1", i+1))})
	}
	where := locality("cidr 127.1.10.0/24 zone=eu-a", "cidr 127.1.20.0/24 zone=eu-b")
	view := func(zone string) string {
		return "view " + zone + " {\nexpr metadata('locality/zone') == '" + zone + "'\n}\nmetadata"
	}
	s := run(t,
		block("DNS", view("eu-a"), where, clusterset(three(), "prefer cluster")),
		block("DNS", view("eu-b"), where, clusterset(three(), "prefer region")),
		block("DNS", where, clusterset(three())))
	clients := []struct{ what, from, want string }{
		{"a client in the first zone", "127.1.10.1", "east"},
		{"a client in the second zone", "127.1.20.1", "east+west"},
		{"a client in no zone", "127.1.30.1", "east+north+west"},
		{"another in the first zone", "127.1.10.2", "east"},
		{"a client in another cluster", "127.3.0.1", "east+north+west"},
	}
	var group sync.WaitGroup
	for _, row := range clients {
		group.Go(func() {
			for range 300 {
				r, err := once(s, "DNS", netip.MustParseAddr(row.from), name(of))
				if err != nil || r.from() != row.want {
					t.Errorf("%s is answered by %q, %v, want %q", row.what, r.from(), err, row.want)
					return
				}
			}
		})
	}
	group.Wait()
}
