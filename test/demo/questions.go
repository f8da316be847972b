package demo

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// place is where a client asks from: a cluster of the demo. Its addresses are the loopback network that the Corefile says
// is the cluster's.
type place int

const (
	inEast place = iota
	inWest
	inNorth
)

func (p place) String() string { return names[p] }

// network returns the loopback network of the clients there.
func (p place) network() string { return fmt.Sprintf("127.%d.0.0/16", p+1) }

// address returns one of its clients.
func (p place) address(client int) string { return fmt.Sprintf("127.%d.0.%d", p+1, client) }

// question is one question of the demo.
type question struct {
	from  place
	name  string
	qtype uint16
	// want is the expected answer as dig +short prints it, sorted; or NXDOMAIN, or NODATA. why is one line.
	want []string
	why  string
}

const web = "web.shop.svc.clusterset.local"

var questions = []question{
	webFromEast,
	webFromNorth,
	{
		inEast, "_http._tcp.web.shop.svc.clusterset.local", dns.TypeSRV, []string{"0 100 80 web.shop.svc.clusterset.local."},
		"One record per named port of the merged service, however many clusters export it.",
	},
	{
		inEast, "db.shop.svc.clusterset.local", dns.TypeA, []string{"10.1.0.20", "10.1.0.21", "10.3.0.20"},
		"Headless: every ready endpoint of every cluster that exports it, two in east and one in north.",
	},
	{
		inEast, "db-0.north.db.shop.svc.clusterset.local", dns.TypeA, []string{"10.3.0.20"},
		"hostname.clusterid tells the two db-0 apart: this is the one in north.",
	},
	{
		inEast, "db-1.north.db.shop.svc.clusterset.local", dns.TypeA, []string{"NXDOMAIN"},
		"That Pod exists, but it is not ready.",
	},
	{
		inEast, "_postgres._tcp.db.shop.svc.clusterset.local", dns.TypeSRV,
		[]string{
			"0 33 5432 db-0.east.db.shop.svc.clusterset.local.",
			"0 33 5432 db-0.north.db.shop.svc.clusterset.local.",
			"0 33 5432 db-1.east.db.shop.svc.clusterset.local.",
		},
		"Headless: one record per ready endpoint, with its name and port.",
	},
	{
		inEast, "internal.shop.svc.clusterset.local", dns.TypeA, []string{"NXDOMAIN"},
		"The Service exists in east, but there is no ServiceExport of it.",
	},
	{
		inEast, "probe.lab.svc.clusterset.local", dns.TypeA, []string{"NXDOMAIN"},
		"north exports it, but a name exists only where its namespace does, and east has no namespace lab.",
	},
}

var (
	webFromEast = question{
		inEast, web, dns.TypeA, []string{"10.96.0.80"},
		"All three clusters export it, and the client's own comes first: the cluster IP there.",
	}
	webWithoutEast = question{
		inEast, web, dns.TypeA, []string{"10.97.0.80"},
		"No backend in east is ready. The next is west, in the same region.",
	}
	webFromNorth = question{
		inNorth, web, dns.TypeA, []string{"10.98.0.80"},
		"The same name, asked from another cluster: the address there, whatever becomes of east.",
	}
	webUnexported = question{
		inEast, web, dns.TypeA, []string{"10.97.0.80"},
		"east exports it no more. The Service is still there, and east's own names are not touched.",
	}
	webOfTheRegion = question{
		inEast, web, dns.TypeA, []string{"10.96.0.80", "10.97.0.80"},
		"The cluster IPs of both clusters in the client's region.",
	}
)

// queryTimeout bounds one exchange.
const queryTimeout = 5 * time.Second

// Ask asks a server (HOST:PORT) over UDP for the records of a name, from the given loopback address.
func Ask(ctx context.Context, server, from, name string, qtype uint16) (*dns.Msg, error) {
	client, err := netip.ParseAddr(from)
	if err != nil {
		return nil, err
	}
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	m.RecursionDesired = false
	exchange := dns.Client{Timeout: queryTimeout, Dialer: &net.Dialer{
		Timeout: queryTimeout, LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(client, 0)),
	}}
	answer, _, err := exchange.ExchangeContext(ctx, m, server)
	if err != nil {
		return nil, fmt.Errorf("ask %s from %s for %s %s: %w", server, from, name, dns.TypeToString[qtype], err)
	}
	return answer, nil
}

// Short returns an answer as dig +short prints it, sorted; or the name of the rcode, or NODATA.
func Short(m *dns.Msg) []string {
	if m.Rcode != dns.RcodeSuccess {
		return []string{dns.RcodeToString[m.Rcode]}
	}
	if len(m.Answer) == 0 {
		return []string{"NODATA"}
	}
	var got []string
	for _, rr := range m.Answer {
		// The header is what stands before the data in the presentation of a record.
		got = append(got, rr.String()[len(rr.Header().String()):])
	}
	slices.Sort(got)
	return got
}

// ask returns the answer in the form of want.
func (q question) ask(ctx context.Context, server string) ([]string, error) {
	m, err := Ask(ctx, server, q.from.address(7), q.name, q.qtype)
	if err != nil {
		return nil, err
	}
	return Short(m), nil
}

func (q question) answeredBy(got []string) bool { return slices.Equal(got, q.want) }

// shares asks from so many clients of a place and returns how many got each answer of one record.
func shares(ctx context.Context, server string, from place, clients int) (map[string]int, error) {
	got := map[string]int{}
	for client := range clients {
		m, err := Ask(ctx, server, from.address(client+1), web, dns.TypeA)
		if err != nil {
			return nil, err
		}
		short := Short(m)
		if len(short) != 1 {
			return nil, fmt.Errorf("%s from %s: %v, want the address of one cluster", web, from.address(client+1), short)
		}
		got[short[0]]++
	}
	return got, nil
}
