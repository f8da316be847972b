package statuspage

import (
	"bytes"
	"fmt"
	"io"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/status"
)

// now is when the documents of these tests were told.
var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func at(d time.Duration) string { return now.Add(d).Format(time.RFC3339) }

// membersFor makes a document in which members differ in everything that a page tells.
func membersFor(n int) status.Members {
	m := status.Members{
		Version: status.Version,
		Server: status.Server{
			Program: "clusterset-dns-v0.1.0", Zones: []string{"clusterset.local."}, OtherZones: []string{"example.org."}, Local: "m0", Generation: 1841, Serial: 1795000000, Time: at(0),
			PolicyHash: "8f3a90b1c2d4e5f6", Prefer: []string{"cluster", "region"}, Answer: "one", TTLSeconds: 5,
		},
		Refused: []status.Refused{{Name: "twice", Reason: "duplicate", Detail: "m1 is older"}},
	}
	for i := range n {
		id := fmt.Sprintf("m%d", i)
		m.Members = append(m.Members, status.Member{
			ID: id, Origin: "secret clusterset-members/" + id, Region: []string{"eu", "us"}[i%2], Address: "clusterip", Services: 10 * i, Endpoints: 100 - i,
			Health: status.Health{State: "healthy", Factor: 1},
			Sources: []status.Source{
				{Kind: "exports", State: "synced", ProofAgeSeconds: new(float64(i)), CredentialExpiry: at(time.Duration(100-i) * 24 * time.Hour)},
				{Kind: "properties", State: "synced", ProofAgeSeconds: new(1.5)},
			},
		})
	}
	set := []func(*status.Member){
		func(m *status.Member) { m.Local, m.Origin = true, "corefile" },
		func(m *status.Member) {
			m.Sources[0].State, m.Sources[0].ProofAgeSeconds = "stale", new(183.0)
			m.Health = status.Health{State: "unhealthy", Reason: "probes fail: i/o timeout", Factor: 1, History: []status.HealthChange{
				{Time: at(-3 * time.Minute), State: "unhealthy", Reason: "i/o timeout"}, {Time: at(-3 * time.Hour), State: "healthy", Reason: "first probe"},
			}}
		},
		func(m *status.Member) {
			m.Sources[0].CredentialExpiry, m.Sources[0].Insecure = at(48*time.Hour), true
			m.Rejections, m.Unusable, m.Invalid = map[string]uint64{"address": 12, "port": 3}, map[string]int{"overlap": 4}, map[string]int{"NoService": 2}
		},
		func(m *status.Member) { m.Drained, m.Health.State = true, "excluded" },
		func(m *status.Member) {
			m.Health.Factor, m.Address, m.Gateway, m.Weight = 0.4, "fixed", []string{"192.0.2.10"}, new(3)
			m.Allow, m.Namespaces, m.ClaimedID = []string{"10.0.0.0/8"}, []string{"shop"}, "other"
		},
		func(m *status.Member) {
			m.Sources[0].Problems, m.Sources[0].Held = map[string]string{"serviceexports": "forbidden"}, []string{"endpointslices"}
			m.Sources[0].CredentialExpiry = at(-time.Hour)
		},
	}
	for i, change := range set[:min(n, len(set))] {
		change(&m.Members[i])
	}
	return m
}

// servicesFor makes a document of so many services of the members.
func servicesFor(n, members int) status.Services {
	s := status.Services{Version: status.Version}
	for i := range n {
		one := status.ServiceSummary{
			Namespace: fmt.Sprintf("team%d", i%7), Name: fmt.Sprintf("svc-%d", i), Type: []string{"ClusterSetIP", "Headless"}[i%2], Imported: i%5 == 0, Ready: i%40 + 1, Total: i%40 + 1,
		}
		for j := range 1 + i%members {
			one.Members = append(one.Members, fmt.Sprintf("m%d", (i+j)%members))
			one.Weights = append(one.Weights, float64(j)+0.5)
		}
		switch i % 20 {
		case 3:
			one.Ready /= 2
		case 7:
			one.Ready = 0
		case 11:
			one.Conflicts = []string{"PortConflict", "TypeConflict"}
		}
		s.Services = append(s.Services, one)
	}
	s.Matrix = matrixFor(members)
	return s
}

