// Package e2e runs the real binary, with the race detector in it, on real API servers, and looks at what it does over
// time: start, readiness, reload, shutdown, clusters that come, go, hang and change.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/kube"
	"github.com/clusterset-dns/clusterset-dns/test/server"
	"github.com/clusterset-dns/clusterset-dns/test/suite"
)

// cluster is a running cluster and a client for it.
type cluster struct {
	*clusters.Cluster
	kube.Client
}

// The servers belong to east. Only TestRestartWithoutAPIServers disturbs east and west; north is killed, paused and
// changed, and every test leaves them as they were.
var east, west, north cluster

// coredns is the binary with the race detector.
var coredns string

// namespace is the one that all tests use; it is in every cluster.
const namespace = "e2e"

const zone = "clusterset.local."

// limit bounds every wait of a test.
const limit = 30 * time.Second

// pollEvery is the pause between two looks at a condition.
const pollEvery = 2 * time.Millisecond

func TestMain(m *testing.M) { os.Exit(suite.Run(m, start)) }

// start builds the programs and starts the clusters.
func start(ctx context.Context) (stop func() error, err error) {
	binaries, err := clusters.Build(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	if coredns, err = server.BuildRace(ctx, os.Stderr); err != nil {
		return nil, err
	}
	started, err := clusters.StartAll(ctx, binaries,
		clusters.Options{Name: "east"}, clusters.Options{Name: "west"}, clusters.Options{Name: "north"})
	if err != nil {
		return nil, err
	}
	stop = func() error { return clusters.StopAll(started...) }
	for i, c := range []*cluster{&east, &west, &north} {
		c.Cluster = started[i]
		if c.Client, err = kube.New(started[i]); err == nil {
			err = c.Namespace(ctx, namespace)
		}
		if err != nil {
			return nil, errors.Join(err, stop())
		}
	}
	return stop, nil
}

// stanza is a stanza of the plugin in which the server belongs to east. more are further lines.
func stanza(members []cluster, more ...string) string {
	var b strings.Builder
	b.WriteString("clusterset {\nlocal east\n")
	for _, c := range members {
		fmt.Fprintf(&b, "cluster %s %s {\nregion of-%[1]s\n", c.Name(), c.Kubeconfig())
		if c.Name() != "east" {
			b.WriteString("address clusterip\n")
		}
		b.WriteString("}\n")
	}
	return b.String() + strings.Join(more, "\n") + "\n}\n"
}

// corefile is a server block with everything that the tests look at.
func corefile(plugins ...string) string {
	return ".:{{.DNS}} {\nbind 127.0.0.1\nerrors\nprometheus {{.Metrics}}\nready {{.Ready}}\n" + strings.Join(plugins, "\n") + "\n}\n"
}

// run starts a server. When the test is over it must stop as it should: cleanly, with nothing to say about races.
func run(t *testing.T, corefile string) *server.Server {
	t.Helper()
	s, err := server.Start(t.Context(), coredns, corefile, server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopped(t, s) })
	return s
}

// stopped stops a server and checks how it went. A server that has stopped already is checked all the same.
func stopped(t *testing.T, s *server.Server) {
	t.Helper()
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if code := s.ExitCode(); code != 0 {
		t.Errorf("the server exited with code %d, want 0", code)
	}
	for _, sign := range []string{"DATA RACE", "panic:", "fatal error:"} {
		if strings.Contains(s.Log(), sign) {
			t.Errorf("%q in the log of the server", sign)
		}
	}
	if t.Failed() {
		const most = 60
		lines := strings.Split(strings.TrimSpace(s.Log()), "\n")
		t.Logf("the log of the server ends with:\n%s", strings.Join(lines[max(0, len(lines)-most):], "\n"))
	}
}

// name is the name of a service.
func name(service string) string { return service + "." + namespace + ".svc." + zone }

// answers checks that a name has as many A records as that.
func answers(s *server.Server, name string, records int) func(context.Context) error {
	return func(ctx context.Context) error {
		m, err := s.Query(ctx, name, dns.TypeA)
		if err == nil && (m.Rcode != dns.RcodeSuccess || len(m.Answer) != records) {
			err = fmt.Errorf("%s %v, want %d records", dns.RcodeToString[m.Rcode], m.Answer, records)
		}
		return err
	}
}

// rcode checks how a name is answered.
func rcode(s *server.Server, name string, want int) func(context.Context) error {
	return func(ctx context.Context) error {
		m, err := s.Query(ctx, name, dns.TypeA)
		if err == nil && m.Rcode != want {
			err = fmt.Errorf("%s %s, want %s", name, dns.RcodeToString[m.Rcode], dns.RcodeToString[want])
		}
		return err
	}
}

// now checks something once.
func now(t *testing.T, check func(context.Context) error) {
	t.Helper()
	if err := check(t.Context()); err != nil {
		t.Error(err)
	}
}

// ready waits until the server is ready.
func ready(t *testing.T, s *server.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := s.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
}

var must, within = suite.Must, suite.Within

// export makes a headless service with endpoints in a cluster and exports it.
func export(t *testing.T, c cluster, service string, addresses ...string) kube.Simple {
	t.Helper()
	s := kube.Simple{Namespace: namespace, Name: service, Headless: true, Addresses: addresses}
	_, err := c.Create(t.Context(), s)
	must(t, err)
	must(t, c.Export(t.Context(), namespace, service))
	return s
}

// metric returns the value of the gauge or counter of that name with those labels ("name", "value" in turn); 0 when
// there is none.
func metric(ctx context.Context, s *server.Server, family string, labels ...string) (float64, error) {
	families, err := s.Metrics(ctx)
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for _, m := range families[family].GetMetric() {
		has := map[string]string{}
		for _, l := range m.GetLabel() {
			has[l.GetName()] = l.GetValue()
		}
		fits := true
		for i := 0; i < len(labels); i += 2 {
			fits = fits && has[labels[i]] == labels[i+1]
		}
		if fits {
			sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return sum, nil
}

// shows checks the value of a metric.
func shows(s *server.Server, want float64, family string, labels ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		got, err := metric(ctx, s, family, labels...)
		if err == nil && got != want {
			err = fmt.Errorf("%s%v is %v, want %v", family, labels, got, want)
		}
		return err
	}
}
