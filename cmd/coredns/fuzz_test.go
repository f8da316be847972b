package main

import (
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// wholeChain has what reads or changes queries and answers before our plugins and after them. With debug a panic is not
// recovered: it ends the process, and the fuzzer has found something.
const wholeChain = `.:0 {
    bind 127.0.0.1
    debug
    errors {
        consolidate 1h ".*"
    }
    metadata
    bufsize 1232
    rewrite stop {
        name suffix .example.org .clusterset.local answer auto
    }
    dns64 {
        translate_all
        allow_ipv4
    }
    cache 30 {
        keepttl
    }
    loadbalance
    locality {
        cluster east eu
        cidr 10.0.0.0/8 region=eu zone=eu-1
        ecs 127.0.0.0/8
    }
    clusterhealth {
        drain west
    }
    clusterset {
        local east
        cluster east %[1]q {
            region eu
        }
        cluster west %[1]q {
            region us
            address endpoints any_port
            weight 3
        }
        prefer zone cluster region
        fallthrough in-addr.arpa ip6.arpa
    }
    hosts {
        192.0.2.1 web.example.com
        fallthrough
    }
}
`

// FuzzPacket sends packets to the server through a socket, as a pod would. Whatever looks like a query gets a reply that can
// be read and belongs to it; nothing ends the server.
func FuzzPacket(f *testing.F) {
	addr := chainFor(f, wholeChain, "db-3.west.db.shop.svc.example.org.")
	for _, seed := range packets(f) {
		f.Add(seed)
	}
	conn, err := net.Dial("udp", addr)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { conn.Close() })
	buf := make([]byte, dns.MaxMsgSize)
	id := uint16(0)
	f.Fuzz(func(t *testing.T, packet []byte) {
		if len(packet) < 12 || len(packet) > 4096 || packet[2]&0x80 != 0 {
			return // no header, or a reply: nobody answers that
		}
		id++ // a late reply to the packet before is not taken for this one's
		packet = append([]byte{byte(id >> 8), byte(id)}, packet[2:]...)
		if _, err := conn.Write(packet); err != nil {
			t.Fatal(err)
		}
		for {
			if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatalf("No reply to %x: %v", packet, err)
			}
			if n < 12 {
				t.Fatalf("A reply of %d bytes to %x", n, packet)
			}
			if buf[0] != packet[0] || buf[1] != packet[1] {
				continue
			}
			reply := new(dns.Msg)
			if err := reply.Unpack(buf[:n]); err != nil {
				t.Fatalf("The reply to %x cannot be read: %v\n%x", packet, err, buf[:n])
			}
			if !reply.Response {
				t.Fatalf("The reply to %x is none:\n%s", packet, reply)
			}
			return
		}
	})
}

// packets are queries of many kinds, as a fuzzer can hardly guess them.
func packets(f *testing.F) (out [][]byte) {
	f.Helper()
	for _, name := range []string{
		"web.shop.svc.clusterset.local.", "db.shop.svc.clusterset.local.", "_http._tcp.db.shop.svc.clusterset.local.", "db-1.east.db.shop.svc.clusterset.local.",
		"web.shop.svc.example.org.", "web.example.com.", "clusterset.local.", "ns.dns.clusterset.local.", "10.0.0.10.in-addr.arpa.", ".",
	} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeSOA, dns.TypeANY} {
			m := new(dns.Msg).SetQuestion(name, qtype)
			out = append(out, packed(f, m))
			m.SetEdns0(1232, true)
			m.IsEdns0().Option = append(m.IsEdns0().Option,
				&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IPv4(10, 1, 2, 0)}, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0123456789abcdef"})
			out = append(out, packed(f, m))
		}
	}
	update := new(dns.Msg).SetUpdate("clusterset.local.")
	notify := new(dns.Msg).SetNotify("clusterset.local.")
	transfer := new(dns.Msg).SetAxfr("clusterset.local.")
	return append(out, packed(f, update), packed(f, notify), packed(f, transfer), make([]byte, 12))
}

func packed(f *testing.F, m *dns.Msg) []byte {
	f.Helper()
	wire, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	return wire
}
