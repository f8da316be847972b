package clusterset

import (
	"slices"
	"testing"

	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/balance"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// TestPortsOfServicesWhosePodsListenElsewhere has two remote clusters: east is reached by its endpoints, which listen on
// 8080, west by its cluster IPs.
func TestPortsOfServicesWhosePodsListenElsewhere(t *testing.T) {
	exporting := func(who ...string) *world {
		scope := mcs.Scope{Members: []mcs.Member{{ID: "east", Address: mcs.AddressEndpoints, AnyPort: true}, {ID: "west"}}}
		return newTestWorld(scope, func(w *world) {
			w.SetSynced(mcs.Source{Cluster: "east"})
			w.SetSynced(mcs.Source{Cluster: "west"})
			if slices.Contains(who, "east") {
				s := clusterIPShard("10.0.0.1")
				s.Slices = []*mcs.Slice{sliceOf([]mcs.Port{{Name: "http", Number: 8080}}, host("10.8.0.1", "x"))}
				w.shard("east", "shop", "web", s)
			}
			if slices.Contains(who, "west") {
				w.shard("west", "shop", "web", clusterIPShard("10.1.0.1"))
			}
		})
	}
	const web = "web.shop.svc.clusterset.local."
	// asked returns the ports in the answer, and the first address beside them.
	asked := func(t *testing.T, h *Clusterset) (ports []uint16, addr string) {
		t.Helper()
		r := new(dns.Msg)
		r.SetQuestion(web, dns.TypeSRV)
		m, _ := ask(t.Context(), h, r, false)
		for _, rr := range m.Answer {
			ports = append(ports, rr.(*dns.SRV).Port)
		}
		return ports, m.Extra[0].(*dns.A).A.String()
	}
	for _, row := range []struct {
		name   string
		who    []string
		answer balance.Answer
		want   []uint16
	}{
		{"endpoints bring the port of the pods, and that of the service where the pods have none of that name", []string{"east"}, balance.One, []uint16{8080, 53}},
		{"cluster IPs keep the port of the service", []string{"west"}, balance.One, []uint16{80, 53}},
		{"of all clusters, all ports are answered", []string{"east", "west"}, balance.All, []uint16{8080, 80, 53}},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := handlerOf(exporting(row.who...), func(c *Clusterset) { c.policy = &balance.Policy{Answer: row.answer} })
			if got, _ := asked(t, h); !slices.Equal(got, row.want) {
				t.Errorf("Got %v, want %v", got, row.want)
			}
		})
	}
	t.Run("of one cluster of two, its own", func(t *testing.T) {
		want := map[string][]uint16{"10.8.0.1": {8080, 53}, "10.1.0.1": {80, 53}}
		if got, addr := asked(t, handlerOf(exporting("east", "west"))); !slices.Equal(got, want[addr]) {
			t.Errorf("With the address %s it answers %v", addr, got)
		}
	})
}
