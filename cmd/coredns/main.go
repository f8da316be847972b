// Command coredns is CoreDNS with the plugins of this project added: the same
// flags, every default plugin in its place, and any existing Corefile unchanged.
package main

import (
	"fmt"
	"os"
	"runtime/debug"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	"github.com/clusterset-dns/clusterset-dns/internal/plugins"
	"github.com/clusterset-dns/clusterset-dns/plugin/clusterset"
)

// version is the release of this project, such as v0.1.0. The linker sets it
// (-X main.version=...); without it the build information of Go is asked.
var version string

func main() {
	if err := dnsserver.SetDirectives(plugins.Directives); err != nil {
		fmt.Fprintln(os.Stderr, "plugin.cfg:", err)
		os.Exit(1)
	}
	// CoreDNS prints this as the last field below its own version, which stays
	// what it is: tools compare "CoreDNS-1.15.0" to know what a Corefile may say.
	// It also becomes the label "revision" of coredns_build_info.
	coremain.GitCommit = release()
	clusterset.Release = release()
	followMemoryLimit()
	spareCollections()
	go liftStacks(nil)
	coremain.Run()
}

// release names this project and its version in one word.
func release() string {
	v := version
	if info, ok := debug.ReadBuildInfo(); ok && v == "" {
		v = info.Main.Version
	}
	if v == "" || v == "(devel)" {
		v = "devel"
	}
	return "clusterset-dns-" + v
}
