package statuspage

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/status"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/verdict"
)

// overview is what the first page shows.
type overview struct {
	Figures []figure
	// Notices are the worst, MoreNotices what is folded away.
	Notices, MoreNotices []notice
	Members              membersTable
	Services             servicesTable
	Matrix               *matrix
}

// noticesShown is how many notices a reader can take in at once.
const noticesShown = 12

// figure is one of the numbers at the top.
type figure struct {
	Title, Value, Detail string
	Level                verdict.Level
}

// notice is something that deserves attention, with a link to it.
type notice struct {
	verdict.Notice
	Link string
}

type membersTable struct {
	Headings []heading
	Rows     []*memberRow
	Pager    pager
	Hidden   []hidden
	Text     string
	States   []option
	Refused  []status.Refused
}

type servicesTable struct {
	Headings []heading
	Rows     []*serviceRow
	Pager    pager
	Hidden   []hidden
	Text     string
	Types    []option
	Members  []option
	Only     []option
}

func newOverview(members status.Members, services status.Services, query url.Values) overview {
	now := verdict.Time(members.Server.Time)
	o := overview{}
	var ids []string
	var rows []*memberRow
	for i := range members.Members {
		rows = append(rows, newMemberRow(&members.Members[i], now))
		ids = append(ids, members.Members[i].ID)
	}
	o.Matrix = newMatrix(services.Matrix, ids)
	var list []*serviceRow
	for i := range services.Services {
		list = append(list, newServiceRow(&services.Services[i]))
	}
	o.Notices = notices(&members, list)
	if len(o.Notices) > noticesShown {
		o.Notices, o.MoreNotices = o.Notices[:noticesShown], o.Notices[noticesShown:]
	}
	o.Figures = figures(members, rows, list)
	o.Members = newMembersTable(rows, members.Refused, query)
	o.Services = newServicesTable(list, rows, query)
	return o
}

func newMembersTable(rows []*memberRow, refused []status.Refused, query url.Values) membersTable {
	c := choice{query: query, sortBy: "msort", others: []string{"q", "type", "member", "only", "sort", "page"}}
	t := membersTable{Hidden: c.kept(), Text: c.get("mq"), Refused: refused}
	t.States = options(c.get("mstate"), [2]string{"", "any state"}, [2]string{"trouble", "in trouble"}, [2]string{"well", "well"})
	slices.SortStableFunc(rows, by(func(r *memberRow) string { return r.ID }))
	t.Headings = sorted(c, rows, memberColumns)
	t.Rows, t.Pager = paged(c, rows)
	return t
}

func newServicesTable(rows []*serviceRow, members []*memberRow, query url.Values) servicesTable {
	c := choice{query: query, sortBy: "sort", others: []string{"mq", "mstate", "msort"}}
	t := servicesTable{Hidden: c.kept(), Text: c.get("q")}
	t.Types = options(c.get("type"), [2]string{"", "any type"}, [2]string{"ClusterSetIP", "ClusterSetIP"}, [2]string{"Headless", "Headless"})
	t.Only = options(c.get("only"), [2]string{"", "all"}, [2]string{"conflicts", "with conflicts"}, [2]string{"leftout", "with members left out"}, [2]string{"unready", "not all ready"}, [2]string{"down", "none ready"})
	ids := [][2]string{{"", "any member"}}
	for _, m := range members {
		ids = append(ids, [2]string{m.ID, m.ID})
	}
	t.Members = options(c.get("member"), ids...)
	slices.SortStableFunc(rows, by(func(r *serviceRow) string { return r.Full }))
	t.Headings = sorted(c, rows, serviceColumns)
	t.Rows, t.Pager = paged(c, rows)
	return t
}

// serviceRow is a line of the table of services.
type serviceRow struct {
	Full, Path string // NAMESPACE/NAME, and the path of its page
	Type       string
	Imported   bool
	Parts      []part // the first few members
	More       int    // how many members are not among them
	All        []string
	Ready      int
	Total      int
	Level      verdict.Level
	Conflicts  []string
	// Marks are the filters, beside type and members, that it passes.
	Marks  []string
	Hidden bool
}

// part is a member of a service with its weight, "" where that is not known.
type part struct{ Member, Weight string }

// partsShown is how many members a line of a service names; the rest is counted.
const partsShown = 4

func newServiceRow(s *status.ServiceSummary) *serviceRow {
	r := &serviceRow{
		Full: s.Namespace + "/" + s.Name, Path: "services/" + url.PathEscape(s.Namespace) + "/" + url.PathEscape(s.Name),
		Type: s.Type, Imported: s.Imported, All: s.Members, Ready: s.Ready, Total: s.Total, Conflicts: s.Conflicts, Level: verdict.Readiness(s.Ready, s.Total),
	}
	for i, m := range s.Members[:min(partsShown, len(s.Members))] {
		p := part{Member: m}
		if len(s.Weights) == len(s.Members) {
			p.Weight = verdict.Decimal(s.Weights[i])
		}
		r.Parts = append(r.Parts, p)
	}
	r.More = len(s.Members) - len(r.Parts)
	if len(s.Conflicts) > 0 {
		r.Marks = append(r.Marks, "conflicts")
	}
	if len(s.LeftOut) > 0 {
		r.Marks = append(r.Marks, "leftout")
	}
	if s.Ready < s.Total {
		r.Marks = append(r.Marks, "unready")
	}
	if s.Ready == 0 {
		r.Marks = append(r.Marks, "down")
	}
	return r
}

