// Package demo shows the server to a person: three real control planes, a sample application, the real binary, a dozen
// questions with the reason for each answer, a cluster whose backends fail, and a change that is visible in milliseconds.
// It checks every answer, so it is a test as well. Everything it starts it stops.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/examples"
	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// names are the clusters, in the order of their service networks: 10.96.0.0/16, 10.97.0.0/16 and 10.98.0.0/16. The
// manifests count on that.
var names = []string{"east", "west", "north"}

// example is the Corefile that the server runs with.
const example = "three-clusters"

// settleTimeout bounds each wait for something that takes less than a second on an idle machine.
const settleTimeout = 30 * time.Second

// Options say how to show it.
type Options struct {
	// Once ends after the last answer instead of staying up.
	Once bool
	// Colour uses the colours of a terminal.
	Colour bool
}

// Run shows everything on w. It returns nil when all answers were as expected, also when ctx ends while it stays up; it
// then has stopped all that it started.
func Run(ctx context.Context, w io.Writer, o Options) (err error) {
	d := &demo{screen: screen{w: w, colour: o.Colour}, began: time.Now()}
	defer func() { err = errors.Join(err, d.stop()) }()
	for _, step := range []func(context.Context) error{d.build, d.startClusters, d.apply, d.startServer, d.ask, d.fail, d.widen, d.change} {
		if err := step(ctx); err != nil {
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			return err
		}
	}
	if o.Once {
		d.heading("Done", "after %.1f s", time.Since(d.began).Seconds())
	} else {
		d.stayUp(ctx)
	}
	if d.wrong > 0 {
		return fmt.Errorf("%d of %d answers were not the expected ones", d.wrong, d.asked)
	}
	return nil
}

type demo struct {
	screen
	began    time.Time
	binaries clusters.Binaries
	binary   string
	clusters []*clusters.Cluster
	corefile string // a template for server.Start
	server   *server.Server

	asked, wrong int
}

func (d *demo) build(ctx context.Context) error {
	d.heading("Programs", "built from source where they are missing")
	out := indented{d.w}
	var err error
	if d.binaries, err = clusters.Build(ctx, out); err != nil {
		return err
	}
	if d.binary, err = server.Build(ctx, out); err != nil {
		return err
	}
	d.line("etcd, kube-apiserver, kube-controller-manager and bin/coredns are ready")
	return nil
}

func (d *demo) startClusters(ctx context.Context) error {
	d.heading("Clusters", "an etcd, kube-apiserver and kube-controller-manager each")
	began := time.Now()
	var options []clusters.Options
	for _, name := range names {
		options = append(options, clusters.Options{Name: name, ControllerManager: true})
	}
	started, err := clusters.StartAll(ctx, d.binaries, options...)
	if err != nil {
		return err
	}
	d.clusters = started
	regions := map[string]string{"east": "region eu-central", "west": "region eu-central", "north": "region eu-north"}
	for _, c := range d.clusters {
		d.line("%-6s %-18s %s", c.Name(), regions[c.Name()], c.URL())
	}
	d.line("ready after %.1f s", time.Since(began).Seconds())
	return nil
}

func (d *demo) apply(ctx context.Context) error {
	d.heading("Sample application", "test/demo/manifests: what each cluster is given")
	d.line("web       a ClusterIP service, exported by all three")
	d.line("db        a headless service as of a StatefulSet, exported by east and north")
	d.line("internal  a service of east that nobody exports")
	d.line("probe     exported by north, in the namespace lab that only north has")
	for _, c := range d.clusters {
		ready, err := Deploy(ctx, c)
		if err != nil {
			return err
		}
		d.line("%-6s ready endpoints in its EndpointSlices: %d", c.Name(), ready)
	}
	return nil
}

