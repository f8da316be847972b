// Jitter is drawn from the old global source, by the API machinery for itself and for us. In a simulation it begins with the seed.
//
//go:debug randseednop=0

package clusterset

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	oldrand "math/rand" //nolint:depguard // the source of jitter
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"
	"github.com/miekg/dns"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/rest"

	"github.com/clusterset-dns/clusterset-dns/internal/model"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/lease"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/state"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch/watchtest"
)

// simulation is one schedule: clusters whose API servers lose, delay and repeat, a server that watches them and is
// reloaded and restarted, and a client that asks. Everything that happens follows from the seed.
type simulation struct {
	t          testing.TB
	began      time.Time
	seed       uint64
	rng        *rand.Rand
	kubeconfig string
	clusters   []*simCluster
	setup      simSetup
	server     *simServer
	servers    int
	faults     []simFault // that last
	// folder is the one of the state on disk, "" for none; ended is what the last process knew when it ended.
	folder  string
	ended   []*simKnown
	killed  bool
	damaged map[*simCluster]string // the resource whose file is
	// verbose writes down what happens.
	verbose bool
	trace   hash.Hash
	log     []string
	simCounts
	err error
}

// simCounts are what a schedule has to show.
type simCounts struct{ schedules, events, faults, answers, certain int }

func (c *simCounts) add(o simCounts) {
	c.schedules += o.schedules
	c.events, c.faults, c.answers, c.certain = c.events+o.events, c.faults+o.faults, c.answers+o.answers, c.certain+o.certain
}

// What every schedule has at least.
const (
	simEvents  = 100
	simFaults  = 3
	simAnswers = 200
)

// simFault is a fault that ends.
type simFault struct {
	cluster *simCluster
	until   time.Time
	end     func()
	// whole is set if it must not end before.
	whole bool
}

// simSetup is what the Corefile says.
type simSetup struct {
	members          []simMember
	prefer           string
	all, ignoreEmpty bool
	// stale and expire are 0 where nothing is written.
	stale, expire time.Duration
}

type simMember struct {
	cluster *simCluster
	address string
	region  string
	weight  int // -1 for none
	// login changes the connection.
	login int
	// allow and namespaces restrict the member.
	allow, namespaces []string
}

// simServer is a running server: what it holds, and what it may know.
type simServer struct {
	tenant  *lease.Tenant
	key     string
	handler *Clusterset
	config  *model.Config
	known   []*simKnown // by member
}

// simResult is the outcome of a schedule.
type simResult struct {
	simCounts
	digest string
	err    error
	log    []string
}

// simulate runs one schedule in a bubble of its own.
func simulate(t *testing.T, kubeconfig string, seed uint64, verbose bool) (out simResult) {
	t.Helper()
	oldrand.Seed(int64(seed)) //nolint:gosec,staticcheck // what draws jitter has no other source that could be set
	synctest.Test(t, func(t *testing.T) {
		s := &simulation{
			t: t, began: time.Now(), seed: seed, rng: rand.New(rand.NewPCG(seed, 0x636c7573746572)), kubeconfig: kubeconfig, verbose: verbose, trace: sha256.New(),
		}
		process = newStore()
		s.schedules = 1
		s.run()
		s.stop()
		out = simResult{s.simCounts, fmt.Sprintf("%x", s.trace.Sum(nil)[:8]), s.err, s.log}
	})
	return out
}

// note writes a line of the schedule: what follows from the seed alone.
func (s *simulation) note(format string, args ...any) {
	line := fmt.Sprintf("%8.3f ", time.Since(s.began).Seconds()) + fmt.Sprintf(format, args...)
	_, _ = io.WriteString(s.trace, line+"\n")
	s.logf("%s", line)
}

func (s *simulation) logf(format string, args ...any) {
	if s.verbose {
		s.log = append(s.log, fmt.Sprintf(format, args...))
	}
}

func (s *simulation) fail(err error) {
	if s.err == nil {
		s.err = err
		s.note("FAILED: %v", err)
	}
}

func (s *simulation) chance(percent int) bool { return s.rng.IntN(100) < percent }

