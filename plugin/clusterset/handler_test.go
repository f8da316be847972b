package clusterset

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/metadata"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/pkg/fall"
	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/balance"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// Worlds are built as the server does it: a world is told what the sinks of the watchers are told, and publishes.

var http80 = mcs.Port{Name: "http", Number: 80}

func membersOf(ids ...topology.ClusterID) []mcs.Member {
	var out []mcs.Member
	for _, id := range ids {
		out = append(out, mcs.Member{ID: id})
	}
	return out
}

func newTestWorld(scope mcs.Scope, tell func(*world)) *world {
	w := newWorld(scope)
	tell(w)
	w.publish()
	return w
}

func (w *world) shard(id topology.ClusterID, namespace, name string, s *mcs.Shard) {
	w.ApplyShard(id, mcs.ServiceKey{Namespace: namespace, Name: name}, s, time.Time{})
}

// allSynced lets every source have told all it knows.
func (w *world) allSynced() {
	for _, m := range w.scope.Members {
		w.SetSynced(mcs.Source{Cluster: m.ID})
	}
	w.SetSynced(mcs.Source{Kind: mcs.Namespaces, Cluster: w.scope.Local})
	w.SetSynced(mcs.Source{Kind: mcs.Imports})
}

func host(addr, label string) mcs.Endpoint {
	return mcs.Endpoint{Addr: netip.MustParseAddr(addr), Label: label, Conditions: mcs.Ready | mcs.Serving}
}

func unreadyHost(addr, label string) mcs.Endpoint {
	return mcs.Endpoint{Addr: netip.MustParseAddr(addr), Label: label}
}

func sliceOf(ports []mcs.Port, endpoints ...mcs.Endpoint) *mcs.Slice {
	return &mcs.Slice{Name: "s", Ports: ports, Endpoints: mcs.Pack(endpoints...)}
}

func headlessShard(all ...*mcs.Slice) *mcs.Shard {
	return &mcs.Shard{Service: &mcs.ServiceSpec{Traits: mcs.Traits{Type: mcs.Headless}, Ports: []mcs.Port{http80}}, Slices: all}
}

// clusterIPShard has a ready endpoint.
func clusterIPShard(ips ...string) *mcs.Shard {
	s := &mcs.Shard{Service: &mcs.ServiceSpec{Ports: []mcs.Port{http80, {Name: "dns", Protocol: mcs.UDP, Number: 53}, {Number: 9, Protocol: mcs.SCTP}}},
		Slices: []*mcs.Slice{sliceOf([]mcs.Port{http80}, host("10.8.9.9", "x"))}}
	for i, ip := range ips {
		s.Service.ClusterIPs[i] = netip.MustParseAddr(ip)
	}
	return s
}

// shopWorld is the world of most tests: the clusters east, which is local, and west.eu.
func shopWorld(w *world) {
	for _, n := range []string{"shop", "data", "empty"} {
		w.ApplyNamespace(n, true)
	}
	w.shard("east", "shop", "web", clusterIPShard("10.0.0.1", "fd00::1"))
	w.shard("west.eu", "shop", "web", clusterIPShard("10.1.0.1"))
	w.shard("west.eu", "shop", "v6", clusterIPShard("fd00::2"))
	idle := clusterIPShard("10.0.0.2")
	idle.Slices = nil
	w.shard("east", "shop", "idle", idle)
	ports := []mcs.Port{http80, {Name: "peer", Number: 7000}, {Number: 9}}
	w.shard("east", "data", "db", headlessShard(sliceOf(ports, host("10.8.0.1", "db-0"), host("fd00:8::1", "db-0"), host("10.8.0.2", "db-1"), unreadyHost("10.8.0.3", "db-2"))))
	w.shard("west.eu", "data", "db", headlessShard(sliceOf([]mcs.Port{{Name: "http", Number: 8080}}, host("10.9.0.1", "db-0"))))
	w.shard("east", "data", "down", headlessShard(sliceOf(ports, unreadyHost("10.8.0.4", "x"))))
	w.shard("east", "data", "bare", headlessShard(sliceOf(nil, host("10.8.0.5", "x"))))
	w.shard("west.eu", "elsewhere", "web", clusterIPShard("10.1.0.9")) // the local cluster lacks the namespace
	w.shard("east", "shop", "orphan", &mcs.Shard{})                    // no Service
	key := mcs.ServiceKey{Namespace: "shop", Name: "imported"}
	imp := &mcs.ImportShard{Import: mcs.Import{Ports: []mcs.Port{http80}}}
	imp.Import.IPs[0] = netip.MustParseAddr("172.30.0.1")
	w.ApplyImport(key, imp, time.Time{})
	absent := &mcs.ImportShard{Import: mcs.Import{Traits: mcs.Traits{Type: mcs.Headless}, NoSlices: true}}
	w.ApplyImport(mcs.ServiceKey{Namespace: "shop", Name: "absent"}, absent, time.Time{})
}

var shopScope = mcs.Scope{Members: membersOf("east", "west.eu"), Local: "east", Imports: true}

func shop(synced bool) *world {
	return newTestWorld(shopScope, func(w *world) {
		shopWorld(w)
		if synced {
			w.allSynced()
		}
	})
}

func handlerOf(w *world, change ...func(*Clusterset)) *Clusterset {
	c := &Clusterset{config: config{zones: plugin.Zones{defaultZone}, ttl: defaultTTL, local: w.scope.Local, policy: &balance.Policy{}}, world: w,
		listen: []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("2001:db8::53")}, Next: test.NextHandler(dns.RcodeRefused, nil)}
	for _, f := range change {
		f(c)
	}
	return c
}

// ask sends a query through the handler as the server does, which makes the answer fit.
func ask(ctx context.Context, c *Clusterset, r *dns.Msg, tcp bool) (*dns.Msg, int) {
	w := dnstest.NewRecorder(&test.ResponseWriter{TCP: tcp})
	rcode, err := c.ServeDNS(ctx, request.NewScrubWriter(r, w), r)
	if err != nil {
		panic(err)
	}
	return w.Msg, rcode
}

