package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/test/server"
)

func TestServerBlocksShareOneListAndWatchPerMemberAndResource(t *testing.T) {
	export(t, east, "blocks-east", "10.1.0.1")
	export(t, west, "blocks-west", "10.2.0.1")
	marks := []audit{mark(t, east), mark(t, west)}
	of := stanza([]cluster{east, west})
	s := run(t, corefile(of, "view six {\nexpr type() == 'AAAA'\n}")+
		corefile(of)+
		"clusterset.local:{{.Port \"zone\"}} {\nbind 127.0.0.1\nerrors\n"+of+"}\n")
	ready(t, s)

	for _, service := range []string{"blocks-east", "blocks-west"} {
		within(t, limit, service+" in the plain block", answers(s, name(service), 1))
		m, err := s.Query(t.Context(), name(service), dns.TypeAAAA)
		if must(t, err); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 0 || len(m.Ns) != 1 {
			t.Errorf("%s AAAA in the view: %v, want NODATA", service, m)
		}
		m, err = dns.Exchange((&dns.Msg{}).SetQuestion(name(service), dns.TypeA), "127.0.0.1:"+strconv.Itoa(s.Port("zone")))
		if must(t, err); len(m.Answer) != 1 {
			t.Errorf("%s in the block of the zone: %v, want one record", service, m)
		}
	}
	settled(t, marks[0], readsOfLocal)
	settled(t, marks[1], readsOfMember)
}

// What is asked of the local cluster and of another member, each once.
const (
	readsOfLocal = "map[list endpointslices:1 list namespaces:1 list servicecidrs:1 list serviceexports:1 list services:1 " +
		"watch endpointslices:1 watch namespaces:1 watch servicecidrs:1 watch serviceexports:1 watch services:1]"
	readsOfMember = "map[list endpointslices:1 list serviceexports:1 list services:1 watch endpointslices:1 watch serviceexports:1 watch services:1]"
)

// settled waits until just this has been read since a mark: a server answers before the last of its watches is open.
func settled(t *testing.T, since audit, reads string) {
	t.Helper()
	within(t, limit, "one list and one watch per resource", func(context.Context) error {
		if got := fmt.Sprint(since.reads(t)); got != reads {
			return fmt.Errorf("%s: %s, want %s", since.path, got, reads)
		}
		return nil
	})
}

func TestGoodReloadUnderLoad(t *testing.T) {
	const reloads = 20
	export(t, east, "reload-east", "10.1.0.1", "10.1.0.2")
	export(t, west, "reload-west", "10.2.0.1")
	with := func(ttl int) string { return corefile(stanza([]cluster{east, west}, "ttl "+strconv.Itoa(ttl))) }
	started := []audit{mark(t, east), mark(t, west)}
	s := run(t, with(10))
	ready(t, s)
	within(t, limit, "reload-west", answers(s, name("reload-west"), 1))
	settled(t, started[0], readsOfLocal)
	settled(t, started[1], readsOfMember)
	marks := []audit{mark(t, east), mark(t, west)}

	questions := []question{has(name("reload-east"), 2), has(name("reload-west"), 1), denied(name("nobody"))}
	l, r := ask(t, s, 0, questions...), watchReadiness(t, s)
	for i := range reloads {
		before := l.answered()
		within(t, limit, "load before the reload", more(l, before))
		must(t, s.Reload(t.Context(), with(11+i)))
		m, err := s.Query(t.Context(), name("reload-west"), dns.TypeA)
		if must(t, err); len(m.Answer) != 1 || m.Answer[0].Header().Ttl != uint32(11+i) {
			t.Errorf("after reload %d: %v, want the TTL %d", i, m.Answer, 11+i)
		}
		within(t, limit, "load after the reload", more(l, l.answered()))
	}
	l.end()
	r.end()
	t.Logf("%d reloads, %d queries answered meanwhile", reloads, l.good)
	l.check(t)
	r.check(t)
	for _, m := range marks {
		if got := m.reads(t); len(got) != 0 {
			t.Errorf("requests because of a reload: %v, want none", got)
		}
	}
}