func (r *serviceRow) matches(c choice) bool {
	kind, member, only := c.get("type"), c.get("member"), c.get("only")
	return strings.Contains(strings.ToLower(r.Full), strings.ToLower(c.get("q"))) && (kind == "" || kind == r.Type) &&
		(member == "" || slices.Contains(r.All, member)) && (only == "" || slices.Contains(r.Marks, only))
}

func (r *serviceRow) hide() { r.Hidden = true }

// share is the ready part of the endpoints.
func (r *serviceRow) share() float64 { return float64(r.Ready) / float64(max(r.Total, 1)) }

// Sort is what the column with the share of ready endpoints is sorted by.
func (r *serviceRow) Sort() string { return verdict.Decimal(r.share() * 100) }

var serviceColumns = []column[*serviceRow]{
	{key: "name", title: "Service", compare: by(func(r *serviceRow) string { return r.Full })},
	{key: "type", title: "Type", compare: by(func(r *serviceRow) string { return r.Type })},
	{key: "ready", title: "Ready", figures: true, compare: by((*serviceRow).share)},
	{key: "total", title: "Endpoints", figures: true, compare: by(func(r *serviceRow) int { return r.Total })},
	{key: "members", title: "Members, by weight", compare: by(func(r *serviceRow) int { return len(r.All) })},
	{key: "conflicts", title: "Conflicts", compare: by(func(r *serviceRow) string { return strings.Join(r.Conflicts, ", ") })},
}

// figures are the numbers at the top.
func figures(members status.Members, rows []*memberRow, services []*serviceRow) []figure {
	synced, well, rejected := 0, 0, uint64(0)
	for _, r := range rows {
		if r.State == "synced" {
			synced++
		}
		if r.HealthLevel == verdict.Good {
			well++
		}
		rejected += r.Rejected
	}
	ready, total, conflicts := 0, 0, 0
	for _, s := range services {
		ready, total = ready+s.Ready, total+s.Total
		if len(s.Conflicts) > 0 {
			conflicts++
		}
	}
	of := func(n, all int) verdict.Level {
		if n < all {
			return verdict.Warn
		}
		return verdict.Good
	}
	some := func(n uint64) verdict.Level {
		if n > 0 {
			return verdict.Warn
		}
		return verdict.Good
	}
	return []figure{
		{"Members", verdict.Number(len(rows)), fmt.Sprintf("%s synced", verdict.Number(synced)), of(synced, len(rows))},
		{"Healthy", verdict.Number(well), fmt.Sprintf("of %s", verdict.Number(len(rows))), of(well, len(rows))},
		{"Services", verdict.Number(len(services)), verdict.Plural(conflicts, "has a conflict", "have conflicts"), some(uint64(conflicts))}, //nolint:gosec // a count
		{"Endpoints ready", verdict.Number(ready), fmt.Sprintf("of %s", verdict.Number(total)), verdict.Readiness(ready, total)},
		{"Rejected", verdict.Number(rejected), "since the start", some(rejected)},
		{"Snapshot", verdict.Number(members.Server.Generation), fmt.Sprintf("serial %d", members.Server.Serial), verdict.Good},
	}
}

// notices lists what deserves attention, the worst first.
func notices(members *status.Members, services []*serviceRow) []notice {
	var out []notice
	for _, n := range verdict.Members(members) {
		out = append(out, notice{Notice: n})
	}
	down, conflicts := 0, 0
	for _, s := range services {
		if s.Ready == 0 {
			down++
		}
		if len(s.Conflicts) > 0 {
			conflicts++
		}
	}
	add := func(n int, l verdict.Level, one, more, text, only string) {
		if n > 0 {
			out = append(out, notice{verdict.Notice{Level: l, Text: verdict.Plural(n, one, more) + text}, "?only=" + only + "#services"})
		}
	}
	add(down, verdict.Bad, "service has", "services have", " no ready endpoint", "down")
	add(conflicts, verdict.Warn, "service has exports", "services have exports", " that disagree; the oldest wins", "conflicts")
	verdict.SortNotices(out, func(n notice) verdict.Level { return n.Level })
	return out
}

// count is how often there was something, by its reason.
type count struct {
	Reason string
	N      string
}

// counts lists reasons in their order.
func counts[T int | uint64](of map[string]T) (out []count, sum T) {
	for _, reason := range slices.Sorted(maps.Keys(of)) {
		if n := of[reason]; n > 0 {
			out = append(out, count{reason, verdict.Number(n)})
			sum += n
		}
	}
	return out, sum
}
