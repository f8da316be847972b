package chaos

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
)

// row is a fault: what happens, and how bad its consequences may be.
type row struct {
	name string
	setting
	// gap is the longest time that any name may be without a right answer, and recovery how long it may take after the
	// fault until all is right and changes show.
	gap, recovery time.Duration
	// begin is called first. It may change the kubeconfig for north.
	begin func(*testing.T) func(*clientcmdapi.Config)
	// happen does it and undoes it.
	happen func(*testing.T, *scene)
	// possible returns why the row cannot be had here, "" if it can.
	possible func() string
}

// Bounds. What is known goes on being answered, so that a gap is no more than a busy machine makes: a tenth of a second on
// one that has nothing else to do. After an outage the
// server tries again every few seconds, and does so spread over some more.
const (
	noGap = 3 * time.Second
	soon  = 15 * time.Second
	late  = 30 * time.Second
)

func rows() []row {
	return []row{
		{name: "An API server crashes and is started again", gap: noGap, recovery: soon, happen: crash},
		{name: "An API server hangs until it is stale", gap: noGap, recovery: soon, happen: hang},
		{name: "The way to an API server takes 5 seconds", gap: noGap, recovery: soon, happen: slow},
		{name: "Connections to an API server are reset", gap: noGap, recovery: soon, happen: reset},
		{name: "Connections become half-open, and stay so", gap: noGap, recovery: late, happen: halfOpen},
		{name: "An etcd loses everything and gets less", gap: noGap, recovery: soon, happen: wipe},
		{name: "An etcd is restored from a backup", gap: noGap, recovery: soon, happen: restore},
		{name: "The CRDs are deleted and come back", gap: noGap, recovery: late, happen: withoutCRDs},
		{
			name: "Credentials are revoked and rotated", gap: noGap, recovery: soon, happen: revoke,
			begin: func(t *testing.T) func(*clientcmdapi.Config) { t.Helper(); return with(newToken(t)) },
		},
		{name: "A cluster sends 20,000 events", gap: noGap, recovery: soon, happen: flood},
		{name: "An API server sends garbage", gap: noGap, recovery: soon, happen: lie},
		{name: "The Corefile is reloaded 20 times", gap: noGap, recovery: soon, happen: reload, setting: setting{goesAway: true}},
		{
			name: "All API servers are down and the server is killed", gap: noGap, recovery: soon, happen: restart,
			setting: setting{stanza: "state %s", withoutClusterLocal: true, goesAway: true},
		},
		partition(),
	}
}

// TestChaos lets one thing after another happen. With CHAOS_WRITE=1 the table goes into README.md.
func TestChaos(t *testing.T) {
	found := &table{results: map[string]*result{}}
	for _, r := range rows() {
		t.Run(r.name, func(t *testing.T) {
			if r.possible != nil {
				if why := r.possible(); why != "" {
					found.add(r.name, &result{skipped: why})
					t.Skip(why)
				}
			}
			if r.begin != nil {
				r.kubeconfig = r.begin(t)
			}
			x := begin(t, r.setting)
			r.happen(t, x)
			x.recovered(t, r.recovery)
			x.end(t, r.gap)
			found.add(r.name, x.result)
		})
	}
	t.Logf("\n%s", found)
	if os.Getenv("CHAOS_WRITE") == "" {
		return
	}
	if t.Failed() || len(found.names) != len(rows()) {
		t.Logf("%s stays as it is: it is for runs in which everything is as it should be", readme)
		return
	}
	must(t, found.write())
}

func crash(t *testing.T, x *scene) {
	t.Helper()
	must(t, north.KillAPIServer())
	x.load.more(t, 500)
	must(t, north.StartAPIServer(t.Context()))
	x.undone()
	x.change(t, north)
}

func hang(t *testing.T, x *scene) {
	t.Helper()
	must(t, north.PauseAPIServer())
	resumed := false
	resume := func() {
		if !resumed {
			resumed = true
			must(t, north.ResumeAPIServer())
		}
	}
	defer resume()
	x.becomesStale(t, north)
	resume()
	x.undone()
	x.change(t, north)
}

func slow(t *testing.T, x *scene) {
	t.Helper()
	must(t, x.proxies[north].hurtOne("downstream", "latency", `"latency": 5000`))
	x.change(t, north)
	x.load.more(t, 5000)
	x.proxies[north].heal(t.Context())
	x.undone()
	x.change(t, north)
}

func reset(t *testing.T, x *scene) {
	t.Helper()
	must(t, x.proxies[north].hurt("reset_peer", ""))
	x.change(t, north) // what is told of it is what resets the connections that are open
	x.mayBeStale(north)
	x.silent(t, north, 10*time.Second)
	x.proxies[north].heal(t.Context())
	x.undone()
	x.change(t, north)
}

// halfOpen ends while the connections that are lost are still lost: the server must find that out by itself.
func halfOpen(t *testing.T, x *scene) {
	t.Helper()
	found, err := x.proxies[north].loseConnections()
	must(t, err)
	x.change(t, north)
	x.becomesStale(t, north)
	found()
	x.undone()
	x.change(t, north)
}

// wipe takes the objects of a cluster, and its resource versions, and its tokens.
func wipe(t *testing.T, x *scene) {
	t.Helper()
	next := north.next()
	next.small = true
	x.either(north, north.now, version{}, next)
	must(t, north.Wipe(t.Context()))
	must(t, north.fill(t.Context(), next))
	x.kubeconfig(t, north, nil)
	x.undone()
	x.recovered(t, soon)
	x.undone()
	x.change(t, north)
}

