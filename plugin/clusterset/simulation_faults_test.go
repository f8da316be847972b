package clusterset

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// plantedFault is a mistake that the simulation must find: in a file, old becomes new. The new text does as the old one
// unless planted(name) is true.
type plantedFault struct{ name, file, old, new string }

// plantedFaults are mistakes of the kinds that such a program can have.
var plantedFaults = []plantedFault{
	// Merging.
	{
		"the newest export wins", "plugin/pkg/mcs/merge.go",
		"return cmp.Compare(a.shard.Export.Created, b.shard.Export.Created)",
		"if planted(%q) { a, b = b, a }; return cmp.Compare(a.shard.Export.Created, b.shard.Export.Created)",
	},
	{
		"equally old exports: the highest cluster id wins", "plugin/pkg/mcs/merge.go",
		"byAge := append(roomByAge[:0], valid...)\n",
		"byAge := append(roomByAge[:0], valid...)\nif planted(%q) { slices.Reverse(byAge) }\n",
	},
	{
		"only the oldest export's ports count", "plugin/pkg/mcs/merge.go",
		"for _, e := range byAge {\n\t\tfor _, p := range e.shard.Service.Ports {",
		"for i, e := range byAge {\n\t\tif i > 0 && planted(%q) { break }\n\t\tfor _, p := range e.shard.Service.Ports {",
	},
	{
		"a Service of type ExternalName is exported", "plugin/pkg/mcs/merge.go",
		"case e.shard.Service.ExternalName:",
		"case e.shard.Service.ExternalName && !planted(%q):",
	},
	{
		"endpoints that are not ready are answered", "plugin/pkg/mcs/backends.go",
		"if publishNotReady || slice.Endpoints.Conditions(i)&Ready != 0 {",
		"if publishNotReady || slice.Endpoints.Conditions(i)&Ready != 0 || planted(%q) {",
	},
	{
		"a cluster IP of the local cluster's Services is answered", "plugin/pkg/mcs/merge.go",
		"if _, taken := env.taken[a]; taken {",
		"if _, taken := env.taken[a]; taken && !planted(%q) {",
	},
	{
		"allow is not looked at", "plugin/pkg/mcs/merge.go",
		"return len(m.Allow) == 0 || ",
		"return len(m.Allow) == 0 || planted(%q) || ",
	},
	{
		"namespace sameness is not looked at", "plugin/pkg/mcs/index.go",
		"_, ok := x.next.namespaces.get(namespace)\n\treturn ok\n",
		"_, ok := x.next.namespaces.get(namespace)\n\treturn ok || planted(%q)\n",
	},
	{
		"a member's word for a service is forgotten when another's changes", "plugin/pkg/mcs/index.go",
		"e.exports = slices.Insert(e.exports, at, exported{m, shard})",
		"e.exports = slices.Insert(e.exports, at, exported{m, shard})\nif planted(%q) { e.exports = slices.Clip(e.exports[:at+1]) }",
	},
	// Watching.
	{
		"EndpointSlices of new exports are fetched once and then not watched", "plugin/pkg/watch/selection.go",
		"; f.lacks() {",
		"; f.lacks() && !planted(%q) {",
	},
	{
		"the guard of addresses is skipped", "plugin/pkg/watch/convert.go",
		"if err != nil || a.Zone() != \"\" ||",
		"if planted(%q) && err == nil { return a, true }\n\tif err != nil || a.Zone() != \"\" ||",
	},
	{
		"the deletion of a ServiceExport is ignored", "plugin/pkg/watch/exports.go",
		"f.drop(mcs.ServiceKey{Namespace: it.namespace, Name: it.name})",
		"if !planted(%q) { f.drop(mcs.ServiceKey{Namespace: it.namespace, Name: it.name}) }",
	},
	{
		"the deletion of an EndpointSlice is ignored", "plugin/pkg/watch/exports.go",
		"f.pass(it)\n\tif owner, there := f.ownerOf(it.id()); there {",
		"f.pass(it)\n\tif owner, there := f.ownerOf(it.id()); there && !planted(%q) {",
	},
	{
		"a full list deletes nothing", "plugin/pkg/watch/exports.go",
		"if !there[key] {\n\t\t\tf.drop(key)",
		"if !there[key] && !planted(%q) {\n\t\t\tf.drop(key)",
	},
	{
		"a slice that changes hands stays with the old service too", "plugin/pkg/watch/exports.go",
		"(owner != it.key || it.fact == nil) && !f.takeSlice(owner, it) {",
		"(owner != it.key && !planted(%q) || it.fact == nil) && !f.takeSlice(owner, it) {",
	},
	{
		"what a fetch brings is newer than what the watch brings", "plugin/pkg/watch/exports.go",
		"return o&byFetch != 0 && version != 0 && version < o.version()",
		"return o&byFetch != 0 && (version != 0 && version < o.version() || planted(%q))",
	},
	{
		"nothing is fetched for a new export", "plugin/pkg/watch/exports.go",
		"if f.following && !known {",
		"if f.following && !known && !planted(%q) {",
	},
	{
		"a Service that nobody exports yet is not followed", "plugin/pkg/watch/exports.go",
		"if h := f.have(it.key); h != nil && !h.service.older(it.version) {",
		"if h := f.have(it.key); h != nil && !h.service.older(it.version) && !(planted(%q) && !h.exported && h.service.fact != nil) {",
	},
	{
		"a source counts as synced after the first of its lists", "plugin/pkg/watch/exports.go",
		"if !f.listed.exports || !f.listed.services || !f.listed.slices || !f.partial {",
		"if (!f.listed.exports || !f.listed.services || !f.listed.slices) && !planted(%q) || !f.partial {",
	},
	{
		"a list from which most has vanished is believed", "plugin/pkg/watch/hold.go",
		"if before-after < collapseAtLeast || after*2 >= before {",
		"if before-after < collapseAtLeast || after*2 >= before || planted(%q) {",
	},
	{
		"silence never makes stale", "plugin/pkg/watch/watch.go",
		"case w.life.since() > w.spec.StaleAfter:",
		"case w.life.since() > w.spec.StaleAfter && !planted(%q):",
	},
	{
		"what is expired is answered on", "plugin/pkg/watch/lifecycle.go",
		"w.gaveUp.Store(uint32(end))\n\tw.feed.clear()",
		"w.gaveUp.Store(uint32(end))\n\tif !planted(%q) { w.feed.clear() }",
	},
	{
		"after an outage watches go on where they were", "plugin/pkg/watch/lifecycle.go",
		"if answers && failed {",
		"if answers && failed && !planted(%q) {",
	},
	{
		"who subscribes late is told nothing of before", "plugin/pkg/watch/audience.go",
		"a.retell(s)\n",
		"if !planted(%q) { a.retell(s) }\n",
	},
	{
		"the deletion of a namespace is ignored", "plugin/pkg/watch/namespaces.go",
		"f.tell(identify(obj).name, false)",
		"f.tell(identify(obj).name, planted(%q))",
	},
	{
		"what a source said before the start counts as all that it says", "plugin/pkg/watch/audience.go",
		"if a.level.Store(levelRestored); synced {",
		"if a.level.Store(levelRestored); synced || planted(%q) {",
	},
	// Choosing.
	{
		"the farthest is preferred", "plugin/pkg/balance/plan.go",
		"d := distance(b.labels, b.class, at)\n\tb.candidates[d] =",
		"d := distance(b.labels, b.class, at)\n\tif planted(%q) { d = len(b.labels) - d }\n\tb.candidates[d] =",
	},
	{
		"a weight of zero does not drain", "plugin/pkg/balance/plan.go",
		"case b.weights[i] == 0:\n\t\t\tb.states[i]",
		"case b.weights[i] == 0 && !planted(%q):\n\t\t\tb.states[i]",
	},
	// Answering.
	{
		"NXDOMAIN while a source has not synced", "plugin/clusterset/clusterset.go",
		"a.absent, a.certain = true, len(a.snapshot.Unsynced()) == 0",
		"a.absent, a.certain = true, len(a.snapshot.Unsynced()) == 0 || planted(%q)",
	},
	{
		"a headless service without a ready endpoint exists", "plugin/clusterset/clusterset.go",
		"return len(s.Backends) > 0\n",
		"return len(s.Backends) > 0 || planted(%q)\n",
	},
	{
		"a cluster that drains itself is not drained", "plugin/clusterset/view.go",
		"if now != nil && now.drained[m.ID] {",
		"if now != nil && now.drained[m.ID] && !planted(%q) {",
	},
	{
		"an update is lost while another is merged", "plugin/clusterset/world.go",
		"w.pending = append(w.pending, f)\n",
		"if w.pending = append(w.pending, f); planted(%q) { w.pending = w.pending[len(w.pending)-1:] }\n",
	},
}

