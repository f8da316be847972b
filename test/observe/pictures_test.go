package observe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/template"
	"time"

	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/kube"
	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// pictureFile shows the panels that are named here, the first of what an operator looks at.
const pictureFile = "docs/images/dashboard.svg"

var pictured = []string{
	"Answers", "Latency", "Replicas by state of a member", "Age of the last proof of life", "Health", "Endpoints",
}

// What happens in the picture, and how long each of it lasts.
var acts = []struct {
	name string
	does func(context.Context, *stage) error
}{
	{"nothing", func(context.Context, *stage) error { return nil }},
	{"the backends of west fail, so that its probes do", func(_ context.Context, s *stage) error { return s.listener.Close() }},
	{"they are back, and east exports ten services more", func(ctx context.Context, s *stage) error {
		return errors.Join(s.listen(ctx), export(ctx, s.east, 20, 30))
	}},
	{"the API server of west hangs", func(_ context.Context, s *stage) error { return s.west.PauseAPIServer() }},
	{"it goes on", func(_ context.Context, s *stage) error { return s.west.ResumeAPIServer() }},
}

const act = 45 * time.Second

// stage is what the picture is taken of: two clusters and two replicas of the server in east.
type stage struct {
	east, west *clusters.Cluster
	backend    string // what is probed of west
	listener   net.Listener
	replicas   []*server.Server
}

// TestPicture makes the picture of the dashboard in the README. It takes minutes and compares nothing, so it runs only when it is
// asked for.
func TestPicture(t *testing.T) {
	if os.Getenv("PICTURE_WRITE") == "" {
		t.Skip("this makes a picture and checks nothing: set PICTURE_WRITE=1")
	}
	needs(t, "prometheus")
	s := raise(t)
	var targets []string
	for _, r := range s.replicas {
		targets = append(targets, "127.0.0.1:"+strconv.Itoa(r.Port("Metrics")))
	}
	p := startPrometheus(t, targets...)
	ctx, stop := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	t.Cleanup(func() { stop(); asking.Wait() })
	for _, r := range s.replicas {
		asking.Go(func() { ask(ctx, r) })
	}
	begin := time.Now()
	for _, a := range acts {
		t.Log(a.name)
		must(t, a.does(t.Context(), s))
		time.Sleep(act) // it is the time that is shown
	}
	var panels []drawn
	for _, title := range pictured {
		panels = append(panels, p.drawn(t, title, begin, time.Now()))
	}
	var svg bytes.Buffer
	must(t, picture(&svg, panels, pictureStep))
	path := inRepository(t, pictureFile)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, svg.Bytes(), 0o644))
}

// raise starts clusters and servers.
func raise(t *testing.T) *stage {
	t.Helper()
	binaries, err := clusters.Build(t.Context(), os.Stderr)
	must(t, err)
	coredns, err := server.Build(t.Context(), os.Stderr)
	must(t, err)
	started, err := clusters.StartAll(t.Context(), binaries, clusters.Options{Name: "east"}, clusters.Options{Name: "west"})
	must(t, err)
	t.Cleanup(func() {
		if err := clusters.StopAll(started...); err != nil {
			t.Error(err)
		}
	})
	s := &stage{east: started[0], west: started[1], backend: "127.0.0.1:0"}
	must(t, s.listen(t.Context()))
	t.Cleanup(func() { s.listener.Close() })
	must(t, export(t.Context(), s.east, 0, 20))
	must(t, export(t.Context(), s.west, 0, 25))
	for range 2 {
		r, err := server.Start(t.Context(), coredns, s.corefile(), server.Options{})
		must(t, err)
		t.Cleanup(func() {
			if err := r.Stop(); err != nil {
				t.Error(err)
			}
		})
		must(t, r.WaitReady(t.Context()))
		s.replicas = append(s.replicas, r)
	}
	return s
}