func matrixFor(members int) (out []status.MatrixRow) {
	for i := range members {
		row := status.MatrixRow{Region: []string{"eu", "us"}[i%2], Cluster: fmt.Sprintf("m%d", i), Zone: "a", Shares: map[string]float64{}}
		for j := range members {
			row.Shares[fmt.Sprintf("m%d", j)] = 1 / float64(members)
		}
		out = append(out, row)
	}
	return append(out, status.MatrixRow{Region: "nowhere"})
}

func serviceFor() status.Service {
	return status.Service{
		Version: status.Version,
		ServiceSummary: status.ServiceSummary{
			Namespace: "shop", Name: "web", Type: "ClusterSetIP", Members: []string{"m0", "m1"}, Ready: 3, Total: 5, Conflicts: []string{"PortConflict"},
		},
		FQDN: "web.shop.svc.clusterset.local.", IPs: []string{"10.42.0.1"}, Ports: []status.Port{{Name: "http", Protocol: "TCP", Number: 80}, {Protocol: "UDP", Number: 53}},
		ClientIPAffinity: true, TrafficDistribution: "PreferSameZone",
		Contributions: []status.Contribution{
			{Member: "m0", Addresses: []string{"10.96.0.1"}, Ready: 3, Total: 3, Weight: 3, Exported: at(-time.Hour)}, {Member: "m1", Total: 2, Weight: 1},
		},
		Unusable: map[string]string{"m2": "overlap"}, Matrix: matrixFor(3),
	}
}

func explanationFor() status.Explanation {
	return status.Explanation{
		Version: status.Version, Name: "web.shop.svc.clusterset.local.", Type: "A", Kind: "service", Service: "shop/web", ServiceType: "Headless",
		Client:  status.Client{Address: "10.1.2.3", Region: "eu", Cluster: "m0", Zone: "eu-a", Node: "n1", Source: "podcidr", Because: "10.1.2.0/24 is the pod range of n1"},
		Verdict: "10.96.0.1 of m0, its own cluster.",
		Candidates: []status.Candidate{
			{Member: "m0", Region: "eu", Zone: "eu-a", Node: "n1", Host: "web-0", Addresses: []string{"10.96.0.1"}, MemberState: "synced", ProofAgeSeconds: new(1.0), Health: "healthy", Ready: 1, Total: 1, Weight: 1, Kept: true, Reason: "drawn"},
			{Member: "m1", Health: "unhealthy", HealthReason: "probes fail", Tier: -1, Reason: "others can take everything"},
		},
		Tiers: []status.Tier{
			{Tier: 0, Distance: "same cluster", Healthy: 1, Total: 2, HealthyPercent: 70}, {Tier: 1, Distance: "everywhere", Healthy: 3, Total: 3, HealthyPercent: 20, DegradedPercent: 10, Panic: true},
		},
		Draw:   &status.Draw{Point: 13.75, Epoch: 358999123, EpochSeconds: 5, Part: "healthy", Member: "m0"},
		Answer: status.Answer{Rcode: "NOERROR", Next: true, Truncated: true, Answer: []string{"web.shop.svc.clusterset.local.\t5\tIN\tA\t10.96.0.1"}, Authority: []string{"a"}, Additional: []string{"b"}},
	}
}

// render returns what a page is.
func render(tb testing.TB, write func(io.Writer) error) string {
	tb.Helper()
	var out bytes.Buffer
	if err := write(&out); err != nil {
		tb.Fatal(err)
	}
	return out.String()
}

