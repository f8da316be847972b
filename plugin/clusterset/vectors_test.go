package clusterset

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/balance"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// sizeRow says how many records of each kind fit into a message.
type sizeRow struct {
	Name      string `json:"name"`
	EDNS      bool   `json:"edns"`
	Limit     int    `json:"limit"`
	A         int    `json:"max_A"`
	AAAA      int    `json:"max_AAAA"`
	Long      int    `json:"max_SRV_long_target"`
	LongGlue  int    `json:"max_SRV_long_target_with_A_glue"`
	Short     int    `json:"max_SRV_short_target"`
	ShortGlue int    `json:"max_SRV_short_target_with_A_glue"`
}

// TestVectors runs the rows about sizes; those about the choice are run by package balance, which also fails when a
// file has no rows at all.
func TestVectors(t *testing.T) {
	file := "../pkg/balance/testdata/vectors.json"
	if f := os.Getenv("CLUSTERSET_VECTORS"); f != "" {
		file = f
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		Rows []sizeRow `json:"answer_size_computed"`
	}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	passed, failed := 0, 0
	for i, row := range all.Rows {
		if t.Run(fmt.Sprintf("answer_size_computed/%d", i), row.check) {
			passed++
		} else {
			failed++
		}
	}
	t.Logf("answer_size_computed: %d passed, %d failed", passed, failed)
}

func (r sizeRow) check(t *testing.T) {
	const ttl = 5
	// The k-th backend: pods that are named by their address, and those of a StatefulSet.
	address := func(k int) netip.Addr { return netip.AddrFrom4([4]byte{10, 244, byte(k / 256), byte(k)}) }
	label := func(k int, long bool) (topology.ClusterID, string) {
		if long {
			return "cluster-eu-west-1", mcs.AddressLabel(address(k))
		}
		return "c1", fmt.Sprintf("web-%d", k)
	}
	service := func(n int, long bool) *mcs.Service {
		s := sliceOf([]mcs.Port{{Name: "http", Number: 80}})
		cluster := topology.ClusterID("")
		for k := range n {
			e := mcs.Endpoint{Addr: address(k), Conditions: mcs.Ready | mcs.Serving}
			cluster, e.Label = label(k, long)
			s.Endpoints.Add(&e)
		}
		w := newTestWorld(mcs.Scope{Members: membersOf(cluster)}, func(w *world) { w.shard(cluster, "shop", "web", headlessShard(s)) })
		return w.snapshot.Load().Service("shop", "web")
	}
	srv := func(n int, long, glue bool) *dns.Msg {
		m := r.question("_http._tcp."+r.Name, dns.TypeSRV)
		s := service(n, long)
		var backends []*mcs.Backend
		for k := range n {
			cluster, name := label(k, long)
			backends = append(backends, s.Backend(name, cluster))
		}
		answer, extra := backendSRV(m.Question[0].Name, r.Name, ttl, s, backends, func(mcs.Port) bool { return true }, dns.MaxMsgSize)
		m.Answer = answer
		if glue {
			m.Extra = append(m.Extra, extra...)
		}
		return m
	}
	for _, kind := range []struct {
		name string
		want int
		make func(n int) *dns.Msg
	}{
		{"A", r.A, func(n int) *dns.Msg { return r.addresses(n, dns.TypeA, address) }},
		{"AAAA", r.AAAA, func(n int) *dns.Msg {
			return r.addresses(n, dns.TypeAAAA, func(k int) netip.Addr {
				return netip.AddrFrom16([16]byte{0: 0xfd, 14: byte(k / 256), 15: byte(k)})
			})
		}},
		{"SRV with long targets", r.Long, func(n int) *dns.Msg { return srv(n, true, false) }},
		{"SRV with long targets and glue", r.LongGlue, func(n int) *dns.Msg { return srv(n, true, true) }},
		{"SRV with short targets", r.Short, func(n int) *dns.Msg { return srv(n, false, false) }},
		{"SRV with short targets and glue", r.ShortGlue, func(n int) *dns.Msg { return srv(n, false, true) }},
	} {
		if fits := r.size(t, kind.make(kind.want)); fits > r.Limit {
			t.Errorf("%d %s take %d octets of %d", kind.want, kind.name, fits, r.Limit)
		}
		if over := r.size(t, kind.make(kind.want+1)); over <= r.Limit {
			t.Errorf("%d %s take %d octets of %d: one more fits", kind.want+1, kind.name, over, r.Limit)
		}
	}
	// What the plugin makes of addresses is what fits.
	if !r.EDNS && r.Limit != dns.MinMsgSize && r.Limit != dns.MaxMsgSize-1 {
		return // no query leaves so much room
	}
	for qtype, want := range map[uint16]int{dns.TypeA: r.A, dns.TypeAAAA: r.AAAA} {
		of, _ := familyOf(qtype)
		if got := r.most(qtype, of); got != want {
			t.Errorf("The plugin makes %d records of type %s, want %d", got, dns.TypeToString[qtype], want)
		}
	}
}

func (r sizeRow) question(name string, qtype uint16) *dns.Msg {
	m := new(dns.Msg).SetQuestion(name, qtype)
	m.Response, m.Authoritative, m.Compress = true, true, true
	if r.EDNS {
		m.SetEdns0(uint16(min(r.Limit, dns.MaxMsgSize-1)), false) //nolint:gosec // bounded
	}
	return m
}

func (r sizeRow) addresses(n int, qtype uint16, address func(int) netip.Addr) *dns.Msg {
	m := r.question(r.Name, qtype)
	var addrs []netip.Addr
	for k := range n {
		addrs = append(addrs, address(k))
	}
	m.Answer = addressRecords(nil, r.Name, 5, addrs)
	return m
}

// size packs a message; one that is too large for DNS has no size but its computed length.
func (r sizeRow) size(t *testing.T, m *dns.Msg) int {
	t.Helper()
	if m.Len() > dns.MaxMsgSize {
		return m.Len()
	}
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return len(wire)
}

// most asks the plugin how many records it makes for a query over TCP with the row's limit, or over UDP less the one
// that shows that there are more.
func (r sizeRow) most(qtype uint16, of balance.Family) int {
	tcp := r.Limit == dns.MaxMsgSize-1
	query := new(dns.Msg).SetQuestion(strings.ToLower(r.Name), qtype)
	if r.EDNS {
		query.SetEdns0(uint16(min(r.Limit, dns.MaxMsgSize-1)), false) //nolint:gosec // bounded
	}
	state := &request.Request{W: &test.ResponseWriter{TCP: tcp}, Req: query}
	a := answer{qname: query.Question[0].Name, state: *state}
	if !tcp {
		return a.most(of) - 1
	}
	return a.most(of)
}
