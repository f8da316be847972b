package statuspage

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/status"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/verdict"
)

// types are those that the form offers; the parameter takes any.
var types = []string{"A", "AAAA", "SRV", "TXT", "SOA", "NS", "ANY"}

// explain is what the page that explains an answer shows.
type explain struct {
	Question Question
	Types    []option
	Failed   *status.Error
	Told     *told
}

// told is an explanation, with what is drawn of it.
type told struct {
	status.Explanation
	Where string
	// ServicePath is that of the page of the service, "" where there is none.
	ServicePath string
	Level       verdict.Level
	Candidates  []candidate
	Headless    bool
	Bar         []segment
	Mark        string // where the draw fell on the bar, in percent
	Tiers       []tierRow
}

type candidate struct {
	status.Candidate
	Place, Proof string
	HealthLevel  verdict.Level
}

type tierRow struct {
	status.Tier
	Drawn bool
}

// segment is a part of the line on which the draw falls, in percent.
type segment struct {
	X, Width string
	Tier     int
	Degraded bool
	Title    string
}

func newExplain(q Question, e *status.Explanation, failed *status.Error) explain {
	out := explain{Question: q, Failed: failed}
	chosen := strings.ToUpper(q.Type)
	if chosen == "" {
		chosen = "A"
	}
	known := false
	for _, t := range types {
		out.Types = append(out.Types, option{t, t, t == chosen})
		known = known || t == chosen
	}
	if !known {
		out.Types = append(out.Types, option{chosen, chosen, true})
	}
	if e != nil {
		out.Told = newTold(e)
	}
	return out
}

func newTold(e *status.Explanation) *told {
	t := &told{Explanation: *e, Where: verdict.Place(e.Client.Region, e.Client.Cluster, e.Client.Zone, e.Client.Node), Level: verdict.Rcode(e.Answer.Rcode)}
	if namespace, name, ok := strings.Cut(e.Service, "/"); ok {
		t.ServicePath = "services/" + url.PathEscape(namespace) + "/" + url.PathEscape(name)
	}
	for _, c := range e.Candidates {
		out := candidate{Candidate: c, HealthLevel: verdict.Health(c.Health)}
		if c.Region+c.Zone+c.Node != "" {
			out.Place = verdict.Place(c.Region, c.Zone, c.Node)
		}
		if c.ProofAgeSeconds != nil {
			out.Proof = verdict.Ago(c.ProofAgeSeconds)
		}
		t.Headless = t.Headless || c.Host != ""
		t.Candidates = append(t.Candidates, out)
	}
	for _, tier := range e.Tiers {
		t.Tiers = append(t.Tiers, tierRow{tier, e.Draw != nil && e.Draw.Tier == tier.Tier})
	}
	t.drawBar(e)
	return t
}

// drawBar lays the tiers out on a line of 100 %, as the draw passes them: what is healthy of each, then what is degraded.
func (t *told) drawBar(e *status.Explanation) {
	if e.Draw == nil {
		return
	}
	x := 0.0
	add := func(tier status.Tier, width float64, degraded bool) {
		if width <= 0 {
			return
		}
		title := fmt.Sprintf("tier %d, %s: %s %%", tier.Tier, tier.Distance, verdict.Decimal(width))
		t.Bar = append(t.Bar, segment{verdict.Decimal(x), verdict.Decimal(width), min(tier.Tier, 5), degraded, title})
		x += width
	}
	for _, tier := range e.Tiers {
		add(tier, tier.HealthyPercent, false)
	}
	for _, tier := range e.Tiers {
		add(tier, tier.DegradedPercent, true)
	}
	t.Mark = verdict.Decimal(e.Draw.Point)
}
