package observe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/kube"
	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// corefile is that of a server in east. north is the same cluster once more, so that its cluster IPs lie in the service
// network of east; nobody listens at west.
func corefile(east, nobody string, more string) string {
	return fmt.Sprintf(`.:{{.DNS}} {
	bind 127.0.0.1
	errors
	prometheus {{.Metrics}}
	ready {{.Ready}}
	clusterhealth {
		probe west tcp 127.0.0.1:1
		interval 1s
		timeout 1s
	}
	clusterset {
		local east
		cluster east %[1]s
		cluster north %[1]s {
			region far
			address clusterip
		}
		cluster west %[2]s {
			region far
			address clusterip
		}
		%[3]s
	}
	reload 10s 0s
}
`, east, nobody, more)
}

// startWorld starts one API server with an exported service, and two replicas with different policies.
func startWorld(t *testing.T) (replicas []*server.Server) {
	t.Helper()
	binaries, err := clusters.Build(t.Context(), os.Stderr)
	must(t, err)
	coredns, err := server.Build(t.Context(), os.Stderr)
	must(t, err)
	east, err := clusters.Start(t.Context(), binaries, clusters.Options{Name: "east"})
	must(t, err)
	t.Cleanup(func() {
		if err := east.Stop(); err != nil {
			t.Error(err)
		}
	})
	fill(t, east)
	text, err := os.ReadFile(east.Kubeconfig())
	must(t, err)
	nobody := filepath.Join(t.TempDir(), "west.kubeconfig")
	must(t, os.WriteFile(nobody, []byte(strings.ReplaceAll(string(text), east.URL(), "https://127.0.0.1:1")), 0o600))
	for _, more := range []string{"", "max_answers 9"} {
		s, err := server.Start(t.Context(), coredns, corefile(east.Kubeconfig(), nobody, more), server.Options{})
		must(t, err)
		t.Cleanup(func() {
			if err := s.Stop(); err != nil {
				t.Error(err)
			}
		})
		must(t, s.WaitReady(t.Context()))
		replicas = append(replicas, s)
	}
	return replicas
}

// fill makes a service and exports it, with an annotation that is rejected.
func fill(t *testing.T, c *clusters.Cluster) {
	t.Helper()
	client, err := kube.New(c)
	must(t, err)
	must(t, client.Namespace(t.Context(), "shop"))
	_, err = client.Create(t.Context(), kube.Simple{Namespace: "shop", Name: "web", Addresses: []string{"10.1.0.1", "10.1.0.2"}})
	must(t, err)
	export := &mcsv1beta1.ServiceExport{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "web", Annotations: map[string]string{"clusterset-dns.io/weight-percent": "much"},
	}}
	_, err = client.MCS.MulticlusterV1beta1().ServiceExports("shop").Create(t.Context(), export, metav1.CreateOptions{})
	must(t, err)
}

// TestExpressions evaluates everything that the alerts and the dashboard ask on a real Prometheus that scrapes real servers.
//
// These metrics are there only after something has happened, and the test makes it happen: watch_problem and the state
// unhealthy by west, where nobody listens; rejections_total by an annotation; unusable_services by north; SERVFAIL by a name
// that west might have. Those of collapses begin at 0 with the first list.
func TestExpressions(t *testing.T) {
	needs(t, "prometheus")
	replicas := startWorld(t)
	var targets []string
	for _, s := range replicas {
		targets = append(targets, "127.0.0.1:"+strconv.Itoa(s.Port("Metrics")))
	}
	p := startPrometheus(t, targets...)
	within(t, "west is unhealthy, and north overlaps", func(ctx context.Context) error {
		families, err := replicas[0].Metrics(ctx)
		if err != nil {
			return err
		}
		return errors.Join(
			queries(ctx, replicas),
			unless(families["coredns_clusterset_unusable_services"] != nil, "nothing is unusable"),
			unless(strings.Contains(replicas[0].Log(), "Cluster west is unhealthy"), "west is not unhealthy"))
	})
	t.Run("every metric is in what the server tells", func(t *testing.T) { testMetricsExist(t, replicas[0]) })
	t.Run("every selector finds something", func(t *testing.T) { testSelectors(t, p) })
	t.Run("every query of the dashboard has a result", func(t *testing.T) { testDashboard(t, p, replicas) })
	t.Run("every alert can be evaluated", func(t *testing.T) { testAlerts(t, p) })
}

