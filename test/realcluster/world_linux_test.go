package realcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/demo"
	"github.com/clusterset-dns/clusterset-dns/test/readme"
	"github.com/clusterset-dns/clusterset-dns/test/realcluster/probe"
	"github.com/clusterset-dns/clusterset-dns/test/suite"
)

const (
	// limit bounds a wait for something that takes seconds on an idle machine.
	limit = 2 * time.Minute
	// startLimit bounds the start of something.
	startLimit = 4 * time.Minute
	// grace is how long a node can be silent before it is not ready. On a busy machine kubelets are late by seconds.
	grace = 20 * time.Second
	// bridge has the cables of all nodes.
	bridge = "nodes"
)

var (
	network = netip.MustParsePrefix("172.31.0.0/24")
	// upstream is the resolver above the clusters, on the bridge.
	upstream = netip.MustParseAddr("172.31.0.53")
)

var must = suite.Must

// cluster is a cluster with nodes.
type cluster struct {
	*clusters.Cluster
	name string
	// address is that of its API server, on the bridge; services and pods are its networks, dns the address of its DNS.
	address        netip.Addr
	services, pods netip.Prefix
	dns            string
	nodes          []*node
	client         *kubernetes.Clientset
	// original is the Deployment of its DNS, as kubeadm has it.
	original *appsv1.Deployment
}

// other returns the cluster that this one is not.
func (w *world) other(c *cluster) *cluster {
	if c == w.east {
		return w.west
	}
	return w.east
}

// world is two clusters whose networks are one.
type world struct {
	east, west *cluster
	// atEast types the commands of deploy/README.md, atWest those with the clusters exchanged.
	atEast, atWest readme.Operator
	table          table
	client         http.Client
}

func (w *world) both() []*cluster { return []*cluster{w.east, w.west} }

func (w *world) nodes() []*node { return slices.Concat(w.east.nodes, w.west.nodes) }

// each does something in both clusters at the same time, and returns how long that took in each.
func (w *world) each(t *testing.T, do func(t *testing.T, c *cluster, o readme.Operator)) string {
	t.Helper()
	took := map[*cluster]time.Duration{}
	var mu sync.Mutex
	ok := t.Run("each", func(t *testing.T) {
		for _, c := range w.both() {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				begin := time.Now()
				do(t, c, w.at(c))
				mu.Lock()
				defer mu.Unlock()
				took[c] = time.Since(begin)
			})
		}
	})
	if !ok {
		t.FailNow()
	}
	return fmt.Sprintf("%s, %s", seconds(took[w.east]), seconds(took[w.west]))
}

// at returns who types commands for a cluster.
func (w *world) at(c *cluster) readme.Operator {
	if c == w.east {
		return w.atEast
	}
	return w.atWest
}

// newWorld says what there will be: two nodes in two zones, and one in the second of these.
func newWorld() *world {
	w := &world{
		east: &cluster{
			name: "east", address: netip.MustParseAddr("172.31.0.1"), dns: "10.96.0.10",
			services: netip.MustParsePrefix("10.96.0.0/16"), pods: netip.MustParsePrefix("10.1.0.0/16"),
			nodes: []*node{
				{name: "east-a", zone: "eu-1", address: netip.MustParseAddr("172.31.0.11"), unprivileged: true, proxy: "iptables"},
				{name: "east-b", zone: "eu-2", address: netip.MustParseAddr("172.31.0.12"), unprivileged: true, proxy: "iptables"},
			},
		},
		west: &cluster{
			name: "west", address: netip.MustParseAddr("172.31.0.2"), dns: "10.97.0.10",
			services: netip.MustParsePrefix("10.97.0.0/16"), pods: netip.MustParsePrefix("10.2.0.0/16"),
			nodes: []*node{
				{name: "west-a", zone: "eu-2", address: netip.MustParseAddr("172.31.0.21"), unprivileged: false, proxy: "nftables"},
			},
		},
		client: http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	}
	for _, c := range w.both() {
		for _, n := range c.nodes {
			n.cluster = c
		}
	}
	return w
}

// start starts everything; the test ends it.
func (w *world) start(t *testing.T) {
	t.Helper()
	must(t, ip("link add "+bridge+" type bridge"))
	// The first address is that which this test asks from, and must be of neither cluster.
	for _, address := range []netip.Addr{upstream, w.east.address, w.west.address} {
		must(t, ip(fmt.Sprintf("address add %s/%d dev %s", address, network.Bits(), bridge)))
	}
	must(t, ip("link set "+bridge+" up"))
	serveUpstream(t)
	w.startControlPlanes(t)
	w.startNodes(t)
	kubeconfig := filepath.Join(built.Dir, "both.kubeconfig")
	must(t, w.writeKubeconfig(kubeconfig))
	w.atEast = readme.New(t, kubeconfig, filepath.Dir(built.Binaries.Kubectl), 3*time.Minute)
	w.atWest = w.atEast.OfWest(t)
	for _, c := range w.both() {
		w.install(t, c)
		w.fill(t, c)
	}
	t.Cleanup(func() {
		if t.Failed() {
			w.explain(t)
		}
	})
}

