package clusterset

import (
	"context"

	"github.com/coredns/coredns/plugin/metadata"
	"github.com/coredns/coredns/request"
)

// cell carries what is known only after the answer to whoever asks for metadata then, such as the *log* plugin.
type cell struct{ kind, source string }

type cellKey struct{}

// Metadata implements metadata.Provider.
func (c *Clusterset) Metadata(ctx context.Context, state request.Request) context.Context {
	if c.zones.Matches(state.Name()) == "" {
		return ctx
	}
	about := &cell{}
	metadata.SetValueFunc(ctx, "clusterset/type", func() string { return about.kind })
	metadata.SetValueFunc(ctx, "clusterset/source", func() string { return about.source })
	return context.WithValue(ctx, cellKey{}, about)
}

// describe fills the cell, where there is one.
func describe(ctx context.Context, a *answer) {
	about, ok := ctx.Value(cellKey{}).(*cell)
	if !ok || a.service == nil {
		return
	}
	about.kind, about.source = a.service.Type.String(), "exports"
	if a.service.Imported {
		about.source = "imports"
	}
}