const soa = "clusterset.local. 5 IN SOA ns.dns.clusterset.local. hostmaster.clusterset.local. 1 7200 1800 86400 5"

// row is a query and what is answered: records in zone file form, without the TTL of 5 and the class.
type row struct {
	name   string
	qname  string
	qtype  uint16
	rcode  int
	answer []string
	extra  []string
}

func rr(text string) dns.RR {
	fields := strings.SplitN(text, " ", 3)
	ttl := "5"
	if fields[1] == "TXT" {
		ttl = "28800"
	}
	r, err := dns.NewRR(fmt.Sprintf("%s %s IN %s %s", fields[0], ttl, fields[1], fields[2]))
	if err != nil {
		panic(err)
	}
	return r
}

func check(t *testing.T, c *Clusterset, rows []row) {
	t.Helper()
	for _, row := range rows {
		t.Run(cmp.Or(row.name, row.qname)+" "+dns.TypeToString[row.qtype], func(t *testing.T) {
			tc := test.Case{Qname: row.qname, Qtype: row.qtype, Rcode: row.rcode}
			for _, text := range row.answer {
				tc.Answer = append(tc.Answer, rr(text))
			}
			for _, text := range row.extra {
				tc.Extra = append(tc.Extra, rr(text))
			}
			if len(row.answer) == 0 {
				tc.Ns = []dns.RR{test.SOA(soa)}
			}
			slices.SortFunc(tc.Answer, func(a, b dns.RR) int { return strings.Compare(a.String(), b.String()) })
			slices.SortFunc(tc.Extra, func(a, b dns.RR) int { return strings.Compare(a.String(), b.String()) })
			ask(t.Context(), c, tc.Msg(), false) // the answer to the second query is from records of the first
			reply, rcode := ask(t.Context(), c, tc.Msg(), false)
			if reply == nil {
				t.Fatalf("Nothing was written, the code is %d", rcode)
			}
			if rcode != dns.RcodeSuccess {
				t.Errorf("A message was written, and yet the code is %d: the server would write another", rcode)
			}
			if !reply.Authoritative || reply.Truncated || reply.Id == 0 && reply.Question == nil {
				t.Errorf("The header is %+v", reply.MsgHdr)
			}
			if err := test.SortAndCheck(reply, tc); err != nil {
				t.Errorf("%v; got\n%s", err, reply)
			}
			if err := dns.IsMsg(mustPack(t, reply)); err != nil {
				t.Error(err)
			}
		})
	}
}

