package cases

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/server"
)

const (
	// firstNetwork is the second octet of the first cluster's service network, 10.96.0.0/16; case files count on it.
	firstNetwork = 96
	// patience is how long a query is asked again until the answer is right. Everything has been read by then, so that
	// one time should do.
	patience = 2 * time.Second
	// deadAddress is one where nothing listens.
	deadAddress = "127.0.0.1:1"
	// parallel is how many servers are started, and how many queries are asked, at the same time.
	parallel = 4
)

// clusterNames are the clusters that case files know, in the order of their service networks.
var clusterNames = []string{"east", "west", "north"}

// Result is what became of one query.
type Result struct {
	File, World, Query string
	// Question is the name, type and so on, for people.
	Question string
	// Wrong is empty when the query passed.
	Wrong         []string
	Expected, Got string
	// Why is what the case file says about the expectation.
	Why string

	world *worldRun
	query Query
	stage int // how many steps come before
}

// Report is what became of all queries.
type Report struct {
	// Results are in the order of the files.
	Results []Result
	// Refused are objects that an API server did not take, and steps that could not be done.
	Refused []error
	// Warnings are keys of case files that nothing reads.
	Warnings []string
}

// Passed and Failed count.
func (r Report) Passed() int { return len(r.Results) - r.Failed() }

// Failed counts the queries that did not get what they must.
func (r Report) Failed() int {
	failed := 0
	for _, result := range r.Results {
		if len(result.Wrong) > 0 {
			failed++
		}
	}
	return failed
}

// Run builds what is missing, starts the clusters, and runs the worlds. It tells on w how it goes. The error is for what
// keeps it from running queries; failing queries are none.
func Run(ctx context.Context, w io.Writer, worlds []World) (_ Report, err error) {
	r := &runner{w: w, servers: map[string]*running{}, proxies: map[string]*proxy{}}
	defer func() { err = errors.Join(err, r.stop()) }()
	if err := r.start(ctx, worlds); err != nil {
		return Report{}, err
	}
	var report Report
	all := batches(worlds)
	for i, batch := range all {
		if i > 0 {
			if err := r.unload(ctx, all[i-1]); err != nil {
				return report, err
			}
		}
		if err := r.runBatch(ctx, batch, &report); err != nil {
			return report, err
		}
	}
	slices.SortStableFunc(report.Results, func(a, b Result) int {
		return order(worlds, a.World, a.File) - order(worlds, b.World, b.File)
	})
	return report, nil
}

func order(worlds []World, id, file string) int {
	return slices.IndexFunc(worlds, func(w World) bool { return w.ID == id && w.file == file })
}

// batches puts worlds together that can stand side by side: those that share no namespace.
func batches(worlds []World) [][]*worldRun {
	var all [][]*worldRun
	var taken []map[string]bool
	for _, w := range worlds {
		run := newWorldRun(w)
		fits := func(used map[string]bool) bool {
			return !slices.ContainsFunc(run.namespaces(), func(ns string) bool { return used[ns] })
		}
		i := slices.IndexFunc(taken, fits)
		if i < 0 {
			i = len(all)
			all, taken = append(all, nil), append(taken, map[string]bool{})
		}
		all[i] = append(all[i], run)
		for _, ns := range run.namespaces() {
			taken[i][ns] = true
		}
	}
	return all
}

// runner holds what runs.
type runner struct {
	w        io.Writer
	dir      string // kubeconfigs
	binary   string
	clusters []*clusters.Cluster
	planes   map[string]*plane
	seen     *seen

	mu      sync.Mutex          // guards what follows
	proxies map[string]*proxy   // by owner and cluster
	servers map[string]*running // by Corefile
}

// running is a server, or why there is none.
type running struct {
	start  sync.Once
	server *server.Server
	err    error
}

func (r *runner) say(format string, args ...any) { fmt.Fprintf(r.w, format+"\n", args...) }

