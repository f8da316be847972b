package mcs

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

var web = ServiceKey{"shop", "web"}

// The ports that the tests use most.
var (
	http80   = Port{"http", TCP, 80}
	https443 = Port{"https", TCP, 443}
	http8080 = Port{"http", TCP, 8080}
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range texts {
		out = append(out, addr(s))
	}
	return out
}

// ready makes a ready endpoint that is named by its address.
func ready(a string) Endpoint {
	return Endpoint{Addr: addr(a), Label: AddressLabel(addr(a)), Conditions: Ready | Serving}
}

func unready(a string) Endpoint {
	e := ready(a)
	e.Conditions = Serving
	return e
}

// named gives an endpoint a hostname and a target.
func named(e Endpoint, label, target string) Endpoint {
	e.Label, e.ID = label, idOf(target)
	return e
}

func sliceOf(name string, ports []Port, endpoints ...Endpoint) *Slice {
	return &Slice{Name: name, Ports: ports, Endpoints: Pack(endpoints...)}
}

// from makes a slice that a ServiceImport brings.
func from(source topology.ClusterID, s *Slice) *Slice {
	s.Source = source
	return s
}

// clusterIP is an exported Service with a cluster IP, created at a time.
func clusterIP(created int64, ip string, ports ...Port) *Shard {
	s := &Shard{Export: Export{Created: created}, Service: &ServiceSpec{Ports: ports}}
	s.Service.IPv4 = true
	s.Service.ClusterIPs[0] = addr(ip)
	return s
}

func headless(created int64, all ...*Slice) *Shard {
	s := &Shard{Export: Export{Created: created}, Service: &ServiceSpec{Ports: []Port{http80}}, Slices: all}
	s.Service.Type, s.Service.IPv4 = Headless, true
	return s
}

func (s *Shard) over(all ...*Slice) *Shard {
	s.Slices = all
	return s
}

func (s *Shard) but(change func(*Shard)) *Shard {
	change(s)
	return s
}

// sketch writes a merged service and its report in lines, as the rows of the tables spell them.
func sketch(s *Service, r Report) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if s == nil {
		line("none")
	} else {
		line("%s", s.Type)
		if s.Import != nil {
			line("imported %s", joinAddrs(s.Import.IPs[:]))
		}
		if s.EndpointsUnknown() {
			line("endpoints unknown")
		}
		for _, p := range s.Ports {
			line("port %s", sketchPort(p))
		}
		for _, m := range s.Members {
			on := ""
			for _, p := range m.Ports() {
				on += " on " + sketchPort(p)
			}
			line("%s: %s%s %d/%d", m.Cluster, joinAddrs(m.Addrs), on, m.Ready, m.Total)
		}
		for i := range s.Backends {
			e := &s.Backends[i]
			var ports []string
			for _, p := range e.Ports() {
				ports = append(ports, sketchPort(p))
			}
			line("%s.%s: %s %s", e.Label(), s.ClusterOf(e), joinAddrs(e.AppendAddrs(nil)), ports)
		}
	}
	if r.Conflicts != 0 {
		line("conflict %s", r.Conflicts)
	}
	for _, id := range r.NoService {
		line("no service %s", id)
	}
	for _, id := range r.InvalidType {
		line("invalid type %s", id)
	}
	return b.String()
}

func sketchPort(p Port) string { return fmt.Sprintf("%s/%d/%s", p.Name, p.Number, p.Protocol) }

func joinAddrs(all []netip.Addr) string {
	var texts []string
	for _, a := range all {
		if a.IsValid() {
			texts = append(texts, a.String())
		}
	}
	return "[" + strings.Join(texts, " ") + "]"
}

type exports map[topology.ClusterID]*Shard

// mergeRow is a world of exports and what one service becomes.
type mergeRow struct {
	name    string
	exports exports
	imp     *ImportShard
	// kinds are how clusters are addressed, if not by cluster IP.
	kinds map[topology.ClusterID]AddressKind
	// anyPort is Member.AnyPort of all.
	anyPort bool
	want    string // lines, indented as one likes
}