// export makes the services from web-FIRST up to below web-BELOW and exports them.
func export(ctx context.Context, from *clusters.Cluster, first, below int) error {
	client, err := kube.New(from)
	if err != nil {
		return err
	}
	if first == 0 {
		err = client.Namespace(ctx, "shop")
	}
	for n := first; n < below && err == nil; n++ {
		name := fmt.Sprintf("web-%d", n)
		if _, err = client.Create(ctx, kube.Simple{Namespace: "shop", Name: name, Addresses: []string{fmt.Sprintf("10.1.0.%d", n+1)}}); err == nil {
			err = client.Export(ctx, "shop", name)
		}
	}
	return err
}

func (s *stage) corefile() string {
	return fmt.Sprintf(`clusterset.local:{{.DNS}} {
	bind 127.0.0.1
	errors
	prometheus {{.Metrics}}
	ready {{.Ready}}
	clusterhealth {
		probe west tcp %s
		interval 2s
	}
	clusterset {
		local east
		cluster east %s
		cluster west %s {
			address clusterip
		}
		stale 30s
	}
}
`, s.backend, s.east.Kubeconfig(), s.west.Kubeconfig())
}

// listen opens the port that is probed, always the same.
func (s *stage) listen(ctx context.Context) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.backend)
	if err != nil {
		return err
	}
	s.listener, s.backend = l, l.Addr().String()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	return nil
}

// ask asks some hundred questions a second, of which some are for names that do not exist.
func ask(ctx context.Context, s *server.Server) {
	for n := 0; ctx.Err() == nil; n++ {
		// An error is seen in the picture.
		_, _ = s.Ask(ctx, server.Question{Name: fmt.Sprintf("web-%d.shop.svc.clusterset.local.", n%33), Type: dns.TypeA})
		select {
		case <-ctx.Done():
		case <-time.After(8 * time.Millisecond):
		}
	}
}

// pictureStep is the distance of two points in the picture, and interval what Grafana would take for $__rate_interval.
const (
	pictureStep = time.Second
	interval    = "5s"
)

// drawn asks for what a panel of the dashboard shows.
func (p *prometheusServer) drawn(t *testing.T, title string, begin, end time.Time) drawn {
	t.Helper()
	for _, r := range rows {
		for _, candidate := range r.panels {
			if candidate.title != title {
				continue
			}
			d := drawn{panel: candidate}
			for _, q := range candidate.queries {
				lines, err := p.over(t.Context(), q[0], q[1], begin, end)
				must(t, err)
				d.lines = append(d.lines, lines...)
			}
			return d
		}
	}
	t.Fatalf("The dashboard has no panel %q", title)
	return drawn{}
}

// over evaluates an expression of the dashboard over a time.
func (p *prometheusServer) over(ctx context.Context, expression, legend string, begin, end time.Time) ([]line, error) {
	expression = strings.NewReplacer("SERVERS", `job="dns"`, "$__rate_interval", interval).Replace(expression)
	var found []struct {
		Metric map[string]string
		Values [][2]any
	}
	if err := p.query(ctx, "query_range", url.Values{
		"query": {expression}, "start": {begin.Format(time.RFC3339)}, "end": {end.Format(time.RFC3339)}, "step": {pictureStep.String()},
	}, &found); err != nil {
		return nil, err
	}
	// The labels of a legend are in the syntax of templates, but for the dot.
	write, err := template.New("legend").Option("missingkey=zero").Parse(strings.ReplaceAll(legend, "{{", "{{."))
	if err != nil {
		return nil, err
	}
	var lines []line
	for _, series := range found {
		var name strings.Builder
		if err := write.Execute(&name, series.Metric); err != nil {
			return nil, err
		}
		l := line{legend: strings.TrimSpace(name.String())}
		for _, v := range series.Values {
			at, ok := v[0].(float64)
			text, isText := v[1].(string)
			value, err := strconv.ParseFloat(text, 64)
			if !ok || !isText || err != nil {
				return nil, fmt.Errorf("evaluate %s: %v is no value at a time", expression, v)
			}
			if !math.IsNaN(value) { // there are no quantiles of nothing
				l.points = append(l.points, point{time.UnixMilli(int64(at * 1000)), value})
			}
		}
		lines = append(lines, l)
	}
	slices.SortFunc(lines, func(a, b line) int { return strings.Compare(a.legend, b.legend) })
	return lines, nil
}
