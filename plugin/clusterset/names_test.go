package clusterset

import (
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

func TestParseName(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want name
	}{
		{"", name{kind: apexName}},
		{"dns-version", name{kind: versionName}},
		{"x.dns-version", name{}},
		{"dns", name{kind: emptyName}},
		{"ns.dns", name{kind: serverName}},
		{"x.ns.dns", name{}},
		{"other.dns", name{}},
		{"pod", name{kind: emptyName}},
		{"1-2-3-4.shop.pod", name{}},
		{"svc", name{kind: emptyName}},
		{"shop.svc", name{kind: namespaceName, namespace: "shop"}},
		{"web.shop.svc", name{kind: serviceName, namespace: "shop", service: "web"}},
		{"east.web.shop.svc", name{kind: belowName, namespace: "shop", service: "web", below: "east"}},
		{"_http._tcp.web.shop.svc", name{kind: belowName, namespace: "shop", service: "web", below: "_http._tcp"}},
		{"db-0.a.b.web.shop.svc", name{kind: belowName, namespace: "shop", service: "web", below: "db-0.a.b"}},
		{"svc.svc.svc", name{kind: serviceName, namespace: "svc", service: "svc"}},
		{"*.shop.svc", name{kind: serviceName, namespace: "shop", service: "*"}},
		{"web.shop", name{}},
		{"cluster", name{}},
	} {
		t.Run(tc.in, func(t *testing.T) {
			if got := parseName(tc.in); got != tc.want {
				t.Errorf("Got %+v, want %+v", got, tc.want)
			}
		})
	}
}

// nameWorld has services of both types in clusters of one and of two labels, one of which looks like a part of another.
func nameWorld() (headless, clusterSetIP *mcs.Service) {
	ids := []topology.ClusterID{"east", "east.eu", "eu", "west.eu"}
	w := newTestWorld(mcs.Scope{Members: membersOf(ids...)}, func(w *world) {
		for _, id := range ids {
			w.shard(id, "data", "db", headlessShard(sliceOf([]mcs.Port{http80, {Name: "dns", Protocol: mcs.UDP, Number: 53}, {Number: 9}}, host("10.8.0.1", "db-0"))))
			w.shard(id, "shop", "web", clusterIPShard("10.0.0.1"))
		}
		w.shard("west.eu", "data", "db", headlessShard(sliceOf(nil, unreadyHost("10.8.0.1", "db-0"))))
	})
	s := w.snapshot.Load()
	return s.Service("data", "db"), s.Service("shop", "web")
}

func TestParseBelow(t *testing.T) {
	headless, clusterSetIP := nameWorld()
	for _, tc := range []struct {
		name  string
		of    *mcs.Service
		below string
		kind  partKind
		where topology.ClusterID
	}{
		{"a host", headless, "db-0.east", endpointPart, "east"},
		{"a host in a cluster of two labels", headless, "db-0.east.eu", endpointPart, "east.eu"},
		{"a host in a cluster that is the end of another's id", headless, "db-0.eu", endpointPart, "eu"},
		{"a host that is not there", headless, "db-1.east", noPart, ""},
		{"a host in a cluster that is not there", headless, "db-0.south", noPart, ""},
		{"a host that is not ready", headless, "db-0.west.eu", noPart, ""},
		{"a host below a host", headless, "x.db-0.east", noPart, ""},
		{"a host without a cluster", headless, "db-0", noPart, ""},
		{"a cluster id alone is a node of the tree", headless, "east", emptyPart, ""},
		{"a cluster id of two labels, too", headless, "east.eu", emptyPart, ""},
		{"and so is its second label", headless, "eu", emptyPart, ""},
		{"a cluster whose hosts are not ready is none", headless, "west.eu", noPart, ""},
		{"a cluster id within a label", headless, "db-0-east", noPart, ""},
		{"a named port", headless, "_http._tcp", portPart, ""},
		{"a named port of another protocol", headless, "_dns._udp", portPart, ""},
		{"a port that is not there", headless, "_https._tcp", noPart, ""},
		{"a port with the wrong protocol", headless, "_http._udp", noPart, ""},
		{"a protocol is a node of the tree", headless, "_udp", emptyPart, ""},
		{"a protocol without a port", headless, "_sctp", noPart, ""},
		{"an unnamed port has no name", headless, "_._tcp", noPart, ""},
		{"a port without underscore", headless, "http._tcp", noPart, ""},
		{"a port in a cluster", headless, "_http._tcp.east", noPart, ""},
		{"something below a port", headless, "x._http._tcp", noPart, ""},
		{"a ClusterSetIP service has no clusters", clusterSetIP, "east", noPart, ""},
		{"and no hosts", clusterSetIP, "10-8-0-1.east", noPart, ""},
		{"but ports", clusterSetIP, "_http._tcp", portPart, ""},
		{"and protocols", clusterSetIP, "_tcp", emptyPart, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := parseBelow(tc.of, tc.below)
			if got.kind != tc.kind || (got.backend != nil) != (tc.where != "") || got.backend != nil && tc.of.ClusterOf(got.backend) != tc.where {
				t.Errorf("parseBelow(%q) = %+v, want kind %d in %q", tc.below, got, tc.kind, tc.where)
			}
		})
	}
}

