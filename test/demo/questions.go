package demo

import (
	"context"
	"slices"

	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// question is one question of the demo.
type question struct {
	name  string
	qtype uint16
	// want is the expected answer as dig +short prints it, sorted; or NXDOMAIN, or NODATA. why is one line.
	want []string
	why  string
}

var questions = []question{
	webOfEast,
	{
		"web.shop.svc.clusterset.local", dns.TypeAAAA, []string{"NODATA"},
		"The name exists, but no cluster gives this service an IPv6 address: no records, and no NXDOMAIN.",
	},
	{
		"_http._tcp.web.shop.svc.clusterset.local", dns.TypeSRV, []string{"0 100 80 web.shop.svc.clusterset.local."},
		"One record per named port of the merged service, however many clusters export it.",
	},
	{
		"db.shop.svc.clusterset.local", dns.TypeA, []string{"10.1.0.20", "10.1.0.21", "10.3.0.20"},
		"Headless: every ready endpoint of every cluster that exports it, two in east and one in north.",
	},
	{
		"db-0.north.db.shop.svc.clusterset.local", dns.TypeA, []string{"10.3.0.20"},
		"hostname.clusterid tells the two db-0 apart: this is the one in north.",
	},
	{
		"db-1.north.db.shop.svc.clusterset.local", dns.TypeA, []string{"NXDOMAIN"},
		"That Pod exists, but it is not ready.",
	},
	{
		"_postgres._tcp.db.shop.svc.clusterset.local", dns.TypeSRV,
		[]string{
			"0 33 5432 db-0.east.db.shop.svc.clusterset.local.",
			"0 33 5432 db-0.north.db.shop.svc.clusterset.local.",
			"0 33 5432 db-1.east.db.shop.svc.clusterset.local.",
		},
		"Headless: one record per ready endpoint, with its name and port.",
	},
	{
		"internal.shop.svc.clusterset.local", dns.TypeA, []string{"NXDOMAIN"},
		"The Service exists in east, but there is no ServiceExport of it.",
	},
	{
		"east.web.shop.svc.clusterset.local", dns.TypeA, []string{"NXDOMAIN"},
		"There are no names of single clusters: the specification reserves them.",
	},
	{
		"probe.lab.svc.clusterset.local", dns.TypeA, []string{"NXDOMAIN"},
		"north exports it, but a name exists only where its namespace does, and east has no namespace lab.",
	},
	{
		"shop.svc.clusterset.local", dns.TypeA, []string{"NODATA"},
		"The namespace exists and has names below it, but no records of its own.",
	},
	{
		"dns-version.clusterset.local", dns.TypeTXT, []string{`"1.0.0"`},
		"The version of the multi-cluster DNS schema.",
	},
}

var (
	webOfEast = question{
		"web.shop.svc.clusterset.local", dns.TypeA, []string{"10.96.0.80"},
		"east and west export it. \"answer one\": the cluster IP of one, the first by id with ready endpoints.",
	}
	webOfWest = question{
		"web.shop.svc.clusterset.local", dns.TypeA, []string{"10.97.0.80"},
		"Only west exports it now. The Service in east is still there, and east's own names are not touched.",
	}
	webOfAll = question{
		"web.shop.svc.clusterset.local", dns.TypeA, []string{"10.96.0.80", "10.97.0.80"},
		"\"answer all\": the cluster IPs of both.",
	}
)

// ask returns the answer in the form of want.
func (q question) ask(ctx context.Context, s *server.Server) ([]string, error) {
	m, err := s.Query(ctx, q.name, q.qtype)
	if err != nil {
		return nil, err
	}
	if m.Rcode != dns.RcodeSuccess {
		return []string{dns.RcodeToString[m.Rcode]}, nil
	}
	if len(m.Answer) == 0 {
		return []string{"NODATA"}, nil
	}
	var got []string
	for _, rr := range m.Answer {
		// The header is what stands before the data in the presentation of a record.
		got = append(got, rr.String()[len(rr.Header().String()):])
	}
	slices.Sort(got)
	return got, nil
}

func (q question) answeredBy(got []string) bool { return slices.Equal(got, q.want) }
