package clusterset

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"unsafe"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/balance"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// TestPreparedAnswersAreThoseMadeAnew asks two handlers the same, of which one has answered all of it before.
func TestPreparedAnswersAreThoseMadeAnew(t *testing.T) {
	worlds := map[string]*world{"shop": shop(true), "many hosts": bigWorld(40)}
	policies := map[string]balance.Policy{
		"one member": {}, "all members": {Answer: balance.All, Prefer: balance.ByLabels}, "three at most": {MaxAnswers: 3},
	}
	sizes := map[string]func(*dns.Msg){"512 octets": func(*dns.Msg) {}, "4096 octets": func(m *dns.Msg) { m.SetEdns0(4096, false) }}
	for worldName, w := range worlds {
		for policyName, policy := range policies {
			t.Run(worldName+", "+policyName, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { // the clock stands still: draws stay
					setup := func(c *Clusterset) {
						p := policy
						c.policy, c.zones = &p, plugin.Zones{defaultZone, "example.org."}
					}
					warm := handlerOf(w, setup)
					for sizeName, size := range sizes {
						for range 2 {
							for _, q := range askable(w) {
								m := new(dns.Msg).SetQuestion(q.Name, q.Qtype)
								size(m)
								for _, client := range []string{"10.240.0.1", "10.240.7.9"} {
									anew, again := from(t, handlerOf(w, setup), m, client), from(t, warm, m, client)
									if anew != again {
										t.Fatalf("%s of %s with %s: made anew\n%s\nfrom what was prepared\n%s", dns.TypeToString[q.Qtype], q.Name, sizeName, anew, again)
									}
								}
							}
						}
					}
				})
			})
		}
	}
}

// askable are the address questions of all services in a world, in two zones and two cases.
func askable(w *world) (out []dns.Question) {
	for s := range w.snapshot.Load().Services {
		for _, zone := range []string{".svc.clusterset.local.", ".svc.example.org.", ".SVC.Example.org."} {
			for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
				out = append(out, dns.Question{Name: s.Key().Name + "." + s.Key().Namespace + zone, Qtype: qtype})
			}
		}
	}
	return out
}

// from returns the answer that a client gets, as text.
func from(t *testing.T, c *Clusterset, m *dns.Msg, client string) string {
	t.Helper()
	w := dnstest.NewRecorder(&test.ResponseWriter{RemoteIP: client})
	if _, err := c.ServeDNS(context.Background(), request.NewScrubWriter(m, w), m); err != nil {
		t.Fatal(err)
	}
	return w.Msg.String()
}

func TestPreparedRecordsAreBounded(t *testing.T) {
	ids := []topology.ClusterID{"east"}
	w := newTestWorld(mcs.Scope{Members: membersOf(ids...)}, func(w *world) {
		for i := range 50 {
			w.shard("east", "shop", fmt.Sprint("web-", i), clusterIPShard(fmt.Sprint("10.0.0.", i)))
		}
		w.allSynced()
	})
	c := handlerOf(w)
	before := process
	t.Cleanup(func() { process = before })
	process = newStore()
	one := prepare("web.", 5, []netip.Addr{netip.IPv4Unspecified()}).size()
	process.prepared.most = 10 * one
	kept := func() (n int) {
		for s := range w.snapshot.Load().Services {
			plan := c.policy.Plan(s, c.view.current(c), topology.Locality{})
			for slot := range 2 * plan.Sets * len(c.zones) {
				if preparedAt(plan, slot) != nil {
					n++
				}
			}
		}
		return n
	}
	for i := range 50 {
		from(t, c, new(dns.Msg).SetQuestion(fmt.Sprintf("web-%d.shop.svc.clusterset.local.", i), dns.TypeA), "10.0.0.1")
		if want := min(i+1, 10); kept() != want {
			t.Fatalf("After %d answers %d are kept, want %d", i+1, kept(), want)
		}
	}
	if got := process.prepared.used; got != 10*one {
		t.Errorf("%d bytes are counted, want %d", got, 10*one)
	}
}

