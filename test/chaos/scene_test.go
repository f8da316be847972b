package chaos

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// stale is how long an API server can be silent; it is the least that the Corefile may say.
const stale = 20 * time.Second

// growth is how much more memory the server may have after a row than before, in MiB.
const growth = 64

// scene is a row while it runs: a server, its load, and what it may believe.
type scene struct {
	s        *server.Server
	load     *load
	proxies  map[*cluster]*proxy
	belief   belief
	folder   string
	result   *result
	undoneAt time.Time
}

// setting is what a row needs to be otherwise.
type setting struct {
	// corefile is added to the server block, and stanza to that of the plugin; %s is the folder of the scene.
	corefile, stanza string
	// withoutClusterLocal leaves the kubernetes plugin out.
	withoutClusterLocal bool
	// goesAway is set where nobody listens for a moment, so that readiness cannot be asked all the time.
	goesAway bool
	// kubeconfig changes the one for north.
	kubeconfig func(*clientcmdapi.Config)
}

// begin starts a server with everything well and a load that says so.
func begin(t *testing.T, o setting) *scene {
	t.Helper()
	x := prepare(t, o)
	s, err := server.Start(t.Context(), coredns, x.corefile(o, 5), server.Options{})
	must(t, err)
	t.Cleanup(func() { stopped(t, s) })
	x.s = s
	must(t, s.WaitReady(t.Context()))
	x.settle(t, limit)
	x.load = ask(t, s, x.belief)
	x.load.more(t, 500)
	if !o.goesAway {
		x.staysReady(t)
	}
	x.result.before = x.memory(t)
	return x
}

// prepare makes the way from a server, which has yet to be started, to the clusters.
func prepare(t *testing.T, o setting) *scene {
	t.Helper()
	x := &scene{proxies: map[*cluster]*proxy{}, folder: t.TempDir(), result: &result{}}
	for _, c := range []*cluster{west, north} {
		p, err := startProxy(c.Name(), hostOf(t, c))
		must(t, err)
		t.Cleanup(p.Stop)
		x.proxies[c] = p
		x.kubeconfig(t, c, nil)
	}
	if o.kubeconfig != nil {
		x.kubeconfig(t, north, o.kubeconfig)
	}
	x.belief.withoutClusterLocal = o.withoutClusterLocal
	x.belief = x.truth()
	return x
}

