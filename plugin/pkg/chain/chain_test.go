package chain

import (
	"context"
	"testing"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/test"
	"github.com/miekg/dns"
	"github.com/opentracing/opentracing-go"
	"github.com/opentracing/opentracing-go/mocktracer"
)

func TestNext(t *testing.T) {
	refuse := test.NextHandler(dns.RcodeRefused, nil)
	query := new(dns.Msg).SetQuestion("example.org.", dns.TypeA)
	tracer := mocktracer.New()
	for _, tc := range []struct {
		name  string
		next  plugin.Handler
		trace bool
		rcode int
		fails bool
		spans int
	}{
		{"the next plugin answers", refuse, false, dns.RcodeRefused, false, 0},
		{"and is part of a trace", refuse, true, dns.RcodeRefused, false, 1},
		{"nobody is next", nil, false, dns.RcodeServerFailure, true, 0},
		{"nobody is next in a trace", nil, true, dns.RcodeServerFailure, true, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx := t.Context()
			if tc.trace {
				ctx = opentracing.ContextWithSpan(ctx, tracer.StartSpan("query"))
			}
			before := len(tracer.FinishedSpans())
			rcode, err := Next("ours", tc.next, ctx, &test.ResponseWriter{}, query)
			if rcode != tc.rcode || (err != nil) != tc.fails {
				t.Errorf("Got code %d and %v", rcode, err)
			}
			if n := len(tracer.FinishedSpans()) - before; n != tc.spans {
				t.Errorf("Got %d spans, want %d", n, tc.spans)
			}
		})
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = Next("ours", refuse, context.Background(), nil, query) }); n != 0 {
		t.Errorf("It allocates %.0f times", n)
	}
}
