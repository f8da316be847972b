package locality

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/caddy"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch/watchtest"
)

func controller(properties string) *caddy.Controller {
	return caddy.NewTestController("dns", "locality {\n"+properties+"\n}\n")
}

// describe writes down all that a stanza says.
func (c *config) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "cluster=%q region=%q nodes=%v", c.cluster, c.region, c.nodes != nil)
	order := func(a, b netip.Prefix) int { return strings.Compare(a.String(), b.String()) }
	for _, p := range slices.SortedFunc(maps.Keys(c.cidrs.values), order) {
		at := c.cidrs.values[p]
		fmt.Fprintf(&b, " %s=%s/%s/%s/%s", p, at.Region, at.Cluster, at.Zone, at.Node)
	}
	for _, p := range slices.SortedFunc(maps.Keys(c.forwarders.values), order) {
		fmt.Fprintf(&b, " ecs=%s", p)
	}
	return b.String()
}

func TestParse(t *testing.T) {
	kubeconfig := watchtest.Start(t).Kubeconfig(t)
	for name, row := range map[string]struct{ corefile, want, wrong string }{
		"a cluster alone is enough": {
			"locality {\ncluster east\n}", `cluster="east" region="" nodes=false`, "",
		},
		"a cluster's id is written in lower case": {
			"locality {\ncluster East.Example eu\n}", `cluster="east.example" region="eu" nodes=false`, "",
		},
		"a table alone is enough": {
			"locality {\ncidr 10.1.0.0/16 cluster=west\n}", `cluster="" region="" nodes=false 10.1.0.0/16=/west//`, "",
		},
		"all labels": {
			"locality {\ncidr 10.1.0.0/16 cluster=west region=us zone=us-1 node=w1.example\n}",
			`cluster="" region="" nodes=false 10.1.0.0/16=us/west/us-1/w1.example`, "",
		},
		"a range without a cluster is in the own one and its region": {
			"locality {\ncluster east eu\ncidr 10.1.0.0/16 zone=a\ncidr fd00::/8 node=n1\n}",
			`cluster="east" region="eu" nodes=false 10.1.0.0/16=eu/east/a/ fd00::/8=eu/east//n1`, "",
		},
		"a range in another cluster is not in the own region": {
			"locality {\ncidr 10.1.0.0/16 cluster=west\ncluster east eu\n}", `cluster="east" region="eu" nodes=false 10.1.0.0/16=/west//`, "",
		},
		"forwarders may stand in several lines": {
			"locality {\ncluster east\necs 192.0.2.1/32 2001:db8::/64\necs 192.0.2.2/32\n}",
			`cluster="east" region="" nodes=false ecs=192.0.2.1/32 ecs=192.0.2.2/32 ecs=2001:db8::/64`, "",
		},
		"nodes of a kubeconfig": {
			"locality {\ncluster east\nnodes " + kubeconfig + "\n}", `cluster="east" region="" nodes=true`, "",
		},
		"nodes of a context": {
			"locality {\nnodes " + kubeconfig + " test\ncluster east\n}", `cluster="east" region="" nodes=true`, "",
		},
		"an everywhere is a range": {
			"locality {\ncidr 0.0.0.0/0 cluster=west\n}", `cluster="" region="" nodes=false 0.0.0.0/0=/west//`, "",
		},

		"two stanzas":                         {"locality {\ncluster east\n}\nlocality {\ncluster east\n}", "", "once"},
		"no block":                            {"locality", "", "add 'cluster NAME'"},
		"an empty block":                      {"locality {\n}", "", "add 'cluster NAME'"},
		"arguments":                           {"locality east", "", "only '{' may follow"},
		"a block in one line":                 {"locality { cluster east }", "", "begin a new line"},
		"a block without an end":              {"locality {\ncluster east\n", "", "'}' is missing"},
		"an unknown property":                 {"locality {\nclusters east\n}", "", ":2 - Error during parsing: unknown property 'clusters': use one of cluster, nodes, cidr, ecs"},
		"a property with a block":             {"locality {\ncluster east {\n}\n}", "", "unexpected \"{\" after 'cluster'"},
		"no cluster's id":                     {"locality {\ncluster\n}", "", "got 0 arguments"},
		"too much about a cluster":            {"locality {\ncluster east eu a\n}", "", "got 3 arguments"},
		"a cluster's id that is none":         {"locality {\ncluster east_1\n}", "", "cluster id \"east_1\" is not"},
		"a region that is none":               {"locality {\ncluster east -eu\n}", "", "\"-eu\" cannot be the name of a region"},
		"two clusters":                        {"locality {\ncluster east\ncluster west\n}", "", ":3 - Error during parsing: property 'cluster' is given twice"},
		"nodes of nowhere":                    {"locality {\ncluster east\nnodes\n}", "", "KUBECONFIG is needed"},
		"nodes of a file that is missing":     {"locality {\ncluster east\nnodes /nowhere\n}", "", "no such file"},
		"nodes of a context that is missing":  {"locality {\ncluster east\nnodes " + kubeconfig + " other\n}", "", "no context \"other\""},
		"nodes twice":                         {"locality {\ncluster east\nnodes " + kubeconfig + "\nnodes " + kubeconfig + "\n}", "", "given twice"},
		"too much about nodes":                {"locality {\ncluster east\nnodes " + kubeconfig + " test more\n}", "", "\"more\" in addition"},
		"nodes of a cluster without an id":    {"locality {\nnodes " + kubeconfig + "\n}", "", "add 'cluster NAME'"},
		"forwarders and nothing else":         {"locality {\necs 192.0.2.1/32\n}", "", "add 'cluster NAME'"},
		"a range without labels":              {"locality {\ncidr 10.1.0.0/16\n}", "", "at least one label"},
		"no range":                            {"locality {\ncidr\n}", "", "at least one label"},
		"a range that is an address":          {"locality {\ncidr 10.1.0.1 zone=a\n}", "", "write 10.1.0.1/32"},
		"a range that is an IPv6 address":     {"locality {\ncidr fd00::1 zone=a\n}", "", "write fd00::1/128"},
		"a range that is none":                {"locality {\ncidr ten zone=a\n}", "", "'cidr ten' is no CIDR"},
		"a range that is too long":            {"locality {\ncidr 10.1.0.0/33 zone=a\n}", "", "is no CIDR"},
		"a range with bits behind its length": {"locality {\ncidr 10.1.0.1/16 zone=a\n}", "", "do you mean 10.1.0.0/16?"},
		"an IPv4 range in IPv6 clothes":       {"locality {\ncidr ::ffff:10.1.0.0/112 zone=a\n}", "", "write an IPv4 range as such"},
		"a range twice":                       {"locality {\ncidr 10.1.0.0/16 zone=a\ncidr 10.1.0.0/16 region=eu\n}", "", ":3 - Error during parsing: 'cidr 10.1.0.0/16' is given twice, first in line 2"},
		"a label that is none":                {"locality {\ncidr 10.1.0.0/16 a\n}", "", "\"a\" is no label"},
		"an unknown label":                    {"locality {\ncidr 10.1.0.0/16 rack=a\n}", "", "unknown label 'rack'"},
		"a label twice":                       {"locality {\ncidr 10.1.0.0/16 zone=a zone=b\n}", "", "'zone' is given twice"},
		"an empty label":                      {"locality {\ncidr 10.1.0.0/16 zone=\n}", "", "\"\" cannot be the name of a zone"},
		"a label that Kubernetes cannot have": {"locality {\ncidr 10.1.0.0/16 node=a/b\n}", "", "\"a/b\" cannot be the name of a node"},
		"a cluster in a range that is none":   {"locality {\ncidr 10.1.0.0/16 cluster=a..b\n}", "", "cluster id \"a..b\""},
		"no forwarders":                       {"locality {\ncluster east\necs\n}", "", "needs the addresses of the forwarders"},
		"a forwarder that is no range":        {"locality {\ncluster east\necs 192.0.2.1\n}", "", "write 192.0.2.1/32"},
		"a forwarder twice":                   {"locality {\ncluster east\necs 192.0.2.1/32\necs 192.0.2.1/32\n}", "", "'ecs 192.0.2.1/32' is given twice"},
		"everybody as forwarder":              {"locality {\ncluster east\necs ::/0\n}", "", "would believe everybody"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parse(caddy.NewTestController("dns", row.corefile))
			switch {
			case row.wrong != "":
				if err == nil || !strings.Contains(err.Error(), row.wrong) {
					t.Errorf("Expected an error about %q, got %v", row.wrong, err)
				}
			case err != nil:
				t.Error(err)
			case got.describe() != row.want:
				t.Errorf("Expected %s, got %s", row.want, got.describe())
			}
		})
	}
}

// FuzzParse reads any stanza: it says what is wrong or what is meant, and the latter can be used.
func FuzzParse(f *testing.F) {
	for _, properties := range []string{
		"cluster east eu", "cluster east\ncidr 10.1.0.0/16 zone=a node=b\necs 192.0.2.0/24", "cidr ::/0 cluster=a.b", "{\n}", "cluster east {\n}", "ecs",
	} {
		f.Add(properties)
	}
	f.Fuzz(func(t *testing.T, properties string) {
		if strings.Contains(properties, "nodes") || strings.Contains(properties, "import") {
			return // reads files
		}
		config, err := parse(controller(properties))
		if err != nil {
			return
		}
		l := &Locality{config: config}
		for p, at := range config.cidrs.values {
			if p != p.Masked() || at.Cluster == "" && at.Region == "" && at.Zone == "" && at.Node == "" {
				t.Errorf("Expected a range that says something, got %s %+v", p, at)
			}
			got := topology.Client{Addr: p.Addr()}
			if l.locate(&got, p.Bits()); got.Zone != at.Zone || got.Node != at.Node || got.Cluster != at.Cluster {
				t.Errorf("Expected %s to be in %+v, got %+v", p, at, got)
			}
		}
	})
}
