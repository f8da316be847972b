package statuspage

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/status"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/verdict"
)

// service is what the page of a service shows.
type service struct {
	status.Service
	Level    verdict.Level
	Facts    []fact
	Members  []contribution
	Unusable []fact
	Matrix   *matrix
}

// fact is a term and what is said about it.
type fact struct{ Term, Text string }

// contribution is a member's part of the service, with its share of the weights.
type contribution struct {
	status.Contribution
	Level verdict.Level
	Share float64
}

func newService(s status.Service) service {
	out := service{Service: s, Level: verdict.Readiness(s.Ready, s.Total), Matrix: newMatrix(s.Matrix, s.Members)}
	add := func(term, text string) {
		if text != "" {
			out.Facts = append(out.Facts, fact{term, text})
		}
	}
	from := "ServiceExports"
	if s.Imported {
		from = "a ServiceImport"
	}
	add("Name", s.FQDN)
	add("Type", s.Type)
	add("Known by", from)
	add("IPs", strings.Join(s.IPs, ", "))
	add("Ports", portsOf(s.Ports))
	if s.ClientIPAffinity {
		add("Session affinity", "ClientIP: a client's draw never changes")
	}
	add("Traffic distribution", s.TrafficDistribution)
	sum := 0.0
	for _, c := range s.Contributions {
		sum += c.Weight
	}
	for _, c := range s.Contributions {
		part := contribution{Contribution: c, Level: verdict.Readiness(c.Ready, c.Total)}
		if sum > 0 {
			part.Share = c.Weight / sum
		}
		out.Members = append(out.Members, part)
	}
	for _, member := range slices.Sorted(maps.Keys(s.Unusable)) {
		out.Unusable = append(out.Unusable, fact{member, s.Unusable[member]})
	}
	return out
}

func portsOf(ports []status.Port) string {
	var out []string
	for _, p := range ports {
		out = append(out, verdict.Port(p))
	}
	return strings.Join(out, ", ")
}

// matrix says who gets what: a line for each place where clients are, a column for each member.
type matrix struct {
	Members []string
	Rows    []matrixRow
	// Wide is true with so many columns that their headings have to stand upright.
	Wide bool
}

type matrixRow struct {
	Place  string
	Nobody bool
	Cells  []cell
}

// cell is a share; Step is the same from 0 to 10, for its colour.
type cell struct {
	Share float64
	Step  int
}

// wide is how many members a matrix can have before its headings stand upright.
const wide = 8

// newMatrix makes one with these members and whoever else gets anything.
func newMatrix(rows []status.MatrixRow, members []string) *matrix {
	if len(rows) == 0 {
		return nil
	}
	rows = slices.SortedStableFunc(slices.Values(rows), func(a, b status.MatrixRow) int {
		return cmp.Or(cmp.Compare(a.Region, b.Region), cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Zone, b.Zone))
	})
	m := &matrix{Members: columns(rows, members)}
	m.Wide = len(m.Members) > wide
	for _, r := range rows {
		row := matrixRow{Place: verdict.Place(r.Region, r.Cluster, r.Zone), Nobody: len(r.Shares) == 0}
		for _, id := range m.Members {
			share := r.Shares[id]
			row.Cells = append(row.Cells, cell{share, min(10, int(share*10+0.999))})
		}
		m.Rows = append(m.Rows, row)
	}
	return m
}

// columns are the members in the order in which the lines name clusters, so that what stays at home is the diagonal; then others.
func columns(rows []status.MatrixRow, members []string) (out []string) {
	left := map[string]bool{}
	for _, id := range members {
		left[id] = true
	}
	for _, r := range rows {
		for id := range r.Shares {
			left[id] = true
		}
	}
	for _, r := range rows {
		if left[r.Cluster] {
			out = append(out, r.Cluster)
			delete(left, r.Cluster)
		}
	}
	return append(out, slices.Sorted(maps.Keys(left))...)
}
