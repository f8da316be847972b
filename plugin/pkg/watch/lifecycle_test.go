package watch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	mcsv1alpha1 "sigs.k8s.io/mcs-api/pkg/apis/v1alpha1"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

func startWatcher(t *testing.T, kind mcs.SourceKind, c Connection) (*Watcher, *told) {
	t.Helper()
	sink := newTold()
	spec := Spec{Kind: kind, Cluster: "east", Connection: c, Observer: sink}
	if kind == mcs.Imports {
		spec.Cluster = ""
	}
	w, err := Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	w.Subscribe(sink)
	return w, sink
}

// has waits until the sink was told so of shop/a.
func (s *told) has(t *testing.T, want string) {
	t.Helper()
	got := ""
	eventually(t, fmt.Sprintf("shop/a is %q", want), func() bool {
		s.look(func() {
			if got = sketch(s.shards[a]); got == nothing {
				got = sketchImport(s.imports[a])
			}
		})
		return got == want
	})
}

func (s *told) isSynced(t *testing.T) {
	t.Helper()
	eventually(t, "synced", func() (ok bool) {
		s.look(func() { ok = len(s.synced) == 1 })
		return ok
	})
}

// hadProblems expects exactly these, in this order.
func (s *told) hadProblems(t *testing.T, want ...string) {
	t.Helper()
	s.look(func() {
		if !slices.Equal(s.problems, want) {
			t.Errorf("Problems were %q, want %q", s.problems, want)
		}
	})
}

func TestWatcher(t *testing.T) {
	server := newAPIServer(t)
	server.set("serviceexports", export("shop", "a"))
	server.set("services", service("shop", "a", "10.0.0.1"))
	server.set("endpointslices", slice("shop", "s", "a", "10.8.0.1"))
	w, sink := startWatcher(t, mcs.Exports, server.connection())
	sink.has(t, oneIP+" s 10.8.0.1")
	sink.isSynced(t)
	server.set("services", service("shop", "a", "10.0.0.2"))
	sink.has(t, otherIP+" s 10.8.0.1")
	server.del("endpointslices", slice("shop", "s", "a", "10.8.0.1"))
	sink.has(t, otherIP)
	eventually(t, "the state is synced", func() bool { return w.Status().State == Synced })
	if st := w.Status(); st.Services != 1 || st.Endpoints != 0 || time.Since(st.LastProof) > time.Minute {
		t.Errorf("Status is %+v", st)
	}
	server.del("serviceexports", export("shop", "a"))
	sink.has(t, nothing)
	began := time.Now()
	server.set("serviceexports", export("shop", "a"))
	sink.has(t, otherIP)
	t.Logf("A new export was told %s after its event", time.Since(began))
	w.Unsubscribe(sink)
	sink.hadProblems(t)
}

func TestNamespaceWatcher(t *testing.T) {
	server := newAPIServer(t)
	server.set("namespaces", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	_, sink := startWatcher(t, mcs.Namespaces, server.connection())
	sink.isSynced(t)
	server.set("namespaces", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "more"}})
	eventually(t, "two namespaces", func() (ok bool) {
		sink.look(func() { ok = sink.namespaces["shop"] && sink.namespaces["more"] })
		return ok
	})
}

func TestImportWatcher(t *testing.T) {
	server := newAPIServer(t)
	server.set("serviceimports", serviceImport("a", "Headless"))
	server.set("endpointslices", importedSlice("s", "a", "west", "10.9.0.1"))
	server.set("endpointslices", slice("shop", "own", "a", "10.8.0.1")) // not asked for
	w, sink := startWatcher(t, mcs.Imports, server.connection())
	sink.has(t, "Headless s@west 10.9.0.1")
	if w.spec.Name() != "serviceimports" {
		t.Errorf("It is called %q", w.spec.Name())
	}
	if len(sink.left) != 0 {
		t.Errorf("Something was left out: %v", sink.left)
	}
}