// start builds and starts the clusters that the worlds name.
func (r *runner) start(ctx context.Context, worlds []World) error {
	binaries, err := clusters.Build(ctx, r.w)
	if err != nil {
		return err
	}
	if r.binary, err = server.Build(ctx, r.w); err != nil {
		return err
	}
	if r.dir, err = os.MkdirTemp("", "clusterset-dns-cases-"); err != nil {
		return err
	}
	names := slices.Clone(clusterNames)
	for _, w := range worlds {
		for _, name := range sortedKeys(w.Clusters) {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	var options []clusters.Options
	for _, name := range names {
		options = append(options, clusters.Options{Name: name})
	}
	begun := time.Now()
	if r.clusters, err = clusters.StartAll(ctx, binaries, options...); err != nil {
		return err
	}
	r.planes = map[string]*plane{}
	r.seen = &seen{}
	for _, c := range r.clusters {
		p, err := newPlane(c)
		if err != nil {
			return err
		}
		r.planes[c.Name()] = p
		r.seen.planes = append(r.seen.planes, p)
	}
	r.say("started the clusters %s in %s", strings.Join(names, ", "), since(begun))
	return nil
}

func since(begun time.Time) time.Duration { return time.Since(begun).Round(100 * time.Millisecond) }

func (r *runner) stop() error {
	var errs []error
	for _, s := range r.servers {
		if s.server != nil {
			errs = append(errs, s.server.Stop())
		}
	}
	for _, p := range r.proxies {
		p.stop()
	}
	errs = append(errs, clusters.StopAll(r.clusters...))
	if r.dir != "" {
		errs = append(errs, os.RemoveAll(r.dir))
	}
	return errors.Join(errs...)
}

// runBatch loads worlds, asks, does the first step of each, asks, and so on; then it removes them.
func (r *runner) runBatch(ctx context.Context, worlds []*worldRun, report *Report) error {
	begun := time.Now()
	if err := load(ctx, r.planes, worlds); err != nil {
		return err
	}
	r.say("loaded %d worlds in %s", len(worlds), since(begun))
	results, stages := r.prepare(worlds, report)
	for stage := range stages {
		if stage > 0 {
			r.doStep(ctx, worlds, results, stage-1)
		}
		if err := r.seen.write(ctx); err != nil {
			return err
		}
		r.askStage(ctx, results, stage)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	for _, w := range worlds {
		report.Refused = append(report.Refused, w.refused...)
	}
	for _, result := range results {
		report.Results = append(report.Results, *result)
	}
	return nil
}

// unload removes worlds, so that others can have their namespaces.
func (r *runner) unload(ctx context.Context, worlds []*worldRun) error {
	for _, w := range worlds {
		if err := w.unload(ctx, r.planes); err != nil {
			return err
		}
	}
	return nil
}

// doStep does the n-th step of each world, counted from 0.
func (r *runner) doStep(ctx context.Context, worlds []*worldRun, results []*Result, n int) {
	r.say("doing step %d of the worlds that have one", n+1)
	for _, result := range results {
		// A server that is cut off from a cluster must have read it before. Why it does not start is said when the query
		// is asked.
		if result.world.cutsInStep(n) {
			_, _ = r.serverFor(ctx, result.world, result.query)
		}
	}
	var group sync.WaitGroup
	for _, w := range worlds {
		group.Go(func() { w.doStep(ctx, r.planes, n) })
	}
	group.Wait()
}

// prepare makes the results of all queries, and counts the stages: one more than there are steps.
func (r *runner) prepare(worlds []*worldRun, report *Report) (results []*Result, stages int) {
	stages = 1
	for _, w := range worlds {
		if len(w.unread) > 0 {
			report.Warnings = append(report.Warnings, fmt.Sprintf("world %s: nothing reads %s", w.ID, strings.Join(w.unread, ", ")))
		}
		stages = max(stages, 1+len(w.steps))
		for i, q := range w.Queries {
			if len(q.unread) > 0 {
				report.Warnings = append(report.Warnings, fmt.Sprintf("query %s: nothing reads %s", q.ID, strings.Join(q.unread, ", ")))
			}
			result := &Result{File: w.file, World: w.ID, Query: q.ID, Question: question(q), Expected: q.Expect.String(), Why: q.Why, world: w, query: q}
			if q.ID == "" {
				result.Query = fmt.Sprintf("%s#%d", w.ID, i+1)
			}
			result.stage = stageNumber(w, q)
			results = append(results, result)
		}
	}
	return results, stages
}

// stageNumber is when the query is asked; one whose steps are not known fails at once.
func stageNumber(w *worldRun, q Query) int {
	stage, err := w.stageOf(q)
	if err != nil {
		return 0
	}
	return stage
}

func question(q Query) string {
	words := []string{q.Name, q.Class, q.Type}
	if q.Transport != "" {
		words = append(words, "over "+q.Transport)
	}
	if q.EDNSBufsize != 0 {
		words = append(words, fmt.Sprintf("with EDNS size %d", q.EDNSBufsize))
	}
	if len(q.After) > 0 {
		words = append(words, "after step "+strings.Join(q.After, ", "))
	}
	for name, object := range map[string]Object{"given": q.Given, "config": q.Config} {
		if len(object) > 0 {
			words = append(words, name+" "+show(object))
		}
	}
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), " ")
}

// askStage asks the queries of one stage, several at a time.
func (r *runner) askStage(ctx context.Context, results []*Result, stage int) {
	begun := time.Now()
	due := slices.DeleteFunc(slices.Clone(results), func(res *Result) bool { return res.stage != stage })
	work := make(chan *Result)
	var group sync.WaitGroup
	for range parallel {
		group.Go(func() {
			for result := range work {
				r.run(ctx, result)
			}
		})
	}
	for _, result := range due {
		work <- result
	}
	close(work)
	group.Wait()
	r.say("asked %d queries in %s", len(due), since(begun))
}

// run asks one query and judges the answer.
func (r *runner) run(ctx context.Context, result *Result) {
	if err := r.ask(ctx, result); err != nil {
		result.Wrong = append(result.Wrong, err.Error())
	}
	if len(result.Wrong) > 0 {
		for _, err := range result.world.refused {
			result.Wrong = append(result.Wrong, fmt.Sprintf("note: %v", err))
		}
	}
}

func (r *runner) ask(ctx context.Context, result *Result) error {
	w, q := result.world, result.query
	if _, err := w.stageOf(q); err != nil {
		return err
	}
	asked, err := readQuestion(q)
	if err != nil {
		return err
	}
	srv, err := r.serverFor(ctx, w, q)
	if err != nil {
		return err
	}
	return r.askUntilRight(ctx, srv, asked, result)
}

// merged lays the second mapping over the first.
func merged(a, b Object) Object {
	all := Object{}
	maps.Copy(all, a)
	maps.Copy(all, b)
	return all
}

// readQuestion turns a query into what is asked.
func readQuestion(q Query) (server.Question, error) {
	asked := server.Question{Name: q.Name, EDNS: q.EDNSBufsize, TCP: strings.EqualFold(q.Transport, "tcp")}
	var ok bool
	if asked.Type, ok = dns.StringToType[strings.ToUpper(q.Type)]; !ok {
		if _, err := fmt.Sscanf(strings.ToUpper(q.Type), "TYPE%d", &asked.Type); err != nil {
			return asked, fmt.Errorf("unknown type %q", q.Type)
		}
	}
	if q.Class != "" {
		if asked.Class, ok = dns.StringToClass[strings.ToUpper(q.Class)]; !ok {
			return asked, fmt.Errorf("unknown class %q", q.Class)
		}
	}
	if q.Transport != "" && !asked.TCP && !strings.EqualFold(q.Transport, "udp") {
		return asked, fmt.Errorf("unknown transport %q", q.Transport)
	}
	return asked, nil
}

// askUntilRight asks until the answer is as expected, as long as patience lasts. A truncated answer is asked again over
// TCP, as every resolver does, unless the case is about the transport.
func (r *runner) askUntilRight(ctx context.Context, srv *server.Server, asked server.Question, result *Result) error {
	deadline := time.Now().Add(patience)
	for {
		m, err := srv.Ask(ctx, asked)
		if err == nil && m.Truncated && result.query.Transport == "" && result.query.Expect.TC == nil {
			again := asked
			again.TCP = true
			m, err = srv.Ask(ctx, again)
		}
		if err == nil {
			result.Got = formatAnswer(m)
			if result.Wrong = Compare(result.query.Expect, m); len(result.Wrong) == 0 {
				return nil
			}
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return err
		}
		if err := waitUntil(ctx, time.Now().Add(20*time.Millisecond)); err != nil {
			return err
		}
	}
}

// serverFor returns the server that a query needs, started if there is none yet, once it shows the last write.
func (r *runner) serverFor(ctx context.Context, w *worldRun, q Query) (*server.Server, error) {
	in, err := newSetup(w, merged(w.Config, q.Config), merged(w.Given, q.Given))
	if err != nil {
		return nil, err
	}
	corefile, err := r.corefile(&in)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	s := r.servers[corefile]
	if s == nil {
		s = &running{}
		r.servers[corefile] = s
	}
	r.mu.Unlock()
	if s.start.Do(func() { s.err = r.startServer(ctx, s, &in, corefile) }); s.err != nil {
		return nil, s.err
	}
	r.cutLines(&in, w)
	return s.server, r.seen.wait(ctx, s.server, &in, func(cluster string) bool {
		return in.reaches(cluster) && !w.cut[cluster] && !slices.Contains(in.cutLater, cluster)
	})
}

// startServer returns when the server is ready and has read every cluster that it can reach.
func (r *runner) startServer(ctx context.Context, s *running, in *setup, corefile string) error {
	var err error
	if s.server, err = server.Start(ctx, r.binary, corefile, server.Options{}); err != nil {
		return fmt.Errorf("%w\nCorefile:\n%s", err, corefile)
	}
	if in.deadHome { // it never gets ready
		return nil
	}
	if err := s.server.WaitReady(ctx); err != nil {
		return err
	}
	return r.seen.wait(ctx, s.server, in, in.reaches)
}

// cutLines brings the proxies of a server into the state that its world asks for.
func (r *runner) cutLines(in *setup, w *worldRun) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range in.members {
		if p := r.proxies[in.proxied+"/"+m.cluster]; p != nil {
			p.setCut(w.cut[m.cluster] || slices.Contains(in.cutLater, m.cluster))
		}
	}
}

