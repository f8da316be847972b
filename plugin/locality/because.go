package locality

import (
	"fmt"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// Because says in words how the place of a client was found that Locate has located.
func (l *Locality) Because(c *topology.Client) string {
	said := l.found(c)
	if c.Forwarded {
		return "a forwarder that is believed says whose query it is (ecs); " + said
	}
	return said
}

func (l *Locality) found(c *topology.Client) string {
	t := noTable
	if l.atlas != nil {
		t = l.atlas.current.Load()
	}
	switch c.Source {
	case topology.SourceAddress:
		if c.Node != "" {
			return fmt.Sprintf("the address is that of Node %s, or of an endpoint on it", c.Node)
		}
		return "the address is that of an endpoint of the local cluster"
	case topology.SourceCIDR:
		if block, ok := l.cidrs.block(c.Addr); ok {
			return fmt.Sprintf("the Corefile says where %s is (cidr)", block)
		}
		return "the Corefile says where the address is (cidr)"
	case topology.SourcePodCIDR:
		if block, ok := t.pods.block(c.Addr); ok {
			return fmt.Sprintf("Node %s says that its pods have %s", c.Node, block)
		}
		return "a Node says that its pods have such addresses"
	case topology.SourceCluster:
		return fmt.Sprintf("the address is in no table, but whoever asks this server is taken to be in its cluster, %s", l.cluster)
	default:
		return "the address is in no table, and the Corefile does not say in which cluster this server runs"
	}
}