func mustPack(t *testing.T, m *dns.Msg) []byte {
	t.Helper()
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

const (
	nx   = dns.RcodeNameError
	fail = dns.RcodeServerFailure
)

func TestAnswers(t *testing.T) {
	check(t, handlerOf(shop(true)), []row{
		// Furniture.
		{"", "clusterset.local.", dns.TypeSOA, 0, []string{"clusterset.local. SOA ns.dns.clusterset.local. hostmaster.clusterset.local. 1 7200 1800 86400 5"}, nil},
		{"", "clusterset.local.", dns.TypeNS, 0, []string{"clusterset.local. NS ns.dns.clusterset.local."}, []string{"ns.dns.clusterset.local. A 192.0.2.53", "ns.dns.clusterset.local. AAAA 2001:db8::53"}},
		{"", "clusterset.local.", dns.TypeA, 0, nil, nil},
		{"", "clusterset.local.", dns.TypeTXT, 0, nil, nil},
		{"", "ns.dns.clusterset.local.", dns.TypeA, 0, []string{"ns.dns.clusterset.local. A 192.0.2.53"}, nil},
		{"", "ns.dns.clusterset.local.", dns.TypeAAAA, 0, []string{"ns.dns.clusterset.local. AAAA 2001:db8::53"}, nil},
		{"", "ns.dns.clusterset.local.", dns.TypeSRV, 0, nil, nil},
		{"", "dns.clusterset.local.", dns.TypeA, 0, nil, nil},
		{"", "dns-version.clusterset.local.", dns.TypeTXT, 0, []string{`dns-version.clusterset.local. TXT "1.0.0"`}, nil},
		{"", "dns-version.clusterset.local.", dns.TypeA, 0, nil, nil},
		{"", "svc.clusterset.local.", dns.TypeA, 0, nil, nil},
		{"", "pod.clusterset.local.", dns.TypeA, 0, nil, nil},
		{"", "1-2-3-4.shop.pod.clusterset.local.", dns.TypeA, nx, nil, nil},
		{"", "nonsense.clusterset.local.", dns.TypeA, nx, nil, nil},
		{"a namespace", "shop.svc.clusterset.local.", dns.TypeA, 0, nil, nil},
		{"a namespace in which nothing is exported", "empty.svc.clusterset.local.", dns.TypeTXT, 0, nil, nil},
		{"a namespace that only another cluster has", "elsewhere.svc.clusterset.local.", dns.TypeA, nx, nil, nil},
		{"a namespace that nobody has", "none.svc.clusterset.local.", dns.TypeA, nx, nil, nil},

		// ClusterSetIP.
		{"one member's address", "web.shop.svc.clusterset.local.", dns.TypeA, 0, []string{"web.shop.svc.clusterset.local. A 10.0.0.1"}, nil},
		{"", "web.shop.svc.clusterset.local.", dns.TypeAAAA, 0, []string{"web.shop.svc.clusterset.local. AAAA fd00::1"}, nil},
		{"", "web.shop.svc.clusterset.local.", dns.TypeTXT, 0, nil, nil},
		{"", "web.shop.svc.clusterset.local.", dns.TypeANY, 0, nil, nil},
		{"", "web.shop.svc.clusterset.local.", dns.TypeHTTPS, 0, nil, nil},
		{"another family", "v6.shop.svc.clusterset.local.", dns.TypeA, 0, nil, nil},
		{"SRV at the service has every named port once", "web.shop.svc.clusterset.local.", dns.TypeSRV, 0, []string{
			"web.shop.svc.clusterset.local. SRV 0 50 80 web.shop.svc.clusterset.local.", "web.shop.svc.clusterset.local. SRV 0 50 53 web.shop.svc.clusterset.local.",
		}, []string{"web.shop.svc.clusterset.local. A 10.0.0.1", "web.shop.svc.clusterset.local. AAAA fd00::1"}},
		{"", "_http._tcp.web.shop.svc.clusterset.local.", dns.TypeSRV, 0, []string{"_http._tcp.web.shop.svc.clusterset.local. SRV 0 100 80 web.shop.svc.clusterset.local."},
			[]string{"web.shop.svc.clusterset.local. A 10.0.0.1", "web.shop.svc.clusterset.local. AAAA fd00::1"}},
		{"", "_http._tcp.web.shop.svc.clusterset.local.", dns.TypeA, 0, nil, nil},
		{"", "_tcp.web.shop.svc.clusterset.local.", dns.TypeSRV, 0, nil, nil},
		{"", "_http._udp.web.shop.svc.clusterset.local.", dns.TypeSRV, nx, nil, nil},
		{"no names of single clusters", "east.web.shop.svc.clusterset.local.", dns.TypeA, nx, nil, nil},
		{"no names of endpoints", "x.east.web.shop.svc.clusterset.local.", dns.TypeA, nx, nil, nil},
		{"without ready backends it is there", "idle.shop.svc.clusterset.local.", dns.TypeA, 0, []string{"idle.shop.svc.clusterset.local. A 10.0.0.2"}, nil},
		{"an export without a Service", "orphan.shop.svc.clusterset.local.", dns.TypeA, nx, nil, nil},
		{"a service in a namespace that the local cluster lacks", "web.elsewhere.svc.clusterset.local.", dns.TypeA, nx, nil, nil},
		{"no wildcards", "*.shop.svc.clusterset.local.", dns.TypeA, nx, nil, nil},
		{"an imported one", "imported.shop.svc.clusterset.local.", dns.TypeA, 0, []string{"imported.shop.svc.clusterset.local. A 172.30.0.1"}, nil},
		{"an imported one, another family", "imported.shop.svc.clusterset.local.", dns.TypeAAAA, 0, nil, nil},

		// Headless.
		{"all ready endpoints", "db.data.svc.clusterset.local.", dns.TypeA, 0, []string{"db.data.svc.clusterset.local. A 10.8.0.1", "db.data.svc.clusterset.local. A 10.8.0.2", "db.data.svc.clusterset.local. A 10.9.0.1"}, nil},
		{"", "db.data.svc.clusterset.local.", dns.TypeAAAA, 0, []string{"db.data.svc.clusterset.local. AAAA fd00:8::1"}, nil},
		{"a host", "db-0.east.db.data.svc.clusterset.local.", dns.TypeA, 0, []string{"db-0.east.db.data.svc.clusterset.local. A 10.8.0.1"}, nil},
		{"a host in a cluster of two labels", "db-0.west.eu.db.data.svc.clusterset.local.", dns.TypeA, 0, []string{"db-0.west.eu.db.data.svc.clusterset.local. A 10.9.0.1"}, nil},
		{"a host, another family", "db-1.east.db.data.svc.clusterset.local.", dns.TypeAAAA, 0, nil, nil},
		{"SRV at a host", "db-1.east.db.data.svc.clusterset.local.", dns.TypeSRV, 0, nil, nil},
		{"a host that is not ready", "db-2.east.db.data.svc.clusterset.local.", dns.TypeA, nx, nil, nil},
		{"a cluster id is an empty name", "west.eu.db.data.svc.clusterset.local.", dns.TypeA, 0, nil, nil},
		{"and so is its second label", "eu.db.data.svc.clusterset.local.", dns.TypeA, 0, nil, nil},
		{"a cluster that does not export it", "north.db.data.svc.clusterset.local.", dns.TypeA, nx, nil, nil},
		{"SRV has the port of the endpoint's slice and glue of both families", "_http._tcp.db.data.svc.clusterset.local.", dns.TypeSRV, 0, []string{
			"_http._tcp.db.data.svc.clusterset.local. SRV 0 33 80 db-0.east.db.data.svc.clusterset.local.",
			"_http._tcp.db.data.svc.clusterset.local. SRV 0 33 80 db-1.east.db.data.svc.clusterset.local.",
			"_http._tcp.db.data.svc.clusterset.local. SRV 0 33 8080 db-0.west.eu.db.data.svc.clusterset.local.",
		}, []string{"db-0.east.db.data.svc.clusterset.local. A 10.8.0.1", "db-0.east.db.data.svc.clusterset.local. AAAA fd00:8::1",
			"db-1.east.db.data.svc.clusterset.local. A 10.8.0.2", "db-0.west.eu.db.data.svc.clusterset.local. A 10.9.0.1"}},
		{"SRV of a port that one cluster has", "_peer._tcp.db.data.svc.clusterset.local.", dns.TypeSRV, 0, []string{
			"_peer._tcp.db.data.svc.clusterset.local. SRV 0 50 7000 db-0.east.db.data.svc.clusterset.local.",
			"_peer._tcp.db.data.svc.clusterset.local. SRV 0 50 7000 db-1.east.db.data.svc.clusterset.local.",
		}, []string{"db-0.east.db.data.svc.clusterset.local. A 10.8.0.1", "db-0.east.db.data.svc.clusterset.local. AAAA fd00:8::1", "db-1.east.db.data.svc.clusterset.local. A 10.8.0.2"}},
		{"SRV at the service", "db.data.svc.clusterset.local.", dns.TypeSRV, 0, []string{
			"db.data.svc.clusterset.local. SRV 0 20 80 db-0.east.db.data.svc.clusterset.local.", "db.data.svc.clusterset.local. SRV 0 20 7000 db-0.east.db.data.svc.clusterset.local.",
			"db.data.svc.clusterset.local. SRV 0 20 80 db-1.east.db.data.svc.clusterset.local.", "db.data.svc.clusterset.local. SRV 0 20 7000 db-1.east.db.data.svc.clusterset.local.",
			"db.data.svc.clusterset.local. SRV 0 20 8080 db-0.west.eu.db.data.svc.clusterset.local.",
		}, []string{"db-0.east.db.data.svc.clusterset.local. A 10.8.0.1", "db-0.east.db.data.svc.clusterset.local. AAAA fd00:8::1",
			"db-1.east.db.data.svc.clusterset.local. A 10.8.0.2", "db-0.west.eu.db.data.svc.clusterset.local. A 10.9.0.1"}},
		{"no ports: addresses, but no SRV", "bare.data.svc.clusterset.local.", dns.TypeSRV, 0, nil, nil},
		{"no ready endpoint anywhere", "down.data.svc.clusterset.local.", dns.TypeA, nx, nil, nil},
		{"endpoints that nobody knows cannot be denied", "absent.shop.svc.clusterset.local.", dns.TypeA, fail, nil, nil},
	})
}

func TestAnswersWhileUnsynced(t *testing.T) {
	known := handlerOf(newTestWorld(shopScope, func(w *world) {
		shopWorld(w)
		w.SetSynced(mcs.Source{Cluster: "east"})
		w.SetSynced(mcs.Source{Kind: mcs.Namespaces, Cluster: "east"})
		w.SetSynced(mcs.Source{Kind: mcs.Imports}) // west.eu has not told everything yet
	}))
	check(t, known, []row{
		{"a name that is known is answered", "web.shop.svc.clusterset.local.", dns.TypeA, 0, []string{"web.shop.svc.clusterset.local. A 10.0.0.1"}, nil},
		{"and its other types", "web.shop.svc.clusterset.local.", dns.TypeTXT, 0, nil, nil},
		{"a namespace that is known", "shop.svc.clusterset.local.", dns.TypeA, 0, nil, nil},
		{"a service that is not known", "none.shop.svc.clusterset.local.", dns.TypeA, fail, nil, nil},
		{"a port that is not known", "_none._tcp.web.shop.svc.clusterset.local.", dns.TypeSRV, fail, nil, nil},
		{"a host that is not known", "db-9.west.eu.db.data.svc.clusterset.local.", dns.TypeA, fail, nil, nil},
		{"a headless service without ready endpoints so far", "down.data.svc.clusterset.local.", dns.TypeA, fail, nil, nil},
		{"certain: the local cluster lacks the namespace", "web.none.svc.clusterset.local.", dns.TypeA, nx, nil, nil},
		{"certain: the namespace itself", "none.svc.clusterset.local.", dns.TypeA, nx, nil, nil},
		{"certain: a form that nothing can have", "nonsense.clusterset.local.", dns.TypeA, nx, nil, nil},
		{"certain: a form that nothing can have", "x.dns-version.clusterset.local.", dns.TypeA, nx, nil, nil},
		{"furniture", "ns.dns.clusterset.local.", dns.TypeA, 0, []string{"ns.dns.clusterset.local. A 192.0.2.53"}, nil},
	})
	check(t, handlerOf(shop(false)), []row{
		{"nobody has synced: a name that is known is answered", "web.shop.svc.clusterset.local.", dns.TypeA, 0, []string{"web.shop.svc.clusterset.local. A 10.0.0.1"}, nil},
		{"nobody has synced: even in a namespace that may not exist here", "web.elsewhere.svc.clusterset.local.", dns.TypeA, 0, []string{"web.elsewhere.svc.clusterset.local. A 10.1.0.9"}, nil},
		{"nobody has synced: no namespace is denied", "none.svc.clusterset.local.", dns.TypeA, fail, nil, nil},
		{"nobody has synced: no service is denied", "web.none.svc.clusterset.local.", dns.TypeA, fail, nil, nil},
		{"nobody has synced: a form that nothing can have", "nonsense.clusterset.local.", dns.TypeA, nx, nil, nil},
	})
}

func TestPolicies(t *testing.T) {
	all := func(c *Clusterset) { c.policy = &balance.Policy{Answer: balance.All, Prefer: balance.ByLabels} }
	check(t, handlerOf(shop(true), all), []row{
		{"answer all", "web.shop.svc.clusterset.local.", dns.TypeA, 0, []string{"web.shop.svc.clusterset.local. A 10.0.0.1", "web.shop.svc.clusterset.local. A 10.1.0.1"}, nil},
		{"answer all, imported", "imported.shop.svc.clusterset.local.", dns.TypeA, 0, []string{"imported.shop.svc.clusterset.local. A 172.30.0.1"}, nil},
	})
	check(t, handlerOf(shop(true), func(c *Clusterset) { c.ignoreEmpty = true }), []row{
		{"ignore empty_service: without backends", "idle.shop.svc.clusterset.local.", dns.TypeA, nx, nil, nil},
		{"ignore empty_service: its ports", "_http._tcp.idle.shop.svc.clusterset.local.", dns.TypeSRV, nx, nil, nil},
		{"ignore empty_service: with backends", "web.shop.svc.clusterset.local.", dns.TypeA, 0, []string{"web.shop.svc.clusterset.local. A 10.0.0.1"}, nil},
		{"ignore empty_service: what an import does not tell counts", "imported.shop.svc.clusterset.local.", dns.TypeA, 0, []string{"imported.shop.svc.clusterset.local. A 172.30.0.1"}, nil},
	})
	w := shop(true)
	w.front = &front{}
	check(t, handlerOf(w), []row{{"no Service in front: what it listens on", "ns.dns.clusterset.local.", dns.TypeA, 0, []string{"ns.dns.clusterset.local. A 192.0.2.53"}, nil}})
	w.front.addrs.Store(&[]netip.Addr{netip.MustParseAddr("10.96.0.10")})
	check(t, handlerOf(w), []row{
		{"a Service in front", "ns.dns.clusterset.local.", dns.TypeA, 0, []string{"ns.dns.clusterset.local. A 10.96.0.10"}, nil},
		{"a Service in front, as glue", "clusterset.local.", dns.TypeNS, 0, []string{"clusterset.local. NS ns.dns.clusterset.local."}, []string{"ns.dns.clusterset.local. A 10.96.0.10"}},
	})
}

func TestOtherZonesAndFallthrough(t *testing.T) {
	nowhere := fall.F{}
	everywhere, below := fall.Root, fall.F{}
	below.SetZonesFromArgs([]string{"shop.svc.clusterset.local"})
	for _, tc := range []struct {
		name   string
		fall   fall.F
		synced bool
		qname  string
		next   bool
		rcode  int // if not next
	}{
		{"another zone goes on", nowhere, true, "example.org.", true, 0},
		{"the single-cluster zone goes on", nowhere, true, "web.shop.svc.cluster.local.", true, 0},
		{"a reverse zone goes on", nowhere, true, "1.0.0.10.in-addr.arpa.", true, 0},
		{"a zone that ends alike goes on", nowhere, true, "xclusterset.local.", true, 0},
		{"a dot within a label is no border", nowhere, true, `web\.clusterset.local.`, true, 0},
		{"an unknown name stays", nowhere, true, "none.shop.svc.clusterset.local.", false, nx},
		{"an unknown name falls through", everywhere, true, "none.shop.svc.clusterset.local.", true, 0},
		{"a form that nothing can have falls through", everywhere, true, "nonsense.clusterset.local.", true, 0},
		{"while unsynced it falls through rather than fails", everywhere, false, "none.shop.svc.clusterset.local.", true, 0},
		{"a known name does not fall through", everywhere, true, "web.shop.svc.clusterset.local.", false, 0},
		{"NODATA does not fall through", everywhere, true, "svc.clusterset.local.", false, 0},
		{"within the zone of the fallthrough", below, true, "none.shop.svc.clusterset.local.", true, 0},
		{"outside of the zone of the fallthrough", below, true, "none.data.svc.clusterset.local.", false, nx},
	} {
		t.Run(tc.name, func(t *testing.T) {
			next := false
			c := handlerOf(shop(tc.synced), func(c *Clusterset) {
				c.fall = tc.fall
				c.Next = plugin.HandlerFunc(func(context.Context, dns.ResponseWriter, *dns.Msg) (int, error) {
					next = true
					return dns.RcodeRefused, nil
				})
			})
			reply, rcode := ask(t.Context(), c, new(dns.Msg).SetQuestion(tc.qname, dns.TypeA), false)
			if next != tc.next {
				t.Fatalf("The next plugin was asked: %v", next)
			}
			if next && (reply != nil || rcode != dns.RcodeRefused) || !next && (reply == nil || reply.Rcode != tc.rcode) {
				t.Errorf("Code %d, reply\n%s", rcode, reply)
			}
		})
	}
}

func TestTransfersAreRefused(t *testing.T) {
	for _, qtype := range []uint16{dns.TypeAXFR, dns.TypeIXFR} {
		reply, rcode := ask(t.Context(), handlerOf(shop(true)), new(dns.Msg).SetQuestion(defaultZone, qtype), true)
		if reply != nil || rcode != dns.RcodeRefused {
			t.Errorf("%s: code %d, reply %v", dns.TypeToString[qtype], rcode, reply)
		}
	}
}

func TestCaseIsKept(t *testing.T) {
	c := handlerOf(shop(true))
	for _, tc := range []struct {
		qname  string
		qtype  uint16
		answer string
		extra  string
	}{
		{"WEB.Shop.svc.ClusterSet.Local.", dns.TypeA, "WEB.Shop.svc.ClusterSet.Local.\t5\tIN\tA\t10.0.0.1", ""},
		{"_HTTP._tcp.Imported.shop.SVC.ClusterSet.Local.", dns.TypeSRV, "_HTTP._tcp.Imported.shop.SVC.ClusterSet.Local.\t5\tIN\tSRV\t0 100 80 imported.shop.svc.ClusterSet.Local.", "imported.shop.svc.ClusterSet.Local.\t5\tIN\tA\t172.30.0.1"},
		{"DB-1.EAST.db.data.svc.clusterset.LOCAL.", dns.TypeA, "DB-1.EAST.db.data.svc.clusterset.LOCAL.\t5\tIN\tA\t10.8.0.2", ""},
		{"DNS-Version.ClusterSet.Local.", dns.TypeTXT, "DNS-Version.ClusterSet.Local.\t28800\tIN\tTXT\t\"1.0.0\"", ""},
	} {
		t.Run(tc.qname, func(t *testing.T) {
			reply, _ := ask(t.Context(), c, new(dns.Msg).SetQuestion(tc.qname, tc.qtype), false)
			if len(reply.Answer) != 1 || reply.Answer[0].String() != tc.answer || reply.Question[0].Name != tc.qname {
				t.Errorf("Got\n%s", reply)
			}
			if tc.extra != "" && (len(reply.Extra) != 1 || reply.Extra[0].String() != tc.extra) {
				t.Errorf("Got\n%s", reply)
			}
		})
	}
	reply, _ := ask(t.Context(), c, new(dns.Msg).SetQuestion("None.ClusterSet.LOCAL.", dns.TypeA), false)
	if got := reply.Ns[0].(*dns.SOA); got.Hdr.Name != "ClusterSet.LOCAL." || got.Ns != "ns.dns.ClusterSet.LOCAL." {
		t.Errorf("The SOA is %s", got)
	}
}

func TestTTL(t *testing.T) {
	for _, ttl := range []uint32{0, 5, 300, 3600} {
		c := handlerOf(shop(true), func(c *Clusterset) { c.ttl = ttl })
		reply, _ := ask(t.Context(), c, new(dns.Msg).SetQuestion("web.shop.svc.clusterset.local.", dns.TypeA), false)
		if got := reply.Answer[0].Header().Ttl; got != ttl {
			t.Errorf("ttl %d: the record has %d", ttl, got)
		}
		reply, _ = ask(t.Context(), c, new(dns.Msg).SetQuestion("none.clusterset.local.", dns.TypeA), false)
		if got := reply.Ns[0].(*dns.SOA); got.Hdr.Ttl != min(ttl, 300) || got.Minttl != ttl {
			t.Errorf("ttl %d: the SOA is %s", ttl, got)
		}
	}
}

// bigWorld has a headless service with n endpoints of both families.
// TestTheSOAIsThatOfTheZoneAndTheSnapshot asks one handler about several zones, cases and snapshots: answers share records.
func TestTheSOAIsThatOfTheZoneAndTheSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // serials are times
		w := shop(true)
		c := handlerOf(w, func(c *Clusterset) { c.zones = plugin.Zones{defaultZone, "example.org."} })
		zones := []string{defaultZone, "ClusterSet.local.", "example.org.", "example.ORG.", defaultZone}
		for round := range 2 {
			for _, zone := range slices.Concat(zones, zones) {
				reply, _ := ask(t.Context(), c, new(dns.Msg).SetQuestion("nobody.shop.svc."+zone, dns.TypeA), false)
				want := soaRecord(zone, w.snapshot.Load().Serial(), c.ttl).String()
				if len(reply.Ns) != 1 || reply.Ns[0].String() != want {
					t.Errorf("%s: %v, want %s", zone, reply.Ns, want)
				}
				if shared := c.lastSOA.Load(); slices.Contains(c.zones, zone) && reply.Ns[0] != dns.RR(shared) {
					t.Errorf("%s: the SOA is none that the next answer can have", zone)
				}
			}
			before := w.snapshot.Load().Serial()
			time.Sleep(time.Second)
			w.shard("east", "shop", "more", clusterIPShard(fmt.Sprint("10.0.0.", round)))
			w.publish()
			if w.snapshot.Load().Serial() == before {
				t.Fatal("The new snapshot has the old serial")
			}
		}
	})
}