func TestV1alpha1Only(t *testing.T) {
	server := newAPIServer(t)
	server.versions = []string{"v1alpha1"}
	server.set("serviceexports", &mcsv1alpha1.ServiceExport{ObjectMeta: meta("shop", "a")})
	server.set("services", service("shop", "a", "10.0.0.1"))
	_, sink := startWatcher(t, mcs.Exports, server.connection())
	sink.has(t, oneIP)
}

func TestCRDsThatComeAndGo(t *testing.T) {
	server := newAPIServer(t)
	server.versions = nil
	server.set("services", service("shop", "a", "10.0.0.1"))
	w, sink := startWatcher(t, mcs.Exports, server.connection())
	// The API server says that there can be no export: nothing is known to be there.
	sink.isSynced(t)
	sink.hadProblems(t, "discovery not_served")
	if w.Status().State != Synced || w.Status().Services != 0 {
		t.Errorf("Status is %+v", w.Status())
	}
	server.change(func() { server.versions = []string{"v1beta1"} })
	server.set("serviceexports", export("shop", "a"))
	sink.has(t, oneIP)
	sink.hadProblems(t, "discovery not_served", "discovery fine")
	// And they go again.
	server.change(func() {
		server.versions = nil
		server.fail["serviceexports"] = http.StatusNotFound
	})
	sink.has(t, nothing)
	eventually(t, "the problem is told", func() (ok bool) {
		sink.look(func() { ok = slices.Contains(sink.problems[2:], "discovery not_served") })
		return ok
	})
	server.change(func() {
		server.versions = []string{"v1beta1"}
		delete(server.fail, "serviceexports")
	})
	sink.has(t, oneIP)
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		status   int
		resource string
		want     Problem
	}{
		{http.StatusForbidden, "serviceexports", Forbidden},
		{http.StatusForbidden, "endpointslices", Forbidden},
		{http.StatusUnauthorized, "services", Unauthorized},
		{http.StatusInternalServerError, "services", Unreachable},
	} {
		t.Run(fmt.Sprintf("%d for %s is reported once, retried, and recovers", tc.status, tc.resource), func(t *testing.T) {
			t.Parallel()
			server := newAPIServer(t)
			server.fail[tc.resource] = tc.status
			server.set("serviceexports", export("shop", "a"))
			server.set("services", service("shop", "a", "10.0.0.1"))
			w, sink := startWatcher(t, mcs.Exports, server.connection())
			eventually(t, "three tries", func() bool { return server.count(tc.resource) >= 3 })
			sink.hadProblems(t, tc.resource+" "+string(tc.want))
			if sink.calls != 0 || w.Status().State != Syncing {
				t.Error("Something was told before everything was listed")
			}
			server.change(func() { delete(server.fail, tc.resource) })
			sink.has(t, oneIP)
			sink.hadProblems(t, tc.resource+" "+string(tc.want), tc.resource+" fine")
		})
	}
}

