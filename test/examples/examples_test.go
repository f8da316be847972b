package examples_test

import (
	"cmp"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/demo"
	"github.com/clusterset-dns/clusterset-dns/test/examples"
	"github.com/clusterset-dns/clusterset-dns/test/server"
	"github.com/clusterset-dns/clusterset-dns/test/suite"
)

// timeout bounds each wait.
const timeout = 30 * time.Second

// binaries and binary are the control plane and the server of all tests.
var (
	binaries clusters.Binaries
	binary   string
)

func TestMain(m *testing.M) {
	// Outside of any test, so that a first build does not count against the time limit of the tests.
	var errs [2]error
	binaries, errs[0] = clusters.Build(context.Background(), os.Stderr)
	binary, errs[1] = server.Build(context.Background(), os.Stderr)
	if err := errors.Join(errs[:]...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// A query and its answer: the data of its records, sorted, or the name of the rcode, or NODATA.
type query struct {
	from  string // the client's address; "" is 127.0.0.1
	name  string
	qtype uint16
	want  []string
}

// run is one run of an example, with something replaced.
type run struct {
	replace []string // pairs of old and new text
	// behind is the example of the server that this one forwards to, with behindReplace in it; "" for none.
	behind        string
	behindReplace []string
	queries       []query
	// check is what else is to be seen, after the queries.
	check func(*testing.T, *server.Server)
}

// dynamicMembers are queries about west, which is not in the Corefile.
var dynamicMembers = []query{
	{"", "echo.shop.svc.clusterset.local.", dns.TypeA, []string{"10.97.0.81"}},
	{"", "missing.shop.svc.clusterset.local.", dns.TypeA, []string{"NXDOMAIN"}},
}

// imported are queries about what an MCS controller has imported into east, and about what east has beside it.
var imported = []query{
	{"", "cart.shop.svc.clusterset.local.", dns.TypeA, []string{"203.0.113.7"}},
	{"", "queue-0.west.queue.shop.svc.clusterset.local.", dns.TypeA, []string{"10.2.0.77"}},
	{"", "queue.shop.svc.clusterset.local.", dns.TypeA, []string{"10.2.0.77"}},
	{"", "echo.shop.svc.clusterset.local.", dns.TypeA, []string{"NXDOMAIN"}}, // west exports it, and nobody imports it
	{"", "web.shop.svc.cluster.local.", dns.TypeA, []string{"10.96.0.80"}},
}

// forwardedTo is what the examples that forward have in the place of another server.
const forwardedTo = "10.96.0.53"

// runs are what is asked of each example.
var runs = map[string][]run{
	"three-clusters": {{replace: []string{"10.3.0.0/16", "127.0.3.0/24"}, queries: []query{
		{"", "web.shop.svc.clusterset.local.", dns.TypeA, []string{"10.96.0.80"}},
		{"127.0.3.7", "web.shop.svc.clusterset.local.", dns.TypeA, []string{"10.98.0.80"}},
		{"", "db.shop.svc.clusterset.local.", dns.TypeA, []string{"10.1.0.20", "10.1.0.21", "10.3.0.20"}},
	}}},
	"serviceimports": {{queries: []query{
		{"", "cart.shop.svc.clusterset.local.", dns.TypeA, []string{"203.0.113.7"}},
		{"", "queue-0.west.queue.shop.svc.clusterset.local.", dns.TypeA, []string{"10.2.0.77"}},
		{"", "web.shop.svc.clusterset.local.", dns.TypeA, []string{"NXDOMAIN"}}, // nobody imports it
	}}},
	"both-sources": {{queries: []query{
		{"", "cart.shop.svc.clusterset.local.", dns.TypeA, []string{"203.0.113.7"}},
		{"", "echo.shop.svc.clusterset.local.", dns.TypeA, []string{"10.97.0.81"}},
	}}},
	"first-day-shadow": {{queries: []query{
		{"", "cart.shop.svc.clusterset.local.", dns.TypeA, []string{"203.0.113.7"}},
		{"", "echo.shop.svc.clusterset.local.", dns.TypeA, []string{"NXDOMAIN"}}, // west exports it, and nobody imports it
		{"", "web.shop.svc.cluster.local.", dns.TypeA, []string{"10.96.0.80"}},
	}, check: comparedInTheShadow}},
	"hub": {{queries: []query{
		{"", "cart.shop.svc.clusterset.local.", dns.TypeA, []string{"203.0.113.8"}},
	}}},
	"gateway-addresses": {{queries: []query{
		{"", "echo.shop.svc.clusterset.local.", dns.TypeA, []string{"192.0.2.10"}},
		{"", "echo.shop.svc.clusterset.local.", dns.TypeAAAA, []string{"2001:db8::10"}},
		{"", "db-0.north.db.shop.svc.clusterset.local.", dns.TypeA, []string{"10.3.0.20"}},
	}}},
	"load-balancers": {{queries: []query{
		{"", "entry.shop.svc.clusterset.local.", dns.TypeA, []string{"198.51.100.80"}},
		{"", "echo.shop.svc.clusterset.local.", dns.TypeA, []string{"NODATA"}}, // has no load balancer
	}}},
	"flat-pod-network": {{queries: []query{
		{"", "echo.shop.svc.clusterset.local.", dns.TypeA, []string{"10.2.0.11"}},
		{"", "entry.shop.svc.clusterset.local.", dns.TypeA, []string{"NODATA"}}, // its pods listen on another port
	}}},
	"local-first": {{replace: []string{"10.8.0.0/16", "127.0.2.0/24"}, queries: []query{
		{"", "web.shop.svc.clusterset.local.", dns.TypeA, []string{"10.96.0.80"}},
		{"127.0.2.7", "web.shop.svc.clusterset.local.", dns.TypeA, []string{"10.97.0.80"}},
		{"", "echo.shop.svc.clusterset.local.", dns.TypeA, []string{"10.97.0.81"}}, // nobody nearer has it
	}}},
	"weighted-canary": {{queries: []query{
		{"", "missing.shop.svc.clusterset.local.", dns.TypeA, []string{"NXDOMAIN"}}, // now all is known
	}, check: aTenthToWest}},
	"zone-aware-headless": {{replace: []string{"nodes\n", "nodes\n        cidr 127.0.2.0/24 zone=eu-central-b\n"}, queries: []query{
		{"127.0.2.7", "shards.shop.svc.clusterset.local.", dns.TypeA, []string{"10.1.0.62", "10.2.0.61"}},
		{"", "shards.shop.svc.clusterset.local.", dns.TypeA, []string{"10.1.0.61", "10.1.0.62", "10.2.0.61"}}, // its zone is not known
		{"127.0.2.7", "db.shop.svc.clusterset.local.", dns.TypeA, []string{"10.1.0.20", "10.1.0.21"}},         // asks for no distribution
	}}},
	"active-passive": {
		{queries: []query{{"", "web.shop.svc.clusterset.local.", dns.TypeA, []string{"192.0.2.10"}}}},
		{replace: []string{"clusterhealth {", "clusterhealth {\n        drain west"}, queries: []query{
			{"", "web.shop.svc.clusterset.local.", dns.TypeA, []string{"10.96.0.80"}},
		}},
		{replace: []string{"clusterhealth {", "clusterhealth {\n        drain west east"}, queries: []query{
			{"", "web.shop.svc.clusterset.local.", dns.TypeA, []string{"198.51.100.10"}},
		}},
	},
	"probed-and-drained": {
		{queries: []query{
			{"", "web.shop.svc.clusterset.local.", dns.TypeA, []string{"10.96.0.80"}},
			{"", "db.shop.svc.clusterset.local.", dns.TypeA, []string{"10.1.0.20", "10.1.0.21"}}, // north has one too
		}},
		{replace: []string{"drain north", "drain east"}, queries: []query{
			{"", "web.shop.svc.clusterset.local.", dns.TypeA, []string{"10.97.0.80"}},
			{"", "db.shop.svc.clusterset.local.", dns.TypeA, []string{"10.3.0.20"}},
		}},
	},
	// The node that the cache is on is in west, whatever the address of whoever asks the cache.
	"node-local-cache": {{behind: "local-first", behindReplace: []string{"10.8.0.0/16", "127.0.0.1/32"}, queries: []query{
		{"127.0.1.7", "web.shop.svc.clusterset.local.", dns.TypeA, []string{"10.97.0.80"}},
		{"127.0.2.7", "web.shop.svc.clusterset.local.", dns.TypeA, []string{"10.97.0.80"}},
		{"", "missing.shop.svc.clusterset.local.", dns.TypeA, []string{"NXDOMAIN"}},
	}}},
	"beside-forwarding": {{behind: "beside-forwarding-server", behindReplace: believing("127.0.0.1/32"), queries: []query{
		{"", "web.shop.svc.clusterset.local.", dns.TypeA, []string{"10.96.0.80"}},
		{"127.0.2.7", "web.shop.svc.clusterset.local.", dns.TypeA, []string{"10.97.0.80"}},
		{"", "web.shop.svc.cluster.local.", dns.TypeA, []string{"10.96.0.80"}},
		{"", "example.org.", dns.TypeA, []string{"192.0.2.99"}},
	}}},
	"beside-forwarding-server": {{replace: believing("127.0.0.1/32"), queries: []query{
		{"127.0.1.7", "web.shop.svc.clusterset.local.", dns.TypeA, []string{"10.96.0.80"}},
		{"127.0.2.7", "web.shop.svc.clusterset.local.", dns.TypeA, []string{"10.97.0.80"}},
	}, check: onBehalfOfForwarders}},
	"own-block": {
		{queries: []query{
			{"", "web.shop.svc.clusterset.local.", dns.TypeA, []string{"10.96.0.80"}},
			{"", "web.shop.svc.cluster.local.", dns.TypeA, []string{"10.96.0.80"}},
			{"", "example.org.", dns.TypeA, []string{"192.0.2.99"}},
		}},
		{replace: []string{"10.20.0.0/16", "127.0.0.0/8"}, queries: []query{
			{"", "web.shop.svc.clusterset.local.", dns.TypeA, []string{"10.96.0.80", "10.97.0.80"}},
		}},
	},
	"from-lighthouse": {{queries: []query{
		{"", "web.shop.svc.clusterset.local.", dns.TypeA, []string{"10.96.0.80"}},
		{"", "echo.shop.svc.clusterset.local.", dns.TypeA, []string{"10.97.0.81"}},
		{"", "west.web.shop.svc.clusterset.local.", dns.TypeA, []string{"NXDOMAIN"}}, // Lighthouse has such names
		{"", "cart.shop.svc.clusterset.local.", dns.TypeA, []string{"NXDOMAIN"}},     // imports are not read
		{"", "web.shop.svc.cluster.local.", dns.TypeA, []string{"10.96.0.80"}},
	}}},
	"from-multicluster":            {{queries: imported}},
	"from-kubernetes-multicluster": {{queries: imported}},
	"cilium":                       {{queries: imported}},
	"istio": {{queries: []query{
		{"", "web.shop.svc.clusterset.local.", dns.TypeA, []string{"10.96.0.80"}},
		{"", "echo.shop.svc.clusterset.local.", dns.TypeA, []string{"192.0.2.10"}},
	}}},
	"linkerd": {{queries: []query{
		{"", "echo.shop.svc.clusterset.local.", dns.TypeA, []string{"10.2.0.11"}},
		{"", "web.shop.svc.cluster.local.", dns.TypeA, []string{"10.96.0.80"}},
	}}},
	"gke": {{queries: []query{
		{"", "web.shop.svc.clusterset.example.org.", dns.TypeA, []string{"10.96.0.80"}},
		{"", "echo.shop.svc.clusterset.example.org.", dns.TypeA, []string{"10.2.0.11"}},
		{"", "web.shop.svc.clusterset.local.", dns.TypeA, []string{"REFUSED"}}, // GKE's own
	}}},
	"karmada": {{queries: []query{
		{"", "echo.shop.svc.clusterset.local.", dns.TypeA, []string{"10.2.0.11"}},
		{"", "web.shop.svc.cluster.local.", dns.TypeA, []string{"10.96.0.80"}},
	}}},
	"members-by-secret": {{queries: dynamicMembers}},
	"members-by-folder": {{queries: dynamicMembers}},
	"overload": {{queries: []query{
		{"", "echo.shop.svc.clusterset.local.", dns.TypeA, []string{"10.97.0.81"}},
		{"", "web.shop.svc.cluster.local.", dns.TypeA, []string{"10.96.0.80"}},
		{"", "example.org.", dns.TypeA, []string{"192.0.2.99"}},
	}}},
	"kubeadm": {{queries: []query{
		{"", "echo.shop.svc.clusterset.local.", dns.TypeA, []string{"10.97.0.81"}},
		{"", "web.shop.svc.cluster.local.", dns.TypeA, []string{"10.96.0.80"}},
		{"", "db-0.db.shop.svc.cluster.local.", dns.TypeA, []string{"10.1.0.20"}},
		{"", "20.0.1.10.in-addr.arpa.", dns.TypePTR, []string{"db-0.db.shop.svc.cluster.local."}},
		{"", "example.org.", dns.TypeA, []string{"192.0.2.99"}},
	}}},
}

// believing lets the server behind a forwarder believe the one at these addresses, and have its clients of west on loopback.
func believing(forwarders string) []string {
	return []string{"10.1.0.0/16 10.2.0.0/16", forwarders, "10.2.0.0/16 cluster=west", "127.0.2.0/24 cluster=west"}
}

func TestEveryExampleAnswersInAClusterSet(t *testing.T) {
	names, err := examples.Names()
	if err != nil {
		t.Fatal(err)
	}
	places := start(t)
	for _, name := range names {
		if len(runs[name]) == 0 {
			t.Errorf("Example %s: no queries here, so nothing shows that it works", name)
		}
		for i, r := range runs[name] {
			t.Run(fmt.Sprintf("%s number %d", name, i+1), func(t *testing.T) {
				t.Parallel()
				r.test(t, name, places)
			})
		}
	}
	t.Run("snippets of the READMEs", func(t *testing.T) { testSnippets(t, places) })
}

func (r run) test(t *testing.T, name string, places examples.Places) {
	t.Helper()
	replace := r.replace
	if r.behind != "" {
		behind := serve(t, example(t, r.behind, r.behindReplace), places)
		ready(t, behind)
		replace = append(slices.Clone(replace), forwardedTo, behind.Addr())
	}
	s := serve(t, example(t, name, replace), places)
	if r.behind == "" {
		ready(t, s)
	}
	for _, q := range r.queries {
		q.check(t, s)
	}
	if r.check != nil {
		r.check(t, s)
	}
}

// example returns an example with pairs of old and new text replaced, each of which must be there.
func example(t *testing.T, name string, replace []string) string {
	t.Helper()
	text, err := examples.Read(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			t.Fatalf("Example %s: nothing to replace for %q", name, replace[i])
		}
	}
	return strings.NewReplacer(replace...).Replace(text)
}

// aTenthToWest asks from a thousand addresses. By chance alone the number is more than six standard deviations of 9.5
// away from 100 in one of a billion runs.
// comparedInTheShadow looks for answers of both kinds among those that were compared. Each look asks once more, since the first
// answers of a start may come before west is known.
func comparedInTheShadow(t *testing.T, s *server.Server) {
	t.Helper()
	suite.Within(t, timeout, "answers are compared", func(ctx context.Context) error {
		for _, name := range []string{"cart", "echo"} {
			if _, err := s.Query(ctx, name+".shop.svc.clusterset.local.", dns.TypeA); err != nil {
				return err
			}
		}
		families, err := s.Metrics(ctx)
		if err != nil {
			return err
		}
		found := map[string]bool{}
		for _, m := range families["coredns_clusterset_shadow_answers_total"].GetMetric() {
			found[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue() > 0
		}
		if !found["same"] || !found["different"] {
			return fmt.Errorf("it counts %v", found)
		}
		return nil
	})
}

func aTenthToWest(t *testing.T, s *server.Server) {
	t.Helper()
	got := map[string]int{}
	for i := range 1000 {
		m, err := demo.Ask(t.Context(), s.Addr(), fmt.Sprintf("127.0.%d.%d", i/250, i%250+1), "web.shop.svc.clusterset.local.", dns.TypeA)
		if err != nil {
			t.Fatal(err)
		}
		got[strings.Join(demo.Short(m), " ")]++
	}
	if east, west := got["10.96.0.80"], got["10.97.0.80"]; east+west != 1000 || west < 43 || west > 157 {
		t.Errorf("Answers are %v, want about 900 of 10.96.0.80 and 100 of 10.97.0.80, one each", got)
	}
}

// onBehalfOfForwarders asks with client subnets: one is believed, and one from another address is not.
func onBehalfOfForwarders(t *testing.T, s *server.Server) {
	t.Helper()
	for from, want := range map[string]string{"127.0.0.1": "10.97.0.80", "127.0.1.7": "10.96.0.80"} {
		m := new(dns.Msg).SetQuestion("web.shop.svc.clusterset.local.", dns.TypeA)
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_SUBNET{
			Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 32, Address: net.IPv4(127, 0, 2, 7),
		}}
		client := dns.Client{Timeout: timeout, Dialer: &net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}}
		reply, _, err := client.ExchangeContext(t.Context(), m, s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if got := demo.Short(reply); !slices.Equal(got, []string{want}) {
			t.Errorf("From %s for a client in west: got %q, want %s", from, got, want)
		}
	}
}

// testSnippets starts every Corefile that is printed in a README or in docs.
func testSnippets(t *testing.T, places examples.Places) {
	t.Helper()
	for _, file := range documents(t) {
		found := snippets(t, file.text)
		if strings.HasPrefix(file.name, "plugin/") && len(found) == 0 {
			t.Errorf("%s: no Corefile in it", file.name)
		}
		for i, text := range found {
			t.Run(fmt.Sprintf("%s number %d", file.name, i+1), func(t *testing.T) {
				t.Parallel()
				s := serve(t, text, places)
				for _, zone := range zones(text) {
					query{"", "dns-version." + zone, dns.TypeTXT, []string{`"1.0.0"`}}.check(t, s)
				}
			})
		}
	}
}

var fenced = regexp.MustCompile("(?ms)^(?:```|~~~) ?corefile\n(.*?)^(?:```|~~~)$")

func snippets(t *testing.T, text string) []string {
	t.Helper()
	var found []string
	for _, match := range fenced.FindAllStringSubmatch(text, -1) {
		found = append(found, match[1])
	}
	return found
}

var stanza = regexp.MustCompile(`(?m)^\s+clusterset([^{\n]*)\{$`)

// zones returns the zones of all clusterset stanzas.
func zones(corefile string) []string {
	var all []string
	for _, match := range stanza.FindAllStringSubmatch(corefile, -1) {
		names := strings.Fields(match[1])
		if len(names) == 0 {
			names = []string{"clusterset.local"}
		}
		for _, name := range names {
			all = append(all, dns.Fqdn(name))
		}
	}
	return all
}

// start brings up three clusters with the objects that the queries are about, and an upstream server.
func start(t *testing.T) examples.Places {
	t.Helper()
	var options []clusters.Options
	for _, name := range []string{"east", "west", "north"} {
		options = append(options, clusters.Options{Name: name, ControllerManager: true})
	}
	started, err := clusters.StartAll(t.Context(), binaries, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := clusters.StopAll(started...); err != nil {
			t.Error(err)
		}
	})
	east, west, north := started[0], started[1], started[2]
	for _, c := range started {
		if _, err := demo.Deploy(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	for file, c := range map[string]*clusters.Cluster{"exports-east": east, "imports-east": east, "exports-west": west, "imports-north": north} {
		text, err := os.ReadFile(filepath.Join("testdata", file+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Apply(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	giveLoadBalancer(t, west, "entry", "198.51.100.80")
	gateway := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(gateway.Close)
	target := gateway.Listener.Addr().String()
	return examples.Places{
		Local: east.Kubeconfig(),
		Kubeconfigs: map[string]string{
			"east": east.Kubeconfig(), "west": west.Kubeconfig(), "north": north.Kubeconfig(), "hub": north.Kubeconfig(),
			"karmada-west": throughKarmada(t, west),
		},
		Targets:  map[string]string{"east": target, "west": target, "north": target},
		Upstream: upstream(t),
		Members:  describe(t, east, west),
	}
}

// describe makes a member of a cluster, by a Secret in another one and by a folder.
func describe(t *testing.T, in, of *clusters.Cluster) (folder string) {
	t.Helper()
	kubeconfig, err := os.ReadFile(of.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	about := map[string]string{"kubeconfig": string(kubeconfig), "address": "clusterip"}
	client, err := kubernetes.NewForConfig(in.Admin())
	if err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: of.Name()}, StringData: about}
	if _, err := client.CoreV1().Secrets("clusterset-members").Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	folder = t.TempDir()
	if err := os.Mkdir(filepath.Join(folder, of.Name()), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range about {
		if err := os.WriteFile(filepath.Join(folder, of.Name(), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

// throughKarmada returns a kubeconfig of a member that leads through another API server, under the path that Karmada's proxy
// has: https://karmada.io/docs/userguide/globalview/aggregated-api-endpoint
func throughKarmada(t *testing.T, member *clusters.Cluster) (kubeconfig string) {
	t.Helper()
	config, err := clientcmd.LoadFromFile(member.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	to, err := url.Parse(member.URL())
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(member.Admin())
	if err != nil {
		t.Fatal(err)
	}
	path := "/apis/cluster.karmada.io/v1alpha1/clusters/" + member.Name() + "/proxy"
	pass := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport: transport,
		ErrorLog:  log.New(io.Discard, "", 0), // of watches that end with the server
	}
	proxy := httptest.NewTLSServer(http.StripPrefix(path, pass))
	t.Cleanup(proxy.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: proxy.Certificate().Raw})
	for _, c := range config.Clusters {
		c.Server, c.CertificateAuthority, c.CertificateAuthorityData = proxy.URL+path, "", ca
	}
	kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, kubeconfig); err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}

func giveLoadBalancer(t *testing.T, c *clusters.Cluster, name, ip string) {
	t.Helper()
	client, err := kubernetes.NewForConfig(c.Admin())
	if err != nil {
		t.Fatal(err)
	}
	service, err := client.CoreV1().Services("shop").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	service.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: ip}}
	if _, err := client.CoreV1().Services("shop").UpdateStatus(t.Context(), service, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// upstream answers example.org and denies everything else.
func upstream(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetRcode(r, dns.RcodeNameError)
		if r.Question[0].Name == "example.org." && r.Question[0].Qtype == dns.TypeA {
			m.SetReply(r)
			rr, err := dns.NewRR("example.org. 5 IN A 192.0.2.99")
			if err != nil {
				t.Error(err)
			}
			m.Answer = []dns.RR{rr}
		}
		if err := w.WriteMsg(m); err != nil {
			t.Log(err)
		}
	})}
	done := make(chan error)
	go func() { done <- s.ActivateAndServe() }()
	t.Cleanup(func() {
		if err := errors.Join(s.Shutdown(), <-done); err != nil {
			t.Error(err)
		}
	})
	return conn.LocalAddr().String()
}

// serve runs the server with a Corefile as an operator would have it.
func serve(t *testing.T, corefile string, places examples.Places) *server.Server {
	t.Helper()
	places.State = t.TempDir()
	filled, err := examples.Fill(corefile, places)
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.Start(t.Context(), binary, filled, server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("Corefile:\n%s\nLog:\n%s", filled, s.Log())
		}
	})
	return s
}

func ready(t *testing.T, s *server.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	if err := s.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	status, err := s.Ready(ctx)
	if err != nil || status != http.StatusOK {
		t.Errorf("Ready: status %d, %v", status, err)
	}
}

// check asks until the answer is the wanted one: *ready* waits for remote clusters 5 s at most, and EndpointSlices come
// a moment after their Services.
func (q query) check(t *testing.T, s *server.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	for {
		m, err := demo.Ask(ctx, s.Addr(), cmp.Or(q.from, "127.0.0.1"), q.name, q.qtype)
		if err != nil {
			t.Fatal(err)
		}
		got := demo.Short(m)
		if slices.Equal(got, q.want) {
			return
		}
		select {
		case <-ctx.Done():
			t.Errorf("%s %s from %q: got %q, want %q", q.name, dns.TypeToString[q.qtype], q.from, got, q.want)
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestEveryExampleSaysWhatItIsForAndWhatToChange(t *testing.T) {
	names, err := examples.Names()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := examples.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"# For: ", "# Change: "} {
			if !strings.HasPrefix(text, "# ") || !strings.Contains(text, "\n"+want) {
				t.Errorf("Example %s: no comment with %q at its beginning", name, want)
			}
		}
	}
}