// simFaultsEnv lets TestPlantedFaults run: it compiles the server anew, which takes longer than the other tests.
const simFaultsEnv = "SIMULATE_FAULTS"

// plantedMost is within how many schedules a fault must be found.
const plantedMost = 1000

// TestPlantedFaults builds the simulation with all faults planted, of which one at a time comes up, and expects that each
// is found, and nothing when none comes up. "make simulatefaults" runs it.
func TestPlantedFaults(t *testing.T) {
	if os.Getenv(simFaultsEnv) == "" {
		t.Skipf("%s is not set: make simulatefaults", simFaultsEnv)
	}
	binary := plantFaults(t)
	if out, err := runPlanted(t, binary, "none", 20); err != nil {
		t.Fatalf("With no fault: %v\n%s", err, out)
	}
	var running sync.WaitGroup
	next := make(chan plantedFault)
	for range runtime.NumCPU() {
		running.Go(func() {
			for f := range next {
				huntPlanted(t, binary, f)
			}
		})
	}
	for _, f := range plantedFaults {
		if only := os.Getenv("PLANTED"); only == "" || only == f.name {
			next <- f
		}
	}
	close(next)
	running.Wait()
}

// huntPlanted runs schedules until the fault is found.
func huntPlanted(t *testing.T, binary string, f plantedFault) {
	t.Helper()
	began := time.Now()
	out, err := runPlanted(t, binary, f.name, plantedMost)
	if err == nil {
		t.Errorf("Not found in %d schedules: %s", plantedMost, f.name)
		return
	}
	at := bytes.Index(out, []byte("Seed "))
	if at < 0 {
		t.Errorf("%s: %v, but not by a schedule:\n%s", f.name, err, out)
		return
	}
	var seed int
	if _, err := fmt.Sscanf(string(out[at:]), "Seed %d", &seed); err != nil {
		t.Errorf("%s: %v:\n%s", f.name, err, out)
		return
	}
	line, _, _ := bytes.Cut(out[at:], []byte("\n"))
	t.Logf("%4d schedules, %6s: %s\n\t%.200s", seed, time.Since(began).Round(time.Second/10), f.name, line)
}

