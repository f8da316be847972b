package balance

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// fiveMembers is a ClusterSetIP service of five members in two regions, with written weights and one that is partly
// ready, so that every part of the choice has work.
func fiveMembers() (*mcs.Service, *View) {
	var all []member
	for i := range 5 {
		m := plain(topology.ClusterID(fmt.Sprint("c", i)), fmt.Sprint("r", i%2), 10)
		m.weight, m.addrs = i+1, mustAddr(fmt.Sprintf("10.0.0.%d", i), fmt.Sprintf("fd00::%d", i))
		all = append(all, m)
	}
	all[0].ready = 5
	return merged(clusterSetIP, all...)
}

// largeHeadless has 5,000 backends in five clusters.
func largeHeadless() (*mcs.Service, *View) {
	var all []member
	for i := range 5 {
		id := fmt.Sprint("c", i)
		all = append(all, member{id: topology.ClusterID(id), region: fmt.Sprint("r", i%2), endpoints: pods(id, 1000, fmt.Sprint("z", i%3), "")})
	}
	return merged(headless, all...)
}

// ask is all that a query does: the draw, the plan of its class, the choice.
func ask(p *Policy, s *mcs.Service, v *View, client topology.Locality, i int, dst []netip.Addr) []netip.Addr {
	d := NewDraw(clientAt(i), s.Key(), aTime, 5*time.Second, false)
	dst, _ = p.Plan(s, v, client).Addresses(dst, d, IPv4)
	return dst
}

func askBackends(p *Policy, s *mcs.Service, v *View, client topology.Locality, i int, dst []int32) []int32 {
	d := NewDraw(clientAt(i), s.Key(), aTime, 5*time.Second, false)
	dst, _ = p.Plan(s, v, client).Backends(dst, d, IPv4, 0)
	return dst
}

var benchClient = topology.Locality{Region: "r0", Cluster: "c0", Zone: "z0"}

func BenchmarkFiveMembers(b *testing.B) {
	for name, p := range map[string]*Policy{"nearest": {}, "weights": {Prefer: ByLabels}} {
		b.Run(name, func(b *testing.B) {
			s, v := fiveMembers()
			dst := make([]netip.Addr, 0, 8)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				dst = ask(p, s, v, benchClient, i&0xffff, dst[:0])
			}
		})
	}
}

func BenchmarkCapped(b *testing.B) {
	for _, most := range []int{15, 64, 250} {
		b.Run(fmt.Sprintf("5000to%d", most), func(b *testing.B) {
			s, v := largeHeadless()
			p := &Policy{MaxAnswers: most}
			dst := make([]int32, 0, most)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				dst = askBackends(p, s, v, benchClient, i&0xffff, dst[:0])
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	hundred := func() (*mcs.Service, *View) {
		var all []member
		for i := range 100 {
			all = append(all, plain(topology.ClusterID(fmt.Sprintf("c%03d", i)), fmt.Sprint("r", i%5), 10))
		}
		return merged(clusterSetIP, all...)
	}
	for name, make := range map[string]func() (*mcs.Service, *View){"100members": hundred, "5000backends": largeHeadless} {
		b.Run(name, func(b *testing.B) {
			s, v := make()
			p := &Policy{Prefer: ByLabels, Labels: []Label{Zone, Cluster, Region}}
			b.ReportAllocs()
			for b.Loop() {
				compile(new(Plan), p, s, outlineOf(s), v, benchClient, p.Labels, overprovisioning)
			}
		})
	}
}

func TestTheChoiceAllocatesNothing(t *testing.T) {
	five, fiveView := fiveMembers()
	large, largeView := largeHeadless()
	all, ordinary, capped, zone := &Policy{Answer: All}, &Policy{}, &Policy{MaxAnswers: 64}, &Policy{Prefer: ByLabels, Labels: []Label{Zone, Region}, MaxAnswers: 64}
	addrs, backends := make([]netip.Addr, 0, 16), make([]int32, 0, 64)
	i := 0
	for _, tc := range []struct {
		name string
		ask  func()
	}{
		{"one of five members", func() { addrs = ask(ordinary, five, fiveView, benchClient, i, addrs[:0]) }},
		{"all of five members", func() { addrs = ask(all, five, fiveView, benchClient, i, addrs[:0]) }},
		{"64 of 5,000 backends", func() { backends = askBackends(capped, large, largeView, benchClient, i, backends[:0]) }},
		{"64 of 5,000 backends in a zone", func() { backends = askBackends(zone, large, largeView, benchClient, i, backends[:0]) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if n := testing.AllocsPerRun(1000, func() { tc.ask(); i++ }); n != 0 {
				t.Errorf("A choice makes %v allocations", n)
			}
		})
	}
}

// BenchmarkManyNodes asks for a service of 5,000 backends from 200 nodes in turn, as `prefer node` does.
func BenchmarkManyNodes(b *testing.B) {
	var clients []topology.Locality
	m := member{id: "c0", region: "r0"}
	for n := range 200 {
		zone, node := fmt.Sprint("z", n%3), fmt.Sprint("n", n)
		m.endpoints = append(m.endpoints, pods(node, 25, zone, node)...)
		clients = append(clients, topology.Locality{Region: "r0", Cluster: "c0", Zone: zone, Node: node})
	}
	s, v := merged(headless, m)
	p := &Policy{Prefer: ByLabels, Labels: []Label{Node, Zone, Cluster}}
	b.ReportAllocs()
	dst := make([]int32, 0, 64)
	for i := 0; b.Loop(); i++ {
		dst = askBackends(p, s, v, clients[i%len(clients)], i&0xffff, dst[:0])
	}
}