func (s *simulation) run() {
	for i, id := range []string{"east", "west.eu", "north", "south"} {
		s.clusters = append(s.clusters, newSimCluster(i, id, rand.New(rand.NewPCG(s.seed, uint64(i))), i == 0, (s.seed+uint64(i))%4 == 0)) //nolint:gosec // no secret
	}
	s.setup = s.newSetup()
	if s.chance(30) {
		s.folder = s.newFolder()
	}
	if s.chance(50) { // some API servers are not there at the start
		s.fault()
	}
	s.start()
	for round := 0; s.err == nil && (round < 3 || s.events < simEvents || s.simCounts.faults < simFaults || s.answers < simAnswers); round++ {
		for range 25 + s.rng.IntN(20) {
			s.step()
		}
		s.quiet()
		if s.chance(50) {
			s.cold()
		}
	}
}

// step is a bit of turbulence.
func (s *simulation) step() {
	if s.err != nil {
		return
	}
	switch n := s.rng.IntN(100); {
	case n < 75:
		for range 1 + s.rng.IntN(3) {
			c := pick(s.rng, s.clusters)
			s.events++
			s.note("%s: %s", c.id, c.mutate())
		}
	case n < 88:
		s.fault()
	case n < 91:
		s.reload()
	case n < 93:
		s.restart()
	default:
		s.pass(time.Duration(s.rng.IntN(8)) * time.Second)
	}
	s.pass(time.Duration(s.rng.IntN(1500)) * time.Millisecond)
	for range 1 + s.rng.IntN(3) {
		s.ask(s.question())
	}
}

// pass lets time pass, and faults end.
func (s *simulation) pass(d time.Duration) {
	for until := time.Now().Add(d); ; {
		next := min(time.Until(until), simLook)
		at := slices.IndexFunc(s.faults, func(f simFault) bool { return time.Until(f.until) <= next })
		for i, f := range s.faults {
			if at >= 0 && f.until.Before(s.faults[at].until) {
				at = i
			}
		}
		if at >= 0 {
			f := s.faults[at]
			s.faults = slices.Delete(s.faults, at, at+1)
			time.Sleep(time.Until(f.until))
			f.end()
		} else {
			time.Sleep(next)
		}
		s.look()
		if at < 0 && next < simLook {
			return
		}
	}
}

// simLook is the longest time between two looks at what is known.
const simLook = 3 * time.Second

func (s *simulation) look() {
	synctest.Wait()
	if s.server != nil {
		for _, k := range s.server.known {
			k.look()
		}
	}
}

// lasting begins a fault that ends by itself.
func (s *simulation) lasting(c *simCluster, what string, d time.Duration, begin, end func(*watchtest.Weather)) {
	s.note("%s: %s for %s", c.id, what, d)
	c.api.SetWeather(begin)
	s.faults = append(s.faults, simFault{cluster: c, until: time.Now().Add(d), end: func() {
		s.note("%s: no more %s", c.id, what)
		c.api.SetWeather(end)
	}})
}