// stand waits until all that was installed is ready.
func (w *world) stand(t *testing.T) {
	t.Helper()
	for _, c := range w.both() {
		suite.Within(t, startLimit, "the DNS of "+c.name+" is ready", func(ctx context.Context) error {
			return c.serves(ctx, stockImage)
		})
		c.original = c.deployment(t)
		suite.Within(t, startLimit, "the pods of "+c.name+" are ready", func(ctx context.Context) error {
			return c.settled(ctx, "shop", "", len(c.nodes)+3)
		})
	}
}

func (w *world) startControlPlanes(t *testing.T) {
	t.Helper()
	var options []clusters.Options
	for _, c := range w.both() {
		options = append(options, clusters.Options{
			Name: c.name, ServiceCIDR: c.services.String(), Bare: true, Dir: filepath.Join(built.Dir, c.name),
			Nodes: &clusters.Nodes{Address: c.address, Pods: c.pods, Grace: grace.String()},
		})
	}
	started, err := clusters.StartAll(t.Context(), built.Binaries, options...)
	must(t, err)
	t.Cleanup(func() { must(t, clusters.StopAll(started...)) })
	for i, c := range w.both() {
		c.Cluster = started[i]
		c.client, err = kubernetes.NewForConfig(c.Admin())
		must(t, err)
	}
}

// startNodes starts the nodes and connects their networks.
func (w *world) startNodes(t *testing.T) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context()) // they end after what the test cleans up before
	t.Cleanup(func() {
		if t.Failed() {
			w.explainNodes(t)
		}
		for _, n := range w.nodes() {
			must(t, n.stop())
		}
	})
	var group sync.WaitGroup
	errs := make([]error, len(w.nodes()))
	for i, n := range w.nodes() {
		group.Go(func() { errs[i] = n.start(ctx) })
	}
	group.Wait()
	must(t, errors.Join(errs...))
	for _, n := range w.nodes() {
		suite.Within(t, startLimit, "the cluster knows the node "+n.name, n.allocated)
		must(t, n.configure())
	}
	must(t, w.route())
	for _, n := range w.nodes() {
		suite.Within(t, startLimit, "a node is ready", n.ready)
	}
}

// route makes one flat network of all pods and services. Those of a cluster are behind its first node, for the other one.
func (w *world) route() error {
	var errs []error
	for _, to := range w.nodes() {
		errs = append(errs, ip(fmt.Sprintf("route add %s via %s", to.pods, to.address)))
		for _, from := range w.nodes() {
			if from != to {
				errs = append(errs, from.ip(fmt.Sprintf("route add %s via %s", to.pods, to.address)))
			}
		}
	}
	for _, c := range w.both() {
		for _, from := range w.other(c).nodes {
			errs = append(errs, from.ip(fmt.Sprintf("route add %s via %s", c.services, c.nodes[0].address)))
		}
	}
	return errors.Join(errs...)
}

// writeKubeconfig writes one with the contexts east and west, which may do everything.
func (w *world) writeKubeconfig(path string) error {
	merged := clientcmdapi.NewConfig()
	for _, c := range w.both() {
		admin, err := clientcmd.LoadFromFile(c.AdminKubeconfig())
		if err != nil {
			return err
		}
		name := admin.CurrentContext
		merged.Clusters[name], merged.AuthInfos[name] = admin.Clusters[name], admin.AuthInfos[name]
		merged.Contexts[c.name] = admin.Contexts[name]
	}
	return clientcmd.WriteToFile(*merged, path)
}

// serveUpstream runs the resolver that the DNS of the clusters forwards to: it knows example.org.
func serveUpstream(t *testing.T) {
	t.Helper()
	address := netip.AddrPortFrom(upstream, 53).String()
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetRcode(q, dns.RcodeNameError)
		if q.Question[0].Name == "example.org." && q.Question[0].Qtype == dns.TypeA {
			m.Rcode = dns.RcodeSuccess
			m.Answer = []dns.RR{&dns.A{
				Hdr: dns.RR_Header{Name: "example.org.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(192, 0, 2, 99),
			}}
		}
		_ = w.WriteMsg(m) // whoever asks tells
	})
	for _, network := range []string{"udp", "tcp"} {
		started := make(chan struct{})
		server := &dns.Server{Addr: address, Net: network, Handler: handler, NotifyStartedFunc: func() { close(started) }}
		ended := make(chan error, 1)
		go func() { ended <- server.ListenAndServe() }()
		select {
		case <-started:
		case err := <-ended:
			t.Fatalf("the resolver above: %v", err)
		}
		t.Cleanup(func() {
			must(t, server.Shutdown())
			must(t, <-ended)
		})
	}
}

// kubectl runs kubectl with all rights in a cluster.
func (w *world) kubectl(t *testing.T, c *cluster, args string) {
	t.Helper()
	w.atEast.Run(t, "kubectl --context "+c.name+" "+args)
}

