package clusterset

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/balance"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// kubeconfig has a context for each cluster, all of which lead to a port where nobody listens.
const kubeconfig = `apiVersion: v1
kind: Config
current-context: east
clusters:
- {name: c, cluster: {server: "https://127.0.0.1:1"}}
users:
- {name: east, user: {token: e}}
- {name: west, user: {token: w}}
contexts:
- {name: east, context: {cluster: c, user: east}}
- {name: west, context: {cluster: c, user: west}}
`

// kubeconfigFile writes it and returns its path.
func kubeconfigFile(tb testing.TB) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, []byte(kubeconfig), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// parseStanza puts the path of a kubeconfig where KC stands.
func parseStanza(path, text string) (*config, error) {
	return parse(caddy.NewTestController("dns", strings.ReplaceAll(text, "KC", path)))
}

func TestMalformedStanzas(t *testing.T) {
	path := kubeconfigFile(t)
	bad := filepath.Join(filepath.Dir(path), "bad")
	if err := os.WriteFile(bad, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	const choice = "clusterip (service networks are routed"
	rows := []struct {
		name, stanza string
		line         int
		says         []string // the property, what is wrong, the remedy
	}{
		{"no block", "clusterset", 1, []string{"no 'cluster' and no 'serviceimports'", "add one"}},
		{"an empty block", "clusterset {\n}", 2, []string{"no 'cluster' and no 'serviceimports'", "add one"}},
		{"a block without a cluster", "clusterset {\n ttl 5\n}", 3, []string{"no 'cluster'", "add one"}},
		{"no closing brace", "clusterset {\n cluster east KC {\n  address clusterip\n }\n", 4, []string{"line 1", "not closed", "'}' is missing"}},
		{"no closing brace and nothing else", "clusterset {", 1, []string{"line 1", "not closed", "'}' is missing"}},
		{"no closing brace of a cluster", "clusterset {\n cluster east KC {\n  address clusterip\n", 3, []string{"line 2", "not closed", "'}' is missing"}},
		{"a brace in a line of its own", "clusterset\n{\n cluster east KC\n}", 2, []string{"'{' at the beginning of a line", "end of the line before"}},
		{"a cluster's brace in a line of its own", "clusterset {\n cluster east KC\n {\n  address clusterip\n }\n}", 3, []string{"'{' at the beginning of a line", "end of the line before"}},
		{"a block in one line", "clusterset { ttl 5 }", 1, []string{`unexpected "ttl" after '{'`, "begin a new line"}},
		{"a cluster's block in one line", "clusterset {\n cluster east KC { address clusterip }\n}", 2, []string{`unexpected "address" after '{'`, "begin a new line"}},
		{"something after the opening brace", "clusterset {\n cluster east KC { extra\n  address clusterip\n }\n}", 2, []string{`unexpected "extra" after '{'`, "begin a new line"}},
		{"something after a cluster's closing brace", "clusterset {\n cluster east KC {\n  address clusterip\n } ttl 5\n}", 4, []string{`unexpected "ttl" after 'cluster'`}},
		{"a zone that is none", "clusterset a..b {\n cluster east KC\n}", 1, []string{`zone "a..b" is no domain name`, "use one such as clusterset.local."}},
		{"the root zone", "clusterset . {\n cluster east KC\n}", 1, []string{`zone "."`, "every name", "use one such as clusterset.local."}},
		{"two stanzas", "clusterset {\n local east\n cluster east KC\n}\nclusterset {\n cluster west KC\n}", 5, []string{"second stanza", "once per Server Block", "write both as one"}},
		{"an unknown property", "clusterset {\n klusters east\n}", 2, []string{"unknown property 'klusters'", "use one of local, cluster, clusters, serviceimports"}},
		{"clusters of an unknown kind", "clusterset {\n clusters east\n}", 2, []string{"'clusters east'", "use 'clusters secrets NAMESPACE [SELECTOR]' or 'clusters directory DIR'"}},
		{"clusters of a namespace that is none", "clusterset {\n clusters secrets a.b\n}", 2, []string{"'clusters secrets a.b'", "no name of a namespace"}},
		{"clusters of a selector that is none", "clusterset {\n clusters secrets members a=b=c\n}", 2, []string{"'clusters secrets members a=b=c'"}},
		{"clusters of Secrets, and this is no pod", "clusterset {\n clusters secrets members\n}", 2, []string{"'clusters'", "a KUBECONFIG is needed"}},
		{"clusters of a folder that is not there", "clusterset {\n clusters directory KC-none\n}", 2, []string{"'clusters directory'", "no such file", "make the folder"}},
		{"clusters twice", "clusterset {\n clusters directory DIR\n clusters directory DIR\n}", 3, []string{"'clusters' is given twice"}},
		{"a property of the other level", "clusterset {\n address clusterip\n}", 2, []string{"unknown property 'address'", "use one of local"}},
		{"a property in upper case", "clusterset {\n TTL 5\n}", 2, []string{"unknown property 'TTL'", "ttl"}},
		{"an empty property", "clusterset {\n \"\" 5\n}", 2, []string{"unknown property ''", "use one of local"}},
		{"local without a name", "clusterset {\n local\n cluster east KC\n}", 2, []string{"'local' takes the id of the cluster this server runs in"}},
		{"local with two names", "clusterset {\n local east west\n cluster east KC\n}", 2, []string{"'local' takes the id of the cluster", "got 2 arguments"}},
		{"local with a name that is no cluster id", "clusterset {\n local ea_st\n}", 2, []string{"'local ea_st'", "one DNS label or two joined by a dot"}},
		{"local with a block", "clusterset {\n local east {\n }\n cluster east KC\n}", 2, []string{`unexpected "{" after 'local'`}},
		{"local twice", "clusterset {\n local east\n local east\n cluster east KC\n}", 3, []string{"'local' is given twice", "line 2", "remove one"}},
		{"local that is none of the clusters", "clusterset {\n local east\n cluster west KC {\n  address clusterip\n }\n}", 2, []string{"'local east' is none of the clusters", "add 'cluster east'"}},
		{"cluster without a name", "clusterset {\n cluster\n}", 2, []string{"'cluster' needs the cluster's id", "cluster NAME [KUBECONFIG [CONTEXT]]"}},
		{"cluster with a block instead of a name", "clusterset {\n cluster {\n }\n}", 2, []string{"'cluster' needs the cluster's id"}},
		{"a cluster id of three labels", "clusterset {\n cluster a.b.c KC\n}", 2, []string{"'cluster a.b.c'", "one DNS label or two joined by a dot"}},
		{"a cluster id that is too long", "clusterset {\n cluster " + strings.Repeat("a", 128) + " KC\n}", 2, []string{"'cluster aaa", "at most 127"}},
		{"a cluster twice", "clusterset {\n cluster east KC {\n  address clusterip\n }\n cluster EAST KC\n}", 5, []string{"'cluster east' is given twice", "line 2", "unique in a ClusterSet"}},
		{"cluster with too many arguments", "clusterset {\n cluster east KC east more\n}", 2, []string{"'cluster east' takes KUBECONFIG and CONTEXT at most", `"more"`}},
		{"cluster without a kubeconfig, and this is no pod", "clusterset {\n local east\n cluster east\n}", 3, []string{"'cluster east'", "a KUBECONFIG is needed"}},
		{"a bare cluster, then another: it swallows nothing", "clusterset {\n local east\n cluster east KC\n cluster west KC\n}", 4, []string{"cluster west needs an 'address'", choice}},
		{"a bare cluster, then another property: it swallows nothing", "clusterset {\n cluster east KC\n ttl x\n}", 3, []string{"'ttl x'", "whole number of seconds"}},
		{"a block, then a bare cluster", "clusterset {\n local east\n cluster east KC {\n  region r\n }\n cluster west KC\n}", 6, []string{"cluster west needs an 'address'", choice}},
		{"a kubeconfig that is not there", "clusterset {\n cluster east KC-none\n}", 2, []string{"'cluster east'", "KC-none", "no such file"}},
		{"a kubeconfig that is none", "clusterset {\n cluster east " + bad + "\n}", 2, []string{"'cluster east'", bad}},
		{"a context that is not there", "clusterset {\n cluster east KC south\n}", 2, []string{"'cluster east'", `has no context "south"`}},
		{"an unknown property of a cluster", "clusterset {\n cluster east KC {\n  quota 5\n }\n}", 3, []string{"unknown property 'quota' of cluster east", "use one of address, region, weight"}},
		{"a weight that is no number", "clusterset {\n cluster east KC {\n  weight much\n }\n}", 3, []string{"'weight much'", "from 0 to 65535"}},
		{"a weight that is too large", "clusterset {\n cluster east KC {\n  weight 65536\n }\n}", 3, []string{"'weight 65536'", "from 0 to 65535"}},
		{"a weight without a value", "clusterset {\n cluster east KC {\n  weight\n }\n}", 3, []string{"'weight' takes a number of shares"}},
		{"address without a value", "clusterset {\n cluster east KC {\n  address\n }\n}", 3, []string{"'address' of cluster east", choice}},
		{"address with a word that is none", "clusterset {\n cluster east KC {\n  address pods\n }\n}", 3, []string{"'address pods' of cluster east", choice}},
		{"address with two words", "clusterset {\n cluster east KC {\n  address clusterip loadbalancer\n }\n}", 3, []string{"'address clusterip' of cluster east", choice}},
		{"address of cluster IPs on any port", "clusterset {\n cluster east KC {\n  address clusterip any_port\n }\n}", 3, []string{"'address clusterip' of cluster east", choice}},
		{"address with a network", "clusterset {\n cluster east KC {\n  address 10.0.0.0/8\n }\n}", 3, []string{"'address 10.0.0.0/8'", "IP addresses of a gateway"}},
		{"address with an unspecified address", "clusterset {\n cluster east KC {\n  address 192.0.2.1 ::\n }\n}", 3, []string{"'address ::'", "IP addresses of a gateway"}},
		{"address with a multicast address", "clusterset {\n cluster east KC {\n  address 224.0.0.1\n }\n}", 3, []string{"'address 224.0.0.1'", "IP addresses of a gateway"}},
		{"address with a scope", "clusterset {\n cluster east KC {\n  address fe80::1%eth0\n }\n}", 3, []string{"'address fe80::1%eth0'", "IP addresses of a gateway"}},
		{"address twice", "clusterset {\n cluster east KC {\n  address clusterip\n  address clusterip\n }\n}", 4, []string{"'address' of cluster east is given twice", "remove one"}},
		{"region without a name", "clusterset {\n cluster east KC {\n  region\n }\n}", 3, []string{"'region' takes the name of a region"}},
		{"region with two names", "clusterset {\n cluster east KC {\n  region a b\n }\n}", 3, []string{"'region' takes the name of a region", "got 2 arguments"}},
		{"a block within a cluster's block", "clusterset {\n cluster east KC {\n  region r {\n  }\n }\n}", 3, []string{`unexpected "{" after 'region'`}},
		{"allow without a range", "clusterset {\n cluster east KC {\n  allow\n }\n}", 3, []string{"'allow' of cluster east needs one range", "such as 10.0.0.0/8"}},
		{"allow with an address", "clusterset {\n cluster east KC {\n  allow 10.0.0.0/8 10.1.2.3\n }\n}", 3, []string{"'allow 10.1.2.3' of cluster east", "such as 10.0.0.0/8"}},
		{"allow with IPv4 in IPv6's clothes", "clusterset {\n cluster east KC {\n  allow ::ffff:10.0.0.0/104\n }\n}", 3, []string{"'allow ::ffff:10.0.0.0/104'", "such as 10.0.0.0/8"}},
		{"namespaces without a name", "clusterset {\n cluster east KC {\n  namespaces\n }\n}", 3, []string{"'namespaces' of cluster east needs the names of those"}},
		{"namespaces with a name that is none", "clusterset {\n cluster east KC {\n  namespaces shop sh.op\n }\n}", 3, []string{"'namespaces sh.op' of cluster east", "no name of a namespace"}},
		{"stale without a duration", "clusterset {\n stale\n}", 2, []string{"'stale' takes DURATION [EXPIRE]"}},
		{"stale with three", "clusterset {\n stale 60s 1h 2h\n}", 2, []string{"'stale' takes DURATION [EXPIRE]", "got 3 arguments"}},
		{"stale with a number", "clusterset {\n stale 60\n}", 2, []string{"'stale 60'", "such as 60s"}},
		{"stale sooner than silence can be told from quiet", "clusterset {\n stale 19s\n}", 2, []string{"'stale 19s'", "from 20s"}},
		{"forgotten before it is stale", "clusterset {\n stale 60s 60s\n}", 2, []string{"'stale 1m0s 1m0s'", "a longer one"}},
		{"state without a folder", "clusterset {\n state\n}", 2, []string{"'state' takes a folder"}},
		{"state in a folder that is not there", "clusterset {\n state KC-none\n}", 2, []string{"'state'", "no such file", "make the folder"}},
		{"state in a file", "clusterset {\n state KC\n}", 2, []string{"'state ", "is no folder"}},
		{"a remote cluster without an address", "clusterset {\n cluster east KC\n}", 2, []string{"cluster east needs an 'address'", "how do clients", choice}},
		{"serviceimports with too many arguments", "clusterset {\n serviceimports KC east more\n}", 2, []string{"'serviceimports' takes KUBECONFIG and CONTEXT at most", `"more"`}},
		{"serviceimports without a kubeconfig, and this is no pod", "clusterset {\n serviceimports\n ttl 5\n}", 2, []string{"'serviceimports'", "a KUBECONFIG is needed"}},
		{"serviceimports twice", "clusterset {\n serviceimports KC\n serviceimports KC\n}", 3, []string{"'serviceimports' is given twice", "remove one"}},
		{"prefer with an unknown label", "clusterset {\n prefer planet\n}", 2, []string{"'prefer planet'", "use none, service, or some of"}},
		{"prefer from broad to narrow", "clusterset {\n prefer region cluster\n}", 2, []string{"\"cluster\" cannot stand here", "in this order"}},
		{"prefer with a label twice", "clusterset {\n prefer zone zone\n}", 2, []string{"\"zone\" cannot stand here"}},
		{"prefer none together with a label", "clusterset {\n prefer none zone\n}", 2, []string{"\"none\" cannot stand here"}},
		{"prefer without a value", "clusterset {\n prefer\n}", 2, []string{"'prefer' needs an argument", "use none, service"}},
		{"max_answers of nothing", "clusterset {\n max_answers 0\n}", 2, []string{"'max_answers 0'", "from 1 to 4096"}},
		{"max_answers of too many", "clusterset {\n max_answers 4097\n}", 2, []string{"'max_answers 4097'", "from 1 to 4096"}},
		{"panic above all", "clusterset {\n panic 101\n}", 2, []string{"'panic 101'", "whole number of percent from 0 to 100"}},
		{"panic with a sign", "clusterset {\n panic 50%\n}", 2, []string{"'panic 50%'", "from 0 to 100"}},
		{"answer with another word", "clusterset {\n answer some\n}", 2, []string{"'answer some'", "use one or all"}},
		{"answer without a word", "clusterset {\n answer\n}", 2, []string{"'answer' takes one or all"}},
		{"ttl without a number", "clusterset {\n ttl\n}", 2, []string{"'ttl' takes a number of seconds"}},
		{"ttl that is negative", "clusterset {\n ttl -1\n}", 2, []string{"'ttl -1'", "whole number of seconds from 0 to 3600"}},
		{"ttl that is too large", "clusterset {\n ttl 3601\n}", 2, []string{"'ttl 3601'", "whole number of seconds from 0 to 3600"}},
		{"ttl with a unit", "clusterset {\n ttl 5s\n}", 2, []string{"'ttl 5s'", "whole number of seconds from 0 to 3600"}},
		{"ttl that overflows", "clusterset {\n ttl 4294967301\n}", 2, []string{"'ttl 4294967301'", "whole number of seconds from 0 to 3600"}},
		{"ignore with another word", "clusterset {\n ignore empty\n}", 2, []string{"'ignore empty'", "use empty_service"}},
		{"shadow with a word", "clusterset {\n shadow 10\n}", 2, []string{"'shadow 10'", "takes no more words"}},
		{"status without an address", "clusterset {\n status\n}", 2, []string{"'status' takes an address to listen on", "such as localhost:9154"}},
		{"status with a port alone", "clusterset {\n status 9154\n}", 2, []string{"'status 9154'", "use HOST:PORT or :PORT"}},
		{"status with a port that is none", "clusterset {\n status localhost:http\n}", 2, []string{"'status localhost:http'", "use HOST:PORT or :PORT"}},
		{"status with any port", "clusterset {\n status localhost:0\n}", 2, []string{"'status localhost:0'", "use HOST:PORT or :PORT"}},
		{"status with a name", "clusterset {\n status status.example.org:9154\n}", 2, []string{"'status status.example.org:9154'", "an address of this machine, or localhost"}},
		{"status with a multicast address", "clusterset {\n status 224.0.0.1:9154\n}", 2, []string{"an address of this machine, or localhost"}},
		{"ignore without a word", "clusterset {\n ignore\n}", 2, []string{"'ignore' takes empty_service"}},
	}
	if len(rows) < 40 {
		t.Errorf("Only %d rows", len(rows))
	}
	for _, tc := range rows {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parseStanza(path, strings.ReplaceAll(tc.stanza, "DIR", filepath.Dir(path)))
			if err == nil {
				t.Fatalf("It was accepted: %+v", got)
			}
			if want := fmt.Sprintf("Testfile:%d - Error during parsing: ", tc.line); !strings.HasPrefix(err.Error(), want) {
				t.Errorf("The error does not begin with %q:\n%v", want, err)
			}
			for _, want := range tc.says {
				if want = strings.ReplaceAll(want, "KC", path); !strings.Contains(err.Error(), want) {
					t.Errorf("The error does not say %q:\n%v", want, err)
				}
			}
		})
	}
}