// more checks that a load has got a hundred answers more than before.
func more(l *load, before int) func(context.Context) error {
	return func(context.Context) error {
		if got := l.answered(); got < before+100 {
			return fmt.Errorf("%d answers", got-before)
		}
		return nil
	}
}

func TestFailingReloadsLeaveNothingBehind(t *testing.T) {
	const reloads = 100
	export(t, east, "failing-east", "10.1.0.1")
	export(t, west, "failing-west", "10.2.0.1")
	export(t, north, "failing-north", "10.3.0.1")
	started := []audit{mark(t, east), mark(t, west)}
	s := run(t, corefile(stanza([]cluster{east, west}), "pprof 127.0.0.1:{{.Port \"pprof\"}}"))
	ready(t, s)
	within(t, limit, "failing-east", answers(s, name("failing-east"), 1))
	within(t, limit, "failing-west", answers(s, name("failing-west"), 1))
	settled(t, started[0], readsOfLocal)
	settled(t, started[1], readsOfMember)
	var goroutinesBefore counted
	within(t, limit, "every watch is read", func(context.Context) error {
		goroutinesBefore = goroutines(t, s)
		if open := started[0].watching(t) + started[1].watching(t); goroutinesBefore.watches != open {
			return fmt.Errorf("%d of %d", goroutinesBefore.watches, open)
		}
		return nil
	})
	marks := []audit{mark(t, east), mark(t, west), mark(t, north)}

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	// The new instance begins to watch another cluster, and fails when it binds.
	unbound := fmt.Sprintf(".:%d {\nbind 127.0.0.1\n%s", taken.Addr().(*net.TCPAddr).Port, stanza([]cluster{east, west, north}))
	gate := newGate(t)
	kinds := []struct{ corefile, want string }{
		{unbound + "}\n", "address already in use"},
		{corefile(stanza([]cluster{east}, "nonsense")), "nonsense"},
		{unbound + gate.plugin() + "}\n", "address already in use"},
		{corefile("nosuchplugin"), "nosuchplugin"},
	}
	begin := time.Now()
	for i := range reloads {
		k := kinds[i%len(kinds)]
		since := mark(t, north)
		outcome := make(chan error, 1)
		go func() { outcome <- s.Reload(t.Context(), k.corefile) }()
		if strings.Contains(k.corefile, gate.plugin()) {
			within(t, limit, "north is watched by the new instance", watched(t, since))
			within(t, limit, "the new instance waits at the gate", gate.open)
		}
		if err := <-outcome; err == nil || !strings.Contains(err.Error(), k.want) {
			t.Fatalf("reload %d: %v, want an error with %q", i, err, k.want)
		}
	}
	t.Logf("%d failing reloads in %s", reloads, time.Since(begin).Round(time.Millisecond))

	took := within(t, limit, "goroutines as before", func(context.Context) error {
		now := goroutines(t, s)
		if now.ours > goroutinesBefore.ours || now.all > goroutinesBefore.all+5 {
			return fmt.Errorf("%d goroutines (%d of the plugin), before %d (%d)", now.all, now.ours, goroutinesBefore.all, goroutinesBefore.ours)
		}
		return nil
	})
	t.Logf("goroutines: %+v before, %+v %s after", goroutinesBefore, goroutines(t, s), took.Round(time.Millisecond))
	within(t, limit, "watches of north closed", func(context.Context) error {
		if n := marks[2].watching(t); n != 0 {
			return fmt.Errorf("%d watches are open", n)
		}
		return nil
	})
	if n := marks[2].reads(t)["watch serviceexports"]; n < reloads/len(kinds) {
		t.Errorf("failing instances watched north %d times, want at least %d", n, reloads/len(kinds))
	}
	for _, m := range marks[:2] {
		if got := m.reads(t); len(got) != 0 {
			t.Errorf("requests to clusters that were watched already: %v, want none", got)
		}
	}
	now(t, answers(s, name("failing-east"), 1))
	now(t, rcode(s, name("failing-north"), dns.RcodeNameError))
	must(t, s.Reload(t.Context(), corefile(stanza([]cluster{east, west, north}))))
	within(t, limit, "failing-north after a good reload", answers(s, name("failing-north"), 1))
}