func (row *mergeRow) index() *Index {
	scope := Scope{Imports: row.imp != nil}
	for _, id := range []topology.ClusterID{"east", "north", "west"} {
		m := Member{ID: id, Address: row.kinds[id], AnyPort: row.anyPort}
		if m.Address == AddressFixed {
			m.Gateway = addrs("203.0.113.9", "203.0.113.8", "203.0.113.9")
		}
		scope.Members = append(scope.Members, m)
	}
	x := NewIndex(scope)
	for id, s := range row.exports {
		x.Apply(id, web, s)
	}
	if row.imp != nil {
		x.ApplyImport(web, row.imp)
	}
	return x
}

func checkMerge(t *testing.T, rows []mergeRow) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			snapshot, changes := row.index().Publish(1)
			var report Report
			if len(changes) > 0 {
				report = changes[0].New
			}
			var want []string
			for line := range strings.Lines(row.want) {
				want = append(want, strings.TrimSpace(line))
			}
			got := sketch(snapshot.Service("shop", "web"), report)
			if got := strings.Split(strings.TrimSpace(got), "\n"); !slices.Equal(got, want) {
				t.Errorf("Got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
			}
		})
	}
}

func TestMergePorts(t *testing.T) {
	checkMerge(t, []mergeRow{
		{name: "equal ports in another order are no conflict", exports: exports{
			"east": clusterIP(1, "10.0.0.1", http80, https443), "west": clusterIP(2, "10.1.0.1", https443, http80),
		}, want: `ClusterSetIP
			port http/80/tcp
			port https/443/tcp
			east: [10.0.0.1] 0/0
			west: [10.1.0.1] 0/0`},
		{name: "the union has every port, and one that is missing elsewhere is a conflict", exports: exports{
			"east": clusterIP(1, "10.0.0.1", http80), "west": clusterIP(2, "10.1.0.1", https443),
		}, want: `ClusterSetIP
			port http/80/tcp
			port https/443/tcp
			east: [10.0.0.1] 0/0
			west: [10.1.0.1] 0/0
			conflict PortConflict`},
		{name: "of two ports with one name the oldest export's stays", exports: exports{
			"east": clusterIP(2, "10.0.0.1", http8080), "west": clusterIP(1, "10.1.0.1", http80),
		}, want: `ClusterSetIP
			port http/80/tcp
			east: [10.0.0.1] 0/0
			west: [10.1.0.1] 0/0
			conflict PortConflict`},
		{name: "of two ports with one number the oldest export's name stays", exports: exports{
			"east": clusterIP(1, "10.0.0.1", http80), "west": clusterIP(2, "10.1.0.1", Port{"www", TCP, 80}),
		}, want: `ClusterSetIP
			port http/80/tcp
			east: [10.0.0.1] 0/0
			west: [10.1.0.1] 0/0
			conflict PortConflict`},
		{name: "one number for two protocols is two ports", exports: exports{
			"east": clusterIP(1, "10.0.0.1", Port{"dns", UDP, 53}, Port{"dns-tcp", TCP, 53}),
		}, want: `ClusterSetIP
			port dns/53/udp
			port dns-tcp/53/tcp
			east: [10.0.0.1] 0/0`},
		{name: "no name counts as a name: the second unnamed port is left out", exports: exports{
			"east": clusterIP(1, "10.0.0.1", Port{"", TCP, 80}), "west": clusterIP(2, "10.1.0.1", Port{"", TCP, 81}),
		}, want: `ClusterSetIP
			port /80/tcp
			east: [10.0.0.1] 0/0
			west: [10.1.0.1] 0/0
			conflict PortConflict`},
		{name: "a third export fills in what the first two lack", exports: exports{
			"east": clusterIP(3, "10.0.0.1", http8080, Port{"grpc", TCP, 90}), "north": clusterIP(1, "10.2.0.1", http80),
			"west": clusterIP(2, "10.1.0.1", https443),
		}, want: `ClusterSetIP
			port http/80/tcp
			port https/443/tcp
			port grpc/90/tcp
			east: [10.0.0.1] 0/0
			north: [10.2.0.1] 0/0
			west: [10.1.0.1] 0/0
			conflict PortConflict`},
		{name: "a service without ports", exports: exports{
			"east": clusterIP(1, "10.0.0.1"), "west": clusterIP(1, "10.1.0.1"),
		}, want: `ClusterSetIP
			east: [10.0.0.1] 0/0
			west: [10.1.0.1] 0/0`},
	})
}

