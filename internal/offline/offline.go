// Package offline explains answers without a server: from a Corefile and the manifests of each cluster, so that a change of either
// can be tried before it is rolled out.
//
// It puts together what the plugins make of their stanzas, which may not know each other, and refuses to know what these mean.
package offline

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coredns/caddy"
	"github.com/coredns/caddy/caddyfile"
	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/plugin/clusterhealth"
	"github.com/clusterset-dns/clusterset-dns/plugin/clusterset"
	"github.com/clusterset-dns/clusterset-dns/plugin/locality"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/status"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

// World is a Corefile and what the clusters say.
type World struct {
	blocks []*clusterset.Clusterset
	// Warnings say what was left out of the manifests because it makes no sense, and where that stands.
	Warnings []string
}

// Load reads a Corefile, and a folder that has one folder for each of its clusters, named by the id, with the cluster's manifests:
// what `kubectl get -o yaml` writes of serviceexports, services, endpointslices, namespaces, nodes and, where there are some,
// clusterproperties, servicecidrs and serviceimports. supposed are the states of health that clusters are taken to be in; the
// others are healthy. Errors name the file, and the document in it or the line.
func Load(path, manifests string, supposed map[topology.ClusterID]health.State) (*World, error) {
	text, err := os.ReadFile(path) //nolint:gosec // the file that was named
	if err != nil {
		return nil, err
	}
	blocks, err := caddyfile.Parse(path, bytes.NewReader(text), nil)
	if err != nil {
		return nil, err
	}
	said, err := readAll(manifests)
	if err != nil {
		return nil, err
	}
	w := &World{}
	for _, id := range slices.Sorted(maps.Keys(said)) {
		w.Warnings = append(w.Warnings, said[id].Warnings...)
	}
	for i := range blocks {
		if len(blocks[i].Tokens["clusterset"]) == 0 {
			continue
		}
		b := &block{path: path, manifests: manifests, tokens: blocks[i].Tokens, said: said, supposed: supposed}
		handler, err := b.handler()
		if err != nil {
			return nil, err
		}
		w.blocks = append(w.blocks, handler)
	}
	if len(w.blocks) == 0 {
		return nil, fmt.Errorf("%s has no stanza of clusterset", path)
	}
	return w, nil
}

// readAll reads the folders in a folder.
func readAll(dir string) (map[string]*watch.Manifests, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	said := map[string]*watch.Manifests{}
	for _, e := range entries {
		folder := filepath.Join(dir, e.Name())
		if info, err := os.Stat(folder); err != nil || !info.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if said[e.Name()], err = watch.ReadManifests(folder); err != nil {
			return nil, err
		}
	}
	return said, nil
}

// block is one server block with a stanza of clusterset.
type block struct {
	path, manifests string
	tokens          map[string][]caddyfile.Token
	said            map[string]*watch.Manifests
	supposed        map[topology.ClusterID]health.State
}

// controller reads one stanza of the block.
func (b *block) controller(name string) *caddy.Controller {
	c := caddy.NewTestController("dns", "")
	c.Dispenser = caddyfile.NewDispenserTokens(b.path, b.tokens[name])
	return c
}

func (b *block) handler() (*clusterset.Clusterset, error) {
	var stanza *caddy.Controller
	if len(b.tokens["clusterhealth"]) > 0 {
		stanza = b.controller("clusterhealth")
	}
	states, err := clusterhealth.NewOffline(stanza, b.supposed)
	if err != nil {
		return nil, err
	}
	if len(b.tokens["locality"]) == 0 {
		return clusterset.NewOffline(b.controller("clusterset"), b.manifests, b.said, nil, states)
	}
	places, err := locality.NewOffline(b.controller("locality"), b.said)
	if err != nil {
		return nil, err
	}
	return clusterset.NewOffline(b.controller("clusterset"), b.manifests, b.said, places, states)
}

// Explain tells what a query would get, and why: by the server block that has the longest zone with the name.
func (w *World) Explain(q clusterset.Question) (*status.Explanation, error) {
	best, longest := w.blocks[0], 0
	for _, b := range w.blocks {
		if zone, ok := b.Holds(strings.ToLower(dns.Fqdn(q.Name))); ok && zone > longest {
			best, longest = b, zone
		}
	}
	return best.Explain(q)
}

// Members tells who the members of the first server block are.
func (w *World) Members() status.Members { return w.blocks[0].Members() }

// Services tells which services its members export.
func (w *World) Services() status.Services { return w.blocks[0].Services() }

// Service tells about one of them; false where there is none of that name.
func (w *World) Service(namespace, name string) (status.Service, bool) {
	return w.blocks[0].Service(namespace, name)
}
