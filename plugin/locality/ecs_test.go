package locality

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/pkg/edns"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// withSubnet adds a client subnet to a query, well-formed or not.
func withSubnet(m *dns.Msg, family uint16, bits, scope uint8, address string) *dns.Msg {
	opt := m.IsEdns0()
	if opt == nil {
		m.SetEdns0(1232, false)
		opt = m.IsEdns0()
	}
	opt.Option = append(opt.Option, &dns.EDNS0_SUBNET{
		Code: dns.EDNS0SUBNET, Family: family, SourceNetmask: bits, SourceScope: scope, Address: net.ParseIP(address),
	})
	return m
}

// replying is the next plugin; it answers with a message of its own.
func replying(reply *dns.Msg) plugin.Handler {
	return plugin.HandlerFunc(func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		m := reply
		if m == nil {
			m = new(dns.Msg).SetReply(r)
		}
		return dns.RcodeSuccess, w.WriteMsg(m)
	})
}

// subnetOf returns the client subnet of a reply, nil if there is none.
func subnetOf(t *testing.T, m *dns.Msg) *dns.EDNS0_SUBNET {
	t.Helper()
	option, verdict := findSubnet(m)
	if verdict == ecsMalformed {
		t.Fatalf("Expected at most one client subnet, got %v", m.IsEdns0())
	}
	return option
}