// everyPage renders all pages, each with all of what it can tell, after change has had its way with every string in the documents.
func everyPage(t *testing.T, change func(string) string) map[string]string {
	t.Helper()
	members, services, one, explanation, failed := membersFor(6), servicesFor(21, 6), serviceFor(), explanationFor(), status.Error{Version: status.Version, Error: "no such service"}
	for _, document := range []any{&members, &services, &one, &explanation, &failed} {
		rewrite(reflect.ValueOf(document).Elem(), change)
	}
	query := url.Values{}
	for _, name := range []string{"q", "type", "member", "only", "sort", "mq", "mstate", "msort", "page"} {
		query.Set(name, change("-nothing"))
	}
	question := Question{change("web.shop.svc.clusterset.local"), change("A"), change("10.1.2.3")}
	return map[string]string{
		"overview":          render(t, func(w io.Writer) error { return Overview(w, members, services, nil) }),
		"filtered overview": render(t, func(w io.Writer) error { return Overview(w, members, services, query) }),
		"empty overview": render(t, func(w io.Writer) error {
			return Overview(w, status.Members{Server: members.Server}, status.Services{}, nil)
		}),
		"service":        render(t, func(w io.Writer) error { return Service(w, members.Server, one) }),
		"empty form":     render(t, func(w io.Writer) error { return Explain(w, members.Server, Question{}, nil, nil) }),
		"explanation":    render(t, func(w io.Writer) error { return Explain(w, members.Server, question, &explanation, nil) }),
		"no explanation": render(t, func(w io.Writer) error { return Explain(w, members.Server, question, nil, &failed) }),
		"error":          render(t, func(w io.Writer) error { return Error(w, members.Server, "../../", failed) }),
	}
}

// rewrite changes every string in a document, keys too.
func rewrite(v reflect.Value, change func(string) string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(change(v.String()))
	case reflect.Pointer:
		if !v.IsNil() {
			rewrite(v.Elem(), change)
		}
	case reflect.Struct:
		for _, field := range v.Fields() {
			rewrite(field, change)
		}
	case reflect.Slice:
		for i := range v.Len() {
			rewrite(v.Index(i), change)
		}
	case reflect.Map:
		if v.IsNil() {
			return
		}
		next := reflect.MakeMap(v.Type())
		for key, value := range v.Seq2() {
			changed := reflect.New(v.Type().Elem()).Elem()
			changed.Set(value)
			rewrite(changed, change)
			next.SetMapIndex(reflect.ValueOf(change(key.String())), changed)
		}
		v.Set(next)
	default:
	}
}

// tag is an element that begins, with its attributes.
type tag struct {
	name  string
	attrs map[string]string
	order []string
}

var (
	begins     = regexp.MustCompile(`^<([a-zA-Z!][a-zA-Z0-9]*)((?:\s+[^\s=<>"'/]+(?:="[^"]*")?)*)\s*/?>`)
	ends       = regexp.MustCompile(`^</[a-z0-9]+>`)
	headings   = regexp.MustCompile(`^h[1-6]$`)
	attributes = regexp.MustCompile(`([^\s=<>"'/]+)(?:="([^"]*)")?`)
)

// read splits a page as a browser would: whatever begins with < is a tag of a form that the pages use, or the test fails.
func read(t *testing.T, page string) (out []tag) {
	t.Helper()
	for rest := page; ; {
		i := strings.IndexByte(rest, '<')
		if i < 0 {
			return out
		}
		rest = rest[i:]
		if end := ends.FindString(rest); end != "" {
			rest = rest[len(end):]
			continue
		}
		m := begins.FindStringSubmatch(rest)
		if m == nil {
			t.Fatalf("No tag of the pages: %.80q", rest)
		}
		one := tag{name: m[1], attrs: map[string]string{}}
		for _, a := range attributes.FindAllStringSubmatch(m[2], -1) {
			one.attrs[a[1]] = a[2]
			one.order = append(one.order, a[1])
		}
		out = append(out, one)
		rest = rest[len(m[0]):]
	}
}

// shape is what a page is made of, whatever it says.
func shape(all []tag) string {
	var out strings.Builder
	for _, one := range all {
		fmt.Fprintln(&out, one.name, one.order)
	}
	return out.String()
}