func TestMergeConflicts(t *testing.T) {
	differ := func(reason string, change func(*Shard)) mergeRow {
		return mergeRow{name: "a difference raises " + reason, exports: exports{
			"east": clusterIP(1, "10.0.0.1", http80), "west": clusterIP(2, "10.1.0.1", http80).but(change),
		}, want: `ClusterSetIP
			port http/80/tcp
			east: [10.0.0.1] 0/0
			west: [10.1.0.1] 0/0
			conflict ` + reason}
	}
	rows := []mergeRow{
		differ("SessionAffinityConflict", func(s *Shard) { s.Service.ClientIPAffinity = true }),
		differ("SessionAffinityConfigConflict", func(s *Shard) { s.Service.AffinitySeconds = 60 }),
		differ("LabelsConflict", func(s *Shard) { s.Export.Labels = Digest(map[string]string{"a": "1"}) }),
		differ("AnnotationsConflict", func(s *Shard) { s.Export.Annotations = Digest(map[string]string{"a": "1"}) }),
		differ("InternalTrafficPolicyConflict", func(s *Shard) { s.Service.InternalTrafficPolicy = "Local" }),
		differ("TrafficDistributionConflict", func(s *Shard) { s.Service.TrafficDistribution = "PreferSameZone" }),
		differ("IPFamilyConflict", func(s *Shard) { s.Service.IPv6 = true }),
		differ("PortConflict", func(s *Shard) { s.Service.Ports = []Port{{"http", UDP, 80}} }),
		{name: "several differences raise several reasons", exports: exports{
			"east": clusterIP(1, "10.0.0.1", http80),
			"west": clusterIP(2, "10.1.0.1", http80).but(func(s *Shard) { s.Service.ClientIPAffinity, s.Service.AffinitySeconds = true, 60 }),
		}, want: `ClusterSetIP
			port http/80/tcp
			east: [10.0.0.1] 0/0
			west: [10.1.0.1] 0/0
			conflict SessionAffinityConflict,SessionAffinityConfigConflict`},
		{name: "headless is oldest: the form is headless and the cluster IP goes unused", exports: exports{
			"east": clusterIP(2, "10.0.0.1", http80).over(sliceOf("a", []Port{http80}, ready("10.8.0.1"))),
			"west": headless(1, sliceOf("a", []Port{http80}, ready("10.9.0.1"))),
		}, want: `Headless
			port http/80/tcp
			east: [] 1/1
			west: [] 1/1
			10-8-0-1.east: [10.8.0.1] [http/80/tcp]
			10-9-0-1.west: [10.9.0.1] [http/80/tcp]
			conflict TypeConflict`},
		{name: "a cluster IP is oldest: the form is ClusterSetIP and the headless exporter has no address", exports: exports{
			"east": clusterIP(1, "10.0.0.1", http80), "west": headless(2, sliceOf("a", []Port{http80}, ready("10.9.0.1"))),
		}, want: `ClusterSetIP
			port http/80/tcp
			east: [10.0.0.1] 0/0
			west: [] 1/1
			conflict TypeConflict`},
		{name: "of equal age the lowest cluster id wins", exports: exports{
			"west": headless(1), "east": clusterIP(1, "10.0.0.1", http80),
		}, want: `ClusterSetIP
			port http/80/tcp
			east: [10.0.0.1] 0/0
			west: [] 0/0
			conflict TypeConflict`},
		{name: "age goes before cluster id, also before 1970", exports: exports{
			"west": headless(-62135596800), "east": clusterIP(1, "10.0.0.1", http80),
		}, want: `Headless
			port http/80/tcp
			east: [] 0/0
			west: [] 0/0
			conflict TypeConflict`},
		{name: "two that agree against the oldest are a conflict all the same", exports: exports{
			"east": clusterIP(2, "10.0.0.1", http80), "north": clusterIP(1, "10.2.0.1", http8080), "west": clusterIP(3, "10.1.0.1", http80),
		}, want: `ClusterSetIP
			port http/8080/tcp
			east: [10.0.0.1] 0/0
			north: [10.2.0.1] 0/0
			west: [10.1.0.1] 0/0
			conflict PortConflict`},
	}
	checkMerge(t, rows)
	covered := Conflict(0)
	for i := range rows {
		_, changes := rows[i].index().Publish(1)
		covered |= changes[0].New.Conflicts
	}
	if all := Conflict(1<<len(conflictNames)) - 1; covered != all {
		t.Errorf("The table lacks %s", (all &^ covered).String())
	}
}