func bigWorld(n int) *world {
	return newTestWorld(shopScope, func(w *world) {
		w.ApplyNamespace("data", true)
		s := sliceOf([]mcs.Port{http80})
		for i := range n {
			four, six := host(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), fmt.Sprintf("db-%d", i)), host(fmt.Sprintf("fd00::%x", i+1), fmt.Sprintf("db-%d", i))
			s.Endpoints.Add(&four)
			s.Endpoints.Add(&six)
		}
		w.shard("east", "data", "db", headlessShard(s))
		w.allSynced()
	})
}

func TestSizes(t *testing.T) {
	many, few := handlerOf(bigWorld(5000)), handlerOf(bigWorld(3))
	for _, tc := range []struct {
		name    string
		c       *Clusterset
		qname   string
		qtype   uint16
		edns    int // 0: none
		tcp     bool
		limit   int // octets
		tc      bool
		atLeast int // records in the answer
	}{
		{"A over UDP", many, "db.data.svc.clusterset.local.", dns.TypeA, 0, false, 512, true, 25},
		{"AAAA over UDP", many, "db.data.svc.clusterset.local.", dns.TypeAAAA, 0, false, 512, true, 15},
		{"A over UDP, EDNS 1232", many, "db.data.svc.clusterset.local.", dns.TypeA, 1232, false, 1232, true, 70},
		{"A over UDP, EDNS 4096", many, "db.data.svc.clusterset.local.", dns.TypeA, 4096, false, 4096, true, 250},
		{"A over UDP, EDNS below 512 counts as 512", many, "db.data.svc.clusterset.local.", dns.TypeA, 100, false, 512, true, 25},
		{"A over TCP: what a message holds, and no TC", many, "db.data.svc.clusterset.local.", dns.TypeA, 0, true, 65535, false, 4090},
		{"AAAA over TCP", many, "db.data.svc.clusterset.local.", dns.TypeAAAA, 0, true, 65535, false, 2335},
		{"A over TCP with EDNS: its size says nothing there", many, "db.data.svc.clusterset.local.", dns.TypeA, 1232, true, 65535, false, 4090},
		{"SRV over UDP", many, "_http._tcp.db.data.svc.clusterset.local.", dns.TypeSRV, 0, false, 512, true, 5},
		{"SRV over UDP, EDNS 1232", many, "_http._tcp.db.data.svc.clusterset.local.", dns.TypeSRV, 1232, false, 1232, true, 15},
		{"SRV over TCP: what a message holds, and no TC", many, "_http._tcp.db.data.svc.clusterset.local.", dns.TypeSRV, 0, true, 65535, false, 1000},
		{"SRV at the service over TCP", many, "db.data.svc.clusterset.local.", dns.TypeSRV, 0, true, 65535, false, 1000},
		{"few over UDP", few, "db.data.svc.clusterset.local.", dns.TypeA, 0, false, 512, false, 3},
		{"few SRV over UDP", few, "_http._tcp.db.data.svc.clusterset.local.", dns.TypeSRV, 0, false, 512, false, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := new(dns.Msg).SetQuestion(tc.qname, tc.qtype)
			if tc.edns > 0 {
				r.SetEdns0(uint16(tc.edns), false)
			}
			reply, _ := ask(t.Context(), tc.c, r, tc.tcp)
			if reply.Truncated != tc.tc {
				t.Errorf("TC is %v, want %v", reply.Truncated, tc.tc)
			}
			if size := len(mustPack(t, reply)); size > tc.limit {
				t.Errorf("The message has %d octets, at most %d are allowed", size, tc.limit)
			}
			if len(reply.Answer) < tc.atLeast {
				t.Errorf("%d records, want at least %d", len(reply.Answer), tc.atLeast)
			}
			again, _ := ask(t.Context(), tc.c, r, tc.tcp)
			for i := range reply.Answer {
				if !dns.IsDuplicate(reply.Answer[i], again.Answer[i]) {
					t.Fatalf("The same question has another answer: %s and %s", reply.Answer[i], again.Answer[i])
				}
			}
			if tc.edns > 0 && reply.IsEdns0() == nil {
				t.Error("A query with EDNS has a reply without")
			}
		})
	}
}

