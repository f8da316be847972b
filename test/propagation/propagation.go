// Package propagation measures how long it takes from the API server's reply to a change until an answer shows it, end
// to end: real API servers, the real binary, queries over UDP.
package propagation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/kube"
	"github.com/clusterset-dns/clusterset-dns/test/server"
)

const (
	namespace = "propagation"
	zone      = "clusterset.local."
	// shownWithin bounds the wait for one change.
	shownWithin = 10 * time.Second
	// queryTimeout is when a query counts as lost and is sent again.
	queryTimeout = time.Second
)

// Result is what was measured for one kind of change in one cluster.
type Result struct {
	// Change and Cluster say what was changed, and where seen from the server: "local" or "remote".
	Change, Cluster string
	// Took holds one duration per change, sorted.
	Took []time.Duration
}

// Quantile returns the smallest duration that at least this share (0 to 1) of the changes did not exceed; 0 without any.
func (r Result) Quantile(share float64) time.Duration {
	if len(r.Took) == 0 {
		return 0
	}
	at := int(math.Ceil(share*float64(len(r.Took)))) - 1
	return r.Took[min(max(at, 0), len(r.Took)-1)]
}

// Median returns the median.
func (r Result) Median() time.Duration { return r.Quantile(0.5) }

// Write prints results as a table, in milliseconds.
func Write(w io.Writer, results []Result) {
	fmt.Fprintf(w, "%-32s %-8s %8s %8s %8s %8s %8s\n", "ms until the answer shows", "cluster", "changes", "median", "p90", "p99", "max")
	for _, r := range results {
		ms := func(share float64) float64 { return float64(r.Quantile(share)) / float64(time.Millisecond) }
		fmt.Fprintf(w, "%-32s %-8s %8d %8.2f %8.2f %8.2f %8.2f\n", r.Change, r.Cluster, len(r.Took), ms(0.5), ms(0.9), ms(0.99), ms(1))
	}
}

// Bench is two clusters and a server that watches them.
type Bench struct {
	clusters []*clusters.Cluster
	members  []member
	server   *server.Server
	conn     *dns.Conn
	made     int // services so far
}

type member struct {
	kube.Client
	name string // as Result.Cluster
}

// Start starts the clusters and the server. Stop must be called, also after an error.
func Start(ctx context.Context, binaries clusters.Binaries, coredns string) (*Bench, error) {
	b := &Bench{}
	var err error
	if b.clusters, err = clusters.StartAll(ctx, binaries, clusters.Options{Name: "east"}, clusters.Options{Name: "west"}); err != nil {
		return b, err
	}
	for i, name := range []string{"local", "remote"} {
		client, err := kube.New(b.clusters[i])
		if err == nil {
			err = client.Namespace(ctx, namespace)
		}
		if err != nil {
			return b, err
		}
		b.members = append(b.members, member{client, name})
	}
	corefile := fmt.Sprintf(`.:{{.DNS}} {
		bind 127.0.0.1
		ready {{.Ready}}
		clusterset {
			local east
			cluster east %s
			cluster west %s {
				address clusterip
			}
		}
	}`, b.clusters[0].Kubeconfig(), b.clusters[1].Kubeconfig())
	if b.server, err = server.Start(ctx, coredns, corefile, server.Options{}); err != nil {
		return b, err
	}
	ctx, cancel := context.WithTimeout(ctx, shownWithin)
	defer cancel()
	if err := b.server.WaitReady(ctx); err != nil {
		return b, err
	}
	conn, err := net.Dial("udp", b.server.Addr())
	b.conn = &dns.Conn{Conn: conn}
	return b, err
}

// Stop stops what Start has started.
func (b *Bench) Stop() error {
	var errs []error
	if b.conn != nil {
		errs = append(errs, b.conn.Close())
	}
	if b.server != nil {
		errs = append(errs, b.server.Stop())
	}
	return errors.Join(append(errs, clusters.StopAll(b.clusters...))...)
}

// Run makes as many changes of each kind in each cluster, one after the other.
func (b *Bench) Run(ctx context.Context, changes int) ([]Result, error) {
	var results []Result
	for _, m := range b.members {
		for _, kind := range []func(context.Context, member, int) ([]sample, error){b.endpoints, b.services, b.exports} {
			samples, err := kind(ctx, m, changes)
			if err != nil {
				return nil, fmt.Errorf("%s cluster: %w", m.name, err)
			}
			for _, s := range samples {
				slices.Sort(s.took)
				results = append(results, Result{Change: s.change, Cluster: m.name, Took: s.took})
			}
		}
	}
	return results, nil
}

// sample is what was measured of one kind of change.
type sample struct {
	change string
	took   []time.Duration
}

// service makes a service that no other run has.
func (b *Bench) service(headless bool) kube.Simple {
	b.made++
	return kube.Simple{
		Namespace: namespace, Name: fmt.Sprintf("s%d", b.made), Headless: headless,
		Addresses: []string{"10.1.0.1", "10.1.0.2", "10.1.0.3"}, NotReady: map[string]bool{},
	}
}

