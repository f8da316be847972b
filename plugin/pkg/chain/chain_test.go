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
	traced := opentracing.ContextWithSpan(t.Context(), tracer.StartSpan("query"))
	for _, tc := range []struct {
		name  string
		ctx   context.Context
		next  plugin.Handler
		rcode int
		fails bool
		spans int
	}{
		{"the next plugin answers", t.Context(), refuse, dns.RcodeRefused, false, 0},
		{"and is part of a trace", traced, refuse, dns.RcodeRefused, false, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := len(tracer.FinishedSpans())
			rcode, err := Next("ours", tc.next, tc.ctx, &test.ResponseWriter{}, query)
			if rcode != tc.rcode || (err != nil) != tc.fails {
				t.Errorf("Got code %d and %v", rcode, err)
			}
			if n := len(tracer.FinishedSpans()) - before; n != tc.spans {
				t.Errorf("Got %d spans, want %d", n, tc.spans)
			}
		})
	}
	if rcode, err := Next("ours", nil, t.Context(), &test.ResponseWriter{}, query); rcode != dns.RcodeServerFailure || err == nil {
		t.Errorf("Without a next plugin the code is %d and the error %v", rcode, err)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = Next("ours", refuse, context.Background(), nil, query) }); n != 0 {
		t.Errorf("It allocates %.0f times", n)
	}
}
