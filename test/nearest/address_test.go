package nearest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// balancer gives the Service of an offer load balancer addresses, as a cloud would.
func (o *offer) balancer(t *testing.T, addresses ...string) {
	t.Helper()
	ingress := []corev1.LoadBalancerIngress{}
	for _, a := range addresses {
		ingress = append(ingress, corev1.LoadBalancerIngress{IP: a})
	}
	services := o.in.Core.CoreV1().Services(namespace)
	patch := []byte(`{"spec":{"type":"LoadBalancer"}}`)
	_, err := services.Patch(t.Context(), o.name, types.MergePatchType, patch, metav1.PatchOptions{})
	must(t, err)
	patch, err = json.Marshal(map[string]any{"status": map[string]any{"loadBalancer": map[string]any{"ingress": ingress}}})
	must(t, err)
	_, err = services.Patch(t.Context(), o.name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	must(t, err)
}

// Every kind of address stands beside every other. The answers hold all addresses, so that each is seen.
func TestKindsOfAddressesAreMixed(t *testing.T) {
	const of = "kinds"
	east.offers(t, service{name: of, endpoints: pods(2, "10.1.30.1")})
	inWest := west.offers(t, service{name: of, endpoints: pods(3, "10.2.30.1")})
	north.offers(t, service{name: of, endpoints: pods(2, "10.3.30.1")})
	south.offers(t, service{name: of, endpoints: pods(2, "10.4.30.1"), elsewhere: true})
	inWest.balancer(t, "198.51.100.7", "198.51.100.8")
	everything.add(name(of), west, "198.51.100.7", "198.51.100.8", "10.2.30.1", "10.2.30.2", "10.2.30.3")
	everything.add(name(of), north, "192.0.2.33", "2001:db8::33")
	everything.add(name(of), south, "10.4.30.1", "10.4.30.2", gatewayOfSouth)

	stanza := func(west_, north_, south_ string) string {
		return clusterset(member(east), member(west, "address "+west_), member(north, "address "+north_),
			member(south, "address "+south_), "prefer none", "answer all")
	}
	s := run(t,
		block("DNS", locality(), stanza("loadbalancer", "192.0.2.33 2001:db8::33", "endpoints")),
		block("second", locality(), stanza("endpoints", "clusterip", gatewayOfSouth)),
		block("third", locality(), stanza("clusterip", "loadbalancer", "clusterip")))
	for _, row := range []struct {
		what, port string
		qtype      uint16
		want       string
		addresses  int
	}{
		{"cluster IP, load balancer, gateway and endpoints", "DNS", typeA, "east+north+south+west", 1 + 1 + 2 + 2},
		{"AAAA of the same: the gateway alone has one", "DNS", typeAAAA, "north", 1},
		{"cluster IP, endpoints, cluster IP and gateway", "second", typeA, "east+north+south+west", 1 + 3 + 1 + 1},
		{"one without a load balancer, and one whose service network is ours, take no part", "third", typeA, "east+west", 2},
	} {
		t.Run(row.what, func(t *testing.T) {
			one := dial(t, s, row.port, east.at(0))
			defer one.close()
			must(t, one.gets(name(of), row.qtype, row.want)())
			r, err := one.ask(name(of), row.qtype)
			must(t, err)
			if len(r.addrs) != row.addresses {
				t.Errorf("%d addresses %v, want %d", len(r.addrs), r.addrs, row.addresses)
			}
		})
	}
	t.Run("what takes no part is counted", func(t *testing.T) {
		const unusable = "coredns_clusterset_unusable_services"
		overlaps := []string{"cluster", "south", "reason", "overlap"}
		within(t, limit, "an overlap", shows(t, s, 1, unusable, overlaps...))
		within(t, limit, "no address", shows(t, s, 1, unusable, "cluster", "north", "reason", "no_address"))
		within(t, limit, "nothing else", shows(t, s, 2, unusable))
	})
	t.Run("load balancers that come and go show", func(t *testing.T) {
		everything.add(name(of), west, "198.51.100.9")
		inWest.balancer(t, "198.51.100.9")
		one := dial(t, s, "DNS", west.at(0))
		defer one.close()
		within(t, limit, "one address less", func() error {
			r, err := one.ask(name(of), typeA)
			if err == nil && len(r.addrs) != 1+1+1+2 {
				err = fmt.Errorf("%v", r.addrs)
			}
			return err
		})
		inWest.balancer(t)
		within(t, limit, "the member is left out", one.gets(name(of), typeA, "east+north+south"))
	})
}

// Some members have IPv4 only, others both families, or IPv6 only. Nobody is told that there is nothing of a family
// while a usable member has it.
func TestAddressFamiliesAreMixed(t *testing.T) {
	const of = "families"
	both := []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
	offers := map[string]*offer{
		"east":  east.offers(t, service{name: of, endpoints: pods(2, "10.1.31.1")}),
		"west":  west.offers(t, service{name: of, families: both, endpoints: pods(2, "10.2.31.1")}),
		"north": north.offers(t, service{name: of, families: both[1:], endpoints: pods(2, "fd00:3::1")}),
	}
	eastOnly, westOnly, northOnly, eastOrWest := []string{"east"}, []string{"west"}, []string{"north"}, []string{"east", "west"}
	s := run(t, block("DNS", locality(), clusterset(three())))
	for _, row := range []struct {
		what string
		in   cluster
		// v4 and v6 are which members may answer.
		v4, v6 []string
		away   string // not ready
	}{
		{"a client in the IPv4 cluster has AAAA from its region", east, eastOnly, westOnly, ""},
		{"a client in the dual-stack cluster has both from there", west, westOnly, westOnly, ""},
		{"a client in the IPv6 cluster has A from elsewhere", north, eastOrWest, northOnly, ""},
		{"without the IPv4 cluster both are from the region", east, westOnly, westOnly, "east"},
		{"without the dual-stack cluster AAAA is from another region", east, eastOnly, northOnly, "west"},
		{"without the IPv6 cluster both are from elsewhere", north, eastOrWest, westOnly, "north"},
	} {
		t.Run(row.what, func(t *testing.T) {
			for at, o := range offers {
				if at == row.away {
					o.setReady(t, 0)
				} else {
					o.setReady(t, 2)
				}
			}
			settle(t, s, east, west, north)
			for n := range 200 {
				one := dial(t, s, "DNS", row.in.at(n))
				for qtype, want := range map[uint16][]string{typeA: row.v4, typeAAAA: row.v6} {
					r, err := one.ask(name(of), qtype)
					must(t, err)
					if len(r.addrs) != 1 || !slices.Contains(want, r.from()) {
						t.Errorf("%s is answered %v by %q, want one of %v", row.in.at(n), r.addrs, r.from(), want)
					}
				}
				one.close()
			}
		})
	}
}

// When nobody is well, everybody answers.
func TestFailOpen(t *testing.T) {
	const sized, headless = "open", "open-headless"
	var headlessOffers []*offer
	for i, c := range []cluster{east, west, north} {
		c.offers(t, service{name: sized, sticky: true, endpoints: pods(10*(i+1), fmt.Sprintf("10.%d.32.1", i+1))})
		headlessOffers = append(headlessOffers,
			c.offers(t, service{name: headless, headless: true, endpoints: pods(2, fmt.Sprintf("10.%d.33.1", i+1))}))
	}
	dead := func(c cluster) string {
		p := newPath(t)
		p.refuse()
		return c.Name() + " tcp " + p.address
	}
	s := run(t,
		block("DNS", locality(), clusterset(three()), probing{time.Second, 200 * time.Millisecond, 1}.stanza(dead(east), dead(west), dead(north))),
		block("never", locality(), clusterset(three()), probing{time.Minute, time.Minute, 10}.stanza(dead(east), dead(west), dead(north))))
	for _, c := range []cluster{east, west, north} {
		within(t, limit, c.Name()+" is down", shows(t, s, 1, "coredns_clusterhealth_transitions_total", "cluster", c.Name(), "state", "unhealthy"))
	}

	// One tier for each distance, by the number of endpoints: 10, 20 and 30.
	t.Run("all are down", func(t *testing.T) {
		counts := sample(t, s, "DNS", name(sized), east.many(samples))
		t.Log(percent(counts))
		compare(t, "clients in east", counts, map[string]float64{"east": 1. / 6, "west": 2. / 6, "north": 3. / 6})
		expect(t, s, east.at(0), name(headless), "east+north+west")
	})
	t.Run("nobody is known to be well or not", func(t *testing.T) {
		counts := sample(t, s, "never", name(sized), east.many(samples))
		t.Log(percent(counts))
		compare(t, "clients in east", counts, map[string]float64{"east": 1. / 6, "west": 2. / 6, "north": 3. / 6})
	})
	t.Run("none is ready either: a headless name is gone", func(t *testing.T) {
		for _, o := range headlessOffers {
			o.setReady(t, 0)
		}
		settle(t, s, east, west, north)
		one := dial(t, s, "DNS", east.at(0))
		defer one.close()
		r, err := one.ask(name(headless), typeA)
		must(t, err)
		if r.rcode != 3 {
			t.Errorf("rcode %d, want NXDOMAIN", r.rcode)
		}
	})
}

// annotate sets the annotation of a ServiceExport by which a namespace's owner lowers the weight; "" removes it.
func (o *offer) annotate(t *testing.T, percent string) {
	t.Helper()
	value := any(percent)
	if percent == "" {
		value = nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{"clusterset-dns.io/weight-percent": value}}})
	must(t, err)
	exports := o.in.MCS.MulticlusterV1beta1().ServiceExports(namespace)
	_, err = exports.Patch(context.WithoutCancel(t.Context()), o.name, types.MergePatchType, patch, metav1.PatchOptions{})
	must(t, err)
}