func TestDeadPort(t *testing.T) {
	c, err := NewConnection(&rest.Config{Host: "https://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []mcs.SourceKind{mcs.Exports, mcs.Namespaces, mcs.Imports} {
		t.Run(kind.String(), func(t *testing.T) {
			began := time.Now()
			w, sink := startWatcher(t, kind, c)
			if took := time.Since(began); took > time.Second {
				t.Errorf("Start took %s", took)
			}
			eventually(t, "the problem is told", func() (ok bool) {
				sink.look(func() { ok = len(sink.problems) > 0 })
				return ok
			})
			if st := w.Status(); st.State != Syncing || !st.LastProof.IsZero() {
				t.Errorf("Status is %+v", st)
			}
			began = time.Now()
			w.Close()
			if took := time.Since(began); took > time.Second {
				t.Errorf("Close took %s", took)
			}
			if sink.calls != 0 {
				t.Error("Something was told")
			}
		})
	}
}

func TestCloseWhileFetching(t *testing.T) {
	server := newAPIServer(t)
	w, sink := startWatcher(t, mcs.Exports, server.connection())
	sink.isSynced(t)
	server.change(func() { server.fail["services"] = http.StatusInternalServerError })
	server.set("serviceexports", export("shop", "a"))
	before := server.count("services")
	eventually(t, "two tries to fetch", func() bool { return server.count("services") >= before+2 })
	w.Close() // and goleak looks
}

func TestServerThatComesBack(t *testing.T) {
	server := newAPIServer(t)
	server.set("serviceexports", export("shop", "a"))
	server.set("services", service("shop", "a", "10.0.0.1"))
	w, sink := startWatcher(t, mcs.Exports, server.connection())
	sink.has(t, oneIP)
	addr := server.stop()
	eventually(t, "the problem is told", func() (ok bool) {
		sink.look(func() { ok = len(sink.problems) > 0 })
		return ok
	})
	if w.Status().State != Synced || w.Status().Services != 1 {
		t.Errorf("What is known must be kept: %+v", w.Status())
	}
	server.set("services", service("shop", "a", "10.0.0.2"))
	server.start(addr)
	sink.has(t, otherIP)
	sink.look(func() {
		if len(sink.synced) != 1 {
			t.Errorf("Synced was told %d times", len(sink.synced))
		}
	})
}

// scriptedFeed is a feed of which only the proof of life matters.
type scriptedFeed struct {
	feed
	live  bool
	reply func() error
	asked []time.Duration // since the start
	began time.Time
}

func (f *scriptedFeed) synced() bool { return f.live }

func (*scriptedFeed) wasRestored() bool { return false }

func (f *scriptedFeed) ask(context.Context) error {
	f.asked = append(f.asked, time.Since(f.began).Round(time.Second))
	return f.reply()
}

func TestProofOfLife(t *testing.T) {
	fails := func() error { return errModel }
	answers := func() error { return nil }
	seconds := func(s ...int) []time.Duration {
		var out []time.Duration
		for _, n := range s {
			out = append(out, time.Duration(n)*time.Second)
		}
		return out
	}
	for _, tc := range []struct {
		name   string
		reply  func() error
		events []time.Duration
		until  int // seconds
		asked  []time.Duration
		states []State
	}{
		{"events are proof enough: nothing is asked", answers, seconds(10, 20, 30, 40, 50, 60), 61, nil, []State{Synced}},
		{"after 15 s without one it asks, and again 15 s after each reply", answers, nil, 61, seconds(15, 30, 45, 60), []State{Synced}},
		{"without a reply it asks every 10 s, and the source is stale after 60 s", fails, nil, 70, seconds(15, 25, 35, 45, 55, 65), []State{Synced, Stale}},
		{"one event makes a stale source synced again, and ends the round", fails, seconds(63, 64), 80, seconds(15, 25, 35, 45, 55), []State{Synced, Stale, Synced}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sink := newTold()
				f := &scriptedFeed{live: true, reply: tc.reply, began: time.Now()}
				w := &Watcher{spec: Spec{Cluster: "east", Observer: sink, StaleAfter: DefaultStaleAfter}, feed: f, restart: make(chan struct{}, 1)}
				w.life.proof()
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(tc.until)*time.Second+time.Second/2)
				defer cancel()
				go func() {
					for _, at := range tc.events {
						time.Sleep(at - time.Since(f.began))
						w.life.proof()
					}
				}()
				go w.watchClock(ctx)
				w.tend(ctx)
				<-ctx.Done()
				if !slices.Equal(f.asked, tc.asked) {
					t.Errorf("Asked after %v, want %v", f.asked, tc.asked)
				}
				if !slices.Equal(sink.states, tc.states) {
					t.Errorf("States were %v, want %v", sink.states, tc.states)
				}
				time.Sleep(3 * time.Minute) // lets the events end
			})
		})
	}
}