func TestPreparedRecordsEndWithTheirPlan(t *testing.T) {
	s := stock{most: 1 << 20}
	records := prepare("web.", 5, []netip.Addr{netip.IPv4Unspecified()})
	func() {
		s.keep(&balance.Plan{}, 1, 1, records)
	}()
	runtime.GC()
	if s.queue[0].of.Value() != nil {
		t.Error("What is prepared is kept when nothing needs it any more")
	}
	s.most = s.used
	s.keep(&balance.Plan{}, 0, 1, records)
	if len(s.queue) != 1 || s.used != records.size() {
		t.Errorf("%d answers of %d bytes are counted, want one", len(s.queue), s.used)
	}
}

func TestNoQueryWaitsToKeepRecords(t *testing.T) {
	s := stock{most: 1 << 20}
	p := &balance.Plan{}
	s.mu.Lock()
	s.keep(p, 0, 1, prepare("web.", 5, nil))
	s.mu.Unlock()
	if preparedAt(p, 0) != nil {
		t.Error("Records were kept while another query had the lock")
	}
}

func TestPreparedRecordsAreThoseOfTheAddresses(t *testing.T) {
	tests := []struct {
		name  string
		addrs []string
	}{
		{"one of IPv4", []string{"10.0.0.1"}},
		{"one of IPv6", []string{"fd00::1"}},
		{"several of IPv4", []string{"10.0.0.2", "10.0.0.1", "10.0.0.3"}},
		{"several of IPv6", []string{"fd00::2", "fd00::1"}},
		{"none", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var addrs []netip.Addr
			for _, a := range test.addrs {
				addrs = append(addrs, netip.MustParseAddr(a))
			}
			want := fmt.Sprint(addressRecords(nil, "web.", 5, addrs))
			p := prepare("web.", 5, addrs)
			clear(p.records()) // as a plugin may
			if got := fmt.Sprint(p.records()); got != want || p.len() != len(addrs) {
				t.Errorf("Got %d: %s, want %s", p.len(), got, want)
			}
			if least := len(addrs) * int(unsafe.Sizeof(dns.A{})); p.size() < least {
				t.Errorf("%d bytes are counted, want %d at least", p.size(), least)
			}
		})
	}
}

// TestWhatIsPreparedIsCutToWhatAMessageOverTCPHolds asks twice: what is too much is neither kept nor answered with TC.
func TestWhatIsPreparedIsCutToWhatAMessageOverTCPHolds(t *testing.T) {
	s := clusterIPShard("10.0.0.1")
	s.Slices = []*mcs.Slice{sliceOf(s.Service.Ports)}
	for i := range 5000 {
		one := host(fmt.Sprintf("10.1.%d.%d", i>>8, i&255), fmt.Sprint("web-", i))
		s.Slices[0].Endpoints.Add(&one)
	}
	scope := mcs.Scope{Members: []mcs.Member{{ID: "east", Address: mcs.AddressEndpoints}}}
	w := newTestWorld(scope, func(w *world) {
		w.shard("east", "shop", "web", s)
		w.allSynced()
	})
	c := handlerOf(w)
	for range 2 {
		reply, _ := ask(t.Context(), c, new(dns.Msg).SetQuestion("web.shop.svc.clusterset.local.", dns.TypeA), true)
		if n := len(reply.Answer); reply.Truncated || n < 4000 || n == 5000 {
			t.Errorf("%d records, truncated: %v", n, reply.Truncated)
		}
	}
}

func TestEveryMessageHoldsWhatIsTakenForGranted(t *testing.T) {
	label := strings.Repeat("a", 63) + "."
	longest := strings.Repeat(label, 3) + strings.Repeat("a", 61) + "."
	m := new(dns.Msg).SetQuestion(longest, dns.TypeAAAA).SetEdns0(dns.MinMsgSize, true)
	m.Compress = true
	for i := range surely {
		m.Answer = append(m.Answer, addressRecords(nil, longest, 5, []netip.Addr{netip.AddrFrom16([16]byte{0xfd, 15: byte(i)})})...)
	}
	if n := m.Len(); n > dns.MinMsgSize {
		t.Errorf("%d addresses for a name of %d octets take %d octets", surely, len(longest)+1, n)
	}
}