// fault makes something go wrong.
func (s *simulation) fault() {
	s.simCounts.faults++
	c := pick(s.rng, s.clusters)
	long := time.Duration(1+s.rng.IntN(20)) * time.Second
	if s.chance(15) {
		long += time.Duration(s.rng.IntN(100)) * time.Second
	}
	switch s.rng.IntN(18) {
	case 0:
		s.lasting(c, "refused connections", long, func(w *watchtest.Weather) { w.Refuse++ }, func(w *watchtest.Weather) { w.Refuse-- })
		c.api.Drop(syscall.ECONNRESET)
	case 1:
		s.lasting(c, "hanging", long, func(w *watchtest.Weather) { w.Hang++ }, func(w *watchtest.Weather) { w.Hang-- })
	case 2:
		code := pick(s.rng, []int{401, 403, 429, 500, 503})
		s.lasting(c, fmt.Sprint("status ", code), long, func(w *watchtest.Weather) { w.Status = code }, func(w *watchtest.Weather) { w.Status = 0 })
		if s.chance(70) {
			c.api.Drop(io.EOF)
		}
	case 3:
		d := time.Duration(s.rng.IntN(4000)) * time.Millisecond
		s.lasting(c, fmt.Sprint("latency of ", d), long, func(w *watchtest.Weather) { w.Latency = d }, func(w *watchtest.Weather) { w.Latency = 0 })
		if s.chance(50) {
			c.api.Drop(io.EOF)
		}
	case 4, 5, 6:
		lag, repeat, swap := time.Duration(1+s.rng.IntN(6000))*time.Millisecond, s.rng.IntN(60), s.rng.IntN(60)
		s.lasting(c, fmt.Sprintf("lag of %s, %d %% twice, %d %% swapped", lag, repeat, swap), long,
			func(w *watchtest.Weather) { w.Lag, w.Repeat, w.Swap = lag, repeat, swap },
			func(w *watchtest.Weather) { w.Lag, w.Repeat, w.Swap = 0, 0, 0 })
	case 7, 8:
		err := pick(s.rng, []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET})
		s.note("%s: streams end: %v", c.id, err)
		c.api.Drop(err)
	case 9:
		resource := pick(s.rng, exportResources)
		s.note("%s: the stream of %s has expired", c.id, resource)
		c.api.Expire(resource)
	case 10:
		s.note("%s: history is compacted, streams end", c.id)
		c.api.Drop(io.EOF)
		for range s.rng.IntN(5) {
			s.events++
			s.note("%s: unseen: %s", c.id, c.mutate())
		}
		c.api.Compact()
	case 11:
		if !c.serves() {
			return
		}
		s.note("%s: the CRDs go", c.id)
		c.serve(false)
		s.faults = append(s.faults, simFault{cluster: c, until: time.Now().Add(long), end: func() {
			s.note("%s: the CRDs are back", c.id)
			c.serve(true)
		}})
	case 12:
		s.note("%s: backup", c.id)
		c.backup()
	case 13:
		if !c.restore() {
			return
		}
		down := time.Duration(35+s.rng.IntN(40)) * time.Second
		s.lasting(c, "restored from a backup, refused connections", down, func(w *watchtest.Weather) { w.Refuse++ }, func(w *watchtest.Weather) { w.Refuse-- })
		s.faults[len(s.faults)-1].whole = true
	case 14:
		behind := time.Duration(s.rng.IntN(10)) * time.Second
		s.note("%s: lists are up to %s old", c.id, behind)
		c.api.SetWeather(func(w *watchtest.Weather) { w.Behind = behind })
		c.api.Drop(io.EOF)
	case 15:
		s.collapse(c)
	case 16:
		s.away(s.clusters[1+s.rng.IntN(len(s.clusters)-1)])
	case 17:
		d := time.Duration(20+s.rng.IntN(100)) * time.Second
		s.note("the clock jumps by %s", d)
		s.pass(d)
	}
}

// cold lets a cluster's API server send an empty list once, as one that is just starting. All is known before and nothing
// has changed: if there was much, the list must not be believed.
func (s *simulation) cold() {
	c := pick(s.rng, s.clusters)
	if s.err != nil || c.endpoints() < 10 {
		return
	}
	resource := pick(s.rng, exportResources)
	s.simCounts.faults++
	s.note("%s: restarts, and sends no %s at first", c.id, resource)
	c.api.SetWeather(func(w *watchtest.Weather) { w.Cold = resource })
	for _, r := range exportResources {
		c.api.Expire(r)
	}
	for range 4 {
		s.pass(2 * time.Second)
		s.ask(s.question())
		s.ask(s.question())
	}
	c.api.SetWeather(func(w *watchtest.Weather) { w.Cold = "" })
}

// away takes a cluster's API server away for so long that it becomes stale, or is forgotten, and asks for what it exports.
func (s *simulation) away(c *simCluster) {
	if s.server == nil {
		return
	}
	d := cmp.Or(s.setup.stale, time.Minute)
	if s.setup.expire > 0 && s.chance(50) {
		d = s.setup.expire
	}
	d += 3 * simNoticed
	if s.chance(50) {
		s.lasting(c, "hanging", d, func(w *watchtest.Weather) { w.Hang++ }, func(w *watchtest.Weather) { w.Hang-- })
	} else {
		s.lasting(c, "refused connections", d, func(w *watchtest.Weather) { w.Refuse++ }, func(w *watchtest.Weather) { w.Refuse-- })
		c.api.Drop(syscall.ECONNRESET)
	}
	s.pass(d - simNoticed)
	for _, key := range slices.SortedFunc(maps.Keys(c.now().Exports), compareKeys) {
		for _, q := range s.questions(key)[:3] {
			s.ask(q)
		}
	}
}

