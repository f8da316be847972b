package locality

import (
	"github.com/coredns/caddy"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/corefile"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

// NewOffline makes a handler that only locates, from a stanza, whose tokens the controller has, and from what the clusters say, by
// their ids. Nobody is asked.
func NewOffline(c *caddy.Controller, said map[string]*watch.Manifests) (*Locality, error) {
	corefile.SetOffline(c)
	config, err := parse(c)
	if err != nil {
		return nil, err
	}
	out := &Locality{config: config}
	local := said[string(config.cluster)]
	if config.nodes == nil || local == nil {
		return out, nil
	}
	out.atlas = newQuietAtlas(string(config.cluster))
	for name, n := range local.Nodes {
		out.atlas.ApplyNode(name, n)
	}
	for slice, p := range local.Places {
		out.atlas.ApplyPlaces(slice, p)
	}
	out.atlas.SetNodesListed()
	out.atlas.publish()
	return out, nil
}