func TestMergeInvalidExports(t *testing.T) {
	external := func(created int64) *Shard {
		return &Shard{Export: Export{Created: created}, Service: &ServiceSpec{ExternalName: true, Ports: []Port{http8080}}}
	}
	checkMerge(t, []mergeRow{
		{name: "an export without a Service makes no name", exports: exports{"east": {Export: Export{Created: 1}}}, want: `none
			no service east`},
		{name: "an ExternalName makes no name", exports: exports{"east": external(1)}, want: `none
			invalid type east`},
		{name: "an ExternalName takes no part, even if it is the oldest", exports: exports{
			"east": external(1), "west": clusterIP(2, "10.1.0.1", http80),
		}, want: `ClusterSetIP
			port http/80/tcp
			west: [10.1.0.1] 0/0
			invalid type east`},
		{name: "an export without a Service takes no part, even if it is the oldest", exports: exports{
			"east": {Export: Export{Created: 1, Labels: 7}, Slices: []*Slice{sliceOf("a", nil, ready("10.8.0.1"))}},
			"west": headless(2, sliceOf("a", nil, ready("10.9.0.1"))),
		}, want: `Headless
			port http/80/tcp
			west: [] 1/1
			10-9-0-1.west: [10.9.0.1] []
			no service east`},
		{name: "an invalid export between two valid ones raises no conflict", exports: exports{
			"east": clusterIP(1, "10.0.0.1", http80), "north": external(2), "west": clusterIP(3, "10.1.0.1", http80),
		}, want: `ClusterSetIP
			port http/80/tcp
			east: [10.0.0.1] 0/0
			west: [10.1.0.1] 0/0
			invalid type north`},
	})
}

