// Command floor is CoreDNS with nothing but the two plugins that a comparison measures against (see compare/floor). It
// takes the flags of CoreDNS.
package main

import (
	"fmt"
	"os"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/pprof"

	"github.com/clusterset-dns/clusterset-dns/test/compare/floor"
)

func main() {
	floor.Register()
	if err := dnsserver.SetDirectives(floor.Directives); err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
	coremain.Run()
}
