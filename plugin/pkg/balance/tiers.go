package balance

import (
	"slices"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// Label is a part of a locality that a preference can name.
type Label uint8

// The labels, from narrow to broad.
const (
	Node Label = iota
	Zone
	Cluster
	Region
)

// matches compares one label of a client and an endpoint. What is unknown on either side matches nothing, but what is
// in the client's own cluster is in its region, and what is on its node in its zone, even where nobody says which. Zones are compared inside one region only
// (names differ between accounts of a cloud), nodes inside one cluster.
func (l Label) matches(client, endpoint topology.Locality) bool {
	same := func(a, b string) bool { return a != "" && a == b }
	sameCluster := same(string(client.Cluster), string(endpoint.Cluster))
	sameRegion := same(client.Region, endpoint.Region) || sameCluster && (client.Region == "" || endpoint.Region == "")
	sameNode := sameCluster && same(client.Node, endpoint.Node)
	switch l {
	case Region:
		return sameRegion
	case Cluster:
		return sameCluster
	case Zone:
		return sameRegion && (same(client.Zone, endpoint.Zone) || sameNode && (client.Zone == "" || endpoint.Zone == ""))
	default:
		return sameNode
	}
}

// distance is the tier of an endpoint before gaps are closed: the number of labels less those that match, counted from
// broad to narrow up to the first that does not (Istio's failoverPriority). labels go from narrow to broad.
func distance(labels []Label, client, endpoint topology.Locality) int {
	for i, l := range slices.Backward(labels) {
		if !l.matches(client, endpoint) {
			return i + 1
		}
	}
	return 0
}

// mask keeps of a locality what the labels look at, so that clients who are equal to the policy are equal by ==.
func mask(labels []Label, l topology.Locality) topology.Locality {
	if len(labels) == 0 {
		return topology.Locality{}
	}
	out := topology.Locality{Cluster: l.Cluster, Region: l.Region}
	if slices.Contains(labels, Zone) {
		out.Zone = l.Zone
	}
	if slices.Contains(labels, Node) {
		out.Node = l.Node
	}
	return out
}