// Whatever clusters and readers write into names, a page is made of the same elements and attributes, and its links lead into it.
func TestHostileWordsChangeNothingButText(t *testing.T) {
	harmless := everyPage(t, func(s string) string {
		if s == "" {
			return s
		}
		return "word" + s
	})
	for name, hostile := range map[string]string{
		"a script":                  `</td></table><script>alert(1)</script>`,
		"an attribute":              `" onmouseover="alert(1)" x="`,
		"an unquoted attribute":     ` onerror=alert(1) `,
		"single quotes":             `' onfocus='alert(1)' autofocus='`,
		"a scheme":                  `javascript:alert(1)//`,
		"a style":                   `</style><style>*{display:none}`,
		"a comment":                 `--><!--`,
		"a template":                `{{.Page}}${alert(1)}`,
		"a line and a control":      "\n\r\x00\x1b[31m",
		"text that is no UTF-8":     "\xff\xfe<b",
		"an image":                  `<img src=x onerror=alert(1)>`,
		"another host":              `//evil.example/`,
		"a path":                    `../../../evil?x=#y`,
		"a title, and an entity":    `</title>&lt;script&gt;`,
		"a very long word":          strings.Repeat("x", 2000),
		"letters of two directions": "\u202eabc\u2066",
	} {
		t.Run(name, func(t *testing.T) {
			for page, text := range everyPage(t, func(s string) string {
				if s == "" {
					return s
				}
				return hostile + s
			}) {
				all := read(t, text)
				if got, want := shape(all), shape(read(t, harmless[page])); got != want {
					t.Errorf("%s is made of other things:\n%s\nwant\n%s", page, got, want)
				}
				for _, one := range all {
					for _, name := range []string{"href", "src", "action"} {
						if to, ok := one.attrs[name]; ok && !leadsInside(to) {
							t.Errorf("%s: <%s %s=%q> leads away", page, one.name, name, to)
						}
					}
				}
			}
		})
	}
}

// leadsInside tells whether a link stays below the status address, behind any proxy.
func leadsInside(link string) bool {
	u, err := url.Parse(link)
	return err == nil && u.Scheme == "" && u.Host == "" && !strings.HasPrefix(u.Path, "/")
}

func TestPagesNeedNothingThatThePolicyForbids(t *testing.T) {
	for page, text := range everyPage(t, func(s string) string { return s }) {
		for _, one := range read(t, text) {
			for name := range one.attrs {
				if name == "style" || strings.HasPrefix(name, "on") {
					t.Errorf("%s: <%s> has %s, which the policy forbids", page, one.name, name)
				}
			}
			if to := one.attrs["src"]; one.name == "script" && !strings.Contains(to, "assets/script.js?v=") || one.name == "style" || one.name == "iframe" {
				t.Errorf("%s: <%s src=%q>", page, one.name, to)
			}
		}
	}
	for name := range assets {
		content, _, _ := Asset(name)
		if regexp.MustCompile(`(?i)(https?:)?//[a-z0-9.]+\.[a-z]`).Match(bytes.ReplaceAll(content, []byte("http://www.w3.org/"), nil)) {
			t.Errorf("%s refers to another host", name)
		}
	}
}

// What helps those who do not see a page, or have no mouse.
func TestPagesCanBeReadByEverybody(t *testing.T) {
	for page, text := range everyPage(t, func(s string) string { return s }) {
		t.Run(page, func(t *testing.T) {
			all, ids, depth := read(t, text), map[string]bool{}, 0
			for i, one := range all {
				if id, ok := one.attrs["id"]; ok {
					if ids[id] {
						t.Errorf("The id %q is there twice", id)
					}
					ids[id] = true
				}
				if headings.MatchString(one.name) {
					next := int(one.name[1] - '0')
					if next > depth+1 {
						t.Errorf("<%s> follows h%d: a level is left out", one.name, depth)
					}
					depth = next
				}
				switch one.name {
				case "html":
					if one.attrs["lang"] == "" {
						t.Error("The page does not say its language")
					}
				case "input", "select":
					if one.attrs["type"] != "hidden" && !slices.ContainsFunc(all[max(0, i-40):i], func(before tag) bool { return before.name == "label" }) {
						t.Errorf("<%s name=%q> has no label", one.name, one.attrs["name"])
					}
				case "svg":
					if one.attrs["aria-hidden"] == "" && one.attrs["aria-label"] == "" {
						t.Error("A picture says nothing to those who do not see it")
					}
				case "img":
					if _, ok := one.attrs["alt"]; !ok {
						t.Error("A picture has no alt")
					}
				}
			}
			if !strings.Contains(text, "<h1") || !strings.Contains(text, "<main") {
				t.Error("No heading, or no main part")
			}
			for _, one := range all {
				if to := one.attrs["aria-labelledby"]; to != "" && !ids[to] {
					t.Errorf("<%s> is labelled by %q, which is not there", one.name, to)
				}
			}
			if tables := strings.Count(text, "<table"); strings.Count(text, `scope="col"`) < tables {
				t.Error("A table without headings")
			}
		})
	}
}

