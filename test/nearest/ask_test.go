package nearest

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/test/server"
)

const (
	typeA    = dns.TypeA
	typeAAAA = dns.TypeAAAA
	// queryTimeout is when a query counts as lost; it is sent again so many times.
	queryTimeout = 2 * time.Second
	queryTries   = 4
)

// client asks one server block from one address, on one socket.
type client struct {
	conn *dns.Conn
	// subnet is for whom it asks, if not for itself.
	subnet netip.Addr
}

// reply is an answer, and whose addresses it holds.
type reply struct {
	rcode   int
	addrs   []netip.Addr
	members []string
}

// from is all clusters of the reply in one string; "" for none.
func (r reply) from() string { return strings.Join(r.members, "+") }

func dial(t *testing.T, s *server.Server, port string, from netip.Addr) *client {
	t.Helper()
	c, err := connect(s, port, from)
	must(t, err)
	return c
}

func connect(s *server.Server, port string, from netip.Addr) (*client, error) {
	to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(s.Port(port)))
	conn, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.UDPAddrFromAddrPort(to))
	if err != nil {
		return nil, err
	}
	return &client{conn: &dns.Conn{Conn: conn, UDPSize: dns.MaxMsgSize}}, nil
}

func (c *client) close() { _ = c.conn.Close() }

// ask sends a query and looks whose addresses are in the answer.
func (c *client) ask(name string, qtype uint16) (reply, error) {
	m := (&dns.Msg{}).SetQuestion(name, qtype)
	m.SetEdns0(4096, false)
	if c.subnet.IsValid() {
		m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_SUBNET{
			Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 32, Address: c.subnet.AsSlice(),
		})
	}
	var answer *dns.Msg
	var err error
	for range queryTries {
		if answer, err = c.exchange(m); err == nil {
			break
		}
		if timeout := net.Error(nil); !errors.As(err, &timeout) || !timeout.Timeout() {
			break
		}
	}
	if err != nil {
		return reply{}, fmt.Errorf("ask %s for %s: %w", c.conn.RemoteAddr(), name, err)
	}
	r := reply{rcode: answer.Rcode}
	for _, record := range answer.Answer {
		switch record := record.(type) {
		case *dns.A:
			a, _ := netip.AddrFromSlice(record.A)
			r.addrs = append(r.addrs, a.Unmap())
		case *dns.AAAA:
			a, _ := netip.AddrFromSlice(record.AAAA)
			r.addrs = append(r.addrs, a)
		}
	}
	r.members, err = everything.who(name, r.addrs)
	return r, err
}

func (c *client) exchange(m *dns.Msg) (*dns.Msg, error) {
	if err := c.conn.SetDeadline(time.Now().Add(queryTimeout)); err != nil {
		return nil, err
	}
	if err := c.conn.WriteMsg(m); err != nil {
		return nil, err
	}
	for {
		answer, err := c.conn.ReadMsg()
		if err != nil || answer.Id == m.Id {
			return answer, err
		}
	}
}

// gets checks that a client is answered with the addresses of those clusters ("east+west") and no others.
func (c *client) gets(name string, qtype uint16, want string) func() error {
	return func() error {
		r, err := c.ask(name, qtype)
		if err == nil && (r.rcode != dns.RcodeSuccess || r.from() != want) {
			err = fmt.Errorf("%s %s is answered by %q (%s), want %q", name, dns.TypeToString[qtype], r.from(), dns.RcodeToString[r.rcode], want)
		}
		return err
	}
}

// expect checks once which cluster's IPv4 addresses a client at an address is answered.
func expect(t *testing.T, s *server.Server, from netip.Addr, name, want string) {
	t.Helper()
	c := dial(t, s, "DNS", from)
	defer c.close()
	if err := c.gets(name, typeA, want)(); err != nil {
		t.Errorf("%s: %v", from, err)
	}
}

// sample asks once from each of the addresses, each on a socket of its own, and counts the answers by cluster.
func sample(t *testing.T, s *server.Server, port, name string, from []netip.Addr) map[string]int {
	t.Helper()
	const askers = 16
	var (
		group  sync.WaitGroup
		mu     sync.Mutex
		counts = map[string]int{}
		failed error
	)
	for part := range slices.Chunk(from, (len(from)+askers-1)/askers) {
		group.Go(func() {
			for _, a := range part {
				r, err := once(s, port, a, name)
				mu.Lock()
				counts[r.from()]++
				if err != nil {
					failed = err
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	must(t, failed)
	return counts
}

func once(s *server.Server, port string, from netip.Addr, name string) (reply, error) {
	c, err := connect(s, port, from)
	if err != nil {
		return reply{}, err
	}
	defer c.close()
	return c.ask(name, typeA)
}

// bound is the deviation that 99.9 % of all samples of a share keep (the normal approximation of the binomial
// distribution, with its correction for whole numbers).
func bound(share float64, n int) float64 {
	return (3.2905*math.Sqrt(float64(n)*share*(1-share)) + 0.5) / float64(n)
}

// compare checks shares of a sample. A share of 0 or 1 must be met exactly.
func compare(t *testing.T, what string, counts map[string]int, want map[string]float64) {
	t.Helper()
	n := 0
	for _, count := range counts {
		n += count
	}
	for _, c := range []cluster{east, west, north, south} {
		share, wanted := float64(counts[c.Name()])/float64(n), want[c.Name()]
		exact := wanted == 0 || wanted == 1
		if off := math.Abs(share - wanted); exact && off > 0 || off > bound(wanted, n) {
			t.Errorf("%s: %s has %.4f of %d answers, want %.4f +-%.4f", what, c.Name(), share, n, wanted, bound(wanted, n))
		}
	}
}

// percent writes a sample as shares of east, west, north and south.
func percent(counts map[string]int) string {
	n := 0
	for _, count := range counts {
		n += count
	}
	var b strings.Builder
	for _, c := range []cluster{east, west, north, south} {
		fmt.Fprintf(&b, " %s %5.1f %%", c.Name(), 100*float64(counts[c.Name()])/float64(n))
	}
	return b.String()[1:]
}
