package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/miekg/dns"
	"github.com/spf13/pflag"

	"github.com/clusterset-dns/clusterset-dns/internal/offline"
	"github.com/clusterset-dns/clusterset-dns/plugin/clusterset"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/status"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// teller is who tells: a server, or files. Each document comes as a value and as it is printed for programs.
type teller interface {
	services(ctx context.Context) (status.Services, []byte, error)
	service(ctx context.Context, namespace, name string) (status.Service, []byte, error)
	explain(ctx context.Context, name, kind, client string) (status.Explanation, []byte, error)
}

// remote is a server at its status address.
type remote struct{ t *terminal }

func (r remote) services(ctx context.Context) (status.Services, []byte, error) {
	return ask[status.Services](ctx, r.t, status.PathServices, nil)
}

func (r remote) service(ctx context.Context, namespace, name string) (status.Service, []byte, error) {
	return ask[status.Service](ctx, r.t, status.PathServices+"/"+namespace+"/"+name, nil)
}

func (r remote) explain(ctx context.Context, name, kind, client string) (status.Explanation, []byte, error) {
	query := url.Values{"name": {name}, "type": {kind}}
	if client != "" {
		query.Set("client", client)
	}
	return ask[status.Explanation](ctx, r.t, status.PathExplain, query)
}

// files are what is asked instead of a server.
type files struct {
	manifests, corefile string
	// supposed are states of health by cluster.
	supposed map[string]string
}

// flags declares what chooses files.
func (f *files) flags(flags *pflag.FlagSet) {
	flags.StringVar(&f.manifests, "manifests", "", "ask no server but the files in `DIR`: a folder for each cluster, named by its id, with its manifests")
	flags.StringVar(&f.corefile, "corefile", "", "with --manifests, the Corefile, a `FILE`; by default Corefile in DIR")
	flags.StringToStringVar(&f.supposed, "health", nil, "with --manifests, take clusters to be in these states, as `west=unhealthy`; the others are healthy")
}

// teller returns who tells.
func (t *terminal) teller() (teller, error) {
	f := t.files
	if f.manifests == "" {
		if f.corefile != "" || len(f.supposed) > 0 {
			return nil, usage("--corefile and --health go with --manifests: a server has a Corefile, and knows who is well")
		}
		return remote{t}, nil
	}
	supposed := map[topology.ClusterID]health.State{}
	for id, word := range f.supposed {
		state, ok := stateOf(word)
		if !ok {
			return nil, usage("--health %s=%s: use healthy, degraded, unhealthy or excluded", id, word)
		}
		supposed[topology.ClusterID(id)] = state
	}
	corefile := f.corefile
	if corefile == "" {
		corefile = filepath.Join(f.manifests, "Corefile")
	}
	log.SetOutput(io.Discard) // what plugins say while they read is meant for whoever runs them
	defer log.SetOutput(os.Stderr)
	world, err := offline.Load(corefile, f.manifests, supposed)
	if err != nil {
		return nil, usage("%w", err)
	}
	for _, w := range world.Warnings {
		fmt.Fprintf(t.err, "Warning: %s\n", printable(w))
	}
	return local{world}, nil
}

func stateOf(word string) (health.State, bool) {
	for _, s := range []health.State{health.Healthy, health.Degraded, health.Unhealthy, health.Excluded} {
		if s.String() == word {
			return s, true
		}
	}
	return 0, false
}

// local is a world of files.
type local struct{ *offline.World }

// told prints a document as a server would.
func told[T any](document T) (T, []byte, error) {
	text, err := json.Marshal(document)
	return document, text, err
}

func (l local) services(context.Context) (status.Services, []byte, error) { return told(l.Services()) }

func (l local) service(_ context.Context, namespace, name string) (status.Service, []byte, error) {
	s, there := l.Service(namespace, name)
	if !there {
		return s, nil, failure{fmt.Errorf("no service %s/%s is exported", namespace, name), exitNegative}
	}
	return told(s)
}

func (l local) explain(_ context.Context, name, kind, client string) (status.Explanation, []byte, error) {
	qtype, known := dns.StringToType[strings.ToUpper(kind)]
	if !known {
		return status.Explanation{}, nil, usage("--type %s is none: use one such as A, AAAA or SRV", kind)
	}
	address, err := netip.ParseAddr(client)
	if err != nil {
		return status.Explanation{}, nil, usage("--client %q is no address: say who asks, such as 10.244.1.7", client)
	}
	e, err := l.Explain(clusterset.Question{Name: name, Type: qtype, Client: address})
	if err != nil {
		return status.Explanation{}, nil, usage("%w", err)
	}
	return told(*e)
}