func TestClientSubnet(t *testing.T) {
	const trusting = "cluster east\ncidr 10.1.0.0/16 zone=a\ncidr 10.1.1.0/24 zone=b\necs 192.0.2.53/32 2001:db8:53::/48"
	ask := func(family uint16, bits uint8, address string) func(*dns.Msg) {
		return func(m *dns.Msg) { withSubnet(m, family, bits, 0, address) }
	}
	for name, row := range map[string]struct {
		stanza, from string
		ask          func(*dns.Msg)
		result       string // of the metric; "" when 'ecs' is not set
		addr, zone   string
		scope        int // -1 means no option in the reply
	}{
		"a forwarder's client is believed to the last bit": {
			trusting, "192.0.2.53", ask(1, 32, "10.1.1.5"), "accepted", "10.1.1.5", "b", 32,
		},
		"a forwarder's IPv6 client is believed to the last bit": {
			trusting, "2001:db8:53::1", ask(2, 128, "fd00::5"), "accepted", "fd00::5", "", 128,
		},
		"a forwarder of one family may speak for a client of the other": {
			trusting, "2001:db8:53::1", ask(1, 32, "10.1.1.5"), "accepted", "10.1.1.5", "b", 32,
		},
		"a shorter prefix is where the range that holds all of it is": {
			trusting, "192.0.2.53", ask(1, 20, "10.1.0.0"), "accepted", "10.1.0.0", "a", 20,
		},
		"a prefix as long as a range is in it": {
			trusting, "192.0.2.53", ask(1, 24, "10.1.1.0"), "accepted", "10.1.1.0", "b", 24,
		},
		"a prefix wider than every range is in none": {
			trusting, "192.0.2.53", ask(1, 12, "10.0.0.0"), "accepted", "10.0.0.0", "", 12,
		},
		"a subnet forged by somebody else is ignored": {
			trusting, "192.0.2.54", ask(1, 32, "10.1.1.5"), "untrusted", "192.0.2.54", "", 0,
		},
		"a forwarder's own query is its own": {
			trusting, "192.0.2.53", func(*dns.Msg) {}, "none", "192.0.2.53", "", -1,
		},
		"EDNS without a subnet is left alone": {
			trusting, "192.0.2.53", func(m *dns.Msg) { m.SetEdns0(1232, false) }, "none", "192.0.2.53", "", -1,
		},
		"a client that withholds its subnet is the forwarder": {
			trusting, "192.0.2.53", ask(1, 0, "0.0.0.0"), "withheld", "192.0.2.53", "", 0,
		},
		"a subnet withheld as dig does it is no mistake": {
			trusting, "192.0.2.53", ask(0, 0, "0.0.0.0"), "withheld", "192.0.2.53", "", 0,
		},
		"bits behind the prefix are a mistake": {
			trusting, "192.0.2.53", ask(1, 24, "10.1.1.5"), "malformed", "192.0.2.53", "", -1,
		},
		"a scope in a query is a mistake": {
			trusting, "192.0.2.53", func(m *dns.Msg) { withSubnet(m, 1, 32, 32, "10.1.1.5") }, "malformed", "192.0.2.53", "", -1,
		},
		"two subnets are a mistake": {
			trusting, "192.0.2.53", func(m *dns.Msg) { withSubnet(withSubnet(m, 1, 32, 0, "10.1.1.5"), 1, 32, 0, "10.1.1.6") }, "malformed", "192.0.2.53", "", -1,
		},
		"an IPv4 address called IPv6 is a mistake": {
			trusting, "192.0.2.53", ask(2, 128, "10.1.1.5"), "malformed", "192.0.2.53", "", -1,
		},
		"an IPv6 address called IPv4 is a mistake": {
			trusting, "192.0.2.53", ask(1, 32, "fd00::5"), "malformed", "192.0.2.53", "", -1,
		},
		"a prefix longer than its family is a mistake": {
			trusting, "192.0.2.53", ask(1, 33, "10.1.1.5"), "malformed", "192.0.2.53", "", -1,
		},
		"no address at all is a mistake": {
			trusting, "192.0.2.53", ask(1, 32, ""), "malformed", "192.0.2.53", "", -1,
		},
		"an unknown family is a mistake": {
			trusting, "192.0.2.53", ask(3, 8, "10.0.0.0"), "malformed", "192.0.2.53", "", -1,
		},
		"nobody is at the unspecified address": {
			trusting, "192.0.2.53", ask(1, 32, "0.0.0.0"), "malformed", "192.0.2.53", "", -1,
		},
		"without 'ecs' nobody is believed and nothing is added": {
			"cluster east", "192.0.2.53", ask(1, 32, "10.1.1.5"), "", "192.0.2.53", "", -1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := handler(t, nil, row.stanza)
			l.Next = replying(nil)
			m := new(dns.Msg).SetQuestion("web.shop.svc.clusterset.local.", dns.TypeA)
			row.ask(m)
			before := map[string]float64{}
			for v := range ecs {
				before[ecsVerdict(v).String()] = testutil.ToFloat64(ecs[v])
			}

			w := dnstest.NewRecorder(udp(row.from))
			if rcode, err := l.ServeDNS(t.Context(), w, m); rcode != dns.RcodeSuccess || err != nil {
				t.Fatalf("Expected success, got %d, %v", rcode, err)
			}
			switch got := subnetOf(t, w.Msg); {
			case got == nil && row.scope >= 0:
				t.Errorf("Expected a scope of %d, got no client subnet", row.scope)
			case got != nil && row.scope < 0:
				t.Errorf("Expected no client subnet, got %v", got)
			case got != nil:
				asked := subnetOf(t, m)
				if int(got.SourceScope) != row.scope || got.SourceNetmask != asked.SourceNetmask || !got.Address.Equal(asked.Address) || got.Family != asked.Family {
					t.Errorf("Expected %v with a scope of %d, got %v", asked, row.scope, got)
				}
				if asked.SourceScope != 0 {
					t.Errorf("Expected the query to stay as it was, got %v", asked)
				}
			}
			for v := range ecs {
				want, label := 0.0, ecsVerdict(v).String()
				if label == row.result {
					want = 1
				}
				if got := testutil.ToFloat64(ecs[v]) - before[label]; got != want {
					t.Errorf("Expected %s to be counted %v times, got %v", label, want, got)
				}
			}

			got := located(l, &request.Request{W: udp(row.from), Req: m})
			if got.Addr != netip.MustParseAddr(row.addr) || got.Zone != row.zone || got.Forwarded != (row.result == "accepted") {
				t.Errorf("Expected %s in zone %q, got %+v", row.addr, row.zone, got)
			}
		})
	}
}