// corefile writes the Corefile of a setup, and the kubeconfigs that it needs.
func (r *runner) corefile(in *setup) (string, error) {
	var errs []error
	text := in.corefile(func(cluster string, how link) string {
		path, err := r.kubeconfig(in, cluster, how)
		errs = append(errs, err)
		return path
	})
	return text, errors.Join(errs...)
}

// kubeconfig returns the file by which a server reaches an API server in the given way.
func (r *runner) kubeconfig(in *setup, cluster string, how link) (string, error) {
	p := r.planes[cluster]
	switch how {
	case linkDead:
		return redirected(p.Kubeconfig(), filepath.Join(r.dir, cluster+"-dead.kubeconfig"), deadAddress)
	case linkCut:
		through, err := r.proxy(in.proxied, p)
		if err != nil {
			return "", err
		}
		return redirected(p.Kubeconfig(), filepath.Join(r.dir, in.proxied+"-"+cluster+".kubeconfig"), through.addr())
	}
	return p.Kubeconfig(), nil
}

// proxy returns the owner's proxy to a cluster.
func (r *runner) proxy(owner string, p *plane) (*proxy, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := owner + "/" + p.Name()
	if r.proxies[key] != nil {
		return r.proxies[key], nil
	}
	target, err := url.Parse(p.URL())
	if err != nil {
		return nil, err
	}
	started, err := startProxy(target.Host)
	if err == nil {
		r.proxies[key] = started
	}
	return started, err
}

