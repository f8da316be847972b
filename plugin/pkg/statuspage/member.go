package statuspage

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/status"
)

// memberRow is a line of the table of members, with what stands below it.
type memberRow struct {
	ID, Origin string
	Local      bool
	Region     string
	Address    string
	Weight     string

	// State is that of its exports; Proof is how long ago its API server last said something, Silence the same in seconds.
	State      string
	StateLevel level
	Proof      string
	Silence    float64

	Health       string
	HealthLevel  level
	HealthReason string
	SlowStart    string
	History      []change

	// Expiry is when the first of its credentials end, Expires the same as a moment; the zero value where that is not known.
	Expiry      string
	ExpiryLevel level
	Expires     time.Time

	Services, Endpoints int
	Rejected            uint64
	LeftOut             int // services it takes no part in, and exports that export nothing
	Rejections          []count
	Unusable            []count
	Invalid             []count
	Sources             []source
	Allow, Namespaces   []string

	notices []notice
	Hidden  bool
}

// source is one watch of a member.
type source struct {
	Kind, State string
	Level       level
	Proof       string
	Notes       []string
}

// change is one of a member's health.
type change struct {
	Time, Ago, State string
	Level            level
	Reason           string
}

// stateLevels say what to think of the state of a watch.
var stateLevels = map[string]level{"synced": good, "syncing": info, "stale": warn, "expired": bad, "timed_out": bad}

// healthLevels say what to think of a health.
var healthLevels = map[string]level{"healthy": good, "degraded": warn, "unhealthy": bad, "excluded": info}

// of looks up a level; what a newer server says is worth a look.
func of(levels map[string]level, word string) level {
	if l, ok := levels[word]; ok {
		return l
	}
	return info
}

func newMemberRow(m *status.Member, now time.Time) *memberRow {
	r := &memberRow{
		ID: m.ID, Origin: m.Origin, Local: m.Local, Region: m.Region, Address: m.Address, State: "unknown", Proof: "never", Silence: -1,
		Health: m.Health.State, HealthLevel: of(healthLevels, m.Health.State), HealthReason: m.Health.Reason,
		Services: m.Services, Endpoints: m.Endpoints, Allow: m.Allow, Namespaces: m.Namespaces,
	}
	if len(m.Gateway) > 0 {
		r.Address = strings.Join(m.Gateway, ", ")
	}
	if m.Weight != nil {
		r.Weight = fmt.Sprint(*m.Weight)
	}
	if m.Health.Factor > 0 && m.Health.Factor < 1 {
		r.SlowStart = percent(m.Health.Factor) + " %"
	}
	var rejected uint64
	var unusable, invalid int
	r.Rejections, rejected = counts(m.Rejections)
	r.Unusable, unusable = counts(m.Unusable)
	r.Invalid, invalid = counts(m.Invalid)
	r.Rejected, r.LeftOut = rejected, unusable+invalid
	for _, h := range m.Health.History {
		at := timeOf(h.Time)
		r.History = append(r.History, change{at.UTC().Format("2006-01-02 15:04:05"), age(now.Sub(at).Seconds()) + " ago", h.State, of(healthLevels, h.State), h.Reason})
	}
	for i := range m.Sources {
		r.addSource(&m.Sources[i], i == 0, now)
	}
	r.StateLevel = of(stateLevels, r.State)
	r.judge(m)
	return r
}

// addSource adds a watch; the first is that of the exports, which stands for the member.
func (r *memberRow) addSource(s *status.Source, first bool, now time.Time) {
	out := source{Kind: s.Kind, State: s.State, Level: of(stateLevels, s.State), Proof: "never"}
	if s.ProofAgeSeconds != nil {
		out.Proof = age(*s.ProofAgeSeconds) + " ago"
	}
	if first || out.Level.rank() < of(stateLevels, r.State).rank() {
		r.State = s.State
	}
	if first && s.ProofAgeSeconds != nil {
		r.Proof, r.Silence = age(*s.ProofAgeSeconds), *s.ProofAgeSeconds
	}
	if at := timeOf(s.CredentialExpiry); !at.IsZero() {
		words, l := end(at, now)
		out.Notes = append(out.Notes, "credentials end "+words)
		if r.Expires.IsZero() || at.Before(r.Expires) {
			r.Expires, r.Expiry, r.ExpiryLevel = at, words, l
		}
	}
	if s.Insecure {
		out.Notes = append(out.Notes, "certificate not verified")
		r.note(warn, s.Kind+": the certificate of its API server is not verified")
	}
	for _, resource := range slices.Sorted(maps.Keys(s.Problems)) {
		text := resource + " cannot be read (" + s.Problems[resource] + ")"
		if s.Problems[resource] == "not_served" {
			text = resource + ": its API server has no such resource"
		}
		out.Notes = append(out.Notes, text)
		r.note(problemLevel(s.Problems[resource]), text)
	}
	for _, resource := range s.Held {
		text := resource + ": a list is not believed yet, since most of what was known has vanished from it"
		out.Notes = append(out.Notes, text)
		r.note(warn, text)
	}
	if out.Level.rank() < info.rank() {
		r.note(out.Level, s.Kind+" "+s.State+": last proof of life "+out.Proof)
	}
	r.Sources = append(r.Sources, out)
}

// problemLevel judges why a resource cannot be read. A cluster without the CRDs counts as one that exports nothing, which may
// be meant.
func problemLevel(reason string) level {
	if reason == "not_served" {
		return info
	}
	return bad
}

func (r *memberRow) note(l level, text string) {
	r.notices = append(r.notices, notice{Level: l, Of: r.ID, Text: text})
}

// judge adds what deserves attention of the member as a whole.
func (r *memberRow) judge(m *status.Member) {
	if m.ClaimedID != "" {
		r.note(bad, "it says that it is the cluster "+m.ClaimedID)
	}
	if r.Expiry != "" && r.ExpiryLevel != good {
		word := "end "
		if r.ExpiryLevel == bad {
			word = "" // it has ended
		}
		r.note(r.ExpiryLevel, "its credentials "+word+r.Expiry)
	}
	switch {
	case m.Drained:
		r.note(info, "it is drained")
	case r.HealthLevel != good:
		text := "it is " + m.Health.State
		if m.Health.Reason != "" {
			text += ": " + m.Health.Reason
		}
		r.note(r.HealthLevel, text)
	}
}

// trouble tells whether there is anything worse than a note about it.
func (r *memberRow) trouble() bool {
	return slices.ContainsFunc(r.notices, func(n notice) bool { return n.Level.rank() < info.rank() })
}

// Mark is the filter by state that it passes.
func (r *memberRow) Mark() string {
	if r.trouble() {
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
func (r *memberRow) StateRank() int { return r.StateLevel.rank() }

// HealthRank is like StateRank.
func (r *memberRow) HealthRank() int { return r.HealthLevel.rank() }

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