// sketchConfig writes a configuration in lines.
func sketchConfig(c *config) []string {
	var out []string
	line := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	line("zones %s", strings.Join(c.zones, " "))
	if c.local != "" {
		line("local %s", c.local)
	}
	kinds := map[mcs.AddressKind]string{mcs.AddressClusterIP: "clusterip", mcs.AddressLoadBalancer: "loadbalancer", mcs.AddressEndpoints: "endpoints", mcs.AddressFixed: "fixed"}
	for _, m := range c.members {
		text := fmt.Sprintf("cluster %s %s", m.ID, kinds[m.Address])
		if m.AnyPort {
			text += " any_port"
		}
		if len(m.Gateway) > 0 {
			text += fmt.Sprint(" ", m.Gateway)
		}
		if m.region != "" {
			text += " in " + m.region
		}
		if m.weight != nil {
			text += fmt.Sprintf(" weight %d", *m.weight)
		}
		if len(m.Allow) > 0 {
			text += fmt.Sprint(" allow ", m.Allow)
		}
		if len(m.Namespaces) > 0 {
			text += fmt.Sprint(" namespaces ", m.Namespaces)
		}
		line("%s", text)
	}
	if c.stale != 0 {
		line("stale %v %v", c.stale, c.expire)
	}
	if c.state != "" {
		line("state %s", filepath.Base(c.state))
	}
	if c.imports != nil {
		line("imports")
	}
	if d := c.dynamic; d != nil {
		line("clusters %s %q %q %v", filepath.Base(d.dir), d.namespace, d.selector, d.connection != nil)
	}
	if policy := *c.policy; policy.Answer != balance.One || policy.Prefer != balance.ByDefault || policy.MaxAnswers != 0 || policy.Panic != 0 {
		line("policy %+v", policy)
	}
	if c.ttl != defaultTTL {
		line("ttl %d", c.ttl)
	}
	if c.ignoreEmpty {
		line("ignore empty")
	}
	if c.shadow {
		line("shadow")
	}
	if c.status != "" {
		line("status %s", c.status)
	}
	if c.fall.Through("web.shop.svc.clusterset.local.") {
		line("falls through %v", c.fall.Zones)
	}
	return out
}