func TestMergeEndpoints(t *testing.T) {
	long := strings.Repeat("h", 63)
	checkMerge(t, []mergeRow{
		{name: "a ready endpoint is published, another is only counted", exports: exports{
			"east": headless(1, sliceOf("a", []Port{http80}, ready("10.8.0.1"), unready("10.8.0.2"))),
		}, want: `Headless
			port http/80/tcp
			east: [] 1/2
			10-8-0-1.east: [10.8.0.1] [http/80/tcp]`},
		{name: "a terminating endpoint that is not ready is not published and does not count, though it serves", exports: exports{
			"east": headless(1, sliceOf("a", nil, Endpoint{Addr: addr("10.8.0.1"), Label: "x", Conditions: Serving | Terminating})),
		}, want: `Headless
			port http/80/tcp
			east: [] 0/0`},
		{name: "a fresh endpoint does not count", exports: exports{
			"east": headless(1, sliceOf("a", nil, Endpoint{Addr: addr("10.8.0.1"), Label: "x", Conditions: Serving | Fresh})),
		}, want: `Headless
			port http/80/tcp
			east: [] 0/0`},
		{name: "publishNotReadyAddresses makes all of that cluster ready, and of no other", exports: exports{
			"east": headless(1, sliceOf("a", nil, unready("10.8.0.1"))).but(func(s *Shard) { s.Service.PublishNotReady = true }),
			"west": headless(1, sliceOf("a", nil, unready("10.9.0.1"))),
		}, want: `Headless
			port http/80/tcp
			east: [] 1/1
			west: [] 0/1
			10-8-0-1.east: [10.8.0.1] []`},
		{name: "one host name with an address of each family is one host and one endpoint", exports: exports{
			"east": headless(1, sliceOf("v4", []Port{http80}, named(ready("10.8.0.1"), "db-0", "u0")),
				sliceOf("v6", []Port{http80}, named(ready("fd00::1"), "db-0", "u0"))),
		}, want: `Headless
			port http/80/tcp
			east: [] 1/1
			db-0.east: [10.8.0.1 fd00::1] [http/80/tcp]`},
		{name: "one pod without a hostname has a host per family, and is one endpoint by its UID", exports: exports{
			"east": headless(1, sliceOf("v4", []Port{http80}, named(ready("10.8.0.1"), "10-8-0-1", "u0")),
				sliceOf("v6", []Port{http80}, named(ready("fd00::1"), "fd00--1", "u0"))),
		}, want: `Headless
			port http/80/tcp
			east: [] 1/1
			10-8-0-1.east: [10.8.0.1] [http/80/tcp]
			fd00--1.east: [fd00::1] [http/80/tcp]`},
		{name: "an endpoint in two slices, as while it moves, is one", exports: exports{
			"east": headless(1, sliceOf("a", []Port{http80}, named(ready("10.8.0.1"), "db-0", "u0")),
				sliceOf("b", []Port{http80}, named(ready("10.8.0.1"), "db-0", "u0"))),
		}, want: `Headless
			port http/80/tcp
			east: [] 1/1
			db-0.east: [10.8.0.1] [http/80/tcp]`},
		{name: "ready in one of two slices is ready", exports: exports{
			"east": headless(1, sliceOf("a", []Port{http80}, named(unready("10.8.0.1"), "db-0", "u0")),
				sliceOf("b", []Port{http80}, named(ready("10.8.0.1"), "db-0", "u0"))),
		}, want: `Headless
			port http/80/tcp
			east: [] 1/1
			db-0.east: [10.8.0.1] [http/80/tcp]`},
		{name: "one host name in two slices has the ports of both", exports: exports{
			"east": headless(1, sliceOf("a", []Port{http80}, named(ready("10.8.0.1"), "db-0", "u0")),
				sliceOf("b", []Port{https443, http80}, named(ready("10.8.0.2"), "db-0", "u1"), ready("10.8.0.3"))),
		}, want: `Headless
			port http/80/tcp
			east: [] 3/3
			10-8-0-3.east: [10.8.0.3] [https/443/tcp http/80/tcp]
			db-0.east: [10.8.0.1 10.8.0.2] [http/80/tcp https/443/tcp]`},
		{name: "one host name in two clusters is two hosts", exports: exports{
			"east": headless(1, sliceOf("a", nil, named(ready("10.8.0.1"), "db-0", ""))),
			"west": headless(1, sliceOf("a", nil, named(ready("10.9.0.1"), "db-0", ""))),
		}, want: `Headless
			port http/80/tcp
			east: [] 1/1
			west: [] 1/1
			db-0.east: [10.8.0.1] []
			db-0.west: [10.9.0.1] []`},
		{name: "ports belong to their slice, not to the cluster", exports: exports{
			"east": headless(1, sliceOf("a", []Port{http80}, ready("10.8.0.1")), sliceOf("b", []Port{http8080}, ready("10.8.0.2"))),
		}, want: `Headless
			port http/80/tcp
			east: [] 2/2
			10-8-0-1.east: [10.8.0.1] [http/80/tcp]
			10-8-0-2.east: [10.8.0.2] [http/8080/tcp]`},
		{name: "host names of full length", exports: exports{
			"east": headless(1, sliceOf("a", nil, named(ready("10.8.0.1"), long, ""))),
		}, want: `Headless
			port http/80/tcp
			east: [] 1/1
			` + long + `.east: [10.8.0.1] []`},
		{name: "an exporter without endpoints is a member all the same", exports: exports{
			"east": headless(1), "west": headless(1, sliceOf("a", nil)),
		}, want: `Headless
			port http/80/tcp
			east: [] 0/0
			west: [] 0/0`},
	})
}

