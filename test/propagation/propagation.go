//go:build linux

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
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
	// askAgain is how long it is from an answer to the next question. What is measured can be longer by that, but who asks
	// without a pause takes the processor on which the change would be made.
	askAgain = 100 * time.Microsecond
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
	clusters []*clusters.Cluster // those to stop
	members  []member
	server   *server.Server // to stop; nil for one that others have started
	zone     string
	exports  bool // whether services are seen by their exports
	conn     *dns.Conn
	prefix   string        // of the names of services
	made     []kube.Simple // services so far
}

type member struct {
	kube.Client
	name string // as Result.Cluster
}

// Start starts the clusters and the server. Stop must be called, also after an error.
func Start(ctx context.Context, binaries clusters.Binaries, coredns string) (*Bench, error) {
	b := &Bench{zone: zone, exports: true, prefix: "s"}
	var err error
	if b.clusters, err = clusters.StartAll(ctx, binaries, clusters.Options{Name: "east"}, clusters.Options{Name: "west"}); err != nil {
		return b, err
	}
	for i, name := range []string{"local", "remote"} {
		if err := b.add(ctx, name, b.clusters[i]); err != nil {
			return b, err
		}
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
	return b, b.dial(b.server)
}

// On returns a bench for a cluster that runs and a server that watches it, where exports says whether the server shows a
// service by its export, in the zone clusterset.local, or every one, in cluster.local. Clear must be called, also after
// an error.
func On(ctx context.Context, c *clusters.Cluster, s *server.Server, exports bool) (*Bench, error) {
	// No name comes twice, so that nothing of an earlier bench can be taken for something of this one.
	b := &Bench{zone: zone, exports: exports, prefix: fmt.Sprintf("s%x-", time.Now().UnixNano())}
	if !exports {
		b.zone = "cluster.local."
	}
	if err := b.add(ctx, "local", c); err != nil {
		return b, err
	}
	return b, b.dial(s)
}

// add makes a cluster one in which something is changed.
func (b *Bench) add(ctx context.Context, name string, c *clusters.Cluster) error {
	client, err := kube.New(c)
	if err != nil {
		return err
	}
	b.members = append(b.members, member{client, name})
	return client.Namespace(ctx, namespace)
}

func (b *Bench) dial(s *server.Server) error {
	conn, err := net.Dial("udp", s.Addr())
	if err != nil {
		return err
	}
	b.conn = &dns.Conn{Conn: conn}
	return nil
}

// Clear deletes the services that were made, for clusters that others go on using.
func (b *Bench) Clear(ctx context.Context) error {
	var errs []error
	for _, m := range b.members {
		for _, s := range b.made {
			for _, err := range []error{
				m.MCS.MulticlusterV1beta1().ServiceExports(s.Namespace).Delete(ctx, s.Name, metav1.DeleteOptions{}),
				m.Core.DiscoveryV1().EndpointSlices(s.Namespace).Delete(ctx, s.Name, metav1.DeleteOptions{}),
				m.Core.CoreV1().Services(s.Namespace).Delete(ctx, s.Name, metav1.DeleteOptions{}),
			} {
				if err != nil && !apierrors.IsNotFound(err) {
					errs = append(errs, err)
				}
			}
		}
	}
	return errors.Join(append(errs, b.Stop())...)
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
	kinds := []func(context.Context, member, int) ([]sample, error){b.endpoints, b.services}
	if b.exports {
		kinds = append(kinds, b.exporting)
	}
	for _, m := range b.members {
		for _, kind := range kinds {
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
	s := kube.Simple{
		Namespace: namespace, Name: fmt.Sprintf("%s%d", b.prefix, len(b.made)+1), Headless: headless,
		Addresses: []string{"10.1.0.1", "10.1.0.2", "10.1.0.3"}, NotReady: map[string]bool{},
	}
	b.made = append(b.made, s)
	return s
}

// show exports a service where that is how it is seen.
func (b *Bench) show(ctx context.Context, m member, s kube.Simple) error {
	if !b.exports {
		return nil
	}
	return m.Export(ctx, s.Namespace, s.Name)
}

// endpoints lets an endpoint of a headless service become ready and not ready in turn.
func (b *Bench) endpoints(ctx context.Context, m member, changes int) ([]sample, error) {
	s := b.service(true)
	if _, err := m.Create(ctx, s); err != nil {
		return nil, err
	}
	if err := b.show(ctx, m, s); err != nil {
		return nil, err
	}
	if _, err := b.until(ctx, b.fqdn(s), dns.TypeA, records(3)); err != nil {
		return nil, err
	}
	out := sample{change: "endpoint ready or not ready"}
	for i := range changes {
		s.NotReady["10.1.0.2"] = i%2 == 0
		if err := m.UpdateSlice(ctx, s.Slice()); err != nil {
			return nil, err
		}
		took, err := b.until(ctx, b.fqdn(s), dns.TypeA, records(2+i%2))
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
	if err := b.show(ctx, m, s); err != nil {
		return nil, err
	}
	name := "_http._tcp." + b.fqdn(s)
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

// exporting exports services that have been there, and takes the exports back.
func (b *Bench) exporting(ctx context.Context, m member, changes int) ([]sample, error) {
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
		took, err := b.until(ctx, b.fqdn(s), dns.TypeA, func(m *dns.Msg) bool { return len(m.Answer) > 0 })
		if err != nil {
			return nil, err
		}
		exported.took = append(exported.took, took)
	}
	for _, s := range all {
		if err := m.Unexport(ctx, s.Namespace, s.Name); err != nil {
			return nil, err
		}
		took, err := b.until(ctx, b.fqdn(s), dns.TypeA, func(m *dns.Msg) bool { return m.Rcode == dns.RcodeNameError })
		if err != nil {
			return nil, err
		}
		unexported.took = append(unexported.took, took)
	}
	return []sample{exported, unexported}, nil
}

func (b *Bench) fqdn(s kube.Simple) string { return s.Name + "." + s.Namespace + ".svc." + b.zone }

// records accepts answers with as many records.
func records(n int) func(*dns.Msg) bool { return func(m *dns.Msg) bool { return len(m.Answer) == n } }

// until asks again and again, on one socket, until the answer shows the change, and returns how long that took.
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
		pause()
	}
	return 0, ctx.Err()
}

// pause lets askAgain pass. Go's own timers are coarser than that by a millisecond when nothing else is to be done.
func pause() {
	d := unix.NsecToTimespec(askAgain.Nanoseconds())
	_ = unix.Nanosleep(&d, nil) // a signal ends it early, which does no harm
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
