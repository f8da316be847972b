package offline_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/internal/offline"
	"github.com/clusterset-dns/clusterset-dns/plugin/clusterset"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/status"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// shop is a Corefile of which nothing is there that it names.
const shop = `(common) {
    errors
}
.:53 {
    import common
    locality {
        cluster east
        nodes
        cidr 10.9.0.0/16 cluster=west
    }
    clusterhealth {
        probe west tcp 192.0.2.10:443
    }
    clusterset {
        local east
        cluster east
        cluster west /etc/clusterset/west.kubeconfig {
            address clusterip
        }
        state /var/lib/clusterset
    }
    forward . /etc/resolv.conf
}
`

// east and west are what kubectl get -o yaml would write, more or less.
const east = `# comments alone
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Node
metadata: {name: e1, labels: {topology.kubernetes.io/region: eu, topology.kubernetes.io/zone: eu-a}}
spec: {podCIDR: 10.8.1.0/24, podCIDRs: [10.8.1.0/24]}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
apiVersion: v1
kind: List
items:
- apiVersion: multicluster.x-k8s.io/v1alpha1
  kind: ServiceExport
  metadata: {name: web, namespace: shop, creationTimestamp: "2026-01-02T03:04:05Z"}
- apiVersion: v1
  kind: Service
  metadata: {name: web, namespace: shop}
  spec: {clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ipFamilies: [IPv4], ports: [{name: http, port: 80}]}
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: web, namespace: shop}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 80}]
endpoints:
- {addresses: [10.8.1.7], nodeName: e1, conditions: {ready: true}}
`

const west = `{"apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport", "metadata": {"name": "web", "namespace": "shop"}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.1.0.1, clusterIPs: [10.1.0.1], ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSliceList
items:
- metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
  addressType: IPv4
  endpoints:
  - {addresses: [10.9.0.7]}
  - {addresses: [127.0.0.1]}
`

// write makes the files, by their paths, and returns the folder.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func both() map[string]string {
	return map[string]string{"Corefile": shop, "m/east/all.yaml": east, "m/west/deeper/all.yml": west, "m/west/README.md": "not this"}
}

func load(t *testing.T, files map[string]string, supposed map[topology.ClusterID]health.State) (*offline.World, error) {
	t.Helper()
	dir := write(t, files)
	return offline.Load(filepath.Join(dir, "Corefile"), filepath.Join(dir, "m"), supposed)
}

func explain(t *testing.T, w *offline.World, name string, qtype uint16, client string) *status.Explanation {
	t.Helper()
	e, err := w.Explain(clusterset.Question{Name: name, Type: qtype, Client: netip.MustParseAddr(client)})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestAnswersWithoutAServer(t *testing.T) {
	const web = "web.shop.svc.clusterset.local"
	for _, tc := range []struct {
		name, qname, client string
		change              func(files map[string]string)
		supposed            map[topology.ClusterID]health.State
		rcode, answer       string // the last word of the only record, "" for none
		source              string
	}{
		{"a pod of the local cluster is given its own cluster", web, "10.8.1.9", nil, nil, "NOERROR", "10.0.0.1", "podcidr"},
		{"an endpoint", web, "10.8.1.7", nil, nil, "NOERROR", "10.0.0.1", "address"},
		{"a pod of the other cluster is given that", web, "10.9.3.3", nil, nil, "NOERROR", "10.1.0.1", "cidr"},
		{"what if the local cluster were not well", web, "10.8.1.9", nil, map[topology.ClusterID]health.State{"east": health.Unhealthy}, "NOERROR", "10.1.0.1", "podcidr"},
		{"what if it were drained by annotation", web, "10.8.1.9", func(f map[string]string) {
			f["m/east/all.yaml"] = strings.Replace(east, `{name: web, namespace: shop, creation`, `{name: web, namespace: shop, annotations: {clusterset-dns.io/weight-percent: "0"}, creation`, 1)
		}, nil, "NOERROR", "10.1.0.1", "podcidr"},
		{"what if it drained itself", web, "10.8.1.9", func(f map[string]string) {
			f["m/east/drain.yaml"] = "apiVersion: about.k8s.io/v1beta1\nkind: ClusterProperty\nmetadata: {name: drain.clusterset-dns.io}\nspec: {value: \"true\"}\n"
		}, nil, "NOERROR", "10.1.0.1", "podcidr"},
		{"what if it did, written in one line", web, "10.8.1.9", func(f map[string]string) {
			f["m/east/drain.yaml"] = "{apiVersion: about.k8s.io/v1beta1, kind: ClusterProperty, metadata: {name: drain.clusterset-dns.io}, spec: {value: \"true\"}}\n"
		}, nil, "NOERROR", "10.1.0.1", "podcidr"},
		{"what if the Corefile drained the other", web, "10.9.3.3", func(f map[string]string) {
			f["Corefile"] = strings.Replace(shop, "probe west tcp 192.0.2.10:443", "drain west", 1)
		}, nil, "NOERROR", "10.0.0.1", "cidr"},
		{"what if the service networks overlapped", web, "10.9.3.3", func(f map[string]string) {
			f["m/east/ranges.yaml"] = "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: kubernetes}\nspec: {cidrs: [10.1.0.0/16]}\n"
		}, nil, "NOERROR", "10.0.0.1", "cidr"},
		{"a name that nobody has", "none.shop.svc.clusterset.local", "10.8.1.9", nil, nil, "NXDOMAIN", "", "podcidr"},
		{"a namespace that the local cluster lacks", "web.other.svc.clusterset.local", "10.8.1.9", nil, nil, "NXDOMAIN", "", "podcidr"},
		{"a member of a folder", web, "10.9.3.3", func(f map[string]string) {
			f["Corefile"] = strings.Replace(shop, "        cluster west /etc/clusterset/west.kubeconfig {\n            address clusterip\n        }\n", "        clusters secrets members\n", 1)
			f["m/west/address"] = "192.0.2.77"
		}, nil, "NOERROR", "192.0.2.77", "cidr"},
		{"a ServiceImport", web, "10.9.3.3", func(f map[string]string) {
			f["Corefile"] = strings.Replace(shop, "        state ", "        serviceimports\n        state ", 1)
			f["m/east/import.yaml"] = "apiVersion: multicluster.x-k8s.io/v1alpha1\nkind: ServiceImport\nmetadata: {name: web, namespace: shop}\nspec: {type: ClusterSetIP, ips: [172.30.0.9], ports: [{name: http, port: 80}]}\n"
		}, nil, "NOERROR", "172.30.0.9", "cidr"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			files := both()
			if tc.change != nil {
				tc.change(files)
			}
			w, err := load(t, files, tc.supposed)
			if err != nil {
				t.Fatal(err)
			}
			e := explain(t, w, tc.qname, dns.TypeA, tc.client)
			got := ""
			if len(e.Answer.Answer) > 0 {
				fields := strings.Fields(e.Answer.Answer[0])
				got = fields[len(fields)-1]
			}
			if e.Answer.Rcode != tc.rcode || got != tc.answer || e.Client.Source != tc.source || e.Verdict == "" || e.Client.Because == "" {
				t.Errorf("Got %s %q, source %s (%s): %s\n%+v", e.Answer.Rcode, got, e.Client.Source, e.Client.Because, e.Verdict, e.Candidates)
			}
			if because := map[string]string{
				"podcidr": "Node e1 says that its pods have 10.8.1.0/24", "address": "Node e1, or of an endpoint on it", "cidr": "the Corefile says where 10.9.0.0/16 is",
			}[tc.source]; !strings.Contains(e.Client.Because, because) {
				t.Errorf("The place is explained by %q, want %q", e.Client.Because, because)
			}
			if len(w.Warnings) != 1 || !strings.Contains(w.Warnings[0], "all.yml, document 3: EndpointSlice shop/web-1: something is left out that makes no sense (address)") {
				t.Errorf("The warnings are %q", w.Warnings)
			}
		})
	}
}

