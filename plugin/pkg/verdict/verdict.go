// Package verdict says what to think of the documents of package status: how good or bad each thing in them is, what deserves
// attention, and figures in words. The page and the command line share it, so that both say the same.
//
// It refuses to know how anything is shown.
package verdict

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/status"
)

// Level says how much attention something deserves.
type Level string

// The levels, the best first. What is only worth a note may well be meant.
const (
	Good Level = "good"
	Info Level = "info"
	Warn Level = "warn"
	Bad  Level = "bad"
)

// Rank orders levels, the worst first.
func (l Level) Rank() int { return strings.Index("bad warn info good", string(l)) }

// soon is how long before their end credentials are worth a warning: what renews them has mostly had its chances by then.
const soon = 7 * 24 * time.Hour

var states = map[string]Level{"synced": Good, "syncing": Info, "stale": Warn, "expired": Bad, "timed_out": Bad}

// State judges the state of a watch. A word of a newer server is worth a note.
func State(word string) Level { return cmp.Or(states[word], Info) }

var healths = map[string]Level{"healthy": Good, "degraded": Warn, "unhealthy": Bad, "excluded": Info}

// Health judges the health of a member. A word of a newer server is worth a note.
func Health(word string) Level { return cmp.Or(healths[word], Info) }

var rcodes = map[string]Level{"NOERROR": Good, "NXDOMAIN": Warn, "REFUSED": Warn, "SERVFAIL": Bad}

// Rcode judges an answer.
func Rcode(word string) Level { return cmp.Or(rcodes[word], Info) }

// Readiness judges how many endpoints are ready. Below 72 % a tier begins to hand over.
func Readiness(ready, total int) Level {
	switch {
	case ready == 0:
		return Bad
	case ready*100 < total*72:
		return Warn
	default:
		return Good
	}
}

// Time reads a time of a document; the zero time where there is none.
func Time(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}
	}
	return t
}

// Watches sums up the watches of a member: the worst state of them, that of the exports where they are alike, how long ago the
// API server last said something to the first of them (in seconds, nil for never), and when the first of the credentials end
// (the zero time where that is not known).
func Watches(sources []status.Source) (state string, silence *float64, ends time.Time) {
	state = "unknown"
	for i := range sources {
		s := &sources[i]
		if i == 0 {
			state, silence = s.State, s.ProofAgeSeconds
		}
		if State(s.State).Rank() < State(state).Rank() {
			state = s.State
		}
		if at := Time(s.CredentialExpiry); !at.IsZero() && (ends.IsZero() || at.Before(ends)) {
			ends = at
		}
	}
	return state, silence, ends
}

// Notice is something that deserves attention.
type Notice struct {
	Level Level
	// Of is a member, or "" for the server as a whole.
	Of   string
	Text string
}

// Word is the level as a reader sees it.
func (n Notice) Word() string {
	return map[Level]string{Bad: "Error", Warn: "Warning", Info: "Note"}[n.Level]
}

// SortNotices puts the worst first and keeps the order of the rest.
func SortNotices[T any](notices []T, of func(T) Level) {
	slices.SortStableFunc(notices, func(a, b T) int { return cmp.Compare(of(a).Rank(), of(b).Rank()) })
}

// Members lists what deserves attention in the document of the members, the worst first.
func Members(m *status.Members) (out []Notice) {
	if m.Server.Shadow {
		out = append(out, Notice{Level: Info, Text: "shadow: answers are computed and counted, and the next plugin answers"})
	}
	for i := range m.Members {
		out = append(out, Member(&m.Members[i], Time(m.Server.Time))...)
	}
	for _, r := range m.Refused {
		text := "its description is not used: " + r.Reason
		if r.Detail != "" {
			text += ": " + r.Detail
		}
		out = append(out, Notice{Level: Warn, Of: r.Name, Text: text})
	}
	SortNotices(out, func(n Notice) Level { return n.Level })
	return out
}

// Member lists what deserves attention of a member, at the time now.
func Member(m *status.Member, now time.Time) []Notice {
	var out []Notice
	add := func(l Level, text string) { out = append(out, Notice{Level: l, Of: m.ID, Text: text}) }
	for i := range m.Sources {
		for _, n := range Source(&m.Sources[i]) {
			add(n.Level, n.Text)
		}
	}
	if m.ClaimedID != "" {
		add(Bad, "it says that it is the cluster "+m.ClaimedID)
	}
	if _, _, ends := Watches(m.Sources); !ends.IsZero() {
		switch words, l := End(ends, now); l {
		case Bad:
			add(l, "its credentials "+words)
		case Warn:
			add(l, "its credentials end "+words)
		default:
		}
	}
	switch l := Health(m.Health.State); {
	case m.Drained:
		add(Info, "it is drained")
	case l != Good:
		text := "it is " + m.Health.State
		if m.Health.Reason != "" {
			text += ": " + m.Health.Reason
		}
		add(l, text)
	}
	return out
}

// Source lists what deserves attention of a watch.
func Source(s *status.Source) (out []Notice) {
	add := func(l Level, text string) { out = append(out, Notice{Level: l, Text: text}) }
	if l := State(s.State); l.Rank() < Info.Rank() {
		add(l, s.Kind+" "+s.State+": last proof of life "+Ago(s.ProofAgeSeconds))
	}
	for _, resource := range slices.Sorted(maps.Keys(s.Problems)) {
		// A cluster without the CRDs counts as one that exports nothing, which may be meant.
		if s.Problems[resource] == "not_served" {
			add(Info, resource+": its API server has no such resource")
		} else {
			add(Bad, resource+" cannot be read ("+s.Problems[resource]+")")
		}
	}
	for _, resource := range s.Held {
		add(Warn, resource+": a list is not believed yet, since most of what was known has vanished from it")
	}
	if s.Insecure {
		add(Warn, s.Kind+": the certificate of its API server is not verified")
	}
	return out
}

// Trouble tells whether there is anything worse than a note.
func Trouble(notices []Notice) bool {
	return slices.ContainsFunc(notices, func(n Notice) bool { return n.Level.Rank() < Info.Rank() })
}

// Place names where something is, from broad to narrow.
func Place(labels ...string) string {
	labels = slices.DeleteFunc(slices.Clone(labels), func(s string) bool { return s == "" })
	return cmp.Or(strings.Join(labels, " / "), "anywhere else")
}

// Port writes a port as people do.
func Port(p status.Port) string {
	return strings.TrimSpace(p.Name + " " + strconv.Itoa(int(p.Number)) + "/" + strings.ToUpper(p.Protocol))
}
