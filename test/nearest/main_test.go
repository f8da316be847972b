// Package nearest asks the real binary, which watches four real API servers, from many addresses: who is answered what,
// by where the client is, by what is ready and well, and by what weights say. The clusters are east and west in the
// region eu, north and south in us. Servers belong to east.
//
// Every answer of every test is compared with what there is: see world.
package nearest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/kube"
	"github.com/clusterset-dns/clusterset-dns/test/server"
	"github.com/clusterset-dns/clusterset-dns/test/suite"
)

// cluster is a running cluster, a client for it, and where its workloads ask from.
type cluster struct {
	*clusters.Cluster
	kube.Client
	region string
	// clients is a range of loopback addresses; the Corefile says that they are in this cluster.
	clients netip.Prefix
}

// The API server of south is killed by TestMembersThatFail, at its beginning; nobody else uses south after that. Its
// service network is that of east.
var east, west, north, south cluster

// coredns is the binary.
var coredns string

const (
	namespace = "nearest"
	zone      = "clusterset.local."
	// limit bounds every wait that has no bound of its own.
	limit = 30 * time.Second
)

func TestMain(m *testing.M) {
	code := suite.Run(m, func(ctx context.Context) (func() error, error) {
		stop, err := start(ctx)
		return func() error { return errors.Join(stop(), everything.err()) }, err
	})
	fmt.Printf("%d answers, with %d addresses, were looked at\n", everything.answers.Load(), everything.addresses.Load())
	os.Exit(code)
}

// start builds the programs and starts the clusters.
func start(ctx context.Context) (stop func() error, err error) {
	binaries, err := clusters.Build(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	if coredns, err = server.Build(ctx, os.Stderr); err != nil {
		return nil, err
	}
	const networkOfEast = "10.96.0.0/16,fd00:10:96::/108"
	started, err := clusters.StartAll(ctx, binaries,
		clusters.Options{Name: "east", ServiceCIDR: networkOfEast}, clusters.Options{Name: "west"},
		clusters.Options{Name: "north"}, clusters.Options{Name: "south", ServiceCIDR: networkOfEast})
	if err != nil {
		return nil, err
	}
	stop = func() error { return clusters.StopAll(started...) }
	for i, c := range []*cluster{&east, &west, &north, &south} {
		c.Cluster, c.region = started[i], []string{"eu", "eu", "us", "us"}[i]
		c.clients = netip.PrefixFrom(netip.AddrFrom4([4]byte{127, byte(i + 1), 0, 0}), 16)
		if c.Client, err = kube.New(started[i]); err == nil {
			err = c.Namespace(ctx, namespace)
		}
		if err != nil {
			return nil, errors.Join(err, stop())
		}
	}
	return stop, nil
}

// at returns the n-th client of the cluster, counted from 0.
func (c cluster) at(n int) netip.Addr {
	a := c.clients.Addr().As4()
	a[2], a[3] = byte(n/250), byte(1+n%250)
	return netip.AddrFrom4(a)
}

// many returns that many clients of the cluster.
func (c cluster) many(n int) []netip.Addr {
	out := make([]netip.Addr, n)
	for i := range out {
		out[i] = c.at(i)
	}
	return out
}

// member is a `cluster` property.
func member(c cluster, lines ...string) string {
	lines = append([]string{"cluster " + c.Name() + " " + c.Kubeconfig() + " {", "region " + c.region}, append(lines, "}")...)
	return strings.Join(lines, "\n")
}

// clusterset is a stanza of the plugin.
func clusterset(lines ...string) string {
	return "clusterset {\nlocal east\n" + strings.Join(lines, "\n") + "\n}"
}

// three are the members that most tests have: they live all the time, and reach each other by their cluster IPs.
func three() string {
	return strings.Join([]string{member(east), member(west, "address clusterip"), member(north, "address clusterip")}, "\n")
}

// locality is a stanza that knows where clients are. lines are further ones.
func locality(lines ...string) string {
	var b strings.Builder
	b.WriteString("locality {\ncluster east eu\n")
	for _, c := range []cluster{east, west, north, south} {
		fmt.Fprintf(&b, "cidr %s cluster=%s region=%s\n", c.clients, c.Name(), c.region)
	}
	return b.String() + strings.Join(lines, "\n") + "\n}"
}

// block is a server block on the port of that name. The first of a Corefile must be on "DNS".
func block(port string, plugins ...string) string {
	return ".:{{.Port \"" + port + "\"}} {\nbind 127.0.0.1\nerrors\nprometheus {{.Metrics}}\nready {{.Ready}}\n" +
		strings.Join(plugins, "\n") + "\n}\n"
}

// run starts a server and waits until it is ready. When the test is over it must stop as it should.
func run(t *testing.T, blocks ...string) *server.Server {
	t.Helper()
	s, err := server.Start(t.Context(), coredns, strings.Join(blocks, ""), server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopped(t, s) })
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	must(t, s.WaitReady(ctx))
	return s
}

// stopped stops a server and checks how it went.
func stopped(t *testing.T, s *server.Server) {
	t.Helper()
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if code := s.ExitCode(); code != 0 {
		t.Errorf("the server exited with code %d, want 0", code)
	}
	if t.Failed() {
		const most = 60
		lines := strings.Split(strings.TrimSpace(s.Log()), "\n")
		lines = slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, "Plugins not ready") })
		t.Logf("the log of the server ends with:\n%s", strings.Join(lines[max(0, len(lines)-most):], "\n"))
	}
}

var must = suite.Must

// within waits until check returns nil, and returns how long that took.
func within(t *testing.T, limit time.Duration, what string, check func() error) time.Duration {
	t.Helper()
	return suite.Within(t, limit, what, func(context.Context) error { return check() })
}

// shows checks the value of a gauge or counter with those labels ("name", "value" in turn); 0 when there is none.
func shows(t *testing.T, s *server.Server, want float64, family string, labels ...string) func() error {
	t.Helper()
	return func() error {
		families, err := s.Metrics(t.Context())
		if err != nil {
			return err
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
		if sum != want {
			return fmt.Errorf("%s%v is %v, want %v", family, labels, sum, want)
		}
		return nil
	}
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
