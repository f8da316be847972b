package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/clusterset-dns/clusterset-dns/cmd/coredns/internal/plugincfg"
	"github.com/clusterset-dns/clusterset-dns/internal/plugins"

	"github.com/coredns/coredns/core/dnsserver"
)

// module is the import path below which the plugins of this project live.
const module = "github.com/clusterset-dns/clusterset-dns/"

func TestGeneratedSourceIsCurrent(t *testing.T) {
	want, err := plugincfg.Source("plugins", readPlugins(t, "../../plugin.cfg"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../internal/plugins/zplugin.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("Zplugin.go does not match plugin.cfg: run make generate and commit the result")
	}
}

// The names are also compared with the list compiled into CoreDNS, so that a
// release whose plugin.cfg and code differ is noticed.
func TestEveryDefaultPluginStandsInItsPlace(t *testing.T) {
	_, got := ownAndDefault(readPlugins(t, "../../plugin.cfg"))
	want := readPlugins(t, filepath.Join(coreDNSDir(t), "plugin.cfg"))
	if len(want) == 0 {
		t.Fatal("Expected CoreDNS to list plugins")
	}
	if !slices.Equal(plugincfg.Names(want), dnsserver.Directives) {
		t.Errorf("CoreDNS lists %v but compiles in %v", plugincfg.Names(want), dnsserver.Directives)
	}
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Fatalf("Plugin.cfg ends before CoreDNS's plugin %d, %v", i+1, want[i])
		case i >= len(want):
			t.Fatalf("Plugin.cfg has %v, which is neither ours nor CoreDNS's", got[i])
		case got[i] != want[i]:
			t.Fatalf("Plugin %d of CoreDNS is %v, plugin.cfg has %v there: keep CoreDNS's list and order", i+1, want[i], got[i])
		}
	}
}

func TestOwnPluginsStandBetweenACLAndCache(t *testing.T) {
	plugins := readPlugins(t, "../../plugin.cfg")
	own, _ := ownAndDefault(plugins)
	if len(own) == 0 {
		t.Fatal("Plugin.cfg lists none of our plugins")
	}
	names := plugincfg.Names(plugins)
	want := slices.Concat([]string{"acl"}, plugincfg.Names(own), []string{"cache"})
	start := slices.Index(names, "acl")
	if start < 0 {
		t.Fatal("Plugin.cfg has no acl")
	}
	if got := names[start:min(start+len(want), len(names))]; !slices.Equal(got, want) {
		t.Errorf("Expected %v to follow each other, got %v", want, got)
	}
}

func TestGeneratedDirectivesAreAccepted(t *testing.T) {
	shipped := dnsserver.Directives
	t.Cleanup(func() { dnsserver.Directives = shipped })
	if err := dnsserver.SetDirectives(plugins.Directives); err != nil {
		t.Error(err)
	}
}

// ownAndDefault tells the plugins of this project from all others, both in order.
func ownAndDefault(plugins []plugincfg.Plugin) (own, others []plugincfg.Plugin) {
	for _, p := range plugins {
		if strings.HasPrefix(p.Package, module) {
			own = append(own, p)
		} else {
			others = append(others, p)
		}
	}
	return own, others
}

func readPlugins(t *testing.T, path string) []plugincfg.Plugin {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	plugins, err := plugincfg.Parse(f)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return plugins
}

// coreDNSDir returns the folder that holds the source of the CoreDNS we build on.
func coreDNSDir(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/coredns/coredns").Output()
	if err != nil {
		t.Fatalf("Failed to ask go where CoreDNS is: %v", err)
	}
	return strings.TrimSpace(string(out))
}