// within reports whether part is made of the very octets of whole.
func within(whole, part string) bool {
	if part == "" {
		return true
	}
	begin, at := uintptr(unsafe.Pointer(unsafe.StringData(whole))), uintptr(unsafe.Pointer(unsafe.StringData(part)))
	return at >= begin && at+uintptr(len(part)) <= begin+uintptr(len(whole))
}

// FuzzParseName parses any text: nothing panics, every string is a part of what was parsed, and the parts put together
// are the name again.
func FuzzParseName(f *testing.F) {
	headless, clusterSetIP := nameWorld()
	for _, s := range []string{"", ".", "svc", "..svc", "a.b.svc", "_http._tcp.db.data.svc", "db-0.east.eu.db.data.svc", "east.db.data.svc", "_tcp.db.data.svc", `a\.b.svc`, "_._._.svc", ".east.db.data.svc"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n := parseName(s)
		for _, part := range []string{n.namespace, n.service, n.below} {
			if !within(s, part) {
				t.Errorf("parseName(%q) made %q", s, part)
			}
		}
		parts := slices.DeleteFunc([]string{n.below, n.service, n.namespace, "svc"}, func(s string) bool { return s == "" })
		switch n.kind {
		case namespaceName, serviceName, belowName:
			if again := strings.Join(parts, "."); again != s && strings.Trim(s, ".") == s && !strings.Contains(s, "..") {
				t.Errorf("parseName(%q) is %+v, which is %q", s, n, again)
			}
			if strings.Contains(n.namespace+n.service, ".") {
				t.Errorf("parseName(%q) is %+v", s, n)
			}
		}
		for _, of := range []*mcs.Service{headless, clusterSetIP} {
			for _, below := range []string{n.below, s} {
				p := parseBelow(of, below)
				if !within(below, p.port) || !within(below, p.protocol) {
					t.Errorf("parseBelow(%q) made %q and %q", below, p.port, p.protocol)
				}
				switch p.kind {
				case endpointPart:
					if want := p.backend.Label() + "." + string(of.ClusterOf(p.backend)); below != want {
						t.Errorf("parseBelow(%q) is host %q", below, want)
					}
				case portPart:
					if want := "_" + p.port + "._" + p.protocol; below != want {
						t.Errorf("parseBelow(%q) is port %q", below, want)
					}
				}
			}
		}
		if allocs := testing.AllocsPerRun(1, func() { n = parseName(s) }); allocs != 0 {
			t.Errorf("parseName(%q) allocates %v times", s, allocs)
		}
	})
}

func TestParsingDoesNotAllocate(t *testing.T) {
	headless, _ := nameWorld()
	for _, s := range []string{"", "web.shop.svc", "_http._tcp.db.data.svc", "db-0.east.eu.db.data.svc", "ns.dns"} {
		if allocs := testing.AllocsPerRun(100, func() { parseBelow(headless, parseName(s).below) }); allocs != 0 {
			t.Errorf("Parsing %q allocates %v times", s, allocs)
		}
	}
}
