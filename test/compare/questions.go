//go:build linux

package compare

import (
	"slices"

	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/test/compare/world"
	"github.com/clusterset-dns/clusterset-dns/test/measure"
)

// draw makes questions about random services of a zone. The same seed makes the same ones, whatever the zone.
func draw(zone string, services int, seed uint64) ([]measure.Question, error) {
	return measure.Draw(services, func(i int) measure.Service {
		s := world.Service(i)
		return measure.Service{Name: s.FQDN(zone), Records: s.Records(), Port: world.PortName}
	}, seed)
}

// anything returns the same questions for a server that answers everything with one record.
func anything(questions []measure.Question) []measure.Question {
	all := make([]measure.Question, len(questions))
	for i, q := range questions {
		all[i] = measure.Question{Packet: q.Packet, Rcode: dns.RcodeSuccess, Least: 1, Most: 1}
	}
	return all
}

// changing returns the same questions for a time in which one endpoint of a service may not be ready.
func changing(questions []measure.Question) []measure.Question {
	all := slices.Clone(questions)
	for i := range all {
		if all[i].Least == world.Endpoints {
			all[i].Least--
		}
	}
	return all
}
