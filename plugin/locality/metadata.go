package locality

import (
	"context"

	"github.com/coredns/coredns/plugin/metadata"
	"github.com/coredns/coredns/request"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// Metadata implements metadata.Provider. The labels are known before any plugin is asked, so that *view* can use them.
func (l *Locality) Metadata(ctx context.Context, state request.Request) context.Context {
	var c topology.Client
	l.Locate(&state, &c)
	metadata.SetValueFunc(ctx, "locality/cluster", func() string { return string(c.Cluster) })
	metadata.SetValueFunc(ctx, "locality/region", func() string { return c.Region })
	metadata.SetValueFunc(ctx, "locality/zone", func() string { return c.Zone })
	metadata.SetValueFunc(ctx, "locality/node", func() string { return c.Node })
	metadata.SetValueFunc(ctx, "locality/source", func() string { return string(c.Source) })
	return ctx
}
