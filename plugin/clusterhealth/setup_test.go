package clusterhealth

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"
	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// consumer stands for the clusterset plugin: it has the cluster's name and finds us by name.
type consumer struct {
	plugin.Handler
	local topology.ClusterID
}

func (c *consumer) Name() string              { return "clusterset" }
func (c *consumer) Local() topology.ClusterID { return c.local }

type healther interface{ Health() *health.Snapshot }

// found is what the consumer of the newest instance has found.
var found atomic.Value

// registerNeighbours registers the other plugins of the tests' server blocks.
func registerNeighbours() {
	plugin.Register("clusterset", func(c *caddy.Controller) error {
		block := dnsserver.GetConfig(c)
		c.Next()
		local := topology.ClusterID(c.RemainingArgs()[0])
		c.OnStartup(func() error {
			h, ok := block.Handler(pluginName).(healther)
			if !ok {
				return errors.New("clusterhealth is not found, or knows no health")
			}
			found.Store(h)
			return nil
		})
		block.AddPlugin(func(next plugin.Handler) plugin.Handler { return &consumer{next, local} })
		return nil
	})
	plugin.Register("failing", func(c *caddy.Controller) error {
		c.OnStartup(func() error { return errors.New("this plugin does not start") })
		return nil
	})
}

func server(t *testing.T, corefile string) caddy.CaddyfileInput {
	t.Helper()
	return caddy.CaddyfileInput{Filepath: "Corefile", Contents: []byte(corefile), ServerTypeName: "dns"}
}

// eventually waits until something is true.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("Expected %s within 10 s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// serving waits until an instance answers. One that is stopped while it still begins to serve leaves its socket behind.
func serving(t *testing.T, instance *caddy.Instance) {
	t.Helper()
	r := new(dns.Msg)
	r.SetQuestion("example.org.", dns.TypeA)
	for _, s := range instance.Servers() {
		for network, addr := range map[string]net.Addr{"udp": s.LocalAddr(), "tcp": s.Addr()} {
			client := dns.Client{Net: network, Timeout: time.Second}
			eventually(t, "an answer over "+network, func() bool {
				_, _, err := client.Exchange(r, addr.String())
				return err == nil
			})
		}
	}
}

func liveSets() int { return len(process.youngest()) }

func TestReloadKeepsHealthAndLeaksNothing(t *testing.T) {
	alive := listen(t)
	corefile := fmt.Sprintf(`.:0 {
		clusterhealth {
			probe up tcp %s
			probe dead tcp %s
			interval 1s
			timeout 500ms
			fall 1
			%%s
		}
		clusterset up
		%%s
	}`, alive.Addr(), closedPort(t))
	instance, err := caddy.Start(server(t, fmt.Sprintf(corefile, "", "")))
	if err != nil {
		t.Fatal(err)
	}
	status := func(id topology.ClusterID) health.State { return found.Load().(healther).Health().Status(id).State }
	serving(t, instance)
	eventually(t, "one member to be healthy and the other not", func() bool {
		return status("up") == health.Healthy && status("dead") == health.Unhealthy
	})
	if got := process.youngest()[0].config.local; got != "up" {
		t.Errorf("Expected to know the local cluster from clusterset, got %q", got)
	}
	same := process.youngest()[0]

	for range 20 {
		if _, err := instance.Restart(server(t, fmt.Sprintf(corefile, "drain other", "failing"))); err == nil {
			t.Fatal("Expected the restart to fail")
		}
	}
	if sets := process.youngest(); len(sets) != 1 || sets[0] != same {
		t.Errorf("Expected what failed instances acquired to be dropped, got %d sets", len(sets))
	}

	if instance, err = instance.Restart(server(t, fmt.Sprintf(corefile, "", ""))); err != nil {
		t.Fatal(err)
	}
	serving(t, instance)
	if sets := process.youngest(); len(sets) != 1 || sets[0] != same {
		t.Errorf("Expected the same set after a restart, got %d sets", len(sets))
	}

	if instance, err = instance.Restart(server(t, fmt.Sprintf(corefile, "drain up", ""))); err != nil {
		t.Fatal(err)
	}
	serving(t, instance)
	if status("up") != health.Excluded || status("dead") != health.Unhealthy || liveSets() != 1 {
		t.Errorf("Expected up to be drained and dead to stay unhealthy in one set, got %v, %v in %d", status("up"), status("dead"), liveSets())
	}
	if instance, err = instance.Restart(server(t, fmt.Sprintf(corefile, "", ""))); err != nil {
		t.Fatal(err)
	}
	serving(t, instance)
	if status("up") != health.Healthy {
		t.Errorf("Expected up to be healthy again at once, got %v", status("up"))
	}

	for _, err := range instance.ShutdownCallbacks() {
		t.Error(err)
	}
	if err := instance.Stop(); err != nil {
		t.Fatal(err)
	}
	if liveSets() != 0 {
		t.Errorf("Expected nothing to be left after the end, got %d sets", liveSets())
	}
	if status("up") != health.Healthy {
		t.Error("Expected the last snapshot to stay")
	}
}

func TestTwoServerBlocksShareOneSet(t *testing.T) {
	stanza := fmt.Sprintf("{\n clusterhealth {\n probe up tcp %s\n }\n}\n", listen(t).Addr())
	instance, err := caddy.Start(server(t, "example.org:0 "+stanza+"example.net:0 "+stanza))
	if err != nil {
		t.Fatal(err)
	}
	serving(t, instance)
	if liveSets() != 1 {
		t.Errorf("Expected one set, got %d", liveSets())
	}
	eventually(t, "readiness", func() bool { return (&Clusterhealth{}).Ready() })
	for _, err := range instance.ShutdownCallbacks() {
		t.Error(err)
	}
	if err := instance.Stop(); err != nil {
		t.Fatal(err)
	}
	if liveSets() != 0 {
		t.Errorf("Expected nothing to be left, got %d sets", liveSets())
	}
}

func TestSetupRefusesABadStanza(t *testing.T) {
	if err := setup(caddy.NewTestController("dns", "clusterhealth {\n}")); err == nil {
		t.Error("Expected an error")
	}
}

func TestExamplesOfTheREADMEAreAccepted(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	snippets := strings.Split(string(readme), "~~~ corefile\n")[1:]
	if len(snippets) == 0 {
		t.Fatal("Expected examples")
	}
	for _, s := range snippets {
		snippet, _, _ := strings.Cut(s, "~~~")
		if err := caddy.ValidateAndExecuteDirectives(server(t, snippet), nil, true); err != nil {
			t.Errorf("%v in:\n%s", err, snippet)
		}
	}
}

func TestServeDNSPassesOn(t *testing.T) {
	c := &Clusterhealth{Next: test.NextHandler(dns.RcodeRefused, nil)}
	rec := dnstest.NewRecorder(&test.ResponseWriter{})
	r := new(dns.Msg)
	r.SetQuestion("example.org.", dns.TypeA)
	if code, err := c.ServeDNS(context.Background(), rec, r); code != dns.RcodeRefused || err != nil {
		t.Errorf("Expected the next plugin's result, got %d, %v", code, err)
	}
	if c.Name() != pluginName {
		t.Errorf("Expected %s, got %s", pluginName, c.Name())
	}
}

func TestHealthIsNeutralBeforeTheStart(t *testing.T) {
	if got := new(Clusterhealth).Health().Status("a"); got != (health.Status{}) {
		t.Errorf("Expected nothing to be known, got %+v", got)
	}
}
