package realcluster

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// row is a line of the table.
type row struct {
	what string
	// took is what was measured, empty for nothing.
	took string
	// lookups are those that were made meanwhile and counted, twice how many of them were asked twice and failed how many failed;
	// slowest is the slowest of them.
	lookups, twice, failed int
	slowest                time.Duration
}

const (
	readmeFile = "README.md"
	tableBegin = "<!-- begin of the table: written by make cluster-test -->\n"
	tableEnd   = "<!-- end of the table -->\n"
)

// table is what was found so far.
type table []row

// add adds a line without lookups.
func (t *table) add(what, took string) { *t = append(*t, row{what: what, took: took}) }

// String is the table in Markdown.
func (t table) String() string {
	var b strings.Builder
	b.WriteString("| what happens | time | lookups meanwhile | failed | asked twice | slowest |\n|---|---|--:|--:|--:|--:|\n")
	for _, r := range t {
		if r.lookups == 0 {
			fmt.Fprintf(&b, "| %s | %s | | | | |\n", r.what, r.took)
			continue
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %.0f ms |\n", r.what, r.took, r.lookups, r.failed, r.twice, float64(r.slowest.Microseconds())/1000)
	}
	return b.String()
}

// write puts the table into the README, in place of the one that is there.
func (t table) write() error {
	text, err := os.ReadFile(readmeFile)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), tableBegin)
	_, after, ended := strings.Cut(rest, tableEnd)
	if !ok || !ended {
		return fmt.Errorf("%s has no place for the table: it must be between %q and %q", readmeFile, tableBegin, tableEnd)
	}
	return os.WriteFile(readmeFile, []byte(before+tableBegin+t.String()+tableEnd+after), 0o644)
}

// seconds is how durations stand in the table.
func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// The names that probes keep asking.
const (
	localName = "kubernetes.default.svc.cluster.local"
	setName   = "web.shop.svc.clusterset.local"
)

// watched is which lookups are counted, and what may become of them.
type watched struct {
	nodes []*node
	names []string
	// mayFail is why some may fail, empty where none may.
	mayFail string
}

// row runs a test that does something, and adds a line that says what it returns and what has become of lookups meanwhile.
func (w *world) row(t *testing.T, what string, load watched, do func(t *testing.T) string) bool {
	t.Helper()
	return t.Run(strings.ReplaceAll(what, ".", ""), func(t *testing.T) {
		before, begin := w.loads(t), time.Now()
		r := row{what: what, took: do(t)}
		after := w.loads(t)
		for _, n := range load.nodes {
			for _, name := range load.names {
				was, is := before[n][name], after[n][name]
				r.lookups += is.Asked - was.Asked
				r.twice += is.Twice - was.Twice
				r.failed += is.Failed - was.Failed
				r.slowest = max(r.slowest, is.Slowest)
				for _, f := range is.Last {
					if f.At.After(begin) && load.mayFail == "" {
						t.Logf("%s on %s: %.3f s after the begin, over %s, after %s: %s", name, n.name, f.At.Sub(begin).Seconds(), f.Network, f.Took, f.Why)
					}
				}
			}
		}
		if len(load.nodes) > 0 && r.lookups == 0 {
			t.Error("Nothing was looked up")
		}
		if r.failed > 0 && load.mayFail == "" {
			t.Errorf("%d of %d lookups failed", r.failed, r.lookups)
		}
		w.table = append(w.table, r)
	})
}