// items returns what rows of a table are shown, in order, by their data-text.
func items(t *testing.T, page, element string) (shown []string) {
	t.Helper()
	for _, one := range read(t, page) {
		if _, hidden := one.attrs["hidden"]; one.name == element && one.attrs["class"] == "item" && !hidden {
			shown = append(shown, one.attrs["data-text"])
		}
	}
	return shown
}

func TestServicesAreFilteredAndSorted(t *testing.T) {
	members, services := membersFor(4), status.Services{Services: []status.ServiceSummary{
		{Namespace: "shop", Name: "web", Type: "ClusterSetIP", Members: []string{"m0", "m1"}, Ready: 9, Total: 10},
		{Namespace: "shop", Name: "db", Type: "Headless", Members: []string{"m1"}, Ready: 0, Total: 3, Conflicts: []string{"TypeConflict"}},
		{Namespace: "ads", Name: "web", Type: "ClusterSetIP", Members: []string{"m0", "m1", "m2"}, Ready: 20, Total: 20, Conflicts: []string{"PortConflict"}},
		{Namespace: "ads", Name: "mail", Type: "Headless", Members: []string{"m10"}, Ready: 1, Total: 4, LeftOut: map[string]string{"m2": "overlap"}},
	}}
	for _, row := range []struct{ name, query, want string }{
		{"by name when nothing is asked", "", "ads/mail ads/web shop/db shop/web"},
		{"by name, the last first", "sort=-name", "shop/web shop/db ads/web ads/mail"},
		{"by type, then by name", "sort=type", "ads/web shop/web ads/mail shop/db"},
		{"by type the other way round, then by name", "sort=-type", "ads/mail shop/db ads/web shop/web"},
		{"by the share that is ready", "sort=ready", "shop/db ads/mail shop/web ads/web"},
		{"by endpoints, the most first", "sort=-total", "ads/web shop/web ads/mail shop/db"},
		{"by the number of members", "sort=-members", "ads/web shop/web ads/mail shop/db"},
		{"by conflicts, those with none last", "sort=-conflicts", "shop/db ads/web ads/mail shop/web"},
		{"by something that is no column", "sort=colour", "ads/mail ads/web shop/db shop/web"},
		{"a part of the name, in any case", "q=WEB", "ads/web shop/web"},
		{"a part of namespace and name", "q=s%2Fw", "ads/web"},
		{"a type", "type=Headless", "ads/mail shop/db"},
		{"a member", "member=m1", "ads/web shop/db shop/web"},
		{"no member whose id only begins like that", "member=m1&q=mail", ""},
		{"conflicts", "only=conflicts", "ads/web shop/db"},
		{"with members left out", "only=leftout", "ads/mail"},
		{"not all ready", "only=unready", "ads/mail shop/db shop/web"},
		{"none ready", "only=down", "shop/db"},
		{"all filters and an order", "q=web&type=ClusterSetIP&member=m0&sort=-total", "ads/web shop/web"},
		{"a page that is not there", "page=7", "ads/mail ads/web shop/db shop/web"},
		{"a page that is no number", "page=x", "ads/mail ads/web shop/db shop/web"},
	} {
		t.Run(row.name, func(t *testing.T) {
			query, err := url.ParseQuery(row.query)
			if err != nil {
				t.Fatal(err)
			}
			page := render(t, func(w io.Writer) error { return Overview(w, members, services, query) })
			if got := strings.Join(items(t, page, "tr"), " "); got != row.want {
				t.Errorf("%q, want %q", got, row.want)
			}
		})
	}
}

