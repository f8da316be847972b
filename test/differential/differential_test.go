// Package differential compares our answers with those of CoreDNS's own kubernetes plugin and its multicluster option,
// on the same API server: we read what the exporters say, CoreDNS reads ServiceImports that say the same.
package differential

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/kube"
	"github.com/clusterset-dns/clusterset-dns/test/server"
)

var seed = flag.Uint64("seed", 0, "makes the world of an earlier run again; 0 takes a new one")

// The programs, built before any test so that a first build does not count against the time limit.
var (
	controlPlane clusters.Binaries
	coredns      string
)

func TestMain(m *testing.M) {
	flag.Parse()
	var err error
	if controlPlane, err = clusters.Build(context.Background(), os.Stderr); err == nil {
		coredns, err = server.Build(context.Background(), os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

const (
	rounds   = 2
	atLeast  = 2000 // queries
	patience = 10 * time.Second
	edns     = 4096
	limit    = 3 * time.Minute
)

// pair are the two servers that are compared, and the clusters they read.
type pair struct {
	ours, theirs   *server.Server
	local, remote  kube.Client
	kinds, results map[string]int
	applied        map[string]int
	queries        int
	// patience is how long a difference may last. It may be that a change is on its way.
	patience time.Duration
}

func start(t *testing.T) *pair {
	t.Helper()
	started, err := clusters.StartAll(t.Context(), controlPlane, clusters.Options{Name: local}, clusters.Options{Name: remote})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := clusters.StopAll(started...); err != nil {
			t.Error(err)
		}
	})
	p := &pair{patience: patience, kinds: map[string]int{}, results: map[string]int{}, applied: map[string]int{}}
	for i, c := range []*kube.Client{&p.local, &p.remote} {
		if *c, err = kube.New(started[i]); err != nil {
			t.Fatal(err)
		}
	}
	p.ours = startServer(t, fmt.Sprintf(`.:{{.DNS}} {
		bind 127.0.0.1
		errors
		clusterset {
			local %[1]s
			cluster %[1]s %[2]s {
				region here
			}
			cluster %[3]s %[4]s {
				address clusterip
				region there
			}
			prefer none
			answer all
		}
	}`, local, started[0].Kubeconfig(), remote, started[1].Kubeconfig()))
	p.theirs = startServer(t, fmt.Sprintf(`.:{{.DNS}} {
		bind 127.0.0.1
		errors
		kubernetes cluster.local clusterset.local {
			kubeconfig %s
			multicluster clusterset.local
		}
	}`, started[0].Kubeconfig()))
	return p
}

func startServer(t *testing.T, corefile string) *server.Server {
	t.Helper()
	s, err := server.Start(t.Context(), coredns, corefile, server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of the server:\n%s", s.Log())
		}
	})
	return s
}

func TestAnswersEqualThoseOfCoreDNS(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("this world again: -seed=%d", *seed)
	p := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	w := &world{Rand: rand.New(rand.NewPCG(*seed, 0))} //nolint:gosec // a world that can be made again, no secret
	for _, namespace := range namespaces {
		for _, c := range []kube.Client{p.local, p.remote} {
			if err := c.Namespace(ctx, namespace); err != nil {
				t.Fatal(err)
			}
		}
	}
	for round := range rounds {
		if err := p.change(ctx, w, round); err != nil {
			t.Fatal(err)
		}
		if err := p.settle(ctx, round); err != nil {
			t.Fatal(err)
		}
		failed := 0
		for _, q := range w.queries() {
			if err := p.compare(ctx, q); err != nil {
				t.Errorf("round %d: %v", round, err)
				if failed++; failed == 20 {
					t.Fatal("20 differences are enough")
				}
			}
		}
	}
	p.summary(t)
}