// A client that is not told by TC that endpoints are missing takes a part for the whole. Options of the query that the reply does not
// have, such as cookies, leave more room than one thinks.
func TestWhatDoesNotFitIsSaid(t *testing.T) {
	const endpoints = 500
	many := handlerOf(bigWorld(endpoints))
	for what, options := range map[string][]dns.EDNS0{
		"no option":         nil,
		"a cookie":          {&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0123456789abcdef"}},
		"a long cookie":     {&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: strings.Repeat("01234567", 10)}},
		"an unknown option": {&dns.EDNS0_LOCAL{Code: 65001, Data: make([]byte, 300)}},
	} {
		for size := 512; size <= 1300; size++ {
			for qtype, qname := range map[uint16]string{
				dns.TypeA: "db.data.svc.clusterset.local.", dns.TypeAAAA: "db.data.svc.clusterset.local.", dns.TypeSRV: "_http._tcp.db.data.svc.clusterset.local.",
			} {
				r := new(dns.Msg).SetQuestion(qname, qtype)
				r.SetEdns0(uint16(size), false)
				r.IsEdns0().Option = options
				reply, _ := ask(t.Context(), many, r, false)
				if len(reply.Answer) < endpoints && !reply.Truncated {
					t.Fatalf("%s, %d octets, %s: %d of %d records, and no TC", dns.TypeToString[qtype], size, what, len(reply.Answer), endpoints)
				}
			}
		}
	}
}

