// Package architecture holds the rules about who may import whom. It has nothing but tests.
package architecture

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/clusterset-dns/clusterset-dns/"

// listed is what `go list` says of a package.
type listed struct {
	ImportPath string
	Name       string
	Standard   bool
	Imports    []string
	Deps       []string
}

// goList returns the packages of the module and, with deps, all that they are made of.
func goList(t *testing.T, deps bool) map[string]listed {
	t.Helper()
	args := []string{"list", "-json=ImportPath,Name,Standard,Imports,Deps"}
	if deps {
		args = append(args, "-deps")
	}
	decoder := json.NewDecoder(bytes.NewReader(run(t, append(args, module+"...")...)))
	out := map[string]listed{}
	for {
		var p listed
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out[p.ImportPath] = p
	}
}

func run(t *testing.T, args ...string) []byte {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", args...).Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("go %v: %v: %s", args, err, exit.Stderr)
		}
		t.Fatalf("go %v: %v", args, err)
	}
	return out
}

// short is a path within our module, or a whole one.
func short(importPath string) string { return strings.TrimPrefix(importPath, module) }

// pure are the packages in which the thinking is done, each with what it may use beside the standard library.
var pure = []struct {
	pkg  string
	uses []string
	why  string
}{
	{"plugin/pkg/status", nil, "it is the language of documents, which servers, pages and command lines share"},
	{"plugin/pkg/verdict", []string{"plugin/pkg/status"}, "what to think of a document follows from the document"},
	{"plugin/pkg/statuspage", []string{"plugin/pkg/status", "plugin/pkg/verdict"}, "a page is a function of documents, so that it can be looked at without a server"},
	{"plugin/pkg/topology", nil, "it names places, and everything else is built on it"},
	{"plugin/pkg/mcs", []string{"plugin/pkg/topology"}, "merging is a function of values: no client-go, no socket, no clock, so that any order of events can be tested"},
	{"plugin/pkg/health", []string{"plugin/pkg/topology"}, "the health state machine has no socket and no clock of its own"},
	{"plugin/pkg/balance", []string{"plugin/pkg/topology", "plugin/pkg/mcs", "plugin/pkg/health", "github.com/cespare/xxhash/v2"}, "choosing is a function of values, so that equal snapshots give equal answers on every replica"},
}

func TestPurePackages(t *testing.T) {
	all := goList(t, true)
	for _, rule := range pure {
		p, ok := all[module+rule.pkg]
		if !ok {
			continue // not written yet
		}
		for _, dep := range p.Deps {
			if all[dep].Standard || slices.Contains(rule.uses, short(dep)) {
				continue
			}
			t.Errorf("%s depends on %s, but may use only the standard library and %v: %s", rule.pkg, dep, rule.uses, rule.why)
		}
		for _, banned := range []string{"net", "net/http", "os/exec", "math/rand", "math/rand/v2"} {
			if slices.Contains(p.Imports, banned) {
				t.Errorf("%s imports %s: %s", rule.pkg, banned, rule.why)
			}
		}
	}
}

func TestOnlyWatchKnowsKubernetes(t *testing.T) {
	const watch = "plugin/pkg/watch"
	kubernetes := []string{"k8s.io/client-go/", "k8s.io/api/", "k8s.io/apimachinery/", "sigs.k8s.io/mcs-api/"}
	imported := false
	for _, p := range goList(t, false) {
		for _, dep := range p.Imports {
			if !slices.ContainsFunc(kubernetes, func(prefix string) bool { return strings.HasPrefix(dep, prefix) }) {
				continue
			}
			// watch/watchtest plays an API server for tests.
			if imported = true; short(p.ImportPath) != watch && short(p.ImportPath) != watch+"/watchtest" {
				t.Errorf("%s imports %s, but only %s may: API objects are turned into facts at one place, where they are checked",
					short(p.ImportPath), dep, watch)
			}
		}
	}
	if !imported {
		t.Error("Nobody imports client-go: this test looks for the wrong thing")
	}
}