// queries asks for a name that is known and one that west might have.
func queries(ctx context.Context, replicas []*server.Server) error {
	for _, s := range replicas {
		for name, want := range map[string]int{"web.shop.svc.clusterset.local.": dns.RcodeSuccess, "no.shop.svc.clusterset.local.": dns.RcodeServerFailure} {
			m, err := s.Query(ctx, name, dns.TypeA)
			if err != nil {
				return err
			}
			if m.Rcode != want {
				return fmt.Errorf("%s is %s, want %s", name, dns.RcodeToString[m.Rcode], dns.RcodeToString[want])
			}
		}
	}
	return nil
}

func allExpressions(t *testing.T) []string {
	t.Helper()
	all := dashboardExpressions(t)
	for _, a := range alerts(t) {
		all = append(all, a.Expr)
	}
	return all
}

func testMetricsExist(t *testing.T, s *server.Server) {
	t.Helper()
	families, err := s.Metrics(t.Context())
	must(t, err)
	for _, e := range allExpressions(t) {
		names := metricsOf(e)
		if len(names) == 0 {
			t.Errorf("No metric is found in %s", e)
		}
		for _, name := range names {
			family := name
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				family = strings.TrimSuffix(family, suffix)
			}
			if families[name] == nil && families[family] == nil {
				t.Errorf("There is no %s, which is used in %s", name, e)
			}
		}
	}
}

// testSelectors finds labels, and values of labels, that do not exist: with them an alert is silent for ever.
func testSelectors(t *testing.T, p *prometheusServer) {
	t.Helper()
	asked := map[string]bool{}
	for _, e := range allExpressions(t) {
		for _, selector := range selectorsOf(e) {
			if asked[selector] {
				continue
			}
			asked[selector] = true
			within(t, "there is a series of "+selector, func(ctx context.Context) error {
				got, err := p.ask(ctx, selector)
				return errors.Join(err, unless(len(got) > 0, "there is none"))
			})
		}
	}
}

// quiet are the queries without a result in this world: there is no conflict, and no collapse is held.
var quiet = []string{"coredns_clusterset_conflicts", "coredns_clusterset_collapse_held"}

func testDashboard(t *testing.T, p *prometheusServer, replicas []*server.Server) {
	t.Helper()
	for _, e := range dashboardExpressions(t) {
		nothing := slices.ContainsFunc(quiet, func(metric string) bool { return strings.Contains(e, metric) })
		within(t, e, func(ctx context.Context) error {
			if err := queries(ctx, replicas); err != nil {
				return err
			}
			got, err := p.ask(ctx, e)
			if err == nil && (len(got) == 0) != nothing {
				err = fmt.Errorf("the result is %v", got)
			}
			return err
		})
	}
}

// holding are the alerts whose expression holds in this world, and one label of theirs.
var holding = map[string][2]string{
	"ClustersetMemberNeverRead": {"cluster", "west"},
	"ClustersetPolicyDiffers":   {"job", "dns"},
	"ClustersetOverlap":         {"cluster", "north"},
	"ClustersetMemberUnhealthy": {"cluster", "west"},
	"ClustersetServfail":        {"job", "dns"},
}

func testAlerts(t *testing.T, p *prometheusServer) {
	t.Helper()
	for _, a := range alerts(t) {
		label, holds := holding[a.Alert]
		within(t, a.Alert, func(ctx context.Context) error {
			got, err := p.ask(ctx, a.Expr)
			switch {
			case err != nil:
				return err
			case holds && !slices.ContainsFunc(got, func(s sample) bool { return s.Metric[label[0]] == label[1] }):
				return fmt.Errorf("it should hold for %v, and does for %v", label, got)
			case !holds && len(got) > 0:
				return fmt.Errorf("it should not hold, and does for %v", got)
			}
			return nil
		})
	}
}