// A network's first address can be that of a host, such as flannel's overlay interface. A prefix is not that host.
func TestAPrefixIsNotTheHostAtItsFirstAddress(t *testing.T) {
	w := east()
	w.nodes["n2"].Addresses = append(w.nodes["n2"].Addresses, netip.MustParseAddr("10.1.1.0"))
	l := handler(t, atlasOf(t, w), "cluster east\necs 192.0.2.53/32")
	for bits, want := range map[uint8]string{32: "n2", 24: "n1"} {
		state := asking("192.0.2.53")
		withSubnet(state.Req, 1, bits, 0, "10.1.1.0")
		if got := located(l, state); got.Node != want {
			t.Errorf("Expected /%d to be on %s, got %+v", bits, want, got)
		}
	}
}

func TestTheScopeLeavesTheRestOfAReplyAlone(t *testing.T) {
	const trusting = "cluster east\necs 192.0.2.53/32"
	record := func() dns.RR { rr, _ := dns.NewRR("web. 5 IN A 192.0.2.80"); return rr }
	for name, row := range map[string]struct {
		extra []dns.RR
		scope uint8
		extra2,
		options int // records of the additional section, options of its OPT record
	}{
		"a reply without an OPT record gets one":               {nil, 24, 1, 1},
		"other additional records stay":                        {[]dns.RR{record(), record()}, 24, 3, 1},
		"other options stay":                                   {[]dns.RR{optRecord(&dns.EDNS0_EDE{InfoCode: 3}), record()}, 24, 2, 2},
		"a wider scope that an upstream server has said stays": {[]dns.RR{optRecord(&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, SourceScope: 28})}, 28, 1, 1},
		"a narrower scope that an upstream server has said is widened": {
			[]dns.RR{optRecord(&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, SourceScope: 16})}, 24, 1, 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := handler(t, nil, trusting)
			m := withSubnet(new(dns.Msg).SetQuestion("web.", dns.TypeA), 1, 24, 0, "10.1.1.0")
			shared := new(dns.Msg).SetReply(m)
			shared.Answer, shared.Extra = []dns.RR{record()}, row.extra
			before := shared.Copy()
			l.Next = replying(shared)
			w := udp("192.0.2.53")
			if _, err := l.ServeDNS(t.Context(), w, m); err != nil {
				t.Fatal(err)
			}
			if got := subnetOf(t, w.got); got == nil || got.SourceScope != row.scope {
				t.Errorf("Expected a scope of %d, got %v", row.scope, got)
			}
			if len(w.got.Answer) != 1 || len(w.got.Extra) != row.extra2 || len(w.got.IsEdns0().Option) != row.options {
				t.Errorf("Expected 1 answer, %d additional records and %d options, got %v", row.extra2, row.options, w.got)
			}
			if shared.String() != before.String() {
				t.Errorf("Expected the plugin's own message to stay %v, got %v", before, shared)
			}
			if _, err := w.got.Pack(); err != nil {
				t.Errorf("Expected a message that can be sent: %v", err)
			}
		})
	}
}

func optRecord(o dns.EDNS0) *dns.OPT {
	return &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}, Option: []dns.EDNS0{o}}
}

// The server takes options over from the request only where a reply has no OPT record.
func TestTheScopeDoesNotCostOtherOptions(t *testing.T) {
	edns.SetSupportedOption(dns.EDNS0COOKIE)
	l := handler(t, nil, "cluster east\necs 192.0.2.53/32")
	l.Next = replying(nil)
	m := withSubnet(new(dns.Msg).SetQuestion("web.", dns.TypeA), 1, 24, 0, "10.1.1.0")
	opt := m.IsEdns0()
	opt.Option = append(opt.Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "24a5ac1122334455"}, &dns.EDNS0_PADDING{})
	client := udp("192.0.2.53")
	if _, err := l.ServeDNS(t.Context(), request.NewScrubWriter(m, client), m); err != nil {
		t.Fatal(err)
	}
	var cookie, padding bool
	for _, o := range client.got.IsEdns0().Option {
		cookie = cookie || o.Option() == dns.EDNS0COOKIE
		padding = padding || o.Option() == dns.EDNS0PADDING
	}
	if got := subnetOf(t, client.got); !cookie || padding || got == nil || got.SourceScope != 24 || client.got.IsEdns0().UDPSize() != 1232 {
		t.Errorf("Expected the subnet and the supported options of the request, got %v", client.got.IsEdns0())
	}
}

