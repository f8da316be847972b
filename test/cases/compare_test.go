package cases

import (
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"sigs.k8s.io/yaml"
)

// message makes an answer of lines "SECTION RECORD", and of words that set the header.
func message(t *testing.T, lines ...string) *dns.Msg {
	t.Helper()
	m := &dns.Msg{}
	for _, l := range lines {
		word, rest, _ := strings.Cut(l, " ")
		switch word {
		case "aa":
			m.Authoritative = true
			continue
		case "tc":
			m.Truncated = true
			continue
		}
		if rcode, ok := dns.StringToRcode[word]; ok {
			m.Rcode = rcode
			continue
		}
		rr, err := dns.NewRR(rest)
		if err != nil {
			t.Fatal(err)
		}
		section := map[string]*[]dns.RR{"answer": &m.Answer, "authority": &m.Ns, "additional": &m.Extra}[word]
		*section = append(*section, rr)
	}
	return m
}

func TestCompare(t *testing.T) {
	const soa = "authority example. 5 IN SOA ns.dns.example. hostmaster.example. 17 7200 1800 86400 5"
	tests := []struct {
		name   string
		expect string
		got    []string
		want   []string // what each finding begins with
	}{
		{"nothing expected", "{}", []string{"NOERROR"}, nil},
		{"codes and flags that fit", "{rcode: NXDOMAIN, aa: true, tc: false}", []string{"NXDOMAIN", "aa"}, nil},
		{"one rcode of several", "{rcode: [NOERROR, NXDOMAIN]}", []string{"NXDOMAIN"}, nil},
		{"codes and flags that do not fit", "{rcode: NOERROR, aa: true, tc: true}", []string{"NXDOMAIN"}, []string{"rcode NXDOMAIN", "aa false", "tc false"}},
		{"records in any order", "{answer: [{owner: a., type: A, rdata: 192.0.2.1}, {owner: a., type: A, rdata: 192.0.2.2}]}",
			[]string{"answer a. 5 IN A 192.0.2.2", "answer a. 5 IN A 192.0.2.1"}, nil},
		{"a record too few", "{answer: [{owner: a., type: A, rdata: 192.0.2.1}, {owner: a., type: A, rdata: 192.0.2.2}]}",
			[]string{"answer a. 5 IN A 192.0.2.2"}, []string{"answer: missing a. A 192.0.2.1"}},
		{"a record too many", "{answer: []}", []string{"answer a. 5 IN A 192.0.2.2"}, []string{"answer: unexpected a. A 192.0.2.2"}},
		{"a record twice", "{answer: [{owner: a., type: A, rdata: 192.0.2.1}]}",
			[]string{"answer a. 5 IN A 192.0.2.1", "answer a. 5 IN A 192.0.2.1"}, []string{"answer: twice a. A"}},
		{"another type", "{answer: [{owner: a., type: AAAA, rdata: '::1'}]}", []string{"answer a. 5 IN A 192.0.2.1"},
			[]string{"answer: unexpected", "answer: missing"}},
		{"the case of the owner counts", "{answer: [{owner: A., type: A, rdata: 192.0.2.1}]}", []string{"answer a. 5 IN A 192.0.2.1"},
			[]string{"answer: unexpected a.", "answer: missing A."}},
		{"the case of the data does not", "{answer: [{owner: a., type: NS, rdata: NS.Example.}]}", []string{"answer a. 5 IN NS ns.example."}, nil},
		{"a TTL that is given", "{answer: [{owner: a., type: A, rdata: 192.0.2.1, ttl: 0}]}", []string{"answer a. 5 IN A 192.0.2.1"},
			[]string{"answer: unexpected", "answer: missing"}},
		{"a TTL for all of the answer", "{ttl: 5}", []string{"answer a. 5 IN A 192.0.2.1", "answer a. 6 IN A 192.0.2.2"},
			[]string{"answer: a. A 192.0.2.2 (ttl 6), want ttl 5"}},
		{"another spelling of an IPv6 address", "{answer: [{owner: a., type: AAAA, rdata: '2001:db8:0:0::1'}]}",
			[]string{"answer a. 5 IN AAAA 2001:db8::1"}, nil},
		{"any priority and weight", "{answer: [{owner: a., type: SRV, rdata: '* * 80 b.'}]}", []string{"answer a. 5 IN SRV 3 7 80 b."}, nil},
		{"a weight that is given", "{answer: [{owner: a., type: SRV, rdata: '0 50 80 b.'}]}", []string{"answer a. 5 IN SRV 0 7 80 b."},
			[]string{"answer: unexpected", "answer: missing"}},
		{"another port", "{answer: [{owner: a., type: SRV, rdata: '* * 80 b.'}]}", []string{"answer a. 5 IN SRV 0 7 81 b."},
			[]string{"answer: unexpected", "answer: missing"}},
		{"text in quotation marks", `{answer: [{owner: a., type: TXT, rdata: '"1.0.0"'}]}`, []string{`answer a. 5 IN TXT "1.0.0"`}, nil},
		{"some of the records, where that will do", "{answer_subset_ok: true, answer: [{owner: a., type: A, rdata: 192.0.2.1}, {owner: a., type: A, rdata: 192.0.2.2}]}",
			[]string{"answer a. 5 IN A 192.0.2.2"}, nil},
		{"none of the records, where some will do", "{answer_subset_ok: true, answer: [{owner: a., type: A, rdata: 192.0.2.1}]}", nil,
			[]string{"answer: no record"}},
		{"others than the records of which some will do", "{answer_subset_ok: true, answer: [{owner: a., type: A, rdata: 192.0.2.1}]}",
			[]string{"answer a. 5 IN A 192.0.2.9"}, []string{"answer: unexpected"}},
		{"a SOA record where one must be", "{authority_soa: true}", []string{soa}, nil},
		{"no SOA record where one must be", "{authority_soa: true}", nil, []string{"authority: has a SOA record: false"}},
		{"a SOA record where none may be", "{authority_soa: false}", []string{soa}, []string{"authority: has a SOA record: true"}},
		{"any serial", "{authority: [{owner: example., type: SOA, rdata: ns.dns.example. hostmaster.example. * 7200 1800 86400 5, ttl: 5}]}",
			[]string{soa}, nil},
		{"another minimum", "{authority: [{owner: example., type: SOA, rdata: ns.dns.example. hostmaster.example. * 7200 1800 86400 6}]}",
			[]string{soa}, []string{"authority: unexpected", "authority: missing"}},
		{"glue that may be left out", "{additional: [{owner: b., type: A, rdata: 192.0.2.1}]}", nil, nil},
		{"glue of the server's own address", "{additional: [{owner: b., type: A, rdata: <listen-ip>}]}", []string{"additional b. 5 IN A 127.0.0.1"}, nil},
		{"glue that is not listed", "{additional: [{owner: b., type: A, rdata: 192.0.2.1}]}", []string{"additional b. 5 IN A 192.0.2.2"},
			[]string{"additional: unexpected b."}},
		{"glue of a target, where none is listed", "{}", []string{"answer a. 5 IN SRV 0 0 80 b.", "additional b. 5 IN A 192.0.2.2"}, nil},
		{"glue of something else", "{}", []string{"answer a. 5 IN SRV 0 0 80 b.", "additional c. 5 IN A 192.0.2.2"}, []string{"additional: unexpected"}},
		{"the next plugin, which must have the query", "{handled: false}", []string{"additional " + unhandledMark + " 0 IN TXT x"}, nil},
		{"the next plugin, which must not", "{rcode: NOERROR}", []string{"additional " + unhandledMark + " 0 IN TXT x"}, []string{"the plugin handled the query: false"}},
		{"an answer to a query that was for the next plugin", "{handled: false}", []string{"NXDOMAIN"}, []string{"the plugin handled the query: true"}},
		{"an expectation that nobody knows", "{rcode: NOERROR, smell: fine}", nil, []string{"the runner does not know these expectations: smell"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var expect Expect
			if err := yaml.Unmarshal([]byte(test.expect), &expect); err != nil {
				t.Fatal(err)
			}
			got := Compare(expect, message(t, test.got...))
			if !slices.EqualFunc(got, test.want, strings.HasPrefix) {
				t.Errorf("found %q, want %q", got, test.want)
			}
		})
	}
}