// order is from the top down; a package may import those below it only. Plugins stand above all.
var order = []string{"plugin/pkg/statuspage", "plugin/pkg/verdict", "plugin/pkg/status", "plugin/pkg/corefile", "plugin/pkg/lease", "plugin/pkg/chain", "plugin/pkg/watch/watchtest", "plugin/pkg/watch", "plugin/pkg/state", "plugin/pkg/balance", "plugin/pkg/health", "plugin/pkg/mcs", "plugin/pkg/topology"}

// level is how far down a package stands: 0 for a plugin, -1 for what is no part of the order.
func level(pkg string) int {
	if at := slices.Index(order, pkg); at >= 0 {
		return at + 1
	}
	if dir, name := path.Split(pkg); dir == "plugin/" && name != "pkg" {
		return 0
	}
	return -1
}

func TestImportsPointDown(t *testing.T) {
	checked := 0
	for _, p := range goList(t, false) {
		from := level(short(p.ImportPath))
		for _, dep := range p.Imports {
			to := level(short(dep))
			if !strings.HasPrefix(dep, module) || from < 0 || to < 0 {
				continue
			}
			checked++
			switch {
			case from == 0 && to == 0:
				t.Errorf("%s imports %s: plugins never import each other, they meet through interfaces that the consumer declares", short(p.ImportPath), short(dep))
			case to <= from:
				t.Errorf("%s imports %s, which stands above it: the order is plugins, %s", short(p.ImportPath), short(dep), strings.Join(order, ", "))
			}
		}
	}
	if checked == 0 {
		t.Error("No import was checked: this test looks for the wrong thing")
	}
}

func TestEveryPackageHasItsPlace(t *testing.T) {
	for importPath, p := range goList(t, false) {
		if strings.HasPrefix(short(importPath), "plugin/pkg/") && level(short(importPath)) < 0 {
			t.Errorf("%s has no place in the order of imports: give it one", short(importPath))
		}
		if slices.Contains([]string{"util", "utils", "common", "manager", "helpers", "misc", "assistant"}, p.Name) {
			t.Errorf("%s is called %s: a package is named after what it owns", short(importPath), p.Name)
		}
	}
}

// testOnly are modules that bring a control plane along.
var testOnly = []string{"k8s.io/kubernetes", "k8s.io/apiserver", "k8s.io/kube-aggregator", "go.etcd.io/etcd/server/v3", "sigs.k8s.io/controller-runtime"}

// TestModuleStaysLight looks at go.mod: what only tests need belongs in the module test.
func TestModuleStaysLight(t *testing.T) {
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	text := run(t, "mod", "edit", "-json", strings.TrimSpace(string(run(t, "env", "GOMOD"))))
	if err := json.Unmarshal(text, &mod); err != nil {
		t.Fatal(err)
	}
	if len(mod.Require) == 0 {
		t.Fatal("go.mod requires nothing: this test looks at the wrong file")
	}
	imports := map[string]bool{}
	for _, p := range goList(t, false) {
		for _, dep := range p.Imports {
			imports[dep] = true
		}
	}
	for _, r := range mod.Require {
		if slices.Contains(testOnly, r.Path) {
			t.Errorf("go.mod requires %s, which only a control plane needs: it belongs in test/go.mod or below, since everybody who builds the server downloads what stands here", r.Path)
		}
		// goleak depends on nothing, and finds what a watcher leaves behind.
		if r.Indirect || r.Path == "go.uber.org/goleak" {
			continue
		}
		used := false
		for dep := range imports {
			used = used || dep == r.Path || strings.HasPrefix(dep, r.Path+"/")
		}
		if !used {
			t.Errorf("go.mod requires %s, which no package of the server imports: it belongs in test/go.mod", r.Path)
		}
	}
}
