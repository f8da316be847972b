package realcluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// explain prints what the clusters say.
func (w *world) explain(t *testing.T) {
	t.Helper()
	for _, c := range w.both() {
		for _, args := range []string{
			"get nodes -o wide",
			"get pods --all-namespaces -o wide",
			"get endpointslices --all-namespaces",
			"get events --all-namespaces --sort-by=.metadata.creationTimestamp",
			"-n kube-system describe pods -l k8s-app=kube-dns",
			"-n kube-system logs --prefix --tail=40 -l k8s-app=kube-dns",
			"-n shop logs --prefix --tail=10 -l app=probe",
		} {
			out, err := w.atEast.Try(t, "kubectl --context "+c.name+" "+args)
			if err != nil {
				out = err.Error()
			}
			t.Logf("%s: kubectl %s:\n%s", c.name, args, out)
		}
	}
}

// explainNodes prints how the logs of the nodes' programs end.
func (w *world) explainNodes(t *testing.T) {
	t.Helper()
	for _, n := range w.nodes() {
		logs, err := filepath.Glob(filepath.Join(n.dir, "*.log"))
		if err != nil {
			t.Log(err)
		}
		for _, log := range logs {
			text, err := os.ReadFile(log)
			if err != nil {
				t.Log(err)
			}
			lines := strings.SplitAfter(string(text), "\n")
			t.Logf("%s of %s ends with:\n%s", filepath.Base(log), n.name, strings.Join(lines[max(0, len(lines)-40):], ""))
		}
	}
}
