package observe

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const (
	rulesFile     = "deploy/alerts/rules.yaml"
	rulesTestFile = "deploy/alerts/rules_test.yaml"
	runbookFile   = "docs/alerts.md"
	dashboardFile = "deploy/dashboard.json"
)

// alert is one rule of rules.yaml.
type alert struct {
	Alert, Expr         string
	Labels, Annotations map[string]string
}

func alerts(t *testing.T) []alert {
	t.Helper()
	var file struct{ Groups []struct{ Rules []alert } }
	must(t, yaml.Unmarshal(read(t, rulesFile), &file))
	var all []alert
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("There is no alert")
	}
	return all
}

func TestPromtoolAcceptsTheRulesAndTheirTests(t *testing.T) {
	needs(t, "promtool")
	for _, args := range [][]string{{"check", "rules", rulesFile}, {"test", "rules", rulesTestFile}} {
		args[2] = inRepository(t, args[2])
		if out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s %s: %v\n%s", args[0], args[1], err, out)
		}
	}
}

func TestEveryAlertSaysWhatToDo(t *testing.T) {
	book := string(read(t, runbookFile))
	var named []string
	for _, a := range alerts(t) {
		named = append(named, a.Alert)
		if s := a.Labels["severity"]; s != "warning" && s != "critical" {
			t.Errorf("%s has severity %q, want warning or critical", a.Alert, s)
		}
		for _, annotation := range []string{"summary", "description"} {
			if a.Annotations[annotation] == "" {
				t.Errorf("%s has no %s", a.Alert, annotation)
			}
		}
		if got, want := a.Annotations["runbook"], runbookFile+"#"+strings.ToLower(a.Alert); got != want {
			t.Errorf("%s has runbook %q, want %q", a.Alert, got, want)
		}
	}
	var sections []string
	for _, section := range strings.Split(book, "\n## ")[1:] {
		name, text, _ := strings.Cut(section, "\n")
		sections = append(sections, name)
		for _, part := range []string{"**Means:**", "**Still answered:**", "**Look at:**", "**Do:**"} {
			if !strings.Contains(text, part) {
				t.Errorf("The section %s of %s has no %s", name, runbookFile, part)
			}
		}
	}
	if !slices.Equal(sections, named) {
		t.Errorf("%s has the sections %q, want %q", runbookFile, sections, named)
	}
}

// An alert is tested when the tests expect it once to fire and once not to.
func TestEveryAlertIsTested(t *testing.T) {
	type expectation struct {
		Alertname  string
		Expr       string
		ExpAlerts  []any `json:"exp_alerts"`
		ExpSamples []any `json:"exp_samples"`
	}
	var file struct {
		Tests []struct {
			Alerts  []expectation `json:"alert_rule_test"`
			Queries []expectation `json:"promql_expr_test"`
		}
	}
	must(t, yaml.Unmarshal(read(t, rulesTestFile), &file))
	type seen struct{ fires, silent bool }
	all := map[string]*seen{}
	for _, a := range alerts(t) {
		all[a.Alert] = &seen{}
	}
	quoted := regexp.MustCompile(`alertname="(\w+)"`)
	for _, test := range file.Tests {
		for _, e := range slices.Concat(test.Alerts, test.Queries) {
			if m := quoted.FindStringSubmatch(e.Expr); m != nil {
				e.Alertname = m[1]
			}
			if e.Alertname == "" {
				continue // about all alerts at once
			}
			s := all[e.Alertname]
			if s == nil {
				t.Errorf("%s has a test for %s, which is no alert", rulesTestFile, e.Alertname)
				continue
			}
			fires := len(e.ExpAlerts)+len(e.ExpSamples) > 0
			s.fires, s.silent = s.fires || fires, s.silent || !fires
		}
	}
	for name, s := range all {
		if !s.fires || !s.silent {
			t.Errorf("%s: %s is expected to fire: %v, to be silent: %v; want both", rulesTestFile, name, s.fires, s.silent)
		}
	}
}

func TestDashboardIsUpToDate(t *testing.T) {
	want, err := Dashboard()
	must(t, err)
	if !bytes.Equal(read(t, dashboardFile), want) {
		t.Errorf("%s is not what the source says: run make generate", dashboardFile)
	}
}

// dashboardExpressions are those of the file, as Grafana sends them when all servers are chosen.
func dashboardExpressions(t *testing.T) []string {
	t.Helper()
	var file struct {
		Panels []struct {
			Targets []struct{ Expr string }
		}
	}
	must(t, json.Unmarshal(read(t, dashboardFile), &file))
	var all []string
	for _, p := range file.Panels {
		for _, target := range p.Targets {
			all = append(all, strings.NewReplacer("$job", ".*", "$__rate_interval", "1m").Replace(target.Expr))
		}
	}
	if len(all) == 0 {
		t.Fatalf("%s has no expression", dashboardFile)
	}
	return all
}

var (
	// notNames are the parts of an expression that hold no metric: selectors, texts, and lists of labels.
	notNames = regexp.MustCompile(`\{[^}]*\}|"[^"]*"|\[[^\]]*\]|\b(by|without|on|ignoring)\s*\([^)]*\)`)
	word     = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*(\s*\()?|[0-9.]+[a-z]*`)
	keywords = []string{"and", "or", "unless", "offset", "group_left", "group_right", "bool", "by"}
)

// metricsOf returns the names of metrics in an expression: the words that are neither functions nor part of the language.
func metricsOf(expression string) []string {
	var names []string
	for _, w := range word.FindAllString(notNames.ReplaceAllString(expression, " "), -1) {
		if w[0] >= '0' && w[0] <= '9' || w[0] == '.' || strings.HasSuffix(w, "(") || slices.Contains(keywords, w) {
			continue
		}
		names = append(names, w)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// selectorsOf returns the metrics in an expression with what stands in braces behind them.
func selectorsOf(expression string) []string {
	var all []string
	for _, name := range metricsOf(expression) {
		all = append(all, regexp.MustCompile(`\b`+name+`\b(\{[^}]*\})?`).FindAllString(expression, -1)...)
	}
	return all
}

func TestSelectorsOfAnExpression(t *testing.T) {
	want := []string{`a`, `a{b="c"}`, `d_total{e="f"}`}
	if got := selectorsOf(`max(a) / min by (d) (a{b="c"}) > rate(d_total{e="f"}[5m])`); !slices.Equal(got, want) {
		t.Errorf("They are %q, want %q", got, want)
	}
}

func TestMetricsOfAnExpression(t *testing.T) {
	rows := []struct {
		name, expression string
		want             []string
	}{
		{"labels and functions are no metrics", `max by (job, cluster) (rate(a_total{b="c", d=~"e"}[5m])) > 0`, []string{"a_total"}},
		{"nor are operators and times", `a - on (job) group_left count by (job) (b offset 1d) or a unless c`, []string{"a", "b", "c"}},
		{"nor are texts", `count_values by (job) ("policy", a) * 7e3`, []string{"a"}},
		{"a list of labels may follow", `sum(a) by (job) / sum(b) without (job)`, []string{"a", "b"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if got := metricsOf(row.expression); !slices.Equal(got, row.want) {
				t.Errorf("They are %q, want %q", got, row.want)
			}
		})
	}
}
