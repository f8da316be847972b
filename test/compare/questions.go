//go:build linux

package compare

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/test/compare/world"
)

// Shares of the questions. The rest asks for the A records of services.
const (
	shareDenied = 0.05
	shareAAAA   = 0.10
	shareSRV    = 0.05
	// drawn is how many questions are prepared. They are asked in a circle.
	drawn = 50_000
)

// question is a packet that is ready to be sent, but for its first two octets, and what must be in the answer.
type question struct {
	packet []byte
	rcode  int
	// At least and at most as many records are answered. The SRV records of a headless service may be too many for a UDP
	// message of 512 octets.
	least, most int
}

// draw makes questions about random services of a zone. The same seed makes the same ones, whatever the zone.
func draw(zone string, services int, seed uint64) ([]question, error) {
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a reproducible draw, no secret
	all := make([]question, drawn)
	for i := range all {
		s := world.Service(random.IntN(services))
		name, qtype := s.FQDN(zone), dns.TypeA
		q := question{rcode: dns.RcodeSuccess, least: s.Records(), most: s.Records()}
		switch p := random.Float64(); {
		case p < shareDenied:
			name, q.rcode, q.least, q.most = "no-"+name, dns.RcodeNameError, 0, 0
		case p < shareDenied+shareAAAA:
			qtype, q.least, q.most = dns.TypeAAAA, 0, 0
		case p < shareDenied+shareAAAA+shareSRV:
			name, qtype, q.least = "_"+world.PortName+"._tcp."+name, dns.TypeSRV, 1
		}
		m := (&dns.Msg{}).SetQuestion(name, qtype)
		m.RecursionDesired = false
		packet, err := m.Pack()
		if err != nil {
			return nil, fmt.Errorf("pack a question about %s: %w", name, err)
		}
		q.packet = packet
		all[i] = q
	}
	return all, nil
}

// anything returns the same questions for a server that answers everything with one record.
func anything(questions []question) []question {
	all := make([]question, len(questions))
	for i, q := range questions {
		all[i] = question{packet: q.packet, rcode: dns.RcodeSuccess, least: 1, most: 1}
	}
	return all
}

// changing returns the same questions for a time in which one endpoint of a service may not be ready.
func changing(questions []question) []question {
	all := slices.Clone(questions)
	for i := range all {
		if all[i].least == world.Endpoints {
			all[i].least--
		}
	}
	return all
}

// denied returns those of the questions that are about names that do not exist.
func denied(questions []question) []question {
	return slices.DeleteFunc(slices.Clone(questions), func(q question) bool { return q.rcode != dns.RcodeNameError })
}
