package clusterset

import (
	"context"
	"strconv"

	"github.com/coredns/coredns/plugin/metadata"
	"github.com/coredns/coredns/request"
)

// cell carries what is known only after the answer to whoever asks for metadata then, such as the *log* plugin.
type cell struct {
	kind, source, member string
	tier                 int
}

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
	metadata.SetValueFunc(ctx, "clusterset/tier", func() string { return tierName(about.tier) })
	return context.WithValue(ctx, cellKey{}, about)
}

// describe fills the cell, where there is one.
func describe(ctx context.Context, a *answer) {
	about, ok := ctx.Value(cellKey{}).(*cell)
	if !ok || a.service == nil {
		return
	}
	about.kind, about.source = a.service.Type.String(), "exports"
	if a.plan != nil {
		about.member, about.tier = string(a.choice.Member), a.choice.Tier+1
	}
	if a.service.Import != nil {
		about.source = "imports"
	}
}

// tierName names a tier, counted from 1; "" when there was no choice.
func tierName(tier int) string {
	if tier == 0 {
		return ""
	}
	return strconv.Itoa(tier - 1)
}