// change makes new services and, from the second round on, changes and removes some of the old ones.
func (p *pair) change(ctx context.Context, w *world, round int) error {
	if round > 0 {
		if err := p.disturb(ctx, w); err != nil {
			return err
		}
	}
	for _, s := range w.grow() {
		if err := p.create(ctx, w, s); err != nil {
			return err
		}
	}
	return nil
}

// disturb gives half of the services new endpoints, and takes back a few exports.
func (p *pair) disturb(ctx context.Context, w *world) error {
	for i, s := range slices.Clone(w.services) {
		switch {
		case i%8 == 3:
			if err := p.remove(ctx, s); err != nil {
				return err
			}
			w.services = slices.DeleteFunc(w.services, func(o *service) bool { return o == s })
		case i%2 == 0:
			n := w.IntN(len(s.slices))
			w.fill(s, n)
			if err := p.exporter(s).UpdateSlice(ctx, s.exported(n)); err != nil {
				return err
			}
			if err := p.local.UpdateSlice(ctx, s.imported(n, w.IntN(2) == 0)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *pair) exporter(s *service) kube.Client {
	if s.cluster == remote {
		return p.remote
	}
	return p.local
}

// create writes a service: what the exporter says, and what a controller would make of it in the local cluster.
func (p *pair) create(ctx context.Context, w *world, s *service) error {
	exporter := p.exporter(s)
	made, err := exporter.Service(ctx, s.object())
	if err != nil {
		return err
	}
	if !s.shape.headless {
		s.ips = made.Spec.ClusterIPs
	}
	for i := range s.slices {
		if err := exporter.Slice(ctx, s.exported(i)); err != nil {
			return err
		}
		if err := p.local.Slice(ctx, s.imported(i, w.IntN(2) == 0)); err != nil {
			return err
		}
	}
	if err := exporter.Export(ctx, s.namespace, s.name); err != nil {
		return err
	}
	return p.local.Import(ctx, s.serviceImport())
}

func (p *pair) remove(ctx context.Context, s *service) error {
	if err := p.exporter(s).Unexport(ctx, s.namespace, s.name); err != nil {
		return err
	}
	return p.local.MCS.MulticlusterV1beta1().ServiceImports(s.namespace).Delete(ctx, s.name, metav1.DeleteOptions{})
}

// settle waits until both servers show a last service of each cluster. That all else has come before is likely, not
// certain, for the watches are independent: compare is patient for that reason.
func (p *pair) settle(ctx context.Context, round int) error {
	for i, cluster := range []string{local, remote} {
		last := &service{namespace: namespaces[0], name: fmt.Sprintf("last-%d-%d", round, i), cluster: cluster, shape: shape{headless: true}}
		w := &world{Rand: rand.New(rand.NewPCG(uint64(round), uint64(i))), address: 60000 + 2*round + i} //nolint:gosec // no secret
		last.slices = []slice{{name: last.name, family: v4, endpoints: []endpoint{{address: w.next(v4)}}}}
		if err := p.create(ctx, w, last); err != nil {
			return err
		}
		for _, s := range []*server.Server{p.ours, p.theirs} {
			if err := untilAnswered(ctx, s, last.name+"."+last.namespace+".svc."+zone); err != nil {
				return err
			}
		}
	}
	return nil
}

func untilAnswered(ctx context.Context, s *server.Server, name string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		m, err := s.Query(ctx, name, dns.TypeA)
		if err == nil && len(m.Answer) > 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not appear: %v, %w", name, m, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// compare asks both servers until their answers agree, or differ by rules only. A difference that stays is an error.
func (p *pair) compare(ctx context.Context, q query) error {
	deadline := time.Now().Add(p.patience)
	for {
		ours, theirs, err := p.ask(ctx, q)
		if err != nil {
			return err
		}
		used, same, err := p.reconcile(ctx, q, ours, theirs)
		if err != nil {
			return err
		}
		if same {
			p.count(q, ours, theirs, used)
			return nil
		}
		if time.Now().After(deadline) {
			p.patience = 0 // by now everything has arrived
			return fmt.Errorf("%s: %s %s\n\tours   %s\n\ttheirs %s\n\twith the rules %v", q.kind, q.name, dns.TypeToString[q.qtype], ours, theirs, used)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// reconcile applies the rules to their answer until it is ours.
func (p *pair) reconcile(ctx context.Context, q query, ours, theirs reply) (used []string, same bool, err error) {
	if ours.equal(theirs) {
		return nil, true, nil
	}
	if q.qtype == dns.TypeSOA && q.relative() != "" {
		// Their SOA lookup below the apex never looks whether the name exists; any other type does.
		q.qtype = dns.TypeHINFO
		m, err := exchange(ctx, p.theirs, q)
		if err != nil {
			return nil, false, err
		}
		if theirs, used = read(m), append(used, soaRule); ours.equal(theirs) {
			return used, true, nil
		}
	}
	for _, r := range rules {
		changed := r.apply(q, theirs)
		if changed == nil || changed.equal(theirs) {
			continue
		}
		theirs, used = *changed, append(used, r.name)
		if ours.equal(theirs) {
			return used, true, nil
		}
	}
	return used, false, nil
}

// Rules that need more than the answer at hand. The second changes nothing that is compared.
const (
	soaRule    = "names that do not exist are denied for SOA too (9, unknown names)"
	weightRule = "SRV weights are not prescribed (1, table of records)"
)

func (p *pair) count(q query, ours, theirs reply, used []string) {
	p.queries++
	p.kinds[string(q.kind)]++
	switch {
	case ours.rcode == dns.RcodeNameError:
		p.results["NXDOMAIN"]++
	case len(ours.answer) == 0:
		p.results["NODATA"]++
	default:
		p.results["an answer"]++
	}
	sameWeights := slices.EqualFunc(ours.answer, theirs.answer, func(a, b record) bool { return a.weight == b.weight })
	if !sameWeights && len(used) == 0 {
		used = append(used, weightRule)
	}
	for _, name := range used {
		p.applied[name]++
	}
	if len(used) == 0 {
		p.results["exactly equal"]++
	}
}

func (p *pair) ask(ctx context.Context, q query) (ours, theirs reply, err error) {
	a, err := exchange(ctx, p.ours, q)
	if err != nil {
		return reply{}, reply{}, err
	}
	b, err := exchange(ctx, p.theirs, q)
	if err != nil {
		return reply{}, reply{}, err
	}
	return read(a), read(b), nil
}

// exchange asks over UDP, and again over TCP where the answer was cut.
func exchange(ctx context.Context, s *server.Server, q query) (*dns.Msg, error) {
	question := server.Question{Name: q.name, Type: q.qtype, EDNS: edns}
	m, err := s.Ask(ctx, question)
	if err == nil && m.Truncated {
		question.TCP = true
		return s.Ask(ctx, question)
	}
	return m, err
}

func (p *pair) summary(t *testing.T) {
	t.Helper()
	var text strings.Builder
	fmt.Fprintf(&text, "%d queries\n", p.queries)
	list := func(title string, of map[string]int, names []string) {
		fmt.Fprintf(&text, "%s\n", title)
		for _, name := range names {
			fmt.Fprintf(&text, "%7d %s\n", of[name], name)
			if of[name] == 0 {
				t.Errorf("%s: none %q", title, name)
			}
		}
	}
	var names []string
	for _, k := range kinds {
		names = append(names, string(k))
	}
	list("by kind:", p.kinds, names)
	list("by result:", p.results, []string{"an answer", "NODATA", "NXDOMAIN", "exactly equal"})
	names = []string{soaRule, weightRule}
	for _, r := range rules {
		names = append(names, r.name)
	}
	list("rules by which answers differ:", p.applied, names)
	t.Log(text.String())
	if p.queries < atLeast {
		t.Errorf("%d queries, want at least %d", p.queries, atLeast)
	}
}