// staysReady looks at readiness again and again until the test is over.
func (x *scene) staysReady(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var looking sync.WaitGroup
	looks, failures := 0, 0
	looking.Go(func() {
		for ; ctx.Err() == nil; looks++ {
			if status, err := x.s.Ready(ctx); err == nil && status != http.StatusOK {
				failures++
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		looking.Wait()
		if failures > 0 {
			t.Errorf("not ready at %d of %d looks, after it was", failures, looks)
		}
	})
}

func hostOf(t *testing.T, c *cluster) string {
	t.Helper()
	u, err := url.Parse(c.URL())
	must(t, err)
	return u.Host
}

// kubeconfig writes the one with which the server reaches a cluster, through the proxy.
func (x *scene) kubeconfig(t *testing.T, c *cluster, change func(*clientcmdapi.Config)) {
	t.Helper()
	config, err := clientcmd.LoadFromFile(c.Kubeconfig())
	must(t, err)
	for _, to := range config.Clusters {
		to.Server = "https://" + x.proxies[c].Listen
	}
	if change != nil {
		change(config)
	}
	path := x.path(c.Name() + ".kubeconfig")
	must(t, clientcmd.WriteToFile(*config, path+".new"))
	must(t, os.Rename(path+".new", path))
}

func (x *scene) path(name string) string { return filepath.Join(x.folder, name) }

// corefile has everything that the rows look at.
func (x *scene) corefile(o setting, ttl int) string {
	var b strings.Builder
	b.WriteString(".:{{.DNS}} {\nbind 127.0.0.1\nerrors\nprometheus {{.Metrics}}\nready {{.Ready}}\nclusterset {\nlocal east\n")
	fmt.Fprintf(&b, "stale %s\nttl %d\n%s\n", stale, ttl, strings.ReplaceAll(o.stanza, "%s", x.folder))
	fmt.Fprintf(&b, "cluster east %s {\nregion of-east\n}\n", east.Kubeconfig())
	for _, c := range []*cluster{west, north} {
		fmt.Fprintf(&b, "cluster %s %s {\nregion of-%[1]s\naddress clusterip\n}\n", c.Name(), x.path(c.Name()+".kubeconfig"))
	}
	b.WriteString("}\n")
	if !o.withoutClusterLocal {
		fmt.Fprintf(&b, "kubernetes cluster.local {\nkubeconfig %s\n}\n", east.Kubeconfig())
	}
	return b.String() + o.corefile + "\n}\n"
}

// believe changes which answers are right.
func (x *scene) believe(change func(*belief)) {
	change(&x.belief)
	x.load.enter(x.belief)
}

// truth is the belief of a server that knows everything.
func (x *scene) truth() belief {
	b := belief{versions: map[*cluster][]version{}, stale: map[*cluster][]bool{}, more: x.belief.more, withoutClusterLocal: x.belief.withoutClusterLocal}
	for _, c := range everybody() {
		b.versions[c] = []version{c.now}
	}
	return b
}

// either says that a cluster may be known in any of these versions.
func (x *scene) either(c *cluster, versions ...version) {
	x.believe(func(b *belief) { b.versions[c] = versions })
}

// change makes a change in a cluster, which may or may not show from now on.
func (x *scene) change(t *testing.T, c *cluster) {
	t.Helper()
	v := c.next()
	x.either(c, append(slices.Clone(x.belief.versions[c]), v)...)
	must(t, c.become(t.Context(), v))
}

// stir makes changes in a cluster until check returns nil.
func (x *scene) stir(t *testing.T, what string, c *cluster, check func(context.Context) error) {
	t.Helper()
	within(t, limit, what, func(ctx context.Context) error {
		err := check(ctx)
		if err != nil {
			x.change(t, c)
			x.load.more(t, 200)
		}
		return err
	})
}

// undone says that the fault is no more: from here on the time to recover counts.
func (x *scene) undone() { x.undoneAt = time.Now() }

// recovered waits until the server answers by what the clusters are, and sees that it goes on like that.
func (x *scene) recovered(t *testing.T, bound time.Duration) {
	t.Helper()
	x.belief = x.truth()
	x.settleAnswers(t, max(limit, bound))
	x.result.recovery = time.Since(x.undoneAt)
	if x.result.recovery > bound {
		t.Errorf("right again %s after the fault was undone, want %s", round(x.result.recovery), bound)
	}
	x.load.enter(x.belief)
	x.settle(t, limit)
	x.load.more(t, 500)
}

// settle waits until everything is as the belief says, and nothing is wrong with any cluster.
func (x *scene) settle(t *testing.T, bound time.Duration) {
	t.Helper()
	x.settleAnswers(t, bound)
	for _, c := range everybody() {
		within(t, limit, c.Name()+" is synced", x.shows(1, "coredns_clusterset_member_state", "cluster", c.Name(), "source", "exports", "state", "synced"))
	}
	within(t, limit, "no problem is reported", x.shows(0, "coredns_clusterset_watch_problem"))
}

// settleAnswers waits until all names are answered as the belief says.
func (x *scene) settleAnswers(t *testing.T, bound time.Duration) {
	t.Helper()
	for name, right := range x.belief.allows() {
		within(t, bound, name+" as it should be", func(ctx context.Context) error {
			m, err := x.s.Query(ctx, name, dns.TypeA)
			if err == nil && !right[outcomeOf(m)] {
				err = fmt.Errorf("%s, want one of %v", outcomeOf(m), slices.Sorted(maps.Keys(right)))
			}
			return err
		})
	}
}

// metric adds up the gauges and counters of that name with those labels ("name", "value" in turn); 0 when there is none.
func (x *scene) metric(ctx context.Context, family string, labels ...string) (float64, error) {
	families, err := x.s.Metrics(ctx)
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
func (x *scene) shows(want float64, family string, labels ...string) func(context.Context) error {
	return x.reaches(func(got float64) bool { return got == want }, family, labels...)
}

// reaches checks the value of a metric.
func (x *scene) reaches(enough func(float64) bool, family string, labels ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		got, err := x.metric(ctx, family, labels...)
		if err == nil && !enough(got) {
			err = fmt.Errorf("%s%v is %v", family, labels, got)
		}
		return err
	}
}

// silent waits until a cluster has not been heard of for so long.
func (x *scene) silent(t *testing.T, c *cluster, d time.Duration) {
	t.Helper()
	within(t, limit, fmt.Sprintf("%s is silent for %s", c.Name(), d), x.reaches(func(age float64) bool { return age > d.Seconds() },
		"coredns_clusterset_member_proof_age_seconds", "cluster", c.Name(), "source", "exports"))
}

// becomesStale waits until clusters have been silent for too long, and sees that others are preferred then.
func (x *scene) becomesStale(t *testing.T, silent ...*cluster) {
	t.Helper()
	x.mayBeStale(silent...)
	for _, c := range silent {
		x.silent(t, c, stale+2*time.Second) // the server looks once a second
	}
	x.believe(func(b *belief) {
		for _, c := range silent {
			b.stale[c] = []bool{true}
		}
	})
	x.load.more(t, 500)
	x.mayBeStale(silent...)
}

// mayBeStale says that nobody knows whether these clusters are stale.
func (x *scene) mayBeStale(clusters ...*cluster) {
	x.believe(func(b *belief) {
		for _, c := range clusters {
			b.stale[c] = []bool{false, true}
		}
	})
}

// memory returns the resident memory of the server, in MiB.
func (x *scene) memory(t *testing.T) float64 {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", x.s.PID()))
	must(t, err)
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			must(t, err)
			return kib / 1024
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// end stops the load and judges it.
func (x *scene) end(t *testing.T, gap time.Duration) {
	t.Helper()
	x.result.after = x.memory(t)
	x.result.tally = x.load.end()
	r := x.result
	for _, what := range slices.Sorted(maps.Keys(r.wrong)) {
		t.Errorf("wrong answers: %d times %s", r.wrong[what], what)
	}
	for _, what := range slices.Sorted(maps.Keys(r.refused)) {
		t.Logf("no answer: %d times %s", r.refused[what], what)
	}
	if r.gap > gap {
		t.Errorf("no right answer to %s for %s, want %s at most", r.gapOf, round(r.gap), gap)
	}
	if r.after > r.before+growth {
		t.Errorf("%.0f MiB of memory after, %.0f before", r.after, r.before)
	}
	status, err := x.s.Ready(t.Context())
	if err != nil || status != 200 {
		t.Errorf("readiness is %d, %v at the end", status, err)
	}
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
	for _, sign := range []string{"panic:", "fatal error:"} {
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

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