func TestMergeAddressKinds(t *testing.T) {
	dual := func() *Shard {
		return clusterIP(1, "10.0.0.1", http80).but(func(s *Shard) {
			s.Service.ClusterIPs[1] = addr("fd00::1")
			s.Service.LoadBalancer = &LoadBalancer{Addrs: addrs("192.0.2.2", "192.0.2.1", "192.0.2.2")}
		})
	}
	kind := func(k AddressKind) map[topology.ClusterID]AddressKind {
		return map[topology.ClusterID]AddressKind{"east": k}
	}
	row := func(name string, k AddressKind, s *Shard, want string) mergeRow {
		return mergeRow{name: name, exports: exports{"east": s}, kinds: kind(k), want: "ClusterSetIP\nport http/80/tcp\n" + want}
	}
	anyPort := func(r mergeRow) mergeRow {
		r.anyPort = true
		return r
	}
	checkMerge(t, []mergeRow{
		row("clusterip: the cluster IPs of both families", AddressClusterIP, dual(), "east: [10.0.0.1 fd00::1] 0/0"),
		row("clusterip: none is allocated yet", AddressClusterIP, dual().but(func(s *Shard) { s.Service.ClusterIPs = Addresses{} }), "east: [] 0/0"),
		row("loadbalancer: the ingress addresses, sorted and once", AddressLoadBalancer, dual(), "east: [192.0.2.1 192.0.2.2] 0/0"),
		row("loadbalancer: none is allocated yet", AddressLoadBalancer, clusterIP(1, "10.0.0.1", http80), "east: [] 0/0"),
		row("a fixed gateway, sorted and once", AddressFixed, dual(), "east: [203.0.113.8 203.0.113.9] 0/0"),
		row("endpoints: the ready ones, sorted and once", AddressEndpoints, dual().over(
			sliceOf("a", []Port{http80}, ready("10.8.0.2"), ready("10.8.0.1"), unready("10.8.0.3")),
			sliceOf("b", []Port{http80}, ready("10.8.0.1"), ready("fd00::8"))), "east: [10.8.0.1 10.8.0.2 fd00::8] 3/4"),
		row("endpoints: publishNotReadyAddresses counts", AddressEndpoints, dual().over(
			sliceOf("a", []Port{http80}, unready("10.8.0.1"))).but(func(s *Shard) { s.Service.PublishNotReady = true }), "east: [10.8.0.1] 1/1"),
		row("endpoints: a pod that listens on another port than the service leaves its cluster out", AddressEndpoints, dual().over(
			sliceOf("a", []Port{http8080}, ready("10.8.0.1")), sliceOf("b", []Port{http80}, ready("10.8.0.2"))), "east: [] 2/2"),
		anyPort(row("endpoints, any port: such a cluster takes part and tells the ports of its pods", AddressEndpoints, dual().over(
			sliceOf("a", []Port{http8080}, ready("10.8.0.1")), sliceOf("b", []Port{http80}, ready("10.8.0.2")), sliceOf("c", []Port{https443})),
			"east: [10.8.0.1 10.8.0.2] on http/8080/tcp on http/80/tcp 2/2")),
		anyPort(row("endpoints, any port: no word of ports that are the service's", AddressEndpoints, dual().over(
			sliceOf("a", []Port{http80}, ready("10.8.0.1"))), "east: [10.8.0.1] 1/1")),
		row("endpoints: a slice without ports says nothing against it", AddressEndpoints, dual().over(
			sliceOf("a", nil, ready("10.8.0.1"))), "east: [10.8.0.1] 1/1"),
	})
}