func TestTendReturns(t *testing.T) {
	for _, tc := range []struct {
		name string
		play func(w *Watcher, cancel func())
		want int // seconds
		more int // likewise, by chance
	}{
		{"when a resource has gone", func(w *Watcher, _ func()) {
			time.Sleep(5 * time.Second)
			w.restart <- struct{}{}
		}, 5, 0},
		{"when the watcher is closed", func(_ *Watcher, cancel func()) {
			time.Sleep(7 * time.Second)
			cancel()
		}, 7, 0},
		{"when the API server answers again after it did not", func(*Watcher, func()) {}, 35, 5},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &scriptedFeed{live: true, began: time.Now()}
				f.reply = func() error {
					if time.Since(f.began) > 30*time.Second {
						return nil
					}
					return errModel
				}
				w := &Watcher{spec: Spec{Observer: newTold()}, feed: f, restart: make(chan struct{}, 1)}
				w.life.proof()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go tc.play(w, cancel)
				began := time.Now()
				w.tend(ctx)
				least := time.Duration(tc.want) * time.Second
				if took := time.Since(began); took < least || took > least+time.Duration(tc.more)*time.Second {
					t.Errorf("It returned after %s, want %d s and at most %d more", took, tc.want, tc.more)
				}
			})
		})
	}
}

func TestRetryIsBounded(t *testing.T) {
	b := retry()
	longest := time.Duration(0)
	for i := range 50 {
		d := b.Step()
		if i == 0 && (d < retryFirst || d > 2*retryFirst) {
			t.Errorf("The first wait is %s", d)
		}
		longest = max(longest, d)
		if i > 10 && d < retryAtMost {
			t.Errorf("Wait %d is only %s", i, d)
		}
	}
	if longest > 2*retryAtMost {
		t.Errorf("It waits %s", longest)
	}
}

func TestProblemOf(t *testing.T) {
	resource := schema.GroupResource{Resource: "services"}
	for _, tc := range []struct {
		err  error
		want Problem
	}{
		{nil, NoProblem},
		{errNotServed, NotServed},
		{fmt.Errorf("wrapped: %w", errNotServed), NotServed},
		{apierrors.NewNotFound(resource, ""), NotServed},
		{apierrors.NewForbidden(resource, "", errModel), Forbidden},
		{apierrors.NewUnauthorized("x"), Unauthorized},
		{apierrors.NewInternalError(errModel), Unreachable},
		{context.DeadlineExceeded, Unreachable},
		{errors.New("connection refused"), Unreachable},
	} {
		if got := problemOf(tc.err); got != tc.want {
			t.Errorf("problemOf(%v) = %q, want %q", tc.err, got, tc.want)
		}
		if tc.want != NoProblem && !slices.Contains(Problems(), tc.want) {
			t.Errorf("Problems lacks %q", tc.want)
		}
	}
	sink := newTold()
	w := &Watcher{spec: Spec{Observer: sink}}
	for _, err := range []error{nil, errModel, errModel, apierrors.NewResourceExpired("x"), &apierrors.StatusError{ErrStatus: metav1.Status{Reason: metav1.StatusReasonGone}}, errModel, nil, nil} {
		w.problems.report(w, "services", err)
	}
	sink.hadProblems(t, "services unreachable", "services fine")

	w.problems.report(w, "endpointslices", errNotServed)
	w.problems.hold("services", true)
	w.problems.hold("endpointslices", true)
	w.problems.hold("services", false)
	wrong, held := w.problems.now()
	if !maps.Equal(wrong, map[string]Problem{"endpointslices": NotServed}) || !slices.Equal(held, []string{"endpointslices"}) {
		t.Errorf("The problems are %v, and the lists that are not believed %v", wrong, held)
	}
}