// restore lets a cluster go back to what it was some changes ago, and its resource versions with it.
// An API server that starts writes some things itself. Once it has come as far as it was before, nobody can tell that it was
// restored, so there must be more to lose than that.
const sinceBackup = 1000

func restore(t *testing.T, x *scene) {
	t.Helper()
	was := north.now
	must(t, north.CopyData(t.Context(), x.path("backup")))
	for range 10 {
		x.change(t, north)
	}
	north.write(t, sinceBackup)
	x.undone()
	x.recovered(t, soon)

	x.either(north, north.now, was)
	must(t, north.RestoreData(t.Context(), x.path("backup")))
	north.now = was
	x.undone()
	x.recovered(t, soon)
	x.undone()
	x.change(t, north)
}

func withoutCRDs(t *testing.T, x *scene) {
	t.Helper()
	was := north.now
	x.either(north, was, version{})
	must(t, north.DeleteCRDs(t.Context()))
	north.now = version{}
	x.undone()
	x.recovered(t, soon)
	x.either(north, version{}, was)
	must(t, north.ApplyCRDs(t.Context(), clusters.V1Beta1AndV1Alpha1))
	must(t, north.exportAll(t.Context()))
	north.now = was
	x.undone()
	x.change(t, north)
}

// revoke makes a token worthless, and then breaks the connections: those that are open may go on.
func revoke(t *testing.T, x *scene) {
	t.Helper()
	revokeTokens(t)
	x.mayBeStale(north)
	refused := x.reaches(func(n float64) bool { return n > 0 },
		"coredns_clusterset_watch_problem", "cluster", "north", "resource", "endpointslices", "reason", "unauthorized")
	within(t, limit, "the token is not accepted, which takes as long as the API server remembers that it was", func(ctx context.Context) error {
		err := refused(ctx)
		if err != nil {
			must(t, x.proxies[north].lead(hostOf(t, north)))
			x.load.more(t, 500)
		}
		return err
	})
	x.change(t, north)
	x.load.more(t, 1000)
	x.kubeconfig(t, north, with(newToken(t)))
	x.undone()
	x.change(t, north)
}

func flood(t *testing.T, x *scene) {
	t.Helper()
	outcomes := []outcome{of(nil)}
	for event := range floodAddresses {
		outcomes = append(outcomes, of([]string{floodAddress(event)}))
	}
	x.believe(func(b *belief) { b.more = map[string][]outcome{name(floodName(0)): outcomes} })
	floodFrom(t)
	const each = floodEvents / floodServices
	began := time.Now()
	errs := make(chan error, floodServices)
	for i := range floodServices {
		go func() {
			var err error
			for event := 1; event <= each && err == nil; event++ {
				err = north.UpdateSlice(t.Context(), flooding(i, event).Slice())
			}
			errs <- err
		}()
	}
	for range floodServices {
		must(t, <-errs)
	}
	x.undone()
	t.Logf("%.0f events a second", floodEvents/time.Since(began).Seconds())
	x.belief.more = map[string][]outcome{name(floodName(0)): {of([]string{floodAddress(each)})}}
	x.change(t, north)
}

func lie(t *testing.T, x *scene) {
	t.Helper()
	const garbled = 20
	l := startLiar(t, north)
	x.either(north, north.now, version{})
	x.mayBeStale(north)
	must(t, x.proxies[north].lead(l.host()))
	// A stream in which nothing happens would be nothing to spoil.
	// A server that gets garbage asks less and less often, so it is waited for twice.
	for _, enough := range []int64{garbled / 2, garbled} {
		x.stir(t, "garbage is sent", north, func(context.Context) error {
			if n := l.answers.Load(); n < enough {
				return fmt.Errorf("%d times", n)
			}
			return nil
		})
	}
	l.hostile.Store(true)
	must(t, x.proxies[north].lead(l.host()))
	x.stir(t, "addresses are rejected", north, x.reaches(func(n float64) bool { return n > 0 },
		"coredns_clusterset_rejections_total", "cluster", "north", "reason", "address"))
	x.load.more(t, 2000)
	must(t, x.proxies[north].lead(hostOf(t, north)))
	x.undone()
	x.change(t, north)
}

func reload(t *testing.T, x *scene) {
	t.Helper()
	const reloads, ttl = 20, 100
	for i := range reloads {
		must(t, x.s.WriteCorefile(x.corefile(setting{}, ttl+i)))
		must(t, x.s.Signal(syscall.SIGUSR1))
		x.load.more(t, 20)
	}
	x.undone()
	within(t, limit, "the last Corefile is used", func(ctx context.Context) error {
		m, err := x.s.Query(ctx, name(near), dns.TypeA)
		if err == nil && (len(m.Answer) == 0 || m.Answer[0].Header().Ttl != ttl+reloads-1) {
			err = fmt.Errorf("%v", m.Answer)
		}
		return err
	})
	x.change(t, north)
}

// restart kills every API server and then the server, which knows from its files what there was.
func restart(t *testing.T, x *scene) {
	t.Helper()
	for _, c := range everybody() {
		must(t, c.KillAPIServer())
	}
	x.load.more(t, 500)
	x.mayBeStale(west, north)
	x.believe(func(b *belief) { b.unsure = true })
	must(t, x.s.Restart(t.Context()))
	x.load.more(t, 2000)
	var starting sync.WaitGroup
	errs := make(chan error, len(everybody()))
	for _, c := range everybody() {
		starting.Go(func() { errs <- c.StartAPIServer(t.Context()) })
	}
	starting.Wait()
	for range everybody() {
		must(t, <-errs)
	}
	x.undone()
	x.change(t, north)
}