func TestMergeImports(t *testing.T) {
	imported := func(change func(*Import), all ...*Slice) *ImportShard {
		s := &ImportShard{Import: Import{Ports: []Port{http80}}, Slices: all}
		if change != nil {
			change(&s.Import)
		}
		return s
	}
	isHeadless := func(i *Import) { i.Type = Headless }
	withoutSlices := func(i *Import) { i.Type, i.NoSlices = Headless, true }
	checkMerge(t, []mergeRow{
		{name: "the ServiceImport alone makes the name", imp: imported(func(i *Import) { i.IPs[0] = addr("172.30.0.1") }), want: `ClusterSetIP
			imported [172.30.0.1]
			port http/80/tcp`},
		{name: "an import without an IP yet exists", imp: imported(nil), want: `ClusterSetIP
			imported []
			port http/80/tcp`},
		{name: "the ServiceImport is the truth: exports change nothing", exports: exports{
			"east": headless(1, sliceOf("a", []Port{http8080}, ready("10.8.0.1"))), "west": clusterIP(2, "10.1.0.1", https443),
		}, imp: imported(func(i *Import) { i.IPs[0] = addr("172.30.0.1") }), want: `ClusterSetIP
			imported [172.30.0.1]
			port http/80/tcp
			conflict PortConflict,TypeConflict`},
		{name: "headless: the endpoints are those of its slices, by source cluster", exports: exports{
			"east": headless(1, sliceOf("a", []Port{http80}, ready("10.8.0.9"))),
		}, imp: imported(isHeadless, from("west", sliceOf("i1", []Port{http80}, ready("10.9.0.1"))),
			from("east", sliceOf("i2", []Port{http80}, ready("10.8.0.1"), unready("10.8.0.2"))),
			from("west", sliceOf("i3", []Port{http80}, ready("10.9.0.2")))), want: `Headless
			imported []
			port http/80/tcp
			east: [] 1/2
			west: [] 2/2
			10-8-0-1.east: [10.8.0.1] [http/80/tcp]
			10-9-0-1.west: [10.9.0.1] [http/80/tcp]
			10-9-0-2.west: [10.9.0.2] [http/80/tcp]`},
		{name: "headless: a source cluster that is no member counts too", imp: imported(isHeadless,
			from("south.eu", sliceOf("i1", nil, ready("10.7.0.1")))), want: `Headless
			imported []
			port http/80/tcp
			south.eu: [] 1/1
			10-7-0-1.south.eu: [10.7.0.1] []`},
		{name: "headless without slices has no endpoints, whatever the exports say", exports: exports{
			"east": headless(1, sliceOf("a", []Port{http80}, ready("10.8.0.9"))),
		}, imp: imported(isHeadless), want: `Headless
			imported []
			port http/80/tcp`},
		{name: "headless, its slices absent by its own word: the exports tell", exports: exports{
			"east": headless(1, sliceOf("a", []Port{http80}, ready("10.8.0.9"))),
			"west": {Export: Export{Created: 1}},
		}, imp: imported(withoutSlices, from("west", sliceOf("i1", nil, ready("10.9.0.1")))), want: `Headless
			imported []
			port http/80/tcp
			east: [] 1/1
			10-8-0-9.east: [10.8.0.9] [http/80/tcp]
			no service west`},
		{name: "headless, its slices absent and no export: nobody knows the endpoints", imp: imported(withoutSlices), want: `Headless
			imported []
			endpoints unknown
			port http/80/tcp`},
		{name: "headless, its slices absent and only invalid exports: nobody knows the endpoints", exports: exports{
			"east": {Export: Export{Created: 1}},
		}, imp: imported(withoutSlices), want: `Headless
			imported []
			endpoints unknown
			port http/80/tcp
			no service east`},
	})
}

