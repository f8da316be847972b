package statuspage

import (
	"fmt"
	"strings"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/status"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/verdict"
)

// memberRow is a line of the table of members, with what stands below it.
type memberRow struct {
	ID, Origin string
	Local      bool
	Region     string
	Address    string
	Weight     string

	// State is the worst of its watches; Proof is how long ago its API server last said something, Silence the same in seconds.
	State      string
	StateLevel verdict.Level
	Proof      string
	Silence    float64

	Health       string
	HealthLevel  verdict.Level
	HealthReason string
	SlowStart    string
	History      []change

	// Expiry is when the first of its credentials end, Expires the same as a moment; the zero value where that is not known.
	Expiry      string
	ExpiryLevel verdict.Level
	Expires     time.Time

	Services, Endpoints int
	Rejected            uint64
	LeftOut             int // services it takes no part in, and exports that export nothing
	Rejections          []count
	Unusable            []count
	Invalid             []count
	Sources             []source
	Allow, Namespaces   []string

	// Trouble is true where there is anything worse than a note about it.
	Trouble bool
	Hidden  bool
}

// source is one watch of a member.
type source struct {
	Kind, State string
	Level       verdict.Level
	Proof       string
	Notes       []string
}

// change is one of a member's health.
type change struct {
	Time, Ago, State string
	Level            verdict.Level
	Reason           string
}

func newMemberRow(m *status.Member, now time.Time) *memberRow {
	r := &memberRow{
		ID: m.ID, Origin: m.Origin, Local: m.Local, Region: m.Region, Address: m.Address, Proof: "never", Silence: -1,
		Health: m.Health.State, HealthLevel: verdict.Health(m.Health.State), HealthReason: m.Health.Reason,
		Services: m.Services, Endpoints: m.Endpoints, Allow: m.Allow, Namespaces: m.Namespaces, Trouble: verdict.Trouble(verdict.Member(m, now)),
	}
	state, silence, ends := verdict.Watches(m.Sources)
	r.State, r.StateLevel = state, verdict.State(state)
	if silence != nil {
		r.Proof, r.Silence = verdict.Age(*silence), *silence
	}
	if !ends.IsZero() {
		r.Expires = ends
		r.Expiry, r.ExpiryLevel = verdict.End(ends, now)
	}
	if len(m.Gateway) > 0 {
		r.Address = strings.Join(m.Gateway, ", ")
	}
	if m.Weight != nil {
		r.Weight = fmt.Sprint(*m.Weight)
	}
	if m.Health.Factor > 0 && m.Health.Factor < 1 {
		r.SlowStart = verdict.Percent(m.Health.Factor) + " %"
	}
	var rejected uint64
	var unusable, invalid int
	r.Rejections, rejected = counts(m.Rejections)
	r.Unusable, unusable = counts(m.Unusable)
	r.Invalid, invalid = counts(m.Invalid)
	r.Rejected, r.LeftOut = rejected, unusable+invalid
	for _, h := range m.Health.History {
		at := verdict.Time(h.Time)
		r.History = append(r.History, change{at.UTC().Format("2006-01-02 15:04:05"), verdict.Age(now.Sub(at).Seconds()) + " ago", h.State, verdict.Health(h.State), h.Reason})
	}
	for i := range m.Sources {
		r.Sources = append(r.Sources, newSource(&m.Sources[i], now))
	}
	return r
}

// newSource tells about a watch.
func newSource(s *status.Source, now time.Time) source {
	out := source{Kind: s.Kind, State: s.State, Level: verdict.State(s.State), Proof: verdict.Ago(s.ProofAgeSeconds)}
	if at := verdict.Time(s.CredentialExpiry); !at.IsZero() {
		words, _ := verdict.End(at, now)
		out.Notes = append(out.Notes, "credentials end: "+words)
	}
	for _, n := range verdict.Source(s) {
		out.Notes = append(out.Notes, n.Text)
	}
	return out
}

// Mark is the filter by state that it passes.
func (r *memberRow) Mark() string {
	if r.Trouble {
		return "trouble"
	}
	return "well"
}

// Expiration is what the column is sorted by: the time, and what never ends last.
func (r *memberRow) Expiration() int64 {
	if r.Expires.IsZero() {
		return 1 << 60
	}
	return r.Expires.Unix()
}

// StateRank and HealthRank are what these columns are sorted by: the worst first.
func (r *memberRow) StateRank() int { return r.StateLevel.Rank() }

// HealthRank is like StateRank.
func (r *memberRow) HealthRank() int { return r.HealthLevel.Rank() }

func (r *memberRow) matches(c choice) bool {
	state := c.get("mstate")
	return strings.Contains(strings.ToLower(r.ID), strings.ToLower(c.get("mq"))) && (state == "" || state == r.Mark())
}

func (r *memberRow) hide() { r.Hidden = true }

var memberColumns = []column[*memberRow]{
	{key: "id", title: "Member", compare: by(func(r *memberRow) string { return r.ID })},
	{key: "state", title: "State", compare: by((*memberRow).StateRank)},
	{key: "proof", title: "Proof of life", figures: true, compare: by(func(r *memberRow) float64 { return r.Silence })},
	{key: "health", title: "Health", compare: by((*memberRow).HealthRank)},
	{key: "expiry", title: "Credentials end", figures: true, compare: by((*memberRow).Expiration)},
	{key: "services", title: "Services", figures: true, compare: by(func(r *memberRow) int { return r.Services })},
	{key: "endpoints", title: "Endpoints", figures: true, compare: by(func(r *memberRow) int { return r.Endpoints })},
	{key: "rejected", title: "Rejected", figures: true, compare: by(func(r *memberRow) uint64 { return r.Rejected })},
	{key: "out", title: "Takes no part", figures: true, compare: by(func(r *memberRow) int { return r.LeftOut })},
}
