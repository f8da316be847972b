package clusterhealth

import (
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	clog "github.com/coredns/coredns/plugin/pkg/log"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	clog.Discard()
	caddy.Quiet = true
	dnsserver.Quiet = true
	dnsserver.Directives = []string{pluginName, "clusterset", "failing"}
	registerNeighbours()
	goleak.VerifyTestMain(m)
}