func TestServiceLookups(t *testing.T) {
	row := mergeRow{exports: exports{
		"east":  headless(1, sliceOf("a", nil, named(ready("10.8.0.1"), "db-0", ""), named(ready("10.8.0.2"), "db-1", ""))),
		"west":  headless(1, sliceOf("a", nil, named(ready("10.9.0.1"), "db-1", ""))),
		"north": headless(1),
	}}
	snapshot, _ := row.index().Publish(1)
	s := snapshot.Service("shop", "web")
	for _, tc := range []struct {
		name    string
		label   string
		cluster topology.ClusterID
		want    string
	}{
		{"first", "db-0", "east", "10.8.0.1"},
		{"last", "db-1", "west", "10.9.0.1"},
		{"the label exists in another cluster only", "db-0", "west", ""},
		{"no such cluster", "db-0", "south", ""},
		{"no such label", "db-2", "east", ""},
		{"nothing", "", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := s.Backend(tc.label, tc.cluster)
			if got := b != nil; got != (tc.want != "") || got && b.AppendAddrs(nil)[0] != addr(tc.want) {
				t.Errorf("Got %v, want %q", b, tc.want)
			}
		})
	}
	for cluster, want := range map[topology.ClusterID]bool{"east": true, "west": true, "north": false, "zulu": false, "": false} {
		if got := s.HasBackends(cluster); got != want {
			t.Errorf("HasBackends(%q) is %v", cluster, got)
		}
	}
	if !s.HasReady() {
		t.Error("HasReady is false with three ready endpoints")
	}
	row = mergeRow{exports: exports{"east": headless(1, sliceOf("a", nil, unready("10.8.0.1")))}}
	snapshot, _ = row.index().Publish(1)
	if snapshot.Service("shop", "web").HasReady() {
		t.Error("HasReady is true without a ready endpoint")
	}
	row = mergeRow{imp: &ImportShard{}}
	snapshot, _ = row.index().Publish(1)
	if !snapshot.Service("shop", "web").HasReady() {
		t.Error("What a ServiceImport does not tell must count as ready")
	}
}

// idOf numbers targets by their names, "" by 0.
func idOf(target string) uint64 {
	if target == "" {
		return 0
	}
	h := fnv.New64a()
	h.Write([]byte(target))
	return h.Sum64()
}

func TestServicesShareEqualTraits(t *testing.T) {
	shared := sharedTraits{}
	local, cluster := Traits{InternalTrafficPolicy: "Local"}, Traits{InternalTrafficPolicy: "Cluster"}
	again := local
	if shared.of(&local) != shared.of(&again) {
		t.Error("Equal traits are two")
	}
	if got := shared.of(&cluster); *got != cluster {
		t.Errorf("%+v became %+v", cluster, *got)
	}
	for i := range 2 * maxSharedTraits {
		one := Traits{AffinitySeconds: int32(i)}
		if got := shared.of(&one); *got != one {
			t.Fatalf("%+v became %+v", one, *got)
		}
	}
	if len(shared) != maxSharedTraits {
		t.Errorf("%d are kept, want %d: what members say has no end", len(shared), maxSharedTraits)
	}
}

// TestMergingAllocatesWhatItKeeps bounds the objects that are made for a service: its own, and of what stands in it.
// The race detector makes one more for each list of hosts.
func TestMergingAllocatesWhatItKeeps(t *testing.T) {
	five := func(network string) *Slice {
		return sliceOf("a", []Port{http80}, ready(network+".5"), ready(network+".1"), ready(network+".3"), unready(network+".2"), ready(network+".4"))
	}
	tests := []struct {
		name    string
		exports []exported
		want    float64
	}{
		{"with a cluster IP", []exported{{&Member{ID: "east"}, clusterIP(1, "10.0.0.1", http80).over(five("10.8.0"))}}, 5},
		{"headless, with five endpoints", []exported{{&Member{ID: "east"}, headless(1, five("10.8.0"))}}, 8},
		{"headless, of two clusters", []exported{
			{&Member{ID: "east"}, headless(1, five("10.8.0"))}, {&Member{ID: "west"}, headless(2, five("10.9.0"))},
		}, 13},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			env := around{traits: sharedTraits{}}
			if got := testing.AllocsPerRun(100, func() { merge(ServiceKey{"shop", "web"}, test.exports, nil, env) }); got > test.want {
				t.Errorf("%v objects, want %v at most", got, test.want)
			}
		})
	}
}