// endpoints lets an endpoint of a headless service become ready and not ready in turn.
func (b *Bench) endpoints(ctx context.Context, m member, changes int) ([]sample, error) {
	s := b.service(true)
	if _, err := m.Create(ctx, s); err != nil {
		return nil, err
	}
	if err := m.Export(ctx, s.Namespace, s.Name); err != nil {
		return nil, err
	}
	if _, err := b.until(ctx, fqdn(s), dns.TypeA, records(3)); err != nil {
		return nil, err
	}
	out := sample{change: "endpoint ready or not ready"}
	for i := range changes {
		s.NotReady["10.1.0.2"] = i%2 == 0
		if err := m.UpdateSlice(ctx, s.Slice()); err != nil {
			return nil, err
		}
		took, err := b.until(ctx, fqdn(s), dns.TypeA, records(2+i%2))
		if err != nil {
			return nil, err
		}
		out.took = append(out.took, took)
	}
	return []sample{out}, nil
}

// services changes the port of a Service.
func (b *Bench) services(ctx context.Context, m member, changes int) ([]sample, error) {
	s := b.service(false)
	object, err := m.Create(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := m.Export(ctx, s.Namespace, s.Name); err != nil {
		return nil, err
	}
	name := "_http._tcp." + fqdn(s)
	if _, err := b.until(ctx, name, dns.TypeSRV, records(1)); err != nil {
		return nil, err
	}
	out := sample{change: "port of a Service"}
	for i := range changes {
		number := uint16(1000 + i)
		object.Spec.Ports = []corev1.ServicePort{{Name: "http", Port: int32(number)}}
		if object, err = m.Core.CoreV1().Services(s.Namespace).Update(ctx, object, metav1.UpdateOptions{}); err != nil {
			return nil, err
		}
		took, err := b.until(ctx, name, dns.TypeSRV, func(m *dns.Msg) bool {
			if len(m.Answer) != 1 {
				return false
			}
			srv, ok := m.Answer[0].(*dns.SRV)
			return ok && srv.Port == number
		})
		if err != nil {
			return nil, err
		}
		out.took = append(out.took, took)
	}
	return []sample{out}, nil
}

// exports exports services that have been there, and takes the exports back.
func (b *Bench) exports(ctx context.Context, m member, changes int) ([]sample, error) {
	exported, unexported := sample{change: "new export"}, sample{change: "export taken back"}
	all := make([]kube.Simple, changes)
	for i := range all {
		all[i] = b.service(i%2 == 0)
		if _, err := m.Create(ctx, all[i]); err != nil {
			return nil, err
		}
	}
	for _, s := range all {
		if err := m.Export(ctx, s.Namespace, s.Name); err != nil {
			return nil, err
		}
		took, err := b.until(ctx, fqdn(s), dns.TypeA, func(m *dns.Msg) bool { return len(m.Answer) > 0 })
		if err != nil {
			return nil, err
		}
		exported.took = append(exported.took, took)
	}
	for _, s := range all {
		if err := m.Unexport(ctx, s.Namespace, s.Name); err != nil {
			return nil, err
		}
		took, err := b.until(ctx, fqdn(s), dns.TypeA, func(m *dns.Msg) bool { return m.Rcode == dns.RcodeNameError })
		if err != nil {
			return nil, err
		}
		unexported.took = append(unexported.took, took)
	}
	return []sample{exported, unexported}, nil
}

func fqdn(s kube.Simple) string { return s.Name + "." + s.Namespace + ".svc." + zone }

// records accepts answers with as many records.
func records(n int) func(*dns.Msg) bool { return func(m *dns.Msg) bool { return len(m.Answer) == n } }

// until asks without a pause, on one socket, until the answer shows the change, and returns how long that took.
func (b *Bench) until(ctx context.Context, name string, qtype uint16, shown func(*dns.Msg) bool) (time.Duration, error) {
	begin := time.Now()
	for ctx.Err() == nil {
		m, err := b.exchange(name, qtype)
		took := time.Since(begin)
		switch {
		case err == nil && shown(m):
			return took, nil
		case took > shownWithin:
			return 0, fmt.Errorf("%s %s does not show the change within %s: %v, %w", name, dns.TypeToString[qtype], shownWithin, m, err)
		}
	}
	return 0, ctx.Err()
}

// exchange sends one query and waits for its answer.
func (b *Bench) exchange(name string, qtype uint16) (*dns.Msg, error) {
	m := (&dns.Msg{}).SetQuestion(name, qtype)
	if err := b.conn.SetDeadline(time.Now().Add(queryTimeout)); err != nil {
		return nil, err
	}
	if err := b.conn.WriteMsg(m); err != nil {
		return nil, err
	}
	for {
		answer, err := b.conn.ReadMsg()
		if err != nil || answer.Id == m.Id {
			return answer, err
		}
	}
}
