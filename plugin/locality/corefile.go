package locality

import (
	"net/netip"
	"strings"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/corefile"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

// config is what one stanza says.
type config struct {
	// cluster is the one this server runs in, "" when it is not said: clients that are in no table are then nowhere.
	cluster topology.ClusterID
	// region of the own cluster, "" means: from the labels of its Nodes.
	region string
	nodes  *watch.Connection // nil without `nodes`
	// cidrs is the operator's table.
	cidrs *prefixes[*topology.Locality]
	// forwarders are those whose client subnet is believed.
	forwarders *prefixes[struct{}]
}

// parser reads the stanza. Errors name file, line and property, and say what would be right.
type parser struct {
	*caddy.Controller
	config
	seen map[string]bool
	// ranges are those of `cidr`, lines where each stands; believed are those of `ecs`.
	ranges   map[netip.Prefix]*topology.Locality
	lines    map[netip.Prefix]int
	believed map[netip.Prefix]struct{}
}

// parse reads the one stanza of a server block. It contacts nobody.
func parse(c *caddy.Controller) (*config, error) {
	p := &parser{
		Controller: c, seen: map[string]bool{},
		ranges: map[netip.Prefix]*topology.Locality{}, lines: map[netip.Prefix]int{},
		believed: map[netip.Prefix]struct{}{},
	}
	stanzas := 0
	for c.Next() {
		if stanzas++; stanzas > 1 {
			return nil, plugin.ErrOnce
		}
		if err := corefile.Block(c, p.property); err != nil {
			return nil, err
		}
		if err := p.check(); err != nil {
			return nil, err
		}
	}
	return p.finish(), nil
}

func (p *parser) property(name string) error {
	if (name == "cluster" || name == "nodes") && p.seen[name] {
		return p.Errf("property '%s' is given twice", name)
	}
	p.seen[name] = true
	switch name {
	case "cluster":
		return p.parseCluster()
	case "nodes":
		connection, err := corefile.Connection(p.Controller, name, p.RemainingArgs())
		p.nodes = &connection
		return err
	case "cidr":
		return p.parseCIDR()
	case "ecs":
		return p.parseECS()
	default:
		return p.Errf("unknown property '%s': use one of cluster, nodes, cidr, ecs", name)
	}
}

func (p *parser) parseCluster() error {
	args := p.RemainingArgs()
	if len(args) < 1 || len(args) > 2 {
		return p.Errf("'cluster' takes the id of the cluster this server runs in, and its region if its Nodes do not tell: got %d arguments", len(args))
	}
	id, err := topology.ParseClusterID(args[0])
	if err != nil {
		return p.Errf("'cluster %s': %v", args[0], err)
	}
	p.cluster = id
	if len(args) == 2 {
		p.region = args[1]
		return p.checkName("cluster "+args[0], "region", args[1])
	}
	return nil
}

const cidrUsage = "cidr CIDR LABEL=VALUE..., where LABEL is cluster, region, zone or node"

func (p *parser) parseCIDR() error {
	line, args := p.Line(), p.RemainingArgs()
	if len(args) < 2 {
		return p.Errf("'cidr' needs a range and at least one label: %s", cidrUsage)
	}
	prefix, err := p.parsePrefix("cidr", args[0])
	if err != nil {
		return err
	}
	if first, ok := p.lines[prefix]; ok {
		return p.Errf("'cidr %s' is given twice, first in line %d: write all its labels in one line", prefix, first)
	}
	p.lines[prefix] = line
	var at topology.Locality
	given := map[string]bool{}
	for _, arg := range args[1:] {
		label, value, ok := strings.Cut(arg, "=")
		if !ok {
			return p.Errf("'cidr %s': %q is no label: %s", prefix, arg, cidrUsage)
		}
		if given[label] {
			return p.Errf("'cidr %s': label '%s' is given twice", prefix, label)
		}
		given[label] = true
		if err := p.label(&at, prefix, label, value); err != nil {
			return err
		}
	}
	p.ranges[prefix] = &at
	return nil
}

func (p *parser) label(at *topology.Locality, prefix netip.Prefix, label, value string) error {
	property := "cidr " + prefix.String()
	switch label {
	case "cluster":
		id, err := topology.ParseClusterID(value)
		if err != nil {
			return p.Errf("'%s': %v", property, err)
		}
		at.Cluster = id
		return nil
	case "region":
		at.Region = value
	case "zone":
		at.Zone = value
	case "node":
		at.Node = value
	default:
		return p.Errf("'%s': unknown label '%s': use one of cluster, region, zone, node", property, label)
	}
	return p.checkName(property, label, value)
}

// maxName is the longest name of a Node; those of regions and zones, which are label values, are shorter.
const maxName = 253

// checkName accepts what Kubernetes can have as the value of a topology label or the name of a Node.
func (p *parser) checkName(property, label, value string) error {
	ok := value != "" && len(value) <= maxName
	for i := range len(value) {
		switch c := value[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case (c == '-' || c == '_' || c == '.') && i > 0 && i < len(value)-1:
		default:
			ok = false
		}
	}
	if !ok {
		return p.Errf("'%s': %q cannot be the name of a %s: use letters, digits and inner '-', '_' or '.'", property, value, label)
	}
	return nil
}

func (p *parser) parseECS() error {
	args := p.RemainingArgs()
	if len(args) == 0 {
		return p.Err("'ecs' needs the addresses of the forwarders whose client subnet is to be believed: ecs CIDR...")
	}
	for _, arg := range args {
		prefix, err := p.parsePrefix("ecs", arg)
		if err != nil {
			return err
		}
		if prefix.Bits() == 0 {
			return p.Errf("'ecs %s' would believe everybody: anybody can write a client subnet, so list the forwarders", prefix)
		}
		if _, ok := p.believed[prefix]; ok {
			return p.Errf("'ecs %s' is given twice", prefix)
		}
		p.believed[prefix] = struct{}{}
	}
	return nil
}

// parsePrefix takes a range only as it is meant: a bit too many in it, or a length forgotten, changes who is where.
func (p *parser) parsePrefix(property, text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.Prefix{}, p.Errf("'%s %s' is an address: for this one alone write %s/%d", property, text, addr, addr.BitLen())
	}
	prefix, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return netip.Prefix{}, p.Errf("'%s %s' is no CIDR: write for example 10.1.0.0/16 or fd00:10::/48", property, text)
	case prefix.Addr().Is4In6():
		return netip.Prefix{}, p.Errf("'%s %s': write an IPv4 range as such, for example 10.1.0.0/16", property, text)
	case prefix != prefix.Masked():
		return netip.Prefix{}, p.Errf("'%s %s' has bits set behind its length: do you mean %s?", property, text, prefix.Masked())
	}
	return prefix, nil
}

// check looks at what only the whole stanza can tell.
func (p *parser) check() error {
	switch {
	case p.cluster == "" && p.nodes != nil:
		return p.Err("'nodes' tells where in a cluster clients are, but not in which: add 'cluster NAME'")
	case p.cluster == "" && len(p.ranges) == 0:
		return p.Err("nothing tells where clients are: add 'cluster NAME' for the cluster this server runs in")
	}
	return nil
}

// finish fills in what the table leaves open: a range without a cluster is in the own one, and what is in the own cluster
// without a region is in the own one.
func (p *parser) finish() *config {
	for prefix, at := range p.ranges {
		if at.Cluster == "" {
			at.Cluster = p.cluster
		}
		if at.Region == "" && at.Cluster == p.cluster {
			at.Region = p.region
		}
		p.ranges[prefix] = at
	}
	out := p.config
	out.cidrs, out.forwarders = newPrefixes(p.ranges), newPrefixes(p.believed)
	return &out
}