func (d *demo) startServer(ctx context.Context) error {
	d.heading("Server", "bin/coredns with corefile-examples/%s", example)
	text, err := examples.Read(example)
	if err != nil {
		return err
	}
	places := examples.Places{Local: d.east().Kubeconfig(), Kubeconfigs: map[string]string{}}
	for _, c := range d.clusters {
		places.Kubeconfigs[c.Name()] = c.Kubeconfig()
	}
	if d.corefile, err = examples.Fill(text, places); err != nil {
		return fmt.Errorf("corefile-examples/%s: %w", example, err)
	}
	for p, pods := range podNetworks {
		if d.corefile, err = replace(d.corefile, pods, place(p).network()); err != nil {
			return err
		}
		d.line("clients in %-6s ask from %s, which takes the place of %s", place(p), place(p).network(), pods)
	}
	began := time.Now()
	if d.server, err = server.Start(ctx, d.binary, d.corefile, server.Options{}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	if err := d.server.WaitReady(ctx); err != nil {
		return err
	}
	if err := d.synced(ctx); err != nil {
		return err
	}
	d.line("ready after %.1f s on %s; it belongs to the cluster east", time.Since(began).Seconds(), d.server.Addr())
	return nil
}

// podNetworks are the networks that the example says are those of the places.
var podNetworks = [...]string{inEast: "10.1.0.0/16", inWest: "10.2.0.0/16", inNorth: "10.3.0.0/16"}

// replace replaces something that the example must have.
func replace(corefile, what, by string) (string, error) {
	replaced := strings.Replace(corefile, what, by, 1)
	if replaced == corefile {
		return "", fmt.Errorf("corefile-examples/%s does not say %q", example, what)
	}
	return replaced, nil
}

// synced waits until every cluster has told what it exports. Readiness waits for the remote ones too, but for 5 s at
// most, and a busy machine may need longer. A name that does not exist is answered SERVFAIL until then.
func (d *demo) synced(ctx context.Context) error {
	return d.until(ctx, question{name: "missing.shop.svc.clusterset.local", qtype: dns.TypeA, want: []string{"NXDOMAIN"}})
}

func (d *demo) ask(ctx context.Context) error {
	d.heading("Questions", "what the answers are, and why")
	for _, q := range questions {
		if err := d.show(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

// failClients is how many clients show the shares of an answer, and failSlack how many of them may differ from the formula:
// more than six standard deviations.
const (
	failClients = 200
	failSlack   = 40
)

// fail makes the backends of a cluster fail one after the other, and heals them.
func (d *demo) fail(ctx context.Context) error {
	d.heading("A failure", "the Pods of web in east become not ready, one after the other")
	if err := setReady(ctx, d.east(), "shop", "web-1", corev1.ConditionFalse); err != nil {
		return err
	}
	if err := d.spilled(ctx); err != nil {
		return err
	}
	if err := setReady(ctx, d.east(), "shop", "web-2", corev1.ConditionFalse); err != nil {
		return err
	}
	if _, err := d.untilShares(ctx, func(got map[string]int) bool { return got["10.97.0.80"] == failClients }); err != nil {
		return err
	}
	d.line("Both: all %d get 10.97.0.80 of west.", failClients)
	if err := d.show(ctx, webWithoutEast); err != nil {
		return err
	}
	if err := d.show(ctx, webFromNorth); err != nil {
		return err
	}
	for _, pod := range []string{"web-1", "web-2"} {
		if err := setReady(ctx, d.east(), "shop", pod, corev1.ConditionTrue); err != nil {
			return err
		}
	}
	return d.whole(ctx)
}

// spilled waits until clients in east are given another cluster too, and shows the shares.
func (d *demo) spilled(ctx context.Context) error {
	got, err := d.untilShares(ctx, func(got map[string]int) bool { return got["10.97.0.80"] > 0 })
	if err != nil {
		return err
	}
	own, other := got["10.96.0.80"], got["10.97.0.80"]
	d.line("One of two: of %d clients in east, %d get 10.96.0.80 of east and %d get 10.97.0.80 of west.", failClients, own, other)
	d.line("The formula says 70 and 30 percent: 1.4 x ready / all stay at home, which is everybody down to 72 percent ready.")
	if own+other != failClients || max(own-140, 140-own) > failSlack {
		d.wrong++
		d.line("  %s", d.paint(red, fmt.Sprintf("WRONG, expected: 140 and 60, give or take %d", failSlack)))
	}
	return nil
}

// whole waits until every client in east is given its own cluster again.
func (d *demo) whole(ctx context.Context) error {
	if _, err := d.untilShares(ctx, func(got map[string]int) bool { return got["10.96.0.80"] == failClients }); err != nil {
		return err
	}
	d.line("And back: ready again, and all %d clients in east get 10.96.0.80.", failClients)
	return nil
}

// untilShares asks from many clients in east until the shares are right.
func (d *demo) untilShares(ctx context.Context, right func(map[string]int) bool) (map[string]int, error) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for {
		got, err := shares(ctx, d.server.Addr(), inEast, failClients)
		if err != nil {
			return nil, err
		}
		if right(got) {
			return got, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%s from clients in east: still %v: %w", web, got, ctx.Err())
		}
	}
}

// widen changes the policy in the Corefile and reloads.
func (d *demo) widen(ctx context.Context) error {
	d.heading("Another policy", "\"prefer region\" and \"answer all\" in the Corefile, and the server reloads (SIGUSR1)")
	wide, err := replace(d.corefile, "answer one", "prefer region\n        answer all")
	if err != nil {
		return err
	}
	before, err := d.listed(ctx)
	if err != nil {
		return err
	}
	if err := d.server.Reload(ctx, wide); err != nil {
		return err
	}
	if err := d.show(ctx, webOfTheRegion); err != nil {
		return err
	}
	if err := d.server.Reload(ctx, d.corefile); err != nil {
		return err
	}
	after, err := d.listed(ctx)
	if err != nil {
		return err
	}
	if after != before {
		return fmt.Errorf("the reloads listed %v objects again, want none: the watches are to go on", after-before)
	}
	d.line("And back. No cluster was asked anything: the watches go on over a reload.")
	return nil
}

// listed returns how many objects the server has received in lists, as its metrics have it.
func (d *demo) listed(ctx context.Context) (objects float64, err error) {
	families, err := d.server.Metrics(ctx)
	if err != nil {
		return 0, err
	}
	for _, m := range families["coredns_clusterset_events_total"].GetMetric() {
		for _, label := range m.GetLabel() {
			if label.GetName() == "event" && label.GetValue() == "list" {
				objects += m.GetCounter().GetValue()
			}
		}
	}
	if objects == 0 {
		return 0, errors.New("metric coredns_clusterset_events_total: no listed objects at all")
	}
	return objects, nil
}

// change removes an export and brings it back, and measures how long it takes from the API server's reply to the answer.
func (d *demo) change(ctx context.Context) error {
	d.heading("A change", "kubectl --namespace shop delete serviceexport web, in the cluster east")
	took, err := d.after(ctx, webUnexported, func() error { return unexport(ctx, d.east(), "shop", "web") })
	if err != nil {
		return err
	}
	d.line("visible %s after the API server's reply", took)
	if err := d.show(ctx, webUnexported); err != nil {
		return err
	}
	took, err = d.after(ctx, webFromEast, func() error { return export(ctx, d.east(), "shop", "web") })
	if err != nil {
		return err
	}
	d.line("And back: exported again, visible after %s.", took)
	return nil
}

// after does something to a cluster and returns how long it takes until the question has its expected answer. Shown
// with the resolution of one query, 0.1 ms.
func (d *demo) after(ctx context.Context, q question, do func() error) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	if err := do(); err != nil {
		return 0, err
	}
	began := time.Now()
	err := d.until(ctx, q)
	return time.Since(began).Round(100 * time.Microsecond), err
}

// until asks again and again until the answer is as expected.
func (d *demo) until(ctx context.Context, q question) error {
	for {
		got, err := q.ask(ctx, d.server.Addr())
		if err != nil {
			return err
		}
		if q.answeredBy(got) {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s %s: still %q, want %q", q.name, dns.TypeToString[q.qtype], got, q.want)
		}
	}
}

// show asks, prints and checks.
func (d *demo) show(ctx context.Context, q question) error {
	got, err := q.ask(ctx, d.server.Addr())
	if err != nil {
		return err
	}
	d.asked++
	d.question(d.asked, q, got)
	if !q.answeredBy(got) {
		d.wrong++
	}
	return nil
}

func (d *demo) stayUp(ctx context.Context) {
	port := d.server.Port("DNS")
	d.heading("Your turn", "all of it stays up until Ctrl-C")
	d.command("dig -b %s @127.0.0.1 -p %d web.shop.svc.clusterset.local", inEast.address(7), port)
	d.command("dig -b %s @127.0.0.1 -p %d web.shop.svc.clusterset.local", inNorth.address(7), port)
	d.command("dig @127.0.0.1 -p %d SRV _postgres._tcp.db.shop.svc.clusterset.local", port)
	d.command("dig @127.0.0.1 -p %d db-0.north.db.shop.svc.clusterset.local", port)
	d.command("curl -s http://127.0.0.1:%d/metrics | grep ^coredns_clusterset", d.server.Port("Metrics"))
	d.command("kubectl --kubeconfig %s --namespace shop annotate serviceexport web clusterset-dns.io/weight-percent=0", d.east().AdminKubeconfig())
	d.line("The kubeconfigs of the other two:")
	for _, c := range d.clusters[1:] {
		d.command("%s", c.AdminKubeconfig())
	}
	<-ctx.Done()
}

// stop ends everything that was started, in any state of it.
func (d *demo) stop() error {
	if d.server == nil && len(d.clusters) == 0 {
		return nil
	}
	d.heading("Stopping", "the server and the clusters")
	var err error
	if d.server != nil {
		err = d.server.Stop()
	}
	return errors.Join(err, clusters.StopAll(d.clusters...))
}

// east is the cluster that the server belongs to.
func (d *demo) east() *clusters.Cluster { return d.clusters[0] }