// collapse takes most of a cluster away while nobody watches.
func (s *simulation) collapse(c *simCluster) {
	s.note("%s: collapses", c.id)
	c.api.Drop(io.EOF)
	for range 2 + s.rng.IntN(20) {
		s.events++
		s.note("%s: unseen: %s", c.id, c.deleteSlice())
	}
	if s.chance(30) {
		for _, key := range slices.SortedFunc(maps.Keys(c.now().Exports), compareKeys) {
			s.events++
			s.note("%s: unseen: %s", c.id, c.deleteExport(key))
		}
	}
	c.api.Compact()
}

func (s *simulation) knownOf(c *simCluster) *simKnown {
	if s.server == nil {
		return nil
	}
	for _, k := range s.server.known {
		if k.cluster == c {
			return k
		}
	}
	return nil
}

// quiet ends all faults, waits until the server must know everything, and asks for everything.
func (s *simulation) quiet() {
	if s.err != nil {
		return
	}
	var whole time.Duration
	for _, f := range s.faults {
		if f.whole {
			whole = max(whole, time.Until(f.until))
		}
	}
	s.pass(whole)
	for _, f := range s.faults {
		f.end()
	}
	s.faults = nil
	s.note("quiet")
	s.pass(66 * time.Second)
	for _, ns := range simNamespaces {
		for _, name := range simServices {
			key := model.Key{Namespace: ns, Name: name}
			p := possibleOf(s.server.config, s.server.known, key)
			if unsure := p.Uncertain(); len(unsure) > 0 {
				s.explain(&model.Question{Key: key}, p)
				s.fail(fmt.Errorf("%v: no rest: %s", key, strings.Join(unsure, ", ")))
				return
			}
			for _, q := range s.questions(key) {
				s.certain++
				if reply, ok := s.ask(q); ok {
					s.note("%s %s: %s", q.Name(s.server.config.Zone), q.Type, reply)
				}
			}
		}
	}
}

// questions are all kinds of questions about a service.
func (s *simulation) questions(key model.Key) []*model.Question {
	port, cluster := pick(s.rng, simPorts), pick(s.rng, s.clusters)
	_, host, a4, _ := cluster.pod(s.rng.IntN(12))
	if host == "" || host == "Bad_Host" {
		host = strings.ReplaceAll(a4, ".", "-")
	}
	return []*model.Question{
		{Key: key, Type: "A"}, {Key: key, Type: "AAAA"}, {Key: key, Type: "SRV"},
		{Kind: model.OfPort, Key: key, Port: port.Name, Protocol: port.Protocol, Type: "SRV"},
		{Kind: model.OfHost, Key: key, Host: host, Cluster: cluster.id, Type: "A"},
	}
}

// question is one of any kind.
func (s *simulation) question() *model.Question {
	key := model.Key{Namespace: pick(s.rng, simNamespaces), Name: pick(s.rng, simServices)}
	if s.chance(4) {
		key.Namespace = "nowhere"
	}
	q := pick(s.rng, s.questions(key))
	switch s.rng.IntN(20) {
	case 0:
		return &model.Question{Kind: model.OfNamespace, Key: key, Type: "A"}
	case 1:
		return &model.Question{Kind: model.OfCluster, Key: key, Cluster: pick(s.rng, s.clusters).id, Type: "A"}
	case 2:
		return &model.Question{Kind: model.OfProtocol, Key: key, Protocol: pick(s.rng, simPorts).Protocol, Type: "A"}
	case 3:
		return &model.Question{Key: key, Type: "TXT"}
	}
	return q
}

// ask asks the server and compares what it says with the model.
func (s *simulation) ask(q *model.Question) (model.Reply, bool) {
	if s.err != nil {
		return model.Reply{}, false
	}
	s.answers++
	srv := s.server
	p := possibleOf(srv.config, srv.known, q.Key)
	reply, err := srv.ask(q, fmt.Sprintf("10.240.%d.%d", s.rng.IntN(4), s.rng.IntN(250)))
	if err == nil {
		err = srv.config.Check(p, q, reply)
	}
	if err != nil {
		s.explain(q, p)
		s.fail(err)
		return reply, false
	}
	s.logf("         %s %s: %s", q.Name(srv.config.Zone), q.Type, reply)
	return reply, true
}