func TestLongNames(t *testing.T) {
	label := strings.Repeat("l", 63)
	ids := []topology.ClusterID{topology.ClusterID(label + "." + label), "east"}
	c := handlerOf(newTestWorld(mcs.Scope{Members: membersOf(ids...)}, func(w *world) {
		for _, id := range ids {
			w.shard(id, label, "db", headlessShard(sliceOf([]mcs.Port{http80}, host("10.8.0.1", label))))
		}
		w.allSynced()
	}))
	reply, _ := ask(t.Context(), c, new(dns.Msg).SetQuestion("db."+label+".svc.clusterset.local.", dns.TypeSRV), false)
	if len(reply.Answer) != 1 || !strings.Contains(reply.Answer[0].String(), ".east.") {
		t.Errorf("Only the target that fits may be answered:\n%s", reply)
	}
	mustPack(t, reply)
	reply, _ = ask(t.Context(), c, new(dns.Msg).SetQuestion("db."+label+".svc.clusterset.local.", dns.TypeA), false)
	if len(reply.Answer) != 1 {
		t.Errorf("Its address counts all the same:\n%s", reply)
	}
}

func TestMetadata(t *testing.T) {
	for _, tc := range []struct {
		name, qname string
		synced      bool
		want        told
		none        bool
	}{
		{"a service has a member and a tier", "web.shop.svc.clusterset.local.", true,
			told{kind: "ClusterSetIP", source: "exports", member: "east", tier: "0", why: "nearest"}, false},
		{"an import has no member", "imported.shop.svc.clusterset.local.", true, told{kind: "ClusterSetIP", source: "imports", why: "import"}, false},
		{"nothing is chosen for one endpoint", "db-0.east.db.data.svc.clusterset.local.", true, told{kind: "Headless", source: "exports"}, false},
		{"an unknown name has a reason", "none.shop.svc.clusterset.local.", true, told{why: "unknown"}, false},
		{"what may yet come has another", "none.shop.svc.clusterset.local.", false, told{why: "unsynced"}, false},
		{"the zone itself has none", "clusterset.local.", true, told{}, false},
		{"another zone has no metadata", "example.org.", true, told{}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := handlerOf(shop(tc.synced))
			r := new(dns.Msg).SetQuestion(tc.qname, dns.TypeA)
			ctx := c.Metadata(metadata.ContextWithMetadata(t.Context()), request.Request{Req: r, W: &test.ResponseWriter{}})
			ask(ctx, c, r, false)
			for label, want := range map[string]string{
				"clusterset/type": tc.want.kind, "clusterset/source": tc.want.source, "clusterset/member": tc.want.member,
				"clusterset/tier": tc.want.tier, "clusterset/why": tc.want.why,
			} {
				f := metadata.ValueFunc(ctx, label)
				if (f == nil) != tc.none {
					t.Fatalf("%s is there: %v", label, f != nil)
				}
				if f != nil && f() != want {
					t.Errorf("%s is %q, want %q", label, f(), want)
				}
			}
		})
	}
}

