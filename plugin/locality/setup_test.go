package locality

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin/metadata"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch/watchtest"

	// What the Corefiles of the tests need besides.
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/template"
	_ "github.com/coredns/coredns/plugin/view"
)

const nodesPath = "/api/v1/nodes"

func init() { //nolint:gochecknoinits // before any server of the tests starts
	caddy.Quiet, dnsserver.Quiet = true, true
	// In the binary, generated source does this.
	dnsserver.Directives = []string{"metadata", "bind", pluginName, "template", "view"}
}

// node is a Node as an API server shows it.
func node(name, zone, address string) *corev1.Node {
	return &corev1.Node{
		TypeMeta: metav1.TypeMeta{Kind: "Node", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			corev1.LabelTopologyRegion: "eu", corev1.LabelTopologyZone: zone,
		}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}}},
	}
}

// serverOf starts a server; stop ends it.
func serverOf(t *testing.T, corefile string) *caddy.Instance {
	t.Helper()
	instance, err := caddy.Start(caddy.CaddyfileInput{Contents: []byte(corefile), Filepath: "Corefile", ServerTypeName: "dns"})
	if err != nil {
		t.Fatal(err)
	}
	return instance
}

// stop ends a server and sees that nothing is left of it.
func stop(t *testing.T, instance *caddy.Instance) {
	t.Helper()
	for _, err := range instance.ShutdownCallbacks() {
		t.Error(err)
	}
	if err := instance.Stop(); err != nil {
		t.Error(err)
	}
	if got := held(); got != "0 sources, 0 handlers" {
		t.Errorf("Expected nothing to be held any more, got %s", got)
	}
	if n := testutil.CollectAndCount(watchProblem) + testutil.CollectAndCount(eventsTotal); n != 0 {
		t.Errorf("Expected no series of sources that have ended, got %d", n)
	}
}

const telling = `
	metadata
	template IN TXT . {
		answer "{{ .Name }} 5 IN TXT {{ .Meta \"locality/source\" }}/{{ .Meta \"locality/region\" }}/{{ .Meta \"locality/cluster\" }}/{{ .Meta \"locality/zone\" }}/{{ .Meta \"locality/node\" }}"
	}
`

func corefileOf(stanza string) string {
	return ".:0 {\n bind 127.0.0.1\n" + telling + "\n locality {\n" + stanza + "\n}\n}\n"
}

// where asks a server from an address where that is.
func where(t *testing.T, instance *caddy.Instance, from string) string {
	t.Helper()
	client := dns.Client{Timeout: 5 * time.Second, Dialer: &net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}}
	m, _, err := client.Exchange(new(dns.Msg).SetQuestion("where.", dns.TypeTXT), instance.Servers()[0].LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Answer) != 1 {
		return m.String()
	}
	return strings.Join(m.Answer[0].(*dns.TXT).Txt, "")
}

func eventually(t *testing.T, want string, get func() string) {
	t.Helper()
	got := ""
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if got = get(); got == want {
			return
		}
	}
	t.Fatalf("Expected %q, last got %q", want, got)
}

// held counts what the store holds.
func held() string {
	sources, handlers := 0, 0
	process.sources.Each(func(*nodeSource) bool { sources++; return true })
	process.handlers.Each(func(*Locality) bool { handlers++; return true })
	return fmt.Sprintf("%d sources, %d handlers", sources, handlers)
}