func TestMembersAreFilteredAndSorted(t *testing.T) {
	members := membersFor(7)
	for _, row := range []struct{ name, query, want string }{
		{"by id when nothing is asked", "", "m0 m1 m2 m3 m4 m5 m6"},
		{"by state, the worst first", "msort=state", "m1 m0 m2 m3 m4 m5 m6"},
		{"by silence, the longest first", "msort=-proof", "m1 m6 m5 m4 m3 m2 m0"},
		{"by health, the worst first", "msort=health", "m1 m3 m0 m2 m4 m5 m6"},
		{"by the end of credentials", "msort=expiry", "m5 m2 m6 m4 m3 m1 m0"},
		{"by services, the most first", "msort=-services", "m6 m5 m4 m3 m2 m1 m0"},
		{"by endpoints", "msort=endpoints", "m6 m5 m4 m3 m2 m1 m0"},
		{"by what was rejected, the most first", "msort=-rejected", "m2 m0 m1 m3 m4 m5 m6"},
		{"by what takes no part, the most first", "msort=-out", "m2 m0 m1 m3 m4 m5 m6"},
		{"in trouble", "mstate=trouble", "m1 m2 m4 m5"},
		{"well", "mstate=well", "m0 m3 m6"},
		{"a part of the id", "mq=M3", "m3"},
	} {
		t.Run(row.name, func(t *testing.T) {
			query, err := url.ParseQuery(row.query)
			if err != nil {
				t.Fatal(err)
			}
			page := render(t, func(w io.Writer) error { return Overview(w, members, status.Services{}, query) })
			if got := strings.Join(items(t, page, "tbody"), " "); got != row.want {
				t.Errorf("%q, want %q", got, row.want)
			}
		})
	}
}

func TestManyServicesComeInPages(t *testing.T) {
	members, services := membersFor(3), servicesFor(10_500, 3)
	for _, row := range []struct {
		name, query   string
		rows          int
		first         string
		before, after bool
	}{
		{"the first", "sort=total", perPage, "", false, true},
		{"one in the middle", "page=4", perPage, "", true, true},
		{"the last", "page=11", 500, "", true, false},
		{"beyond the last", "page=99", 500, "", true, false},
		{"a filter that leaves less than a page", "q=svc-1049&sort=-name", 11, "team6/svc-10499", false, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			query, err := url.ParseQuery(row.query)
			if err != nil {
				t.Fatal(err)
			}
			page := render(t, func(w io.Writer) error { return Overview(w, members, services, query) })
			got := items(t, page, "tr")
			if len(got) != row.rows || row.first != "" && got[0] != row.first {
				t.Errorf("%d rows from %.40q on, want %d from %q on", len(got), got, row.rows, row.first)
			}
			if before, after := strings.Contains(page, `rel="prev"`), strings.Contains(page, `rel="next"`); before != row.before || after != row.after {
				t.Errorf("Links to the page before and after: %v and %v, want %v and %v", before, after, row.before, row.after)
			}
			if strings.Contains(page, `data-complete="true" data-sortby="sort"`) {
				t.Error("The page says that it has all services")
			}
		})
	}
}

// The links and forms keep what was chosen before, also for the other table.
func TestLinksKeepWhatWasChosen(t *testing.T) {
	query := url.Values{"q": {"svc"}, "member": {"m1"}, "msort": {"-services"}, "sort": {"total"}, "page": {"2"}, "junk": {""}}
	page := render(t, func(w io.Writer) error { return Overview(w, membersFor(3), servicesFor(10, 3), query) })
	for _, want := range []string{
		`href="?member=m1&amp;msort=-services&amp;q=svc&amp;sort=-total"`,
		`href="?member=m1&amp;msort=-services&amp;q=svc&amp;sort=name"`,
		`href="?member=m1&amp;msort=services&amp;q=svc&amp;sort=total"`,
		`<input type="hidden" name="sort" value="total">`,
		`<input type="hidden" name="msort" value="-services">`,
		`<input type="search" name="q" value="svc"`,
		`<option value="m1" selected>`,
		`aria-sort="descending"><a href="?member=m1&amp;msort=services`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("%s is not there", want)
		}
	}
}

