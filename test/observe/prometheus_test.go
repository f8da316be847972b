package observe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"
)

// prometheusServer is a running Prometheus.
type prometheusServer struct {
	url    string
	client *http.Client
}

// startPrometheus runs Prometheus on a loopback port, with the alerts of deploy and the targets as replicas of the job dns. It
// ends with the test.
func startPrometheus(t *testing.T, targets ...string) *prometheusServer {
	t.Helper()
	dir := t.TempDir()
	list, err := json.Marshal(targets)
	must(t, err)
	config := fmt.Sprintf("global: {scrape_interval: 500ms, evaluation_interval: 500ms}\nrule_files: [%q]\n"+
		"scrape_configs:\n- job_name: dns\n  static_configs:\n  - targets: %s\n", inRepository(t, rulesFile), list)
	must(t, os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600))

	log := &logs{}
	cmd := exec.CommandContext(t.Context(), "prometheus", "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // the context of a test ends before its clean-up
	cmd.WaitDelay = 10 * time.Second
	must(t, cmd.Start())
	t.Cleanup(func() {
		var exit *exec.ExitError
		if err := cmd.Wait(); err != nil && !errors.Is(err, context.Canceled) && !errors.As(err, &exit) {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("Prometheus says:\n%s", log)
		}
	})
	p := &prometheusServer{client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}}
	listens := regexp.MustCompile(`msg="Listening on" address=(127\.0\.0\.1:\d+)`)
	within(t, "Prometheus listens", func(context.Context) error {
		m := listens.FindStringSubmatch(log.String())
		if m == nil {
			return fmt.Errorf("it says %s", log)
		}
		p.url = "http://" + m[1]
		return nil
	})
	return p
}

// sample is one element of the result of a query.
type sample struct {
	Metric map[string]string
	Value  [2]any
}

// ask evaluates an expression at this moment.
func (p *prometheusServer) ask(ctx context.Context, expression string) ([]sample, error) {
	var found []sample
	err := p.query(ctx, "query", url.Values{"query": {expression}}, &found)
	return found, err
}

// query asks the API for an evaluation, and reads the elements of the result.
func (p *prometheusServer) query(ctx context.Context, kind string, parameters url.Values, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/api/v1/"+kind+"?"+parameters.Encode(), http.NoBody)
	if err != nil {
		return err
	}
	response, err := p.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var answer struct {
		Status, Error string
		Warnings      []string
		Data          struct{ Result json.RawMessage }
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return fmt.Errorf("evaluate %s: %w", parameters.Get("query"), err)
	}
	if answer.Status != "success" || len(answer.Warnings) > 0 {
		return fmt.Errorf("evaluate %s: %s %q", parameters.Get("query"), answer.Error, answer.Warnings)
	}
	if err := json.Unmarshal(answer.Data.Result, into); err != nil {
		return fmt.Errorf("evaluate %s: %w", parameters.Get("query"), err)
	}
	return nil
}

// logs collects what a program prints, and may be read meanwhile.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