// watched checks that the ServiceExports of a cluster are watched.
func watched(t *testing.T, since audit) func(context.Context) error {
	t.Helper()
	return func(context.Context) error {
		if since.reads(t)["watch serviceexports"] == 0 {
			return errors.New("nobody watches ServiceExports")
		}
		return nil
	}
}

// gate holds a new instance in its OnStartup, after the one of our plugin, until it is opened: there *hosts* reads its
// file, which is a pipe.
type gate struct{ path string }

func newGate(t *testing.T) gate {
	t.Helper()
	g := gate{filepath.Join(t.TempDir(), "gate")}
	must(t, syscall.Mkfifo(g.path, 0o600))
	return g
}

func (g gate) plugin() string { return "hosts " + g.path + " {\nreload 0\n}\n" }

// open lets the instance at the gate go on. It fails while there is none.
func (g gate) open(context.Context) error {
	f, err := os.OpenFile(g.path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// counted are numbers of goroutines: all, those with our code on their stack, and those in which client-go reads a
// watch.
type counted struct{ all, ours, watches int }

func goroutines(t *testing.T, s *server.Server) counted {
	t.Helper()
	url := "http://127.0.0.1:" + strconv.Itoa(s.Port("pprof")) + "/debug/pprof/goroutine?debug=2"
	_, text, err := fetch(t.Context(), url)
	must(t, err)
	var c counted
	for stack := range strings.SplitSeq(text, "\n\n") {
		c.all++
		if strings.Contains(stack, "clusterset-dns/plugin/") {
			c.ours++
		}
		if strings.Contains(stack, "StreamWatcher).receive(") {
			c.watches++
		}
	}
	if c.ours == 0 {
		t.Fatal("none of the goroutines is of the plugin: the count counts nothing")
	}
	return c
}

func TestShutdownUnderLoad(t *testing.T) {
	const lameduck = 2 * time.Second
	export(t, east, "shutdown-east", "10.1.0.1")
	export(t, west, "shutdown-west", "10.2.0.1")
	s := run(t, corefile(stanza([]cluster{east, west}), fmt.Sprintf("health {{.Health}} {\nlameduck %s\n}", lameduck)))
	ready(t, s)
	l := ask(t, s, 0, has(name("shutdown-east"), 1), has(name("shutdown-west"), 1), denied(name("nobody")))
	within(t, limit, "load", more(l, 0))

	begin := time.Now()
	before := l.answered()
	must(t, s.Signal(syscall.SIGTERM))
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	must(t, s.Wait(ctx))
	took := time.Since(begin)
	l.end()

	answered := l.lastGood.Sub(begin)
	t.Logf("SIGTERM: last answer after %s, %d answers meanwhile, gone after %s",
		answered.Round(time.Millisecond), l.good-before, took.Round(time.Millisecond))
	for what, n := range l.wrong {
		t.Errorf("wrong answers: %d times %s", n, what)
	}
	if answered < lameduck-100*time.Millisecond {
		t.Errorf("the last answer came %s after SIGTERM, want about the lameduck time %s", answered, lameduck)
	}
	for _, sent := range l.lost {
		if early := l.lastGood.Sub(sent); early > 100*time.Millisecond {
			t.Errorf("a query was lost %s before the last answer", early)
		}
	}
}

// said counts the lines of the log that match.
func said(s *server.Server, pattern string) int {
	return len(regexp.MustCompile(pattern).FindAllString(s.Log(), -1))
}

// once checks that the log has exactly one line that matches.
func once(s *server.Server, pattern string) func(context.Context) error {
	return func(context.Context) error {
		if n := said(s, pattern); n != 1 {
			return errors.New(strconv.Itoa(n) + " lines of the log match " + pattern)
		}
		return nil
	}
}