func TestWhy(t *testing.T) {
	plan := &balance.Plan{}
	for _, tc := range []struct {
		name string
		a    answer
		want string
	}{
		{"the nearest tier", answer{plan: plan}, "nearest"},
		{"another tier", answer{plan: plan, choice: balance.Choice{Tier: 1}}, "farther"},
		{"what is not well is said before how far it is", answer{plan: plan, choice: balance.Choice{Tier: 1, Degraded: true}}, "degraded"},
		{"panic is said before all", answer{plan: plan, choice: balance.Choice{Tier: 1, Panic: true, Degraded: true}}, "panic"},
		{"nothing was chosen", answer{}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.a.why(); got != tc.want {
				t.Errorf("It is %q, want %q", got, tc.want)
			}
		})
	}
}

// FuzzServeDNS asks for any name and type: it never panics, and every reply can be packed.
func FuzzServeDNS(f *testing.F) {
	c := handlerOf(shop(true))
	for _, s := range []string{"web.shop.svc.clusterset.local.", "_http._tcp.db.data.svc.clusterset.local.", `\000.clusterset.local.`, `a\.b.svc.clusterset.local.`, "clusterset.local.", "."} {
		f.Add(s, dns.TypeA)
		f.Add(strings.ToUpper(s), dns.TypeSRV)
	}
	f.Fuzz(func(t *testing.T, qname string, qtype uint16) {
		if _, ok := dns.IsDomainName(qname); !ok {
			return
		}
		// Through the wire, as every query comes.
		wire, err := new(dns.Msg).SetQuestion(dns.Fqdn(qname), qtype).Pack()
		if err != nil {
			return
		}
		r := new(dns.Msg)
		if r.Unpack(wire) != nil {
			return
		}
		reply, rcode := ask(t.Context(), c, r, false)
		if reply == nil {
			if rcode != dns.RcodeRefused {
				t.Errorf("Nothing was written, the code is %d", rcode)
			}
			return
		}
		wire, err = reply.Pack()
		if err != nil {
			t.Fatalf("%v:\n%s", err, reply)
		}
		if err := new(dns.Msg).Unpack(wire); err != nil {
			t.Fatalf("%v:\n%s", err, reply)
		}
		if len(reply.Answer) == 0 && len(reply.Ns) != 1 {
			t.Errorf("A negative answer without an SOA:\n%s", reply)
		}
	})
}