func TestLifeOfAServer(t *testing.T) {
	api := watchtest.Start(t)
	api.Put(t, nodesPath, node("n1", "eu-a", "127.0.1.1"))
	kubeconfig := api.Kubeconfig(t)
	stanza := "cluster east\nnodes " + kubeconfig
	instance := serverOf(t, corefileOf(stanza))
	defer func() { stop(t, instance) }()
	eventually(t, "address/eu/east/eu-a/n1", func() string { return where(t, instance, "127.0.1.1") })
	if got := where(t, instance, "127.0.2.1"); got != "cluster/eu/east//" {
		t.Errorf("Expected a client in no table to be in the cluster, got %q", got)
	}
	api.Put(t, nodesPath, node("n2", "eu-b", "127.0.2.1"))
	eventually(t, "address/eu/east/eu-b/n2", func() string { return where(t, instance, "127.0.2.1") })
	lists := api.Lists(nodesPath)

	t.Run("a good reload keeps what is known and lists nothing", func(t *testing.T) {
		next, err := instance.Restart(caddy.CaddyfileInput{
			Contents: []byte(corefileOf(stanza + "\ncidr 127.0.3.0/24 zone=table")), Filepath: "Corefile", ServerTypeName: "dns",
		})
		if err != nil {
			t.Fatal(err)
		}
		instance = next
		for from, want := range map[string]string{
			"127.0.1.1": "address/eu/east/eu-a/n1", "127.0.2.1": "address/eu/east/eu-b/n2", "127.0.3.1": "cidr/eu/east/table/",
		} {
			if got := where(t, instance, from); got != want {
				t.Errorf("Expected %s to be at %q at once, got %q", from, want, got)
			}
		}
		if got := api.Lists(nodesPath); got != lists {
			t.Errorf("Expected no other list of Nodes, got %d instead of %d", got, lists)
		}
		if got := held(); got != "1 sources, 1 handlers" {
			t.Errorf("Expected the old instance to have given back all it held, got %s", got)
		}
	})
	t.Run("a bad reload leaves everything as it was", func(t *testing.T) {
		other := watchtest.Start(t).Kubeconfig(t)
		taken, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		_, port, _ := net.SplitHostPort(taken.LocalAddr().String())
		for range 5 {
			for _, corefile := range []string{
				corefileOf("cluster east\nnodes " + other + "\nnonsense"),
				// This one fails when it binds, after it has acquired what it watches.
				corefileOf("cluster east\nnodes "+other) + ".:" + port + " {\n bind 127.0.0.1\n" + telling + "\n}\n",
			} {
				input := caddy.CaddyfileInput{Contents: []byte(corefile), Filepath: "Corefile", ServerTypeName: "dns"}
				if _, err := instance.Restart(input); err == nil {
					t.Fatal("Expected the reload to fail")
				}
			}
		}
		if got := held(); got != "1 sources, 1 handlers" {
			t.Errorf("Expected what failed instances held to be dropped, got %s", got)
		}
		if got := where(t, instance, "127.0.1.1"); got != "address/eu/east/eu-a/n1" {
			t.Errorf("Expected the old instance to go on, got %q", got)
		}
	})
	t.Run("metrics tell what is known", func(t *testing.T) {
		const want = `
			# HELP coredns_locality_entries Entries of the tables that map clients to places, by kind: node, address (of Nodes and endpoints), podcidr, cidr (written), ecs (forwarders).
			# TYPE coredns_locality_entries gauge
			coredns_locality_entries{cluster="east",kind="address"} 2
			coredns_locality_entries{cluster="east",kind="cidr"} 1
			coredns_locality_entries{cluster="east",kind="ecs"} 0
			coredns_locality_entries{cluster="east",kind="node"} 2
			coredns_locality_entries{cluster="east",kind="podcidr"} 0
			# HELP coredns_locality_podcidr_agreement_ratio Share of the endpoints that are on the Node whose pod CIDR holds them, 1 when there is nothing to compare.
			# TYPE coredns_locality_podcidr_agreement_ratio gauge
			coredns_locality_podcidr_agreement_ratio{cluster="east"} 1
			# HELP coredns_locality_podcidr_trusted 1 while the pod CIDRs of the Nodes are used, 0 while too few endpoints agree with them.
			# TYPE coredns_locality_podcidr_trusted gauge
			coredns_locality_podcidr_trusted{cluster="east"} 1
		`
		if err := testutil.CollectAndCompare(collector{process}, strings.NewReader(want)); err != nil {
			t.Error(err)
		}
	})
	t.Run("a problem is shown while it lasts", func(t *testing.T) {
		problem := watchProblem.WithLabelValues("east", "nodes", "forbidden")
		api.Forbid(nodesPath, true)
		api.CloseClientConnections()
		eventually(t, "1", func() string { return fmt.Sprint(testutil.ToFloat64(problem)) })
		if got := where(t, instance, "127.0.1.1"); got != "address/eu/east/eu-a/n1" {
			t.Errorf("Expected what is known to go on being used, got %q", got)
		}
		api.Forbid(nodesPath, false)
		eventually(t, "0", func() string { return fmt.Sprint(testutil.ToFloat64(problem)) })
	})
}

