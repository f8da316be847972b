package clusterset

import (
	"context"
	"strconv"

	"github.com/coredns/coredns/plugin/metadata"
	"github.com/coredns/coredns/request"
	"github.com/opentracing/opentracing-go"
)

// cell carries what is known only after the answer to whoever asks for metadata then, such as the *log* plugin.
type cell struct{ told }

// told is what is said about an answer, in words of closed sets but for the members' names. Words that do not apply are "".
type told struct{ kind, source, member, tier, why string }

type cellKey struct{}

// Metadata implements metadata.Provider.
func (c *Clusterset) Metadata(ctx context.Context, state request.Request) context.Context {
	if zoneOf(c.zones, state.Name()) < 0 {
		return ctx
	}
	about := &cell{}
	metadata.SetValueFunc(ctx, "clusterset/type", func() string { return about.kind })
	metadata.SetValueFunc(ctx, "clusterset/source", func() string { return about.source })
	metadata.SetValueFunc(ctx, "clusterset/member", func() string { return about.member })
	metadata.SetValueFunc(ctx, "clusterset/tier", func() string { return about.tier })
	metadata.SetValueFunc(ctx, "clusterset/why", func() string { return about.why })
	return context.WithValue(ctx, cellKey{}, about)
}

// describe tells about an answer where somebody listens: the metadata, and the span of a query that is traced.
func describe(ctx context.Context, a *answer) {
	if about, ok := ctx.Value(cellKey{}).(*cell); ok {
		about.told = a.told()
	}
	if span := opentracing.SpanFromContext(ctx); span != nil {
		a.tag(span)
	}
}

// tag writes into a span what metadata tell, under the same names.
func (a *answer) tag(span opentracing.Span) {
	t := a.told()
	tags := [][2]string{
		{"clusterset/type", t.kind}, {"clusterset/source", t.source}, {"clusterset/member", t.member},
		{"clusterset/tier", t.tier}, {"clusterset/why", t.why},
	}
	if a.plan != nil { // else nobody has asked where the client is
		c := &a.client
		tags = append(tags, [][2]string{
			{"locality/cluster", string(c.Cluster)}, {"locality/region", c.Region}, {"locality/zone", c.Zone},
			{"locality/node", c.Node}, {"locality/source", string(c.Source)},
		}...)
	}
	for _, tag := range tags {
		if tag[1] != "" {
			span.SetTag(tag[0], tag[1])
		}
	}
}

func (a *answer) told() (t told) {
	t.why = a.why()
	if a.service == nil {
		return t
	}
	t.kind, t.source = a.service.Type.String(), "exports"
	if a.service.Import != nil {
		t.source = "imports"
	}
	if a.plan != nil {
		t.member, t.tier = string(a.choice.Member), strconv.Itoa(a.choice.Tier)
	}
	return t
}

// why says why this is the answer.
func (a *answer) why() string {
	switch {
	case a.absent && a.certain:
		return "unknown"
	case a.absent:
		return "unsynced"
	case a.plan == nil && a.service != nil && a.service.Import != nil:
		return "import"
	case a.plan == nil:
		return ""
	case a.choice.Panic:
		return "panic"
	case a.choice.Degraded:
		return "degraded"
	case a.choice.Tier > 0:
		return "farther"
	default:
		return "nearest"
	}
}
