package verdict

import (
	"slices"
	"strings"
	"testing"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/status"
)

func TestWords(t *testing.T) {
	for _, row := range []struct{ what, got, want string }{
		{"a moment", Age(0.04), "0 s"},
		{"less than ten seconds have a place", Age(1.26), "1.3 s"},
		{"a minute and a half", Age(90.9), "90 s"},
		{"minutes", Age(183), "3 min"},
		{"hours", Age(3 * 3600), "3 h"},
		{"days", Age(50 * 3600), "2 d"},
		{"the clock went backwards", Age(-5), "0 s"},
		{"no thousand", Number(999), "999"},
		{"a thousand", Number(1000), "1,000"},
		{"millions", Number(uint64(12345678)), "12,345,678"},
		{"nobody", Percent(0), "0"},
		{"hardly anybody", Percent(0.0001), "<1"},
		{"nearly everybody", Percent(0.9999), ">99"},
		{"everybody", Percent(1), "100"},
		{"a third", Percent(1.0 / 3), "33"},
		{"a weight", Decimal(2.0), "2"},
		{"a weight with places", Decimal(2.346), "2.35"},
		{"one", Plural(1, "service has", "services have"), "1 service has"},
		{"many", Plural(1200, "service has", "services have"), "1,200 services have"},
	} {
		t.Run(row.what, func(t *testing.T) {
			if row.got != row.want {
				t.Errorf("%q, want %q", row.got, row.want)
			}
		})
	}
}

func TestLevels(t *testing.T) {
	for _, row := range []struct {
		what      string
		got, want Level
	}{
		{"all are ready", Readiness(10, 10), Good},
		{"as many as a tier needs", Readiness(72, 100), Good},
		{"fewer", Readiness(71, 100), Warn},
		{"none", Readiness(0, 10), Bad},
		{"none of none", Readiness(0, 0), Bad},
		{"a watch that has told all", State("synced"), Good},
		{"a silent one", State("stale"), Warn},
		{"a state of a newer server", State("resting"), Info},
		{"probes fail", Health("unhealthy"), Bad},
		{"drained", Health("excluded"), Info},
		{"a health of a newer server", Health("tired"), Info},
		{"an answer", Rcode("NOERROR"), Good},
		{"a failure", Rcode("SERVFAIL"), Bad},
		{"a code of a newer server", Rcode("BADSIG"), Info},
	} {
		t.Run(row.what, func(t *testing.T) {
			if row.got != row.want {
				t.Errorf("%q, want %q", row.got, row.want)
			}
		})
	}
}

func TestWatches(t *testing.T) {
	const late, early = "2027-01-01T00:00:00Z", "2026-12-01T00:00:00Z"
	for _, row := range []struct {
		name    string
		sources []status.Source
		state   string
		silence *float64
		ends    string
	}{
		{"there are none", nil, "unknown", nil, ""},
		{"the exports stand for the member", []status.Source{{State: "synced", ProofAgeSeconds: new(1.0)}, {State: "synced", ProofAgeSeconds: new(2.0)}}, "synced", new(1.0), ""},
		{"the worst state", []status.Source{{State: "synced"}, {State: "stale"}, {State: "expired"}, {State: "syncing"}}, "expired", nil, ""},
		{"the first of the ends", []status.Source{{State: "synced", CredentialExpiry: late}, {State: "synced", CredentialExpiry: early}, {State: "synced", CredentialExpiry: "soon"}}, "synced", nil, early},
	} {
		t.Run(row.name, func(t *testing.T) {
			state, silence, ends := Watches(row.sources)
			if state != row.state || !ends.Equal(Time(row.ends)) || Ago(silence) != Ago(row.silence) {
				t.Errorf("%s %s %v", state, Ago(silence), ends)
			}
		})
	}
}

func TestMembersNamesTheWorstFirst(t *testing.T) {
	m := status.Members{
		Server: status.Server{Time: "2026-11-21T12:00:00Z", Shadow: true},
		Members: []status.Member{
			{ID: "east", Health: status.Health{State: "healthy"}, Sources: []status.Source{{Kind: "exports", State: "synced", CredentialExpiry: "2027-11-21T12:00:00Z"}}},
			{ID: "west", Health: status.Health{State: "unhealthy", Reason: "probes fail"}, Sources: []status.Source{
				{Kind: "exports", State: "stale", ProofAgeSeconds: new(90.0), CredentialExpiry: "2026-11-22T12:00:00Z"},
				{Kind: "properties", State: "synced", Problems: map[string]string{"clusterproperties": "not_served"}},
			}},
			{ID: "north", Drained: true, Health: status.Health{State: "excluded"}, Sources: []status.Source{{Kind: "exports", State: "synced", Held: []string{"services"}}}},
		},
		Refused: []status.Refused{{Name: "twice", Reason: "duplicate"}},
	}
	var got []string
	for _, n := range Members(&m) {
		got = append(got, n.Word()+" "+n.Of+": "+n.Text)
	}
	want := []string{
		"Error west: it is unhealthy: probes fail",
		"Warning west: exports stale: last proof of life 90 s ago",
		"Warning west: its credentials end in 24 h",
		"Warning north: services: a list is not believed yet, since most of what was known has vanished from it",
		"Warning twice: its description is not used: duplicate",
		"Note : shadow: answers are computed and counted, and the next plugin answers",
		"Note west: clusterproperties: its API server has no such resource",
		"Note north: it is drained",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