func TestWellFormedStanzas(t *testing.T) {
	path := kubeconfigFile(t)
	const zone = "zones clusterset.local."
	for _, tc := range []struct {
		name, stanza string
		want         []string
	}{
		{"the least: a local cluster", "clusterset {\n local east\n cluster east KC\n}", []string{zone, "local east", "cluster east clusterip"}},
		{"local may stand last", "clusterset {\n cluster east KC\n local east\n}", []string{zone, "local east", "cluster east clusterip"}},
		{"local in another case", "clusterset {\n local EAST\n cluster East KC\n}", []string{zone, "local east", "cluster east clusterip"}},
		{"two bare lines: the second is another cluster", "clusterset {\n cluster east KC {\n  address endpoints\n }\n local east\n cluster west KC west {\n  address loadbalancer\n }\n}",
			[]string{zone, "local east", "cluster east endpoints", "cluster west loadbalancer"}},
		{"no local cluster", "clusterset {\n cluster east KC {\n  address clusterip\n }\n}", []string{zone, "cluster east clusterip"}},
		{"an empty block of the local cluster", "clusterset {\n local east\n cluster east KC {\n }\n}", []string{zone, "local east", "cluster east clusterip"}},
		{"a block, then other properties", "clusterset {\n local east\n cluster east KC {\n  region eu\n }\n ttl 30\n}", []string{zone, "local east", "cluster east clusterip in eu", "ttl 30"}},
		{"a fixed gateway of both families", "clusterset {\n cluster east KC {\n  address 192.0.2.1 2001:db8::1 ::ffff:192.0.2.2\n  region eu\n }\n}",
			[]string{zone, "cluster east fixed [192.0.2.1 2001:db8::1 192.0.2.2] in eu"}},
		{"a gateway on the own host, as for tests", "clusterset {\n cluster east KC {\n  address 127.0.0.1\n }\n}", []string{zone, "cluster east fixed [127.0.0.1]"}},
		{"a cluster id of two labels", "clusterset {\n local east.eu\n cluster east.eu KC\n}", []string{zone, "local east.eu", "cluster east.eu clusterip"}},
		{"other zones", "clusterset Example.org mcs.example {\n local east\n cluster east KC\n}", []string{"zones example.org. mcs.example.", "local east", "cluster east clusterip"}},
		{"ServiceImports only", "clusterset {\n serviceimports KC\n}", []string{zone, "imports"}},
		{"ServiceImports of the local cluster's API server", "clusterset {\n serviceimports\n local east\n cluster east KC\n}", []string{zone, "local east", "cluster east clusterip", "imports"}},
		{"ServiceImports of a hub", "clusterset {\n serviceimports KC west\n local east\n cluster east KC\n}", []string{zone, "local east", "cluster east clusterip", "imports"}},
		{"answer all", "clusterset {\n local east\n cluster east KC\n answer all\n}", []string{zone, "local east", "cluster east clusterip", "policy {Answer:1 Prefer:0 Labels:[] MaxAnswers:0 Panic:0}"}},
		{"answer one is what is", "clusterset {\n local east\n cluster east KC\n answer one\n}", []string{zone, "local east", "cluster east clusterip"}},
		{"prefer none", "clusterset {\n local east\n cluster east KC\n prefer none\n}", []string{zone, "local east", "cluster east clusterip", "policy {Answer:0 Prefer:1 Labels:[] MaxAnswers:0 Panic:0}"}},
		{"prefer labels, caps and panic", "clusterset {\n local east\n cluster east KC\n prefer node zone cluster region\n max_answers 64\n panic 50\n}", []string{zone, "local east", "cluster east clusterip", "policy {Answer:0 Prefer:1 Labels:[0 1 2 3] MaxAnswers:64 Panic:50}"}},
		{"prefer what the service says", "clusterset {\n local east\n cluster east KC\n prefer service\n}", []string{zone, "local east", "cluster east clusterip", "policy {Answer:0 Prefer:2 Labels:[] MaxAnswers:0 Panic:0}"}},
		{"endpoints on any port", "clusterset {\n cluster east KC {\n  address endpoints any_port\n }\n}", []string{zone, "cluster east endpoints any_port"}},
		{"a written weight", "clusterset {\n local east\n cluster east KC {\n  weight 70\n }\n}", []string{zone, "local east", "cluster east clusterip weight 70"}},
		{"what a member may export", "clusterset {\n local east\n cluster east KC {\n  allow 10.1.2.3/8 fd00::/8\n  namespaces shop kube-system\n }\n}",
			[]string{zone, "local east", "cluster east clusterip allow [10.0.0.0/8 fd00::/8] namespaces [shop kube-system]"}},
		{"stale, and never forgotten", "clusterset {\n local east\n cluster east KC\n stale 2m\n}", []string{zone, "local east", "cluster east clusterip", "stale 2m0s 0s"}},
		{"stale, then forgotten", "clusterset {\n local east\n cluster east KC\n stale 60s 24h\n}", []string{zone, "local east", "cluster east clusterip", "stale 1m0s 24h0m0s"}},
		{"a folder for the state", "clusterset {\n local east\n cluster east KC\n state " + filepath.Dir(path) + "\n}", []string{zone, "local east", "cluster east clusterip", "state " + filepath.Base(filepath.Dir(path))}},
		{"clusters of Secrets, read by the local connection", "clusterset {\n clusters secrets members role=member,!old\n local east\n cluster east KC\n}", []string{zone, "local east", "cluster east clusterip", `clusters . "members" "role=member,!old" true`}},
		{"clusters of a folder, and nothing else", "clusterset {\n clusters directory " + filepath.Dir(path) + "\n}", []string{zone, "clusters " + filepath.Base(filepath.Dir(path)) + ` "" "" false`}},
		{"the least and the largest ttl", "clusterset {\n local east\n cluster east KC\n ttl 3600\n}", []string{zone, "local east", "cluster east clusterip", "ttl 3600"}},
		{"ttl 0", "clusterset {\n local east\n cluster east KC\n ttl 0\n}", []string{zone, "local east", "cluster east clusterip", "ttl 0"}},
		{"ignore empty_service", "clusterset {\n local east\n cluster east KC\n ignore empty_service\n}", []string{zone, "local east", "cluster east clusterip", "ignore empty"}},
		{"status", "clusterset {\n local east\n cluster east KC\n status localhost:9154\n}", []string{zone, "local east", "cluster east clusterip", "status localhost:9154"}},
		{"status at an address of IPv6", "clusterset {\n local east\n cluster east KC\n status [::1]:9154\n}", []string{zone, "local east", "cluster east clusterip", "status [::1]:9154"}},
		{"status at all addresses", "clusterset {\n local east\n cluster east KC\n status :9154\n}", []string{zone, "local east", "cluster east clusterip", "status :9154"}},
		{"shadow", "clusterset {\n local east\n cluster east KC\n shadow\n}", []string{zone, "local east", "cluster east clusterip", "shadow"}},
		{"fallthrough of everything", "clusterset {\n local east\n cluster east KC\n fallthrough\n}", []string{zone, "local east", "cluster east clusterip", "falls through [.]"}},
		{"fallthrough of one zone", "clusterset {\n local east\n cluster east KC\n fallthrough shop.svc.clusterset.local\n}", []string{zone, "local east", "cluster east clusterip", "falls through [shop.svc.clusterset.local.]"}},
		{"fallthrough of another zone", "clusterset {\n local east\n cluster east KC\n fallthrough example.org\n}", []string{zone, "local east", "cluster east clusterip"}},
		{"comments and empty lines", "clusterset { # the ClusterSet\n\n local east # here\n\n cluster east KC\n}", []string{zone, "local east", "cluster east clusterip"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parseStanza(path, tc.stanza)
			if err != nil {
				t.Fatal(err)
			}
			if lines := sketchConfig(got); !slices.Equal(lines, tc.want) {
				t.Errorf("Got\n\t%s\nwant\n\t%s", strings.Join(lines, "\n\t"), strings.Join(tc.want, "\n\t"))
			}
		})
	}
}