func TestTwoServerBlocksShareOneWatch(t *testing.T) {
	api := watchtest.Start(t)
	api.Put(t, nodesPath, node("n1", "eu-a", "127.0.1.1"))
	stanza := "cluster east\nnodes " + api.Kubeconfig(t)
	instance := serverOf(t, corefileOf(stanza)+strings.Replace(corefileOf(stanza), ".:0", "example.org:0", 1))
	defer stop(t, instance)
	eventually(t, "address/eu/east/eu-a/n1", func() string { return where(t, instance, "127.0.1.1") })
	if got := held(); got != "1 sources, 2 handlers" {
		t.Errorf("Expected one watch for both, got %s", got)
	}
	if got := api.Lists(nodesPath); got != 1 {
		t.Errorf("Expected one list of Nodes, got %d", got)
	}
}

func TestAServerStartsWithoutItsAPIServer(t *testing.T) {
	api := watchtest.Start(t)
	kubeconfig := api.Kubeconfig(t)
	api.Close()
	began := time.Now()
	instance := serverOf(t, corefileOf("cluster east eu\nnodes "+kubeconfig))
	defer stop(t, instance)
	if got := where(t, instance, "127.0.1.1"); got != "cluster/eu/east//" {
		t.Errorf("Expected clients to be in the cluster, got %q", got)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Expected the start not to wait, took %s", took)
	}
}

func TestViewsSeeWhereAClientIs(t *testing.T) {
	block := func(view, expression, answer string) string {
		return fmt.Sprintf(`.:0 {
			bind 127.0.0.1
			metadata
			locality {
				cluster east
				cidr 127.0.1.0/24 zone=eu-a
				cidr 127.0.2.0/24 zone=eu-b
			}
			view %s {
				expr %s
			}
			template IN TXT . {
				answer "{{ .Name }} 5 IN TXT %s"
			}
		}
		`, view, expression, answer)
	}
	instance := serverOf(t, block("a", "metadata('locality/zone') == 'eu-a'", "view-a")+block("rest", "true", "view-rest"))
	defer stop(t, instance)
	for from, want := range map[string]string{"127.0.1.7": "view-a", "127.0.2.7": "view-rest", "127.0.3.7": "view-rest"} {
		if got := where(t, instance, from); got != want {
			t.Errorf("Expected %s to see %s, got %s", from, want, got)
		}
	}
}

func TestMetadata(t *testing.T) {
	l := handler(t, nil, "cluster east eu\ncidr 10.1.0.0/16 zone=a node=n1")
	ctx := metadata.ContextWithMetadata(t.Context())
	ctx = l.Metadata(ctx, request.Request{W: udp("10.1.0.5"), Req: asking("10.1.0.5").Req})
	for label, want := range map[string]string{
		"locality/cluster": "east", "locality/region": "eu", "locality/zone": "a", "locality/node": "n1", "locality/source": "cidr",
	} {
		if f := metadata.ValueFunc(ctx, label); f == nil || f() != want {
			t.Errorf("Expected %s to be %q", label, want)
		}
	}
	if got := l.Metadata(context.Background(), request.Request{W: udp("10.1.0.5"), Req: asking("10.1.0.5").Req}); got != context.Background() {
		t.Error("Expected nothing to be added without the metadata plugin")
	}
}

func TestReady(t *testing.T) {
	for name, row := range map[string]struct {
		sources []bool // whether their Nodes are listed
		after   time.Duration
		was     bool
		want    bool
	}{
		"without nodes at once":                  {nil, 0, false, true},
		"once the nodes are listed":              {[]bool{true}, 0, false, true},
		"not before":                             {[]bool{false}, 4 * time.Second, false, false},
		"not while one of two is missing":        {[]bool{true, false}, 4 * time.Second, false, false},
		"after five seconds whatever is missing": {[]bool{false}, 5 * time.Second, false, true},
		"for ever when it was once":              {[]bool{false}, 0, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore()
			for i, listed := range row.sources {
				a := &atlas{}
				a.nodesListed.Store(listed)
				if _, err := s.sources.Acquire(nil, fmt.Sprint(i), func() (*nodeSource, error) { return &nodeSource{atlas: a}, nil }); err != nil {
					t.Fatal(err)
				}
			}
			s.wasReady.Store(row.was)
			if got := s.ready(s.started.Add(row.after)); got != row.want || s.wasReady.Load() != row.want {
				t.Errorf("Expected %v, and to be remembered, got %v", row.want, got)
			}
		})
	}
}

func TestMetricsAreNamedAsPrometheusAdvises(t *testing.T) {
	for _, c := range []prometheus.Collector{ecsTotal, eventsTotal, rejectionsTotal, watchProblem, collector{process}} {
		problems, err := testutil.CollectAndLint(c)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}