func TestRegion(t *testing.T) {
	node := func(name, region string) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"other": "x"}}}
		if region != "" {
			n.Labels[corev1.LabelTopologyRegion] = region
		}
		return n
	}
	for _, tc := range []struct {
		name  string
		nodes []*corev1.Node
		want  string
	}{
		{"no nodes", nil, ""},
		{"nodes without the label", []*corev1.Node{node("a", "")}, ""},
		{"the one that most have", []*corev1.Node{node("a", "x"), node("b", "y"), node("c", "y"), node("d", "")}, "y"},
		{"of two that as many have, the first by name", []*corev1.Node{node("a", "y"), node("b", "x")}, "x"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server := newAPIServer(t)
			for _, n := range tc.nodes {
				server.set("nodes", n)
			}
			got, err := server.connection().Region(t.Context())
			if err != nil || got != tc.want {
				t.Errorf("Got %q, %v, want %q", got, err, tc.want)
			}
		})
	}
	server := newAPIServer(t)
	server.fail["nodes"] = http.StatusForbidden
	if got, err := server.connection().Region(t.Context()); err == nil || got != "" {
		t.Errorf("Forbidden: got %q, %v", got, err)
	}
}

func TestServiceInFront(t *testing.T) {
	server := newAPIServer(t)
	udp := func(s *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
		s.Ports = []discoveryv1.EndpointPort{{Protocol: new(corev1.ProtocolUDP), Port: new(int32(53))}}
		return s
	}
	server.set("services", service("kube-system", "dns", "10.96.0.10"))
	server.set("services", service("kube-system", "metrics", "10.96.0.11"))
	server.set("endpointslices", udp(slice("kube-system", "dns-1", "dns", "10.8.0.1", "10.8.0.2")))
	server.set("endpointslices", slice("kube-system", "metrics-1", "metrics", "10.8.0.1"))
	server.set("endpointslices", udp(slice("other", "dns-1", "dns", "10.8.0.1")))
	for _, tc := range []struct {
		name, self string
		want       string
	}{
		{"the Service that sends UDP to us", "10.8.0.2", "[10.96.0.10]"},
		{"no Service does", "10.8.0.9", "[]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := server.connection().ServiceInFront(t.Context(), "kube-system", addrs(tc.self))
			if err != nil || fmt.Sprint(got) != tc.want {
				t.Errorf("Got %v, %v, want %s", got, err, tc.want)
			}
		})
	}
}

const kubeconfig = `apiVersion: v1
kind: Config
current-context: one
clusters:
- {name: c, cluster: {server: "https://127.0.0.1:1"}}
users:
- {name: u, user: {token: TOKEN}}
contexts:
- {name: one, context: {cluster: c, user: u}}
- {name: broken, context: {cluster: none, user: u}}
`

func TestLoadKubeconfig(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good", kubeconfig)
	for _, tc := range []struct{ name, path, context, err string }{
		{"the current context", good, "", ""},
		{"a context by name", good, "one", ""},
		{"a context that is not there", good, "three", `has no context "three"`},
		{"a context whose cluster is not there", good, "broken", "good"},
		{"a file that is not there", filepath.Join(dir, "none"), "", "no such file"},
		{"a folder", dir, "", "directory"},
		{"a file that is no kubeconfig", file("bad", "{"), "", "bad"},
		{"a file without a current context", file("empty", strings.Replace(kubeconfig, "current-context: one", "", 1)), "", "name the context after the file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := LoadKubeconfig(tc.path, tc.context)
			switch {
			case tc.err == "" && (err != nil || c.Key == ""):
				t.Errorf("Got key %q, %v", c.Key, err)
			case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
				t.Errorf("The error is %v, want one that says %q", err, tc.err)
			}
		})
	}
	one, _ := LoadKubeconfig(good, "one")
	again, _ := LoadKubeconfig(file("good", strings.Replace(kubeconfig, "TOKEN", "ANOTHER", 1)), "one")
	other, _ := LoadKubeconfig(good, "")
	if one.Key != again.Key || one.Key == other.Key {
		t.Errorf("Keys are %s, %s and %s: what is written about the first two is the same, the third names no context", one.Key, again.Key, other.Key)
	}
	if _, err := InCluster(); err == nil || !strings.Contains(err.Error(), "KUBECONFIG") {
		t.Errorf("Outside of a cluster the error is %v", err)
	}
}