// explain writes down what the model took for possible.
func (s *simulation) explain(q *model.Question, p *model.Possible) {
	s.logf("What may be known of %v: %s", q.Key, strings.Join(p.Uncertain(), ", "))
	s.logf("  setup %s", s.setup.line())
	for i, k := range s.server.known {
		s.logf("  %s: from change %v to %d; drained %v, stale %v; silent for %s; streams %v", k.cluster.id, k.low, len(k.cluster.history)-1, p.Drained[i], p.Stale[i], k.silent(), k.told.Streams)
		for _, shard := range p.Shards[i] {
			if shard.Export != nil {
				s.logf("    %+v", *shard.Export)
			}
			if shard.Service != nil {
				s.logf("    %+v", *shard.Service)
			}
			s.logf("    %+v", shard.Slices)
		}
	}
}

func (s *simServer) ask(q *model.Question, client string) (model.Reply, error) {
	m := new(dns.Msg)
	m.SetQuestion(q.Name(s.config.Zone), dns.StringToType[q.Type])
	w := dnstest.NewRecorder(&test.ResponseWriter{TCP: true, RemoteIP: client})
	if _, err := s.handler.ServeDNS(context.Background(), w, m); err != nil {
		return model.Reply{}, err
	}
	if w.Msg == nil {
		return model.Reply{}, errors.New("no answer")
	}
	out := model.Reply{Code: dns.RcodeToString[w.Msg.Rcode], Records: texts(w.Msg.Answer, m.Question[0].Name)}
	out.Extra = texts(w.Msg.Extra, "")
	if len(w.Msg.Answer) == 0 && (len(w.Msg.Ns) != 1 || w.Msg.Ns[0].Header().Rrtype != dns.TypeSOA) {
		return out, fmt.Errorf("%s: no records and no SOA", m.Question[0].Name)
	}
	return out, nil
}

// texts writes records as the model does. An owner that is not the expected one is written too.
func texts(records []dns.RR, owner string) (out []string) {
	for _, rr := range records {
		text := dns.TypeToString[rr.Header().Rrtype] + " "
		if rr.Header().Name != owner {
			text = rr.Header().Name + " " + text
		}
		switch r := rr.(type) {
		case *dns.A:
			text += r.A.String()
		case *dns.AAAA:
			text += r.AAAA.String()
		case *dns.SRV:
			text += fmt.Sprint(r.Port, " ", r.Target)
		default:
			text += rr.String()
		}
		out = append(out, text)
	}
	return out
}

// Servers.

func (s *simulation) newSetup() simSetup {
	out := simSetup{prefer: pick(s.rng, []string{"", "", "none", "cluster region"}), all: s.chance(20), ignoreEmpty: s.chance(20)}
	weights := s.chance(25)
	for i, c := range s.clusters {
		m := simMember{cluster: c, address: pick(s.rng, []string{"clusterip", "clusterip", "loadbalancer", "endpoints", fmt.Sprintf("198.51.100.%d", i)}), weight: -1}
		m.region = pick(s.rng, []string{"eu", "eu", "us"})
		if s.chance(25) {
			m.allow = pick(s.rng, [][]string{
				{fmt.Sprintf("172.%d.0.0/29", 16+i), fmt.Sprintf("10.%d.0.0/16", 16*i)}, {fmt.Sprintf("fd01:%d::/32", 1+i), "203.0.113.0/24"}, {"192.0.2.0/24"},
			})
		}
		if s.chance(12) {
			m.namespaces = []string{pick(s.rng, simNamespaces), "more"}
		}
		if weights && s.chance(60) {
			m.weight = pick(s.rng, []int{0, 1, 10})
		}
		out.members = append(out.members, m)
	}
	switch s.rng.IntN(4) {
	case 0:
		out.stale = 20 * time.Second
	case 1:
		out.stale, out.expire = 20*time.Second, 45*time.Second
	case 2:
		out.stale, out.expire = 30*time.Second, 90*time.Second
	}
	return out
}