// CoreDNS itself allocates what passes a query on from plugin to plugin.
func TestServeDNSAllocatesNothingOfItsOwnWithoutAClientSubnet(t *testing.T) {
	l := handler(t, nil, "cluster east\necs 192.0.2.53/32")
	l.Next = plugin.HandlerFunc(func(context.Context, dns.ResponseWriter, *dns.Msg) (int, error) { return dns.RcodeSuccess, nil })
	var w dns.ResponseWriter = udp("192.0.2.53")
	for name, m := range map[string]*dns.Msg{
		"no EDNS": new(dns.Msg).SetQuestion("web.", dns.TypeA),
		"EDNS":    new(dns.Msg).SetQuestion("web.", dns.TypeA).SetEdns0(1232, true),
	} {
		t.Run(name, func(t *testing.T) {
			want := testing.AllocsPerRun(100, func() { _, _ = l.Next.ServeDNS(t.Context(), w, m) })
			if got := testing.AllocsPerRun(100, func() { _, _ = l.ServeDNS(t.Context(), w, m) }); got != want {
				t.Errorf("Expected the %v allocations of passing on, got %v", want, got)
			}
		})
	}
}

// FuzzClientSubnet sends any packet: nothing may panic, what is believed must be true, and the reply must be sendable.
func FuzzClientSubnet(f *testing.F) {
	for _, m := range []*dns.Msg{
		withSubnet(new(dns.Msg).SetQuestion("web.", dns.TypeA), 1, 32, 0, "10.1.1.5"),
		withSubnet(new(dns.Msg).SetQuestion("web.", dns.TypeAAAA), 2, 56, 0, "fd00::"),
		withSubnet(withSubnet(new(dns.Msg).SetQuestion("web.", dns.TypeA), 1, 0, 0, "0.0.0.0"), 0, 0, 0, "0.0.0.0"),
	} {
		packet, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packet)
	}
	l := handler(f, atlasOf(f, east()), "cluster east\ncidr 10.1.0.0/16 zone=a\necs 192.0.2.53/32")
	l.Next = replying(nil)
	f.Fuzz(func(t *testing.T, packet []byte) {
		m := new(dns.Msg)
		if m.Unpack(packet) != nil || len(m.Question) != 1 {
			return
		}
		for from, trusted := range map[string]bool{"192.0.2.53": true, "192.0.2.54": false} {
			w := udp(from)
			got := located(l, &request.Request{W: w, Req: m})
			if got.Source == "" || got.Source == topology.SourceNone || got.Forwarded && !trusted {
				t.Errorf("Expected a place for %s, got %+v", from, got)
			}
			if !got.Forwarded && got.Addr != netip.MustParseAddr(from) || got.Forwarded && got.Addr.IsUnspecified() {
				t.Errorf("Expected the address of %s, got %+v", from, got)
			}
			if _, err := l.ServeDNS(t.Context(), w, m.Copy()); err != nil {
				t.Fatal(err)
			}
			option, verdict := findSubnet(w.got)
			if verdict == ecsMalformed || option != nil && got.Forwarded != (option.SourceScope > 0) {
				t.Errorf("Expected a scope exactly when the subnet was believed, got %v for %+v", option, got)
			}
			if _, err := w.got.Pack(); err != nil && !unpackable(m) {
				t.Errorf("Expected a message that can be sent: %v", err)
			}
		}
	})
}

// unpackable reports whether the query itself cannot be packed again, as its question goes into the reply.
func unpackable(m *dns.Msg) bool {
	_, err := (&dns.Msg{MsgHdr: m.MsgHdr, Question: m.Question}).Pack()
	return err != nil
}
