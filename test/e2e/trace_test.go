package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/test/kube"
)

// collector keeps the spans that it is sent, as Zipkin does (its API v2: a list of spans in JSON).
type collector struct {
	mu    sync.Mutex
	spans []span
}

type span struct {
	TraceID, Name string
	Tags          map[string]string
}

// ServeHTTP implements http.Handler.
func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var spans []span
	if err := json.NewDecoder(r.Body).Decode(&spans); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spans = append(c.spans, spans...)
	w.WriteHeader(http.StatusAccepted)
}

// of returns the tags of the span that a plugin has in the trace of a query for that name.
func (c *collector) of(plugin, name string) (map[string]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	trace := ""
	for _, s := range c.spans {
		if s.Tags["coredns.io/name"] == name {
			trace = s.TraceID
		}
	}
	for _, s := range c.spans {
		if s.TraceID == trace && s.Name == plugin {
			return s.Tags, nil
		}
	}
	return nil, fmt.Errorf("no span of %s for %s among %d", plugin, name, len(c.spans))
}

// logLine is the example of the README.
const logLine = `log . "{remote} in {/locality/cluster} {/locality/zone} by {/locality/source}: {name} {rcode} from {/clusterset/member} tier {/clusterset/tier}: {/clusterset/why}"`

func TestTracesAndLogShowMemberTierAndWhy(t *testing.T) {
	const service = "traced"
	for _, c := range []cluster{east, west} {
		_, err := c.Create(t.Context(), kube.Simple{Namespace: namespace, Name: service, Addresses: []string{"192.0.2.11"}})
		must(t, err)
		must(t, c.Export(t.Context(), namespace, service))
	}
	zipkin := &collector{}
	collects := httptest.NewServer(zipkin)
	t.Cleanup(collects.Close)
	s := run(t, corefile("trace zipkin "+strings.TrimPrefix(collects.URL, "http://")+" {\nzipkin_max_batch_size 1\n}",
		"metadata", logLine, "locality {\ncluster east\n}", stanza([]cluster{east, west}, "prefer cluster region")))
	ready(t, s)
	within(t, limit, "the service is answered", answers(s, name(service), 1))

	check := func(name string, want map[string]string) {
		t.Helper()
		within(t, limit, "the trace is collected", func(ctx context.Context) error {
			if _, err := s.Query(ctx, name, dns.TypeA); err != nil {
				return err
			}
			tags, err := zipkin.of("clusterset", name)
			if err != nil {
				return err
			}
			for tag, value := range want {
				if tags[tag] != value {
					return fmt.Errorf("%s is %q, want %q, among %q", tag, tags[tag], value, tags)
				}
			}
			return nil
		})
	}
	check(name(service), map[string]string{
		"clusterset/type": "ClusterSetIP", "clusterset/source": "exports", "clusterset/member": "east", "clusterset/tier": "0",
		"clusterset/why": "nearest", "locality/cluster": "east", "locality/source": "cluster",
	})
	check(name("no-"+service), map[string]string{"clusterset/why": "unknown", "clusterset/member": ""})
	if want := "127.0.0.1 in east  by cluster: " + name(service) + " NOERROR from east tier 0: nearest"; !strings.Contains(s.Log(), want) {
		t.Errorf("There is no %q in the log", want)
	}
}