// install gives a cluster CoreDNS as kubeadm does.
func (w *world) install(t *testing.T, c *cluster) {
	t.Helper()
	root, err := clusters.Root()
	must(t, err)
	text, err := os.ReadFile(filepath.Join(root, "test", "deploy", "testdata", "kubeadm.yaml"))
	must(t, err)
	manifest := filepath.Join(built.Dir, c.name+"-kubeadm.yaml")
	must(t, os.WriteFile(manifest, []byte(strings.ReplaceAll(string(text), w.east.dns, c.dns)), 0o600))
	w.kubectl(t, c, "create --validate=strict -f "+manifest)
}

// fill gives a cluster services and probes.
func (w *world) fill(t *testing.T, c *cluster) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "shop.yaml"))
	must(t, err)
	last := c.nodes[len(c.nodes)-1].name
	must(t, c.Apply(t.Context(), []byte(strings.NewReplacer("CLUSTER", c.name, "WEB", last, "PROBE\n", probeImage+"\n").Replace(string(text)))))
}

// podsOf returns the pods with a label that are not going away.
func (c *cluster) podsOf(ctx context.Context, namespace, label string) ([]corev1.Pod, error) {
	list, err := c.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: label})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil }), nil
}

// settled returns an error unless exactly so many pods with a label exist, and all are ready.
func (c *cluster) settled(ctx context.Context, namespace, label string, want int) error {
	list, err := c.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: label})
	if err != nil {
		return err
	}
	if len(list.Items) != want {
		return fmt.Errorf("there are %d pods with %s in %s, want %d", len(list.Items), label, c.name, want)
	}
	for _, pod := range list.Items {
		if !ready(pod) {
			return fmt.Errorf("pod %s of %s is not ready: %s", pod.Name, c.name, pod.Status.Phase)
		}
	}
	return nil
}

// dnsPods select the pods of the cluster's DNS.
const dnsPods = "k8s-app=kube-dns"

// serves returns an error unless the DNS of the cluster is two pods of an image, and no other.
func (c *cluster) serves(ctx context.Context, image string) error {
	if err := c.settled(ctx, "kube-system", dnsPods, 2); err != nil {
		return err
	}
	pods, err := c.podsOf(ctx, "kube-system", dnsPods)
	if err != nil {
		return err
	}
	for _, pod := range pods {
		if got := pod.Spec.Containers[0].Image; got != image {
			return fmt.Errorf("pod %s of %s has the image %s", pod.Name, c.name, got)
		}
	}
	return nil
}

func ready(pod corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// probe returns the probe on a node.
func (n *node) probe(ctx context.Context) (corev1.Pod, error) {
	pods, err := n.cluster.podsOf(ctx, "shop", "app=probe")
	if err != nil {
		return corev1.Pod{}, err
	}
	for _, pod := range pods {
		if pod.Spec.NodeName == n.name {
			return pod, nil
		}
	}
	return corev1.Pod{}, fmt.Errorf("no probe on %s", n.name)
}

// get fetches a page of a pod.
func (w *world) get(ctx context.Context, pod corev1.Pod, port, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(pod.Status.PodIP, port)+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := w.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", response.StatusCode, strings.TrimSpace(string(body)))
	}
	return body, err
}

// look has the probe on a node look the addresses of a name up, and returns what demo.Short makes of the answer.
func (w *world) look(ctx context.Context, n *node, name string) ([]string, error) {
	pod, err := n.probe(ctx)
	if err != nil {
		return nil, err
	}
	wire, err := w.get(ctx, pod, probe.Port, "/lookup?"+url.Values{"name": {name}}.Encode())
	if err != nil {
		return nil, fmt.Errorf("look %s up on %s: %w", name, n.name, err)
	}
	var m dns.Msg
	if err := m.Unpack(wire); err != nil {
		return nil, err
	}
	return demo.Short(&m), nil
}

// fetch has the probe on a node connect to a host, and returns who answers.
func (w *world) fetch(ctx context.Context, n *node, host string) (string, error) {
	pod, err := n.probe(ctx)
	if err != nil {
		return "", err
	}
	body, err := w.get(ctx, pod, probe.Port, "/fetch?"+url.Values{"host": {host}}.Encode())
	if err != nil {
		return "", fmt.Errorf("fetch %s on %s: %w", host, n.name, err)
	}
	return string(body), nil
}

// loads returns what has become of the lookups of each node's probe, by name.
func (w *world) loads(t *testing.T) map[*node]map[string]probe.Load {
	t.Helper()
	found := map[*node]map[string]probe.Load{}
	for _, n := range w.nodes() {
		suite.Within(t, limit, "the probe on "+n.name+" tells", func(ctx context.Context) error {
			pod, err := n.probe(ctx)
			if err != nil {
				return err
			}
			text, err := w.get(ctx, pod, probe.Port, "/load")
			if err != nil {
				return err
			}
			load := map[string]probe.Load{}
			found[n] = load
			return json.Unmarshal(text, &load)
		})
	}
	return found
}
