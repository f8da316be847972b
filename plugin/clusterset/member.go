package clusterset

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

// member is a cluster as the Corefile describes it, or, where members come and go, a Secret or a folder.
type member struct {
	mcs.Member
	connection watch.Connection
	region     string // "" means: from the Nodes' labels
	weight     *int   // nil means: the number of ready endpoints
	hasAddress bool
	line       int
	// origin says where it is described: "corefile", "secret NAMESPACE/NAME" or "directory NAME".
	origin string
	// settings are what a description says, without credentials; nil for a member of the Corefile.
	settings map[string]string
}

const maxWeight = 65535

// set takes the words that stand after a property of a member. The error says what would be right.
func (m *member) set(property string, words []string) error {
	switch property {
	case "address":
		return m.setAddress(words)
	case "region":
		if len(words) != 1 {
			return fmt.Errorf("'region' takes the name of a region, and nothing else: got %d arguments", len(words))
		}
		m.region = words[0]
		return nil
	case "weight":
		return m.setWeight(words)
	case "allow":
		return m.setAllow(words)
	case "namespaces":
		return m.setNamespaces(words)
	default:
		return fmt.Errorf("unknown property '%s' of cluster %s: use one of address, region, weight, allow, namespaces", property, m.ID)
	}
}

func (m *member) setWeight(words []string) error {
	if len(words) != 1 {
		return fmt.Errorf("'weight' takes a number of shares, and nothing else: got %d arguments", len(words))
	}
	n, err := strconv.Atoi(words[0])
	if err != nil || n < 0 || n > maxWeight {
		return fmt.Errorf("'weight %s': use a whole number of shares from 0 to %d", words[0], maxWeight)
	}
	m.weight = &n
	return nil
}

func (m *member) setAllow(words []string) error {
	if len(words) == 0 {
		return fmt.Errorf("'allow' of cluster %s needs one range or more in which its addresses may lie, such as 10.0.0.0/8", m.ID)
	}
	for _, word := range words {
		prefix, err := netip.ParsePrefix(word)
		if err != nil || prefix.Addr().Is4In6() {
			return fmt.Errorf("'allow %s' of cluster %s: use ranges such as 10.0.0.0/8 or fd00::/8", word, m.ID)
		}
		m.Allow = append(m.Allow, prefix.Masked())
	}
	return nil
}

func (m *member) setNamespaces(words []string) error {
	if len(words) == 0 {
		return fmt.Errorf("'namespaces' of cluster %s needs the names of those that it may export from", m.ID)
	}
	for _, word := range words {
		if !topology.IsLabel(word) {
			return fmt.Errorf("'namespaces %s' of cluster %s: that is no name of a namespace", word, m.ID)
		}
	}
	m.Namespaces = words
	return nil
}

// addressChoice explains what only the operator can know.
const addressChoice = "clusterip (service networks are routed between the clusters and disjoint), loadbalancer (the Service's load balancer), " +
	"endpoints [any_port] (pod networks are flat), or the IP addresses of a gateway in front of the cluster"

var addressKinds = map[string]mcs.AddressKind{
	"clusterip": mcs.AddressClusterIP, "loadbalancer": mcs.AddressLoadBalancer, "endpoints": mcs.AddressEndpoints,
}

func (m *member) setAddress(words []string) error {
	m.hasAddress = true
	if len(words) == 2 && words[0] == "endpoints" && words[1] == "any_port" {
		m.Address, m.AnyPort = mcs.AddressEndpoints, true
		return nil
	}
	if len(words) == 1 {
		if kind, ok := addressKinds[words[0]]; ok {
			m.Address = kind
			return nil
		}
	}
	if len(words) == 0 {
		return fmt.Errorf("'address' of cluster %s needs one of: %s", m.ID, addressChoice)
	}
	m.Address = mcs.AddressFixed
	for _, word := range words {
		a, err := netip.ParseAddr(word)
		if err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
			return fmt.Errorf("'address %s' of cluster %s: use %s", word, m.ID, addressChoice)
		}
		m.Gateway = append(m.Gateway, a.Unmap())
	}
	return nil
}
