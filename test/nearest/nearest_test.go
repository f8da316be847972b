package nearest

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// samples is from how many addresses of a cluster shares are measured.
const samples = 2500

// Three clusters with 100 endpoints each. The wanted shares follow from Envoy's formula with its factor of 1.4: a tier
// takes 1.4 times its ready part, at most all, and the next tier the rest; if all tiers together cannot take everything,
// each takes its part of what they can. The service has sessionAffinity, so that the draw depends on the addresses alone
// and every run measures the same.
func TestEveryClientIsAnsweredFromNearby(t *testing.T) {
	const of = "near"
	offers := []*offer{
		east.offers(t, service{name: of, sticky: true, endpoints: pods(100, "10.1.0.1")}),
		west.offers(t, service{name: of, sticky: true, endpoints: pods(100, "10.2.0.1")}),
		north.offers(t, service{name: of, sticky: true, endpoints: pods(100, "10.3.0.1")}),
	}
	s := run(t, block("DNS", locality("ecs 127.0.0.53/32"), clusterset(three())))

	type shares [3]float64 // of east, west and north
	for _, row := range []struct {
		what  string
		ready [3]int
		// in are the shares of the clients in east, west and north.
		in [3]shares
	}{
		{"all is well", [3]int{100, 100, 100}, [3]shares{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}},
		{"72 of 100 count as all", [3]int{72, 100, 100}, [3]shares{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}},
		{"half of east, the region takes the rest", [3]int{50, 100, 100}, [3]shares{{0.7, 0.3, 0}, {0, 1, 0}, {0, 0, 1}}},
		{"a quarter of east, likewise", [3]int{25, 100, 100}, [3]shares{{0.35, 0.65, 0}, {0, 1, 0}, {0, 0, 1}}},
		{"nothing of east, the region takes all", [3]int{0, 100, 100}, [3]shares{{0, 1, 0}, {0, 1, 0}, {0, 0, 1}}},
		{"nothing of east and half of west, the others take the rest", [3]int{0, 50, 100}, [3]shares{{0, 0.7, 0.3}, {0, 0.7, 0.3}, {0, 0, 1}}},
		{"nothing of the region, the others take all", [3]int{0, 0, 100}, [3]shares{{0, 0, 1}, {0, 0, 1}, {0, 0, 1}}},
		{"half of north, the others by what is ready", [3]int{100, 50, 50}, [3]shares{{1, 0, 0}, {0.3, 0.7, 0}, {0.2, 0.1, 0.7}}},
		{"nothing of north, likewise", [3]int{100, 50, 0}, [3]shares{{1, 0, 0}, {0.3, 0.7, 0}, {2. / 3, 1. / 3, 0}}},
		{"a quarter of each, three tiers or two", [3]int{25, 25, 25}, [3]shares{{0.35, 0.35, 0.3}, {0.35, 0.35, 0.3}, {0.25, 0.25, 0.5}}},
		{"a tenth of each, which is not enough for all", [3]int{10, 10, 10}, [3]shares{{1. / 3, 1. / 3, 1. / 3}, {1. / 3, 1. / 3, 1. / 3}, {0.25, 0.25, 0.5}}},
		{"nothing at all, as if all was ready", [3]int{0, 0, 0}, [3]shares{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}},
		{"all is well again", [3]int{100, 100, 100}, [3]shares{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}},
	} {
		t.Run(row.what, func(t *testing.T) {
			for i, o := range offers {
				o.setReady(t, row.ready[i])
			}
			settle(t, s, east, west, north)
			for i, c := range []cluster{east, west, north} {
				counts := sample(t, s, "DNS", name(of), c.many(samples))
				t.Logf("ready %3d, clients in %-5s: %s", row.ready, c.Name(), percent(counts))
				compare(t, fmt.Sprintf("clients in %s", c.Name()), counts, map[string]float64{
					"east": row.in[i][0], "west": row.in[i][1], "north": row.in[i][2],
				})
			}
		})
	}

	t.Run("a forwarder's clients are answered as those who ask themselves", func(t *testing.T) {
		offers[0].setReady(t, 50)
		settle(t, s, east)
		forwarder := dial(t, s, "DNS", netip.MustParseAddr("127.0.0.53"))
		defer forwarder.close()
		for _, a := range east.many(200) {
			direct, err := once(s, "DNS", a, name(of))
			must(t, err)
			forwarder.subnet = a
			r, err := forwarder.ask(name(of), typeA)
			must(t, err)
			if r.from() != direct.from() {
				t.Errorf("%s is answered by %s, and through the forwarder by %s", a, direct.from(), r.from())
			}
		}
	})
}

// shownWithin is the median time from the API server's reply to a change until an answer shows it.
const shownWithin = 10 * time.Millisecond

func TestChangeShowsAtOnce(t *testing.T) {
	const of, changes = "quick", 60
	offers := map[string]*offer{}
	for i, c := range []cluster{east, west, north} {
		offers[c.Name()] = c.offers(t, service{name: of, endpoints: pods(1, fmt.Sprintf("10.%d.9.1", i+1))})
	}
	s := run(t, block("DNS", locality(), clusterset(three())))
	for _, row := range []struct {
		what        string
		in          cluster
		here, there string
	}{
		{"the local cluster", east, "east", "west"},
		{"a remote cluster", west, "west", "east"},
	} {
		t.Run(row.what, func(t *testing.T) {
			one := dial(t, s, "DNS", row.in.at(0))
			defer one.close()
			within(t, limit, "the beginning", one.gets(name(of), typeA, row.here))
			var took []time.Duration
			for i := range changes {
				want := []string{row.there, row.here}[i%2]
				offers[row.here].setReady(t, i%2)
				for begin := time.Now(); ; {
					r, err := one.ask(name(of), typeA)
					must(t, err)
					if r.from() == want {
						took = append(took, time.Since(begin))
						break
					}
					if time.Since(begin) > limit {
						t.Fatalf("change %d does not show within %s", i, limit)
					}
				}
			}
			slices.Sort(took)
			median := took[len(took)/2]
			t.Logf("%d changes: median %.2f ms, p90 %.2f ms, max %.2f ms", changes, ms(median), ms(took[len(took)*9/10]), ms(took[len(took)-1]))
			if median > shownWithin {
				t.Errorf("median %s, want %s", median, shownWithin)
			}
		})
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