// redirected copies a kubeconfig, with another address for the API server. A copy that is there is kept.
func redirected(from, to, address string) (string, error) {
	if _, err := os.Stat(to); err == nil {
		return to, nil
	}
	config, err := clientcmd.LoadFromFile(from)
	if err != nil {
		return "", err
	}
	for _, c := range config.Clusters {
		c.Server = "https://" + address
	}
	return to, clientcmd.WriteToFile(*config, to)
}

// Print tells about the failing queries, and, last and alone on its line, how many there were.
func (r Report) Print(w io.Writer) {
	for _, warning := range r.Warnings {
		fmt.Fprintln(w, "warning:", warning)
	}
	for _, err := range r.Refused {
		fmt.Fprintln(w, "not accepted by a real API server:", err)
	}
	for _, result := range r.Results {
		if len(result.Wrong) > 0 {
			fmt.Fprint(w, result.String())
		}
	}
	fmt.Fprintf(w, "%d passed, %d failed\n", r.Passed(), r.Failed())
}

// String tells what was asked, expected and got.
func (r Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "FAIL %s: %s\n", r.Query, r.Question)
	for _, part := range []struct{ name, text string }{
		{"wrong", strings.Join(r.Wrong, "\n")}, {"expected", r.Expected}, {"got", r.Got}, {"why", r.Why},
	} {
		if part.text == "" {
			continue
		}
		fmt.Fprintf(&b, "  %s:\n    %s\n", part.name, strings.ReplaceAll(part.text, "\n", "\n    "))
	}
	return b.String()
}