// stanza writes the setup as a Corefile has it.
func (p *simSetup) stanza(folder string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "clusterset {\nlocal %s\n", p.members[0].cluster.id)
	for _, m := range p.members {
		fmt.Fprintf(&b, "cluster %s KC {\naddress %s\nregion %s\n", m.cluster.id, m.address, m.region)
		if m.weight >= 0 {
			fmt.Fprintf(&b, "weight %d\n", m.weight)
		}
		if m.allow != nil {
			fmt.Fprintf(&b, "allow %s\n", strings.Join(m.allow, " "))
		}
		if m.namespaces != nil {
			fmt.Fprintf(&b, "namespaces %s\n", strings.Join(m.namespaces, " "))
		}
		b.WriteString("}\n")
	}
	if p.prefer != "" {
		fmt.Fprintf(&b, "prefer %s\n", p.prefer)
	}
	if folder != "" {
		fmt.Fprintf(&b, "state %s\n", folder)
	}
	if p.expire > 0 {
		fmt.Fprintf(&b, "stale %s %s\n", p.stale, p.expire)
	} else if p.stale > 0 {
		fmt.Fprintf(&b, "stale %s\n", p.stale)
	}
	if p.all {
		b.WriteString("answer all\n")
	}
	if p.ignoreEmpty {
		b.WriteString("ignore empty_service\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// line writes it in one line.
func (p *simSetup) line() string { return strings.ReplaceAll(p.stanza(""), "\n", "; ") }

// model is the same setup as the model has it.
func (p *simSetup) model() *model.Config {
	out := &model.Config{Zone: "clusterset.local.", Local: p.members[0].cluster.id, Prefer: p.prefer, All: p.all, IgnoreEmpty: p.ignoreEmpty}
	kinds := map[string]model.AddressKind{"clusterip": model.ClusterIP, "loadbalancer": model.LoadBalancer, "endpoints": model.Endpoints}
	for i := range p.members {
		m := &p.members[i]
		made := model.Member{ID: m.cluster.id, Region: m.region}
		if kind, ok := kinds[m.address]; ok {
			made.Address = kind
		} else {
			made.Address, made.Gateway = model.Gateway, []netip.Addr{netip.MustParseAddr(m.address)}
		}
		if m.weight >= 0 {
			made.Weight = &m.weight
		}
		for _, text := range m.allow {
			made.Allow = append(made.Allow, netip.MustParsePrefix(text))
		}
		made.Namespaces = m.namespaces
		out.Members = append(out.Members, made)
	}
	return out
}

// begin starts a server with the current setup, beside the one that runs.
func (s *simulation) begin() {
	config, err := parseStanza(s.kubeconfig, s.setup.stanza(s.folder))
	if err != nil {
		s.t.Fatal(err)
	}
	next := &simServer{tenant: &lease.Tenant{}, config: s.setup.model()}
	for i, m := range s.setup.members {
		token := fmt.Sprintf("%d-%d-%s-%s", s.servers, m.login, s.setup.stale, s.setup.expire)
		config.members[i].connection, err = watch.NewConnection(&rest.Config{Host: "http://" + m.cluster.id, Transport: m.cluster.api, BearerToken: token})
		if err != nil {
			s.t.Fatal(err)
		}
		next.known = append(next.known, s.known(m.cluster, token, i == 0))
	}
	next.key = worldKey(config)
	l, err := process.worlds.Acquire(next.tenant, next.key, func() (*leased, error) { return process.newWorld(config) })
	if err != nil {
		s.t.Fatal(err)
	}
	next.handler = &Clusterset{config: *config, world: l.world}
	if old := s.server; old != nil {
		process.worlds.Release(old.tenant, old.key)
	}
	s.server = next
}

// known finds what the running server may know by that connection.
func (s *simulation) known(c *simCluster, token string, local bool) *simKnown {
	before := s.knownOf(c)
	if before != nil && before.token == token {
		return before
	}
	expire := s.setup.expire
	if local {
		expire = 0
	}
	made := newSimKnown(c, token, cmp.Or(s.setup.stale, time.Minute), expire, before)
	for _, k := range s.ended {
		if k.cluster == c && before == nil && s.folder != "" {
			made.restore(k, s.killed, s.damaged[c])
		}
	}
	return made
}

func (s *simulation) start() {
	s.note("start: %s, state on disk %v", s.setup.line(), s.folder != "")
	s.begin()
	s.pass(time.Duration(s.rng.IntN(2000)) * time.Millisecond)
}

// reload changes the setup, or nothing.
func (s *simulation) reload() {
	s.simCounts.faults++
	switch s.rng.IntN(4) {
	case 0:
		next := s.newSetup()
		for i := range next.members {
			next.members[i].login = s.setup.members[i].login
		}
		s.setup = next
	case 1:
		s.setup.members = slices.Clone(s.setup.members)
		s.setup.members[s.rng.IntN(len(s.clusters))].login++
	}
	s.note("reload: %s", s.setup.line())
	s.begin()
	s.pass(0)
}

// restart ends the process, politely or not, and starts another.
func (s *simulation) restart() {
	s.simCounts.faults++
	s.killed, s.damaged = s.chance(50), map[*simCluster]string{}
	s.note("restart, killed %v", s.killed)
	s.ended = s.server.known
	if s.chance(60) {
		s.outage()
	}
	folder := s.folder
	if folder != "" && s.killed {
		s.folder = s.newFolder()
		if err := os.CopyFS(s.folder, os.DirFS(folder)); err != nil {
			s.t.Fatal(err)
		}
	}
	s.stop()
	if folder != "" && s.chance(25) {
		s.damage()
	}
	s.servers++
	process = newStore()
	s.begin()
	s.pass(0)
	for range 6 {
		s.ask(s.question())
	}
}

// outage takes most API servers away.
func (s *simulation) outage() {
	for _, c := range s.clusters {
		if s.chance(75) {
			s.lasting(c, "refused connections", time.Duration(5+s.rng.IntN(40))*time.Second, func(w *watchtest.Weather) { w.Refuse++ }, func(w *watchtest.Weather) { w.Refuse-- })
			c.api.Drop(syscall.ECONNRESET)
		}
	}
}

// damage breaks a file of the state on disk.
func (s *simulation) damage() {
	c, kind := pick(s.rng, s.clusters), s.rng.IntN(len(diskResources))
	s.damaged[c] = diskResources[kind]
	s.note("%s: the state of %s on disk is damaged", c.id, diskResources[kind])
	path := state.Path(s.folder, mcs.Source{Kind: []mcs.SourceKind{mcs.Exports, mcs.Properties, mcs.Namespaces, mcs.ServiceRanges}[kind], Cluster: topology.ClusterID(c.id)})
	text, err := os.ReadFile(path)
	if err != nil {
		return // there is none
	}
	if at := s.rng.IntN(len(text)); s.chance(50) {
		text = text[:at]
	} else {
		text[at] ^= 1
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// newFolder makes a folder for the state on disk, in memory where that is possible.
func (s *simulation) newFolder() string {
	base := "/dev/shm"
	if _, err := os.Stat(base); err != nil {
		base = ""
	}
	dir, err := os.MkdirTemp(base, "simulation")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			s.t.Error(err)
		}
	})
	return dir
}

func (s *simulation) stop() {
	process.worlds.Release(s.server.tenant, s.server.key)
	s.server = nil
	synctest.Wait()
}

// quietly keeps the API machinery from reporting errors: it does so the slower the more there are, by the clock outside.
func quietly(t *testing.T) {
	t.Helper()
	handlers := utilruntime.ErrorHandlers
	utilruntime.ErrorHandlers = nil
	t.Cleanup(func() { utilruntime.ErrorHandlers = handlers })
}

// seeds reads which schedules are wanted: SCHEDULES of them, from SEED on.
func seeds(t *testing.T) (first, count uint64) {
	t.Helper()
	read := func(name string, otherwise uint64) uint64 {
		text := os.Getenv(name)
		if text == "" {
			return otherwise
		}
		n, err := strconv.ParseUint(text, 10, 63)
		if err != nil {
			t.Fatalf("%s=%s: use a whole number", name, text)
		}
		return n
	}
	first = read("SEED", 1)
	if os.Getenv("SEED") != "" {
		return first, read("SCHEDULES", 1)
	}
	return first, read("SCHEDULES", simFew)
}

// simFew is how many schedules are run with the other tests.
const simFew = 10

// simFailures is after how many failures a process gives up.
const simFailures = 3

// TestSimulation runs SCHEDULES schedules from SEED on. "make simulate" runs many, in as many processes as there are cores.
func TestSimulation(t *testing.T) {
	first, count := seeds(t)
	workers := uint64(runtime.NumCPU()) //nolint:gosec // not negative
	if count > 10*workers && os.Getenv(simWorker) == "" {
		simulateInProcesses(t, first, count, workers)
		return
	}
	quietly(t)
	step := uint64(1)
	if count == 1 {
		runtime.GOMAXPROCS(1) // as with many, so that it happens again
	}
	if text := os.Getenv(simWorker); text != "" {
		runtime.GOMAXPROCS(1)
		debug.SetGCPercent(400)
		if _, err := fmt.Sscan(text, &step); err != nil {
			t.Fatal(err)
		}
	}
	path := kubeconfigFile(t)
	var sum simCounts
	failed := 0
	for seed := first; seed < first+count; seed += step {
		r := simulate(t, path, seed, count == 1)
		for i := 1; count == 1 && r.err == nil && i < simAgain; i++ {
			r = simulate(t, path, seed, true)
		}
		sum.add(r.simCounts)
		if r.err == nil && (r.events < simEvents || r.faults < simFaults || r.answers < simAnswers) {
			r.err = fmt.Errorf("the schedule is too easy: %+v", r.simCounts)
		}
		if count == 1 {
			t.Logf("%s\ndigest %s", strings.Join(r.log, "\n"), r.digest)
		}
		if r.err != nil {
			t.Errorf("Seed %d fails: %v\n%sSee all of it: make simulate SEED=%d", seed, r.err, again(t, path, seed), seed)
			if failed++; failed == simFailures {
				t.FailNow()
			}
		}
	}
	t.Logf("%s%s", simSum, sum)
}

// simAgain is how often a schedule is run of which it is known, or to be shown, that it fails. All of it follows from the
// seed, the jitter of its watches too, but for two things that are drawn anew in each run: the order in which timers fire
// that are due at the same instant (testing/synctest does that), and the jitter of files that are written.
const simAgain = 10

// again says how often a schedule that has failed does so again.
func again(t *testing.T, path string, seed uint64) string {
	t.Helper()
	failed := 0
	for range simAgain {
		if simulate(t, path, seed, false).err != nil {
			failed++
		}
	}
	return fmt.Sprintf("Run %d times more, it fails %d times.\n", simAgain, failed)
}

// simWorker is the environment variable that tells a process that it is one of so many.
const simWorker = "SIMULATION_WORKERS"

// simSum begins the line in which a process says what it has done.
const simSum = "Simulated: "

// String returns the counts in words.
func (c simCounts) String() string {
	return fmt.Sprintf("%d schedules, %d events, %d faults, %d answers of which %d at rest", c.schedules, c.events, c.faults, c.answers, c.certain)
}

// simulateInProcesses spreads schedules over processes, since the store of a process is one.
func simulateInProcesses(t *testing.T, first, count, workers uint64) {
	t.Helper()
	began := time.Now()
	sums := make([]simCounts, workers)
	var running sync.WaitGroup
	for i := range workers {
		running.Go(func() {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSimulation$", "-test.v", "-test.timeout=0")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", simWorker, workers), fmt.Sprintf("SEED=%d", first+i), fmt.Sprintf("SCHEDULES=%d", count-i))
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v:\n%s", err, out)
				return
			}
			_, line, _ := strings.Cut(string(out), simSum)
			s := &sums[i]
			if _, err := fmt.Sscanf(line, "%d schedules, %d events, %d faults, %d answers of which %d at rest", &s.schedules, &s.events, &s.faults, &s.answers, &s.certain); err != nil {
				t.Errorf("%v:\n%s", err, out)
			}
		})
	}
	running.Wait()
	var sum simCounts
	for _, s := range sums {
		sum.add(s)
	}
	took := time.Since(began)
	t.Logf("%s%s, in %s (%.0f schedules a second)", simSum, sum, took.Round(time.Second/10), float64(sum.schedules)/took.Seconds())
}

// TestSimulationIsReproducible runs schedules twice: the same seed makes the same schedule, the same answers at rest and the
// same verdict, on one core or on many.
func TestSimulationIsReproducible(t *testing.T) {
	quietly(t)
	path := kubeconfigFile(t)
	cores := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(cores) })
	for seed := uint64(1); seed <= 4; seed++ {
		runtime.GOMAXPROCS(1)
		one := simulate(t, path, seed, false)
		runtime.GOMAXPROCS(4)
		four := simulate(t, path, seed, false)
		if one.digest != four.digest || one.simCounts != four.simCounts || (one.err == nil) != (four.err == nil) {
			t.Errorf("Seed %d: digest %s with %s (%v), then %s with %s (%v)", seed, one.digest, one.simCounts, one.err, four.digest, four.simCounts, four.err)
		}
	}
}