func TestNoticesNameWhatDeservesAttention(t *testing.T) {
	page := render(t, func(w io.Writer) error { return Overview(w, membersFor(6), servicesFor(40, 6), nil) })
	for _, want := range []string{
		`<b>m1</b>: exports stale: last proof of life 3 min ago`,
		`<b>m1</b>: it is unhealthy: probes fail: i/o timeout`,
		`<b>m2</b>: its credentials end in 2 d`,
		`<b>m2</b>: exports: the certificate of its API server is not verified`,
		`<b>m3</b>: it is drained`,
		`<b>m4</b>: it says that it is the cluster other`,
		`<b>m5</b>: serviceexports cannot be read (forbidden)`,
		`<b>m5</b>: endpointslices: a list is not believed yet`,
		`<b>m5</b>: its credentials ended 60 min ago`,
		`<b>twice</b>: its description is not used: duplicate: m1 is older`,
		`<a href="?only=down#services">2 services have no ready endpoint</a>`,
		`<a href="?only=conflicts#services">2 services have exports that disagree; the oldest wins</a>`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not said", want)
		}
	}
	well := membersFor(1)
	well.Refused = nil
	page = render(t, func(w io.Writer) error { return Overview(w, well, servicesFor(1, 1), nil) })
	if !strings.Contains(page, "Nothing needs attention.") {
		t.Error("What is well is not called so")
	}
}

func TestPagesTellEverything(t *testing.T) {
	pages := everyPage(t, func(s string) string { return s })
	for page, words := range map[string][]string{
		"overview":       {"m0", "synced", "183", "probes fail", "address", "overlap", "NoService", "192.0.2.10", "weight 3", "slow start 40 %", "10.0.0.0/8", "2026-11-21 11:57:00", "first probe", "secret clusterset-members/m2", "PortConflict", "Who gets what", `<a href="zones/example.org./">`},
		"service":        {"shop/web", "web.shop.svc.clusterset.local.", "10.42.0.1", "http 80/TCP, 53/UDP", "PreferSameZone", "75 %", "10.96.0.1", "overlap", "eu / m0 / a", "nobody serves", "33", `<a href="../../zones/example.org./">`},
		"explanation":    {"10.96.0.1 of m0, its own cluster.", "eu / m0 / eu-a / n1", "pod range of n1", "web-0", "others can take everything", "70 %", "13.75", "epoch 358999123", "truncated", "the next plugin answers", `x="90" y="2" width="10"`},
		"no explanation": {"no such service", `value="10.1.2.3"`},
		"error":          {"no such service", "../../assets/style.css?v="},
	} {
		for _, word := range words {
			if !strings.Contains(pages[page], word) {
				t.Errorf("%s does not say %q", page, word)
			}
		}
	}
}

func TestAssets(t *testing.T) {
	for name := range assets {
		content, mediaType, ok := Asset(name)
		if !ok || len(content) == 0 || mediaType == "" {
			t.Errorf("%s: %d bytes, %q, %v", name, len(content), mediaType, ok)
		}
	}
	for _, name := range []string{"", "overview.tmpl", "../statuspage.go", "style.css/"} {
		if _, _, ok := Asset(name); ok {
			t.Errorf("%q can be had", name)
		}
	}
}

func TestQuestionOf(t *testing.T) {
	q, asked := QuestionOf(url.Values{"name": {" web.shop.svc.clusterset.local "}, "type": {"AAAA"}, "client": {" 10.1.2.3"}})
	if want := (Question{"web.shop.svc.clusterset.local", "AAAA", "10.1.2.3"}); q != want || !asked {
		t.Errorf("%+v, %v", q, asked)
	}
	if _, asked := QuestionOf(url.Values{"client": {"10.1.2.3"}}); asked {
		t.Error("Without a name nothing is asked")
	}
}

// FuzzOverviewQuery asks for overviews with any query. Each is a whole page whose shown rows are services.
func FuzzOverviewQuery(f *testing.F) {
	for _, seed := range []string{"", "q=web&sort=-ready&page=2", "msort=%00&only=down", "page=-9223372036854775808", "sort=--name"} {
		f.Add(seed)
	}
	members, services := membersFor(5), servicesFor(30, 5)
	f.Fuzz(func(t *testing.T, text string) {
		query, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		page := render(t, func(w io.Writer) error { return Overview(w, members, services, query) })
		if !strings.HasSuffix(page, "</html>\n") || len(items(t, page, "tr")) > len(services.Services) {
			t.Errorf("%q gives no whole page", text)
		}
	})
}

func BenchmarkOverview(b *testing.B) {
	members, services := membersFor(20), servicesFor(1000, 20)
	b.ReportAllocs()
	for b.Loop() {
		if err := Overview(io.Discard, members, services, nil); err != nil {
			b.Fatal(err)
		}
	}
}
