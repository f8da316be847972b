package nearest

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

// Headless services: what is in a zone, what trafficDistribution asks for, and how many.
func TestHeadless(t *testing.T) {
	const plain, same, close_, dual = "pods", "pods-same-zone", "pods-close", "pods-dual"
	zones := func(first string) []endpoint {
		out := pods(8, first) // of each zone every second one
		for i := range out {
			out[i].zone = []string{"eu-a", "eu-b"}[i%2]
		}
		return out
	}
	offers := map[string]*offer{}
	for i, c := range []cluster{east, west} {
		offers[c.Name()] = c.offers(t, service{name: plain, headless: true, endpoints: zones(fmt.Sprintf("10.%d.60.1", i+1))})
		offers[c.Name()+same] = c.offers(t, service{name: same, headless: true, distribution: "PreferSameZone", endpoints: zones(fmt.Sprintf("10.%d.61.1", i+1))})
		c.offers(t, service{name: close_, headless: true, distribution: "PreferClose", endpoints: zones(fmt.Sprintf("10.%d.62.1", i+1))})
	}
	var both []endpoint
	for i := range 20 {
		both = append(both, endpoint{addresses: fmt.Sprintf("10.1.63.%d fd00:1:63::%d", i+1, i+1), hostname: fmt.Sprintf("pod-%d", i+1)})
	}
	east.offers(t, service{name: dual, headless: true, endpoints: both})

	where := locality("cidr 127.1.10.0/24 region=eu zone=eu-a", "cidr 127.1.20.0/24 region=eu zone=eu-b", "cidr 127.3.10.0/24 cluster=north region=us zone=eu-a")
	s := run(t,
		block("DNS", where, clusterset(three())),
		block("zone", where, clusterset(three(), "prefer zone")),
		block("narrow", where, clusterset(three(), "prefer zone cluster")),
		block("service", where, clusterset(three(), "prefer service")),
		block("few", where, clusterset(three(), "max_answers 5")))

	const inA, inB, inNone, inUS = "127.1.10.1", "127.1.20.1", "127.1.30.1", "127.3.10.1"
	for _, row := range []struct {
		what, port, from, service, members string
		// last is the parity of the last octet of all answers: 1 for zone eu-a, 0 for eu-b, -1 for both.
		last, count int
	}{
		{"all are answered unless the Corefile says otherwise", "DNS", inA, plain, "east+west", -1, 16},
		{"trafficDistribution is not followed unless the Corefile says so", "DNS", inA, same, "east+west", -1, 16},
		{"prefer zone: those of the zone in all clusters of the region", "zone", inA, plain, "east+west", 1, 8},
		{"prefer zone: another client has others", "zone", inB, plain, "east+west", 0, 8},
		{"prefer zone: a client in no zone has all", "zone", inNone, plain, "east+west", -1, 16},
		{"prefer zone: a zone of the same name in another region is another", "zone", inUS, plain, "east+west", -1, 16},
		{"prefer zone cluster: those of the zone in the own cluster", "narrow", inA, plain, "east", 1, 4},
		{"prefer service: PreferSameZone is followed", "service", inA, same, "east+west", 1, 8},
		{"prefer service: PreferClose is the same", "service", inB, close_, "east+west", 0, 8},
		{"prefer service: a service that says nothing has all", "service", inA, plain, "east+west", -1, 16},
		{"max_answers 5", "few", inA, plain, "", -1, 5},
		{"max_answers 5 of 20", "few", inA, dual, "east", -1, 5},
	} {
		t.Run(row.what, func(t *testing.T) {
			r, err := once(s, row.port, netip.MustParseAddr(row.from), name(row.service))
			must(t, err)
			if len(r.addrs) != row.count || row.members != "" && r.from() != row.members {
				t.Errorf("%d answers of %q, want %d of %q", len(r.addrs), r.from(), row.count, row.members)
			}
			for _, a := range r.addrs {
				if last := int(a.As4()[3]) % 2; row.last >= 0 && last != row.last {
					t.Errorf("%s is of the wrong zone", a)
				}
			}
		})
	}

	t.Run("max_answers: both families show the same pods", func(t *testing.T) {
		differ := map[string]bool{}
		for n := range 100 {
			one := dial(t, s, "few", east.at(n))
			// Between two epochs the answers may differ, so one of a few tries must agree.
			within(t, limit, "the same pods", func() error {
				v4, err := one.ask(name(dual), typeA)
				must(t, err)
				v6, err := one.ask(name(dual), typeAAAA)
				must(t, err)
				var of4, of6 []int
				for _, a := range v4.addrs {
					of4 = append(of4, int(a.As4()[3]))
				}
				for _, a := range v6.addrs {
					var pod int
					if _, err := fmt.Sscanf(a.String(), "fd00:1:63::%d", &pod); err != nil {
						return err
					}
					of6 = append(of6, pod)
				}
				slices.Sort(of4)
				slices.Sort(of6)
				differ[fmt.Sprint(of4)] = true
				if len(of4) != 5 || !slices.Equal(of4, of6) {
					return fmt.Errorf("A has pods %v, AAAA %v", of4, of6)
				}
				return nil
			})
			one.close()
		}
		if len(differ) < 50 {
			t.Errorf("100 clients are given %d different lists", len(differ))
		}
	})
	t.Run("a zone with a quarter of its pods ready gives away a part with prefer zone, and nothing with trafficDistribution", func(t *testing.T) {
		// Of the 8 pods of each zone, 4 in each cluster, 1 in each cluster is left.
		for _, c := range []string{"east", "west"} {
			offers[c].setReady(t, 2)
			offers[c+same].setReady(t, 2)
		}
		settle(t, s, east, west)
		zonal, all := 0, 0
		var clients []netip.Addr
		for n := range 250 {
			clients = append(clients, netip.AddrFrom4([4]byte{127, 1, 10, byte(n + 1)}))
		}
		for _, a := range clients {
			r, err := once(s, "zone", a, name(plain))
			must(t, err)
			all++
			if r.addrs[0].As4()[3]%2 == 1 {
				zonal++
			}
			r, err = once(s, "service", a, name(same))
			must(t, err)
			if len(r.addrs) != 2 || r.addrs[0].As4()[3]%2 != 1 || r.addrs[1].As4()[3]%2 != 1 {
				t.Errorf("%s is answered %v by trafficDistribution, want the 2 of its zone", a, r.addrs)
			}
		}
		// Both zones can take 1.4 x 2/8 = 35 %, so each takes half.
		compare(t, "prefer zone", map[string]int{"east": zonal, "west": all - zonal}, map[string]float64{"east": 0.5, "west": 0.5})
	})
}