// queryCost is a query and what it may cost.
type queryCost struct {
	name  string
	c     *Clusterset
	qname string
	qtype uint16
	want  int // records
	// allocs is how many allocations the answer may take: one for all that the query needs, one for the records, and more
	// where records are made for it alone.
	allocs float64
}

func queryCosts() []queryCost {
	five := []topology.ClusterID{"a", "b", "c", "d", "e"}
	wide := newTestWorld(mcs.Scope{Members: membersOf(five...)}, func(w *world) {
		w.ApplyNamespace("shop", true)
		s := sliceOf([]mcs.Port{http80})
		for i, id := range five {
			w.shard(id, "shop", "web", clusterIPShard(fmt.Sprintf("10.%d.0.1", i)))
			e := host(fmt.Sprintf("10.8.0.%d", i), fmt.Sprintf("db-%d", i))
			s.Endpoints.Add(&e)
		}
		w.shard("a", "shop", "db", headlessShard(s))
		w.allSynced()
	})
	all := func(c *Clusterset) { c.policy = &balance.Policy{Answer: balance.All, Prefer: balance.ByLabels} }
	return []queryCost{
		{"A, 1 address", handlerOf(wide), "web.shop.svc.clusterset.local.", dns.TypeA, 1, 2},
		{"A, 5 addresses", handlerOf(wide, all), "web.shop.svc.clusterset.local.", dns.TypeA, 5, 2},
		{"AAAA, none", handlerOf(wide), "web.shop.svc.clusterset.local.", dns.TypeAAAA, 0, 5},
		{"headless, 5 addresses", handlerOf(wide), "db.shop.svc.clusterset.local.", dns.TypeA, 5, 2},
		{"headless, 1 host", handlerOf(wide), "db-3.a.db.shop.svc.clusterset.local.", dns.TypeA, 1, 5},
		{"SRV, 1 port", handlerOf(wide), "_http._tcp.web.shop.svc.clusterset.local.", dns.TypeSRV, 1, 9},
		{"SRV, headless 5", handlerOf(wide), "_http._tcp.db.shop.svc.clusterset.local.", dns.TypeSRV, 5, 40},
		{"NXDOMAIN", handlerOf(wide), "none.shop.svc.clusterset.local.", dns.TypeA, 0, 5},
		{"headless 64, A over UDP", handlerOf(bigWorld(64)), "db.data.svc.clusterset.local.", dns.TypeA, 30, 80},
		{"headless 5000, A over UDP", handlerOf(bigWorld(5000)), "db.data.svc.clusterset.local.", dns.TypeA, 30, 80},
		{"headless 5000, SRV over UDP", handlerOf(bigWorld(5000)), "_http._tcp.db.data.svc.clusterset.local.", dns.TypeSRV, 8, 70},
	}
}

func TestAllocationsPerQuery(t *testing.T) {
	for _, row := range queryCosts() {
		t.Run(row.name, func(t *testing.T) {
			r := new(dns.Msg).SetQuestion(row.qname, row.qtype)
			w := &lastReply{}
			got := testing.AllocsPerRun(200, func() {
				if _, err := row.c.ServeDNS(context.Background(), w, r); err != nil {
					t.Error(err)
				}
			})
			if got > row.allocs || len(w.msg.Answer) != row.want {
				t.Errorf("%.0f allocations for %d records, want %.0f at most for %d", got, len(w.msg.Answer), row.allocs, row.want)
			}
		})
	}
}

func BenchmarkServeDNS(b *testing.B) {
	for _, bench := range queryCosts() {
		b.Run(bench.name, func(b *testing.B) {
			r := new(dns.Msg).SetQuestion(bench.qname, bench.qtype)
			w := &lastReply{}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := bench.c.ServeDNS(b.Context(), w, r); err != nil {
					b.Fatal(err)
				}
			}
			if len(w.msg.Answer) != bench.want {
				b.Errorf("%d records, want %d", len(w.msg.Answer), bench.want)
			}
		})
	}
}

// lastReply is a ResponseWriter that costs nothing.
type lastReply struct {
	test.ResponseWriter
	msg *dns.Msg
}

var someClient net.Addr = &net.UDPAddr{IP: net.IPv4(10, 240, 0, 1), Port: 40212}

func (w *lastReply) RemoteAddr() net.Addr { return someClient }

func (w *lastReply) WriteMsg(m *dns.Msg) error {
	w.msg = m
	return nil
}
