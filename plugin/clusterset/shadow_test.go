package clusterset

import (
	"context"
	"slices"
	"testing"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/pkg/fall"
	"github.com/coredns/coredns/plugin/test"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/balance"
)

// says is a plugin that answers with these records.
func says(rcode int, records ...string) plugin.Handler {
	return plugin.HandlerFunc(func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		m := new(dns.Msg).SetRcode(r, rcode)
		for _, record := range records {
			m.Answer = append(m.Answer, test.A(record))
		}
		return rcode, w.WriteMsg(m)
	})
}

// packs is a plugin that answers with octets.
func packs(next plugin.Handler) plugin.Handler {
	return plugin.HandlerFunc(func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		answer := dnstest.NewRecorder(&test.ResponseWriter{})
		rcode, err := next.ServeDNS(ctx, answer, r)
		if err != nil {
			return rcode, err
		}
		packed, err := answer.Msg.Pack()
		if err != nil {
			return rcode, err
		}
		_, err = w.Write(packed)
		return rcode, err
	})
}

func TestInTheShadowTheNextPluginAnswers(t *testing.T) {
	const web = "web.shop.svc.clusterset.local."
	all := func(c *Clusterset) { c.policy = &balance.Policy{Answer: balance.All, Prefer: balance.ByLabels} }
	for _, tc := range []struct {
		name, qname string
		next        plugin.Handler
		change      func(*Clusterset)
		want        comparison
		answer      []string
	}{
		{"the same record", web, says(0, web+" 5 IN A 10.0.0.1"), nil, same, []string{web + "\t5\tIN\tA\t10.0.0.1"}},
		{"another TTL and another case are no difference", web, says(0, "Web.shop.svc.clusterset.local. 30 IN A 10.0.0.1"), nil, same,
			[]string{"Web.shop.svc.clusterset.local.\t30\tIN\tA\t10.0.0.1"}},
		{"another order is no difference", web, says(0, web+" 5 IN A 10.1.0.1", web+" 5 IN A 10.0.0.1"), all, same,
			[]string{web + "\t5\tIN\tA\t10.1.0.1", web + "\t5\tIN\tA\t10.0.0.1"}},
		{"octets are compared too", web, packs(says(0, web+" 5 IN A 10.0.0.1")), nil, same, nil},
		{"another address", web, says(0, web+" 5 IN A 10.0.0.7"), nil, different, []string{web + "\t5\tIN\tA\t10.0.0.7"}},
		{"one record more", web, says(0, web+" 5 IN A 10.0.0.1", web+" 5 IN A 10.0.0.2"), nil, different,
			[]string{web + "\t5\tIN\tA\t10.0.0.1", web + "\t5\tIN\tA\t10.0.0.2"}},
		{"another response code", web, says(dns.RcodeNameError), nil, different, nil},
		{"one denies, the other has no records", "none.shop.svc.clusterset.local.", says(dns.RcodeSuccess), nil, different, nil},
		{"both deny", "none.shop.svc.clusterset.local.", says(dns.RcodeNameError), nil, same, nil},
		{"what would be passed on anyway", "none.shop.svc.clusterset.local.", says(dns.RcodeNameError), func(c *Clusterset) { c.fall = fall.Root }, passedOn, nil},
		{"the next plugin says nothing", web, test.NextHandler(dns.RcodeRefused, nil), nil, unanswered, nil},
		{"a fault of ours", web, says(0, web+" 5 IN A 10.0.0.1"), func(c *Clusterset) { c.world = nil }, broken, []string{web + "\t5\tIN\tA\t10.0.0.1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := handlerOf(shop(true), func(c *Clusterset) { c.shadow, c.Next = true, tc.next })
			if tc.change != nil {
				tc.change(c)
			}
			counter := shadowAnswers.WithLabelValues(string(tc.want))
			before := testutil.ToFloat64(counter)
			w := dnstest.NewRecorder(&test.ResponseWriter{})
			if _, err := c.ServeDNS(t.Context(), w, new(dns.Msg).SetQuestion(tc.qname, dns.TypeA)); err != nil {
				t.Fatal(err)
			}
			if got := testutil.ToFloat64(counter) - before; got != 1 {
				t.Errorf("It counts as %s %g times", tc.want, got)
			}
			var answer []string
			if w.Msg != nil {
				for _, rr := range w.Msg.Answer {
					answer = append(answer, rr.String())
				}
			}
			if !slices.Equal(answer, tc.answer) {
				t.Errorf("The client is answered %q, want %q", answer, tc.answer)
			}
		})
	}
	t.Run("zone transfers are for the next plugin", func(t *testing.T) {
		c := handlerOf(shop(true), func(c *Clusterset) { c.shadow, c.Next = true, test.NextHandler(dns.RcodeNotAuth, nil) })
		if rcode, err := c.ServeDNS(t.Context(), &test.ResponseWriter{}, new(dns.Msg).SetQuestion("clusterset.local.", dns.TypeAXFR)); rcode != dns.RcodeNotAuth || err != nil {
			t.Errorf("They are answered %s, %v", dns.RcodeToString[rcode], err)
		}
	})
}
