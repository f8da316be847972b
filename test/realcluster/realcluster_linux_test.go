package realcluster

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/suite"
)

// TestRealClusters goes the way of an operator, from kubeadm's CoreDNS to ours and back, and hurts the clusters in between.
func TestRealClusters(t *testing.T) {
	if skipped != "" {
		t.Skip(skipped)
	}
	w := newWorld()
	begin := time.Now()
	w.start(t)
	w.table.add("Two clusters with three nodes start, from nothing", seconds(time.Since(begin)))
	w.stand(t)
	w.table.add("kubeadm's CoreDNS and all other pods are ready, from nothing", seconds(time.Since(begin)))
	t.Cleanup(func() {
		t.Log("\n" + w.table.String())
		if os.Getenv(writeEnv) != "" && !t.Failed() {
			must(t, w.table.write())
		}
	})
	if !w.testSwap(t) {
		return
	}
	w.testServices(t)
	w.testOperation(t)
	w.testOutages(t)
	w.testRemoval(t)
}

// all is every node with the names; that of the ClusterSet cannot be looked up before it is served.
func (w *world) all(names ...string) watched { return watched{nodes: w.nodes(), names: names} }

// untilAsked waits until each probe has looked up a name some times more.
func (w *world) untilAsked(t *testing.T, name string, times int) {
	t.Helper()
	before := w.loads(t)
	suite.Within(t, limit, "the probes ask", func(context.Context) error {
		now := w.loads(t)
		for _, n := range w.nodes() {
			if got := now[n][name].Asked - before[n][name].Asked; got < times {
				return fmt.Errorf("%s has asked %d times", n.name, got)
			}
		}
		return nil
	})
}

// TestTheTableIsWrittenIntoAReadme keeps everything around the table.
func TestTheTableIsWrittenIntoAReadme(t *testing.T) {
	t.Chdir(t.TempDir())
	found := table{{what: "a pod ends", took: "1.0 s", lookups: 7, twice: 2, failed: 1, slowest: 3 * time.Millisecond}}
	found.add("nothing", "")
	must(t, os.WriteFile(readmeFile, []byte("above\n"+tableBegin+"old\n"+tableEnd+"below\n"), 0o600))
	must(t, found.write())
	text, err := os.ReadFile(readmeFile)
	must(t, err)
	want := "| a pod ends | 1.0 s | 7 | 1 | 2 | 3 ms |\n| nothing |  | | | | |\n" + tableEnd + "below\n"
	if got := string(text); !strings.HasPrefix(got, "above\n"+tableBegin+"| what") || !strings.HasSuffix(got, want) {
		t.Errorf("It is\n%s", got)
	}
	must(t, os.WriteFile(readmeFile, []byte("no place"), 0o600))
	if found.write() == nil {
		t.Error("It was written where there is no place for it")
	}
}
