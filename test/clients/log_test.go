package clients

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/test/suite"
)

// logFormat makes the server tell of each query what a client decides: the size that it asks for (512 without EDNS), and over what
// it asks; and the flags of the answer, tc among them.
const logFormat = "query {type} {name} {proto} {>bufsize} {rcode} {>rflags}"

// query is a query that the server was asked.
type query struct {
	qtype, name, proto, size, rcode string
	truncated                       bool
}

var logged = regexp.MustCompile(`query (\S+) (\S+) (\S+) (\d+) (\S+) (\S+)`)

func queries(log string) []query {
	var all []query
	for _, m := range logged.FindAllStringSubmatch(log, -1) {
		flags := strings.Split(m[6], ",")
		q := query{qtype: m[1], name: m[2], proto: m[3], size: m[4], rcode: m[5]}
		for _, f := range flags {
			q.truncated = q.truncated || f == "tc"
		}
		all = append(all, q)
	}
	return all
}

// asked returns what the server is asked while something is done. A query is logged after its answer is sent, so that of a marker is
// waited for, which was asked later.
func asked(t *testing.T, do func()) []query {
	t.Helper()
	before := len(coredns.Log())
	do()
	marker := fmt.Sprintf("marker-%d.example.", before)
	client := dns.Client{Timeout: limit}
	suite.Within(t, limit, "the log has the marker", func(ctx context.Context) error {
		if _, _, err := client.ExchangeContext(ctx, new(dns.Msg).SetQuestion(marker, dns.TypeTXT), here+":53"); err != nil {
			return err
		}
		if !strings.Contains(coredns.Log()[before:], marker) {
			return fmt.Errorf("it has not")
		}
		return nil
	})
	var all []query
	for _, q := range queries(coredns.Log()[before:]) {
		if !strings.HasPrefix(q.name, "marker-") {
			all = append(all, q)
		}
	}
	return all
}

// addressQueries returns those of type A.
func addressQueries(all []query) []query {
	var some []query
	for _, q := range all {
		if q.qtype == "A" {
			some = append(some, q)
		}
	}
	return some
}

func TestQueriesAreReadFromTheLog(t *testing.T) {
	got := queries("[INFO] query A web.example. udp 1232 NOERROR qr,aa,tc,rd\nother\n[INFO] query SRV x. tcp 65535 NXDOMAIN qr\n")
	want := []query{{"A", "web.example.", "udp", "1232", "NOERROR", true}, {"SRV", "x.", "tcp", "65535", "NXDOMAIN", false}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("Got %v, want %v", got, want)
	}
}