func TestMalformedManifests(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(files map[string]string)
		says   []string
	}{
		{"no YAML", func(f map[string]string) { f["m/east/x.yaml"] = "a: [" }, []string{"x.yaml, document 1", "no YAML"}},
		{"no object", func(f map[string]string) { f["m/east/x.yaml"] = "---\n- a\n- b\n" }, []string{"x.yaml, document", "no object of Kubernetes"}},
		{"no kind", func(f map[string]string) { f["m/east/x.yaml"] = "kind: Node\nmetadata: {name: n1}\n---\na: b\n" }, []string{"x.yaml, document 2", "no 'kind'"}},
		{"no namespace", func(f map[string]string) { f["m/east/x.yaml"] = "apiVersion: v1\nkind: Service\nmetadata: {name: x}\n" }, []string{"x.yaml, document 1", "Service /x", "no 'metadata.namespace'", "write it"}},
		{"no name", func(f map[string]string) { f["m/east/x.yaml"] = "apiVersion: v1\nkind: Namespace\n" }, []string{"x.yaml, document 1", "no 'metadata.name'"}},
		{"twice", func(f map[string]string) {
			f["m/east/x.yaml"] = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"
		}, []string{"x.yaml, document 1", "Namespace shop", "all.yaml, document 2"}},
		{"a field of the wrong type", func(f map[string]string) {
			f["m/east/x.yaml"] = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: x, namespace: shop}\n  spec: {ports: 80}\n"
		}, []string{"x.yaml, document 1", "item 1", "Service shop/x", "ports"}},
		{"a cluster without a folder", func(f map[string]string) { delete(f, "m/west/deeper/all.yml"); delete(f, "m/west/README.md") }, []string{"nothing is said of cluster west", "make a folder"}},
		{"a folder without a cluster", func(f map[string]string) { f["m/north/x.yaml"] = "" }, []string{`folder "north"`, "add 'cluster north'"}},
		{"a Corefile without a stanza", func(f map[string]string) { f["Corefile"] = ". {\n whoami\n}\n" }, []string{"no stanza of clusterset"}},
		{"a Corefile with a wrong stanza", func(f map[string]string) { f["Corefile"] = strings.Replace(shop, "local east", "local nowhere", 1) }, []string{"Corefile:15", "'local nowhere' is none of the clusters"}},
		{"no Corefile", func(f map[string]string) { delete(f, "Corefile") }, []string{"Corefile", "no such file"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			files := both()
			tc.change(files)
			_, err := load(t, files, nil)
			if err == nil {
				t.Fatal("It is accepted")
			}
			for _, text := range tc.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("The error is %q, want %q in it", err, text)
				}
			}
		})
	}
}
