package clients

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
)

// ttl is that of all answers.
const ttl = time.Second

// pastTTL is a pause in milliseconds after which no answer may be used any more.
var pastTTL = strconv.FormatInt((2 * ttl).Milliseconds(), 10)

// TestClients lets every resolver look up the same names. All must give the right addresses; what they do differently is the table of
// docs/clients.md, which is written with CLIENTS_WRITE=1.
func TestClients(t *testing.T) {
	if cannot != "" {
		t.Skip(cannot)
	}
	found := &table{}
	for _, r := range resolvers {
		t.Run(r.name, func(t *testing.T) {
			if why := r.missing(); why != "" {
				t.Skip(why)
			}
			found.add(examine(t, r))
		})
	}
	if os.Getenv("CLIENTS_WRITE") == "" || t.Failed() {
		return
	}
	if len(found.rows) != len(resolvers) {
		t.Fatalf("%d of %d clients were measured: the table is not written", len(found.rows), len(resolvers))
	}
	root, err := clusters.Root()
	must(t, err)
	must(t, found.write(filepath.Join(root, "docs", "clients.md")))
}

// examine looks up one name after another, checks what must hold for every client, and returns what it found of this one.
func examine(t *testing.T, r resolver) row {
	t.Helper()
	find := r.prepare(t)
	found := row{name: r.name, version: r.version()}
	look := func(args ...string) (lines []string, queries []query) {
		t.Helper()
		queries = asked(t, func() { lines = find(t, args...) })
		return lines, queries
	}

	lines, queries := look("any", "web"+domain+".")
	same(t, "web", lines, truth["web"])
	found.first = how(queries)
	for what, is := range map[string]func(netip.Addr) bool{"a": netip.Addr.Is4, "aaaa": netip.Addr.Is6} {
		lines, _ = look(what, "db"+domain+".")
		same(t, "db "+what, lines, those(truth["db"], is))
	}
	found.srv = "no"
	if !r.addressesOnly {
		lines, _ = look("srv", "_http._tcp.db"+domain+".")
		same(t, "_http._tcp.db", lines, []string{"db-0.east.db" + domain + ":8080", "db-1.east.db" + domain + ":8080", "db-0.west.db" + domain + ":8080"})
		found.srv = "yes"
	}
	lines, _ = look("a", "missing"+domain+".")
	if !strings.HasPrefix(lines[0], "error") {
		t.Errorf("missing: %q, want an error", lines)
	}

	lines, queries = look("a", "large"+domain+".")
	checkLarge(t, r, lines, queries)
	found.large = fmt.Sprintf("%d, over %s", len(lines), over(addressQueries(queries)))

	for what, is := range map[string]func(netip.Addr) bool{"a": netip.Addr.Is4, "aaaa": netip.Addr.Is6} {
		reference := answer(t, "order"+domain+".", what)
		if rank(reference[0]) == 0 {
			t.Fatalf("order: the server begins with an address of the own network, so that nothing can be seen: %q", reference)
		}
		lines, _ = look(what, "order"+domain+".")
		same(t, "order "+what, lines, those(truth["order"], is))
		*map[string]*string{"a": &found.order4, "aaaa": &found.order6}[what] = orderOf(reference, plain(lines))
	}

	// From here on each name is looked up for the first time, so that nobody has it in a cache.
	lines, queries = look("a", "kept"+domain+".", "0", pastTTL)
	again := slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return line == "again" })
	same(t, "kept, three times", again, slices.Repeat(truth["kept"], 3))
	found.kept = kept(len(addressQueries(queries)))
	lines, queries = look("any", "searched"+domain)
	same(t, "searched", lines, truth["searched"])
	found.search = strconv.Itoa(len(queries))
	lines, queries = look("any", "absolute"+domain+".")
	same(t, "absolute", lines, truth["absolute"])
	found.absolute = strconv.Itoa(len(queries))
	return found
}