func TestRelativeKubeconfig(t *testing.T) {
	path := kubeconfigFile(t)
	c := caddy.NewTestController("dns", "clusterset {\n local east\n cluster east kubeconfig\n}")
	dnsserver.GetConfig(c).Root = filepath.Dir(path)
	if _, err := parse(c); err != nil {
		t.Errorf("A path relative to the root plugin's folder: %v", err)
	}
}

func TestImportsShareTheLocalConnection(t *testing.T) {
	c, err := parseStanza(kubeconfigFile(t), "clusterset {\n serviceimports\n local west\n cluster east KC east {\n  address clusterip\n }\n cluster west KC west\n}")
	if err != nil {
		t.Fatal(err)
	}
	if c.imports.Key != c.members[1].connection.Key || c.imports.Key == c.members[0].connection.Key {
		t.Error("ServiceImports are not read from the API server of the local cluster")
	}
}

// FuzzCorefile feeds any text to the parser: it never panics, and what it accepts makes sense.
func FuzzCorefile(f *testing.F) {
	path := kubeconfigFile(f)
	for _, s := range []string{
		"", "clusterset", "clusterset {", "clusterset {\n}", "clusterset\n{\n}", "clusterset {\n cluster east KC\n cluster west KC\n}",
		"clusterset example.org {\n local a.b\n cluster a.b KC east {\n  address 192.0.2.1\n  region r\n }\n serviceimports\n answer all\n prefer none\n ttl 9\n ignore empty_service\n fallthrough a b\n}",
		"clusterset {\n serviceimports KC\n} }", "clusterset {\n ttl \"5\n\"\n}", "clusterset { {\n} }", "clusterset {\n cluster east KC { {\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseStanza(path, text)
		if err != nil {
			if c != nil || err.Error() == "" {
				t.Errorf("Both %+v and the error %q", c, err)
			}
			return
		}
		if len(c.zones) == 0 { // no stanza at all
			return
		}
		if c.ttl > maxTTL || len(c.members) == 0 && c.imports == nil && c.dynamic == nil {
			t.Errorf("Accepted: %+v", c)
		}
		seen := map[topology.ClusterID]bool{}
		for _, m := range c.members {
			if id, err := topology.ParseClusterID(string(m.ID)); err != nil || id != m.ID || seen[m.ID] {
				t.Errorf("Cluster %q: %v, twice: %v", m.ID, err, seen[m.ID])
			}
			seen[m.ID] = true
			if (m.Address == mcs.AddressFixed) != (len(m.Gateway) > 0) || slices.ContainsFunc(m.Gateway, func(a netip.Addr) bool { return !a.IsValid() || a.Is4In6() }) {
				t.Errorf("Cluster %q has address kind %d with gateways %v", m.ID, m.Address, m.Gateway)
			}
			if m.connection.Key == "" {
				t.Errorf("Cluster %q has no connection", m.ID)
			}
		}
		if c.local != "" && !seen[c.local] {
			t.Errorf("The local cluster %q is no member", c.local)
		}
	})
}

func TestHashOfAStanza(t *testing.T) {
	const stanza = "clusterset {\n local east\n cluster east KC\n cluster west KC {\n address clusterip\n weight 3\n }\n}"
	rows := []struct {
		name, old, by string
		same          bool
	}{
		{"the same words, the same hash", "", "", true},
		{"space and comments do not count", " local east", "# here\n\n    local   east # there", true},
		{"another weight is another hash", "weight 3", "weight 4", false},
		{"another zone is another hash", "clusterset {", "clusterset other.local {", false},
		{"one more line is another hash", "weight 3", "weight 3\n region r", false},
	}
	path := kubeconfigFile(t)
	hash := func(t *testing.T, text string) uint64 {
		t.Helper()
		c, err := parseStanza(path, text)
		if err != nil {
			t.Fatal(err)
		}
		return c.hash
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			was, is := hash(t, stanza), hash(t, strings.Replace(stanza, row.old, row.by, 1))
			if (was == is) != row.same {
				t.Errorf("The hashes are %x and %x", was, is)
			}
		})
	}
}