// runPlanted runs schedules with one fault.
func runPlanted(t *testing.T, binary, fault string, schedules int) ([]byte, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, "-test.run=^TestSimulation$", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), "PLANTED="+fault, simWorker+"=1", "SEED=1", fmt.Sprintf("SCHEDULES=%d", schedules))
	return cmd.CombinedOutput()
}

// plantFaults compiles the tests of this package with the faults in their places.
func plantFaults(t *testing.T) (binary string) {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	add := func(file, text string) {
		made := filepath.Join(dir, fmt.Sprintf("%d.go", len(overlay.Replace)))
		if err := os.WriteFile(made, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[filepath.Join(root, file)] = made
	}
	texts := map[string]string{}
	for _, f := range plantedFaults {
		if texts[f.file] == "" {
			text, err := os.ReadFile(filepath.Join(root, f.file))
			if err != nil {
				t.Fatal(err)
			}
			texts[f.file] = string(text)
		}
		if n := strings.Count(texts[f.file], f.old); n != 1 {
			t.Fatalf("%s: what it changes is %d times in %s: bring the table up to date", f.name, n, f.file)
		}
		texts[f.file] = strings.Replace(texts[f.file], f.old, fmt.Sprintf(f.new, f.name), 1)
	}
	folders := map[string]string{}
	for file, text := range texts {
		add(file, text)
		folders[filepath.Dir(file)] = filepath.Base(filepath.Dir(file))
	}
	for folder, name := range folders {
		add(filepath.Join(folder, "planted.go"), fmt.Sprintf("package %s\n\nimport \"os\"\n\nvar plantedName = os.Getenv(\"PLANTED\")\n\nfunc planted(name string) bool { return name == plantedName }\n", name))
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	table, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "planted.test")
	if err := os.WriteFile(table, text, 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-trimpath", "-overlay", table, "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// TestPlantedFaultsHaveTheirPlaces fails as soon as the source has changed where a fault is planted.
func TestPlantedFaultsHaveTheirPlaces(t *testing.T) {
	names := map[string]bool{}
	for _, f := range plantedFaults {
		text, err := os.ReadFile(filepath.Join("../..", f.file))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), f.old); n != 1 {
			t.Errorf("%s: what it changes is %d times in %s: bring the table up to date", f.name, n, f.file)
		}
		if !strings.Contains(f.new, "planted(%q)") || names[f.name] {
			t.Errorf("%s: it is there twice, or never planted", f.name)
		}
		names[f.name] = true
	}
	if len(plantedFaults) < 20 || slices.Contains(plantedFaults, plantedFault{}) {
		t.Errorf("There are %d faults", len(plantedFaults))
	}
}