// checkLarge checks the addresses of a long answer, of which there must have been a truncated one over UDP.
func checkLarge(t *testing.T, r resolver, lines []string, queries []query) {
	t.Helper()
	all := addressQueries(queries)
	if !slices.ContainsFunc(all, func(q query) bool { return q.proto == "udp" && q.truncated }) {
		t.Errorf("large: no answer over UDP was truncated: %v", queries)
	}
	if !r.incomplete {
		same(t, "large", lines, truth["large"])
		if over(all) != "TCP" {
			t.Errorf("large: not asked over TCP: %v", queries)
		}
		return
	}
	seen := map[string]bool{}
	for _, line := range lines {
		if seen[line] || !slices.Contains(truth["large"], line) {
			t.Errorf("large: %q is there twice, or is none of its addresses", line)
		}
		seen[line] = true
	}
}

// over says how the whole answer came. The log may tell of what came first later.
func over(all []query) string {
	if slices.ContainsFunc(all, func(q query) bool { return q.proto == "tcp" }) {
		return "TCP"
	}
	return "UDP"
}

// same compares what was found with what is right, in any order.
func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	got, want = plain(got), slices.Clone(want)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %d lines %q, want %d %q", what, len(got), got, len(want), want)
	}
}

// plain returns lines in the form that the others have too: Java does not shorten IPv6 addresses, and some resolvers leave the dot at
// the end of names.
func plain(lines []string) []string {
	all := make([]string, len(lines))
	for i, line := range lines {
		if a, err := netip.ParseAddr(line); err == nil {
			line = a.String()
		}
		if host, port, named := strings.Cut(line, ".:"); named {
			line = host + ":" + port
		}
		all[i] = strings.ToLower(line)
	}
	return all
}

// those returns the addresses of a kind.
func those(addresses []string, is func(netip.Addr) bool) []string {
	var some []string
	for _, a := range addresses {
		if is(netip.MustParseAddr(a)) {
			some = append(some, a)
		}
	}
	return some
}

// answer returns the addresses in the order in which the server gives them.
func answer(t *testing.T, name, what string) []string {
	t.Helper()
	client := dns.Client{Net: "tcp", Timeout: limit}
	m, _, err := client.ExchangeContext(t.Context(), new(dns.Msg).SetQuestion(name, dns.StringToType[strings.ToUpper(what)]), here+":53")
	must(t, err)
	var all []string
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			all = append(all, rr.A.String())
		case *dns.AAAA:
			all = append(all, rr.AAAA.String())
		}
	}
	return all
}

// near are the networks that the machine has an address in.
var near = []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24"), netip.MustParsePrefix("fd00:10:9::/64")}

// orderOf says what a client has made of the order of an answer.
func orderOf(answered, got []string) string {
	nearFirst := slices.Clone(answered)
	slices.SortStableFunc(nearFirst, func(a, b string) int { return rank(a) - rank(b) })
	switch {
	case slices.Equal(got, answered):
		return "as answered"
	case slices.Equal(got, nearFirst):
		return "own network first"
	case slices.IsSortedFunc(got, func(a, b string) int { return rank(a) - rank(b) }):
		return "own network first, else its own"
	default:
		return "its own"
	}
}

func rank(address string) int {
	for _, n := range near {
		if n.Contains(netip.MustParseAddr(address)) {
			return 0
		}
	}
	return 1
}

// how says how a client asks at first.
func how(queries []query) string {
	if len(queries) == 0 {
		return "nothing"
	}
	switch q := queries[0]; {
	case q.proto != "udp":
		return strings.ToUpper(q.proto)
	case q.size == strconv.Itoa(dns.MinMsgSize):
		return "UDP, 512 octets"
	default:
		return "UDP, " + q.size + " octets by EDNS"
	}
}

// kept says how long answers are kept, by how many of three lookups were asked: the second at once, the third after the TTL.
func kept(n int) string {
	switch n {
	case 1:
		return "longer than the TTL"
	case 2:
		return "for the TTL"
	case 3:
		return "not at all"
	default:
		return fmt.Sprintf("? (%d queries)", n)
	}
}
