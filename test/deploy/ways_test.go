package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/demo"
	"github.com/clusterset-dns/clusterset-dns/test/examples"
	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// joins makes west a member, with the bundle and the commands of the README, up to the kubeconfig. What examples.Fill replaces
// (ports, kubeconfigs, the folder for the state, the upstream resolver) is all that is different here, beside the address of the
// API server.
func (o operator) joins(t *testing.T) {
	t.Helper()
	o.applies(t, west, "member")
	o.MakesKubeconfig(t, west.URL())
}

func clientOf(t *testing.T, c *clusters.Cluster) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(c.Admin())
	must(t, err)
	return client
}

// TestWaysInAndBack goes them one after the other, since deleting a namespace takes some seconds each time.
func TestWaysInAndBack(t *testing.T) {
	o := newOperator(t)
	installKubeadms(t)
	o.joins(t)
	o.applies(t, east, "member")
	t.Run("the kubeconfig of a member reads, and has its own share of the API server", o.testMember)
	t.Run("drop-in takes the place of kubeadm's CoreDNS and gives it back", o.testDropIn)
	t.Run("beside answers what an unmodified CoreDNS forwards", o.testBeside)
	t.Run("the operations guide does what it says", o.testOperations)
	t.Run("a token that is taken back is refused", o.testTakenBack)
}

func (o operator) testMember(t *testing.T) {
	if out := o.Does(t, "kubectl --kubeconfig=west.kubeconfig get serviceexports --all-namespaces"); !strings.Contains(out, "echo") {
		t.Errorf("Exports are %q, want echo among them", out)
	}
	for _, forbidden := range []string{"get namespaces", "get secrets --all-namespaces", "get serviceimports --all-namespaces", "-n shop delete service web"} {
		if _, err := o.Try(t, "kubectl --kubeconfig=west.kubeconfig "+forbidden); err == nil || !strings.Contains(err.Error(), "Forbidden") {
			t.Errorf("kubectl %s: got %v, want that it is forbidden", forbidden, err)
		}
	}

	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(o.Dir, "west.kubeconfig"))
	must(t, err)
	client := clientOf(t, west)
	schema, err := client.FlowcontrolV1().FlowSchemas().Get(t.Context(), "clusterset-dns", metav1.GetOptions{})
	must(t, err)
	level, err := client.FlowcontrolV1().PriorityLevelConfigurations().Get(t.Context(), "clusterset-dns", metav1.GetOptions{})
	must(t, err)
	want := []string{string(schema.UID), string(level.UID)}
	within(t, "the flow schema is in force", func() error {
		got, err := classified(t.Context(), config)
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("flow schema and priority level are %q, want %q", got, want)
		}
		return err
	})

}

func (o operator) testTakenBack(t *testing.T) {
	o.Does(t, "kubectl --context west -n clusterset-dns delete secret clusterset-dns-token")
	within(t, "the token is refused", func() error {
		_, err := o.Try(t, "kubectl --kubeconfig=west.kubeconfig get serviceexports --all-namespaces")
		if err == nil || !strings.Contains(err.Error(), "Unauthorized") && !strings.Contains(err.Error(), "logged in") {
			return fmt.Errorf("got %w, want that it is not accepted", err)
		}
		return nil
	})
}

// classified asks for something and returns the UIDs of the flow schema and the priority level that took care of it.
func classified(ctx context.Context, config *rest.Config) ([]string, error) {
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, config.Host+"/api/v1/services?limit=1", http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	return []string{response.Header.Get("X-Kubernetes-Pf-Flowschema-Uid"), response.Header.Get("X-Kubernetes-Pf-Prioritylevel-Uid")}, response.Body.Close()
}

func (o operator) testDropIn(t *testing.T) {
	before := untilRevision(t, "1")
	o.applies(t, east, "drop-in")
	o.IsTold(t)
	if now := untilRevision(t, "1"); !reflect.DeepEqual(before.Spec, now.Spec) {
		t.Error("What prepares the way in changes the Deployment already")
	}

	o.Does(t, "kubectl --context east -n kube-system patch deployment coredns --patch-file deploy/drop-in/corednsdeployment+strategic.yaml",
		"--warnings-as-errors")
	after := untilRevision(t, "2")
	want := []string{
		".template.spec.containers.0.image",
		".template.spec.containers.0.readinessProbe.failureThreshold", ".template.spec.containers.0.readinessProbe.periodSeconds",
		".template.spec.containers.0.readinessProbe.timeoutSeconds", ".template.spec.containers.0.volumeMounts",
		".template.spec.securityContext.sysctls", ".template.spec.volumes",
	}
	if got := differences("", generic(t, before.Spec), generic(t, after.Spec)); !slices.Equal(got, want) {
		t.Errorf("The patch changes %q, want %q", got, want)
	}
	// A pod that ends must count as such before it has ended, after the 5 seconds of "lameduck".
	if p := after.Spec.Template.Spec.Containers[0].ReadinessProbe; p.PeriodSeconds*p.FailureThreshold > 2 || p.TimeoutSeconds < 5 {
		t.Errorf("The patch makes the readiness probe %v", p)
	}
	o.Run(t, "kubectl --context east -n kube-system patch deployment coredns --patch-file deploy/drop-in/corednsdeployment+strategic.yaml")
	if again := untilRevision(t, "2"); !reflect.DeepEqual(after.Spec, again.Spec) {
		t.Error("The same patch again changes something")
	}

	places := placesOf(t, "kube-system", "coredns")
	corefile := corefileOf(t, after)
	s := serve(t, coredns, corefile, places)
	must(t, s.WaitReady(t.Context()))
	for _, q := range []query{
		{"", "web.shop.svc.clusterset.local.", dns.TypeA, webInEast},
		{"", "echo.shop.svc.clusterset.local.", dns.TypeA, echoAddress},
		{"", "nobody.shop.svc.clusterset.local.", dns.TypeA, "NXDOMAIN"},
		{"", "web.shop.svc.cluster.local.", dns.TypeA, webInEast},
		{"", "80.0.96.10.in-addr.arpa.", dns.TypePTR, "web.shop.svc.cluster.local."},
		{"", "example.org.", dns.TypeA, "192.0.2.99"},
	} {
		q.check(t, s)
	}
	withoutComplaint(t, s)
	if _, err := startServer(t, stock, corefile, places); err == nil || !strings.Contains(err.Error(), "Unknown directive") {
		t.Errorf("CoreDNS as it was, with this Corefile: got %v, want that it does not know a directive", err)
	}

	o.Does(t, "kubectl --context east -n kube-system rollout undo deployment coredns")
	restored := untilRevision(t, "3")
	if got := differences("", generic(t, before.Spec), generic(t, restored.Spec)); len(got) > 0 {
		t.Errorf("The way back leaves %q changed", got)
	}
	old := serve(t, stock, corefileOf(t, restored), places)
	query{"", "web.shop.svc.cluster.local.", dns.TypeA, webInEast}.check(t, old)
	query{"", "echo.shop.svc.clusterset.local.", dns.TypeA, "NXDOMAIN"}.check(t, old)
	leave(t, s, old)
}

// leave lets servers take their lameduck time all at once.
func leave(t *testing.T, servers ...*server.Server) {
	t.Helper()
	for _, s := range servers {
		must(t, s.Signal(syscall.SIGTERM))
	}
}

func (o operator) testBeside(t *testing.T) {
	client := clientOf(t, east)
	before, err := client.AppsV1().Deployments("kube-system").Get(t.Context(), "coredns", metav1.GetOptions{})
	must(t, err)
	o.applies(t, east, "beside")
	o.IsTold(t)

	within(t, "its pods are admitted to a namespace that is restricted", func() error {
		pods, err := client.CoreV1().Pods("clusterset-dns").List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=clusterset-dns"})
		if err == nil && len(pods.Items) != 2 {
			err = fmt.Errorf("there are %d pods, want 2", len(pods.Items))
		}
		return err
	})
	deployment, err := client.AppsV1().Deployments("clusterset-dns").Get(t.Context(), "clusterset-dns", metav1.GetOptions{})
	must(t, err)
	kubeadms := before.Spec.Template.Spec.Containers[0]
	ours := deployment.Spec.Template.Spec.Containers[0]
	readiness := *kubeadms.ReadinessProbe
	readiness.PeriodSeconds, readiness.TimeoutSeconds, readiness.FailureThreshold = 1, 5, 2 // as in the drop-in
	if !reflect.DeepEqual(ours.LivenessProbe, kubeadms.LivenessProbe) || !reflect.DeepEqual(*ours.ReadinessProbe, readiness) ||
		!reflect.DeepEqual(ours.Resources, kubeadms.Resources) {
		t.Error("Probes or resources are not those of kubeadm's CoreDNS")
	}

	const pods = "10.1.0.0/16 10.2.0.0/16" // what the Corefile has for the networks of pods
	corefile := strings.NewReplacer(pods, "127.0.0.1/32", "10.2.0.0/16 cluster=west", "127.0.2.0/24 cluster=west").Replace(corefileOf(t, deployment))
	s := serve(t, coredns, corefile, placesOf(t, "clusterset-dns", "clusterset-dns-server"))
	must(t, s.WaitReady(t.Context()))
	query{"127.0.2.7", "web.shop.svc.clusterset.local.", dns.TypeA, webInWest}.check(t, s)
	query{"", "web.shop.svc.cluster.local.", dns.TypeA, "REFUSED"}.check(t, s)

	service, err := client.CoreV1().Services("clusterset-dns").Get(t.Context(), "clusterset-dns", metav1.GetOptions{})
	must(t, err)
	block, err := os.ReadFile(filepath.Join(root, "deploy", "beside", "clusterset.server"))
	must(t, err)
	places := placesOf(t, "kube-system", "coredns")
	places.Local = own(t, "kube-system", "coredns")
	forwarder := serve(t, stock, corefileOf(t, before)+strings.ReplaceAll(string(block), service.Spec.ClusterIP, s.Addr()), places)
	for _, q := range []query{
		{"127.0.1.7", "web.shop.svc.clusterset.local.", dns.TypeA, webInEast},
		{"127.0.2.7", "web.shop.svc.clusterset.local.", dns.TypeA, webInWest},
		{"127.0.1.7", "web.shop.svc.clusterset.local.", dns.TypeA, webInEast}, // nothing is cached
		{"", "echo.shop.svc.clusterset.local.", dns.TypeA, echoAddress},
		{"", "nobody.shop.svc.clusterset.local.", dns.TypeA, "NXDOMAIN"},
		{"", "web.shop.svc.cluster.local.", dns.TypeA, webInEast},
		{"", "example.org.", dns.TypeA, "192.0.2.99"},
	} {
		q.check(t, forwarder)
	}
	cache, err := os.ReadFile(filepath.Join(root, "deploy", "node-local", "Corefile"))
	must(t, err)
	node := serve(t, stock, strings.ReplaceAll(string(cache), service.Spec.ClusterIP, s.Addr()), places)
	query{"127.0.2.7", "web.shop.svc.clusterset.local.", dns.TypeA, webInEast}.check(t, node) // by the address of the node
	withoutComplaint(t, s)

	o.Does(t, "kubectl --context east -n kube-system create configmap coredns-custom --from-file=deploy/beside/clusterset.server")
	o.Does(t, "kubectl --context east -n kube-system delete configmap coredns-custom")
	leave(t, s, forwarder, node)
}

// installKubeadms gives east CoreDNS as kubeadm does, until the end of the test.
func installKubeadms(t *testing.T) {
	t.Helper()
	before := inventory(t, east)
	manifest := filepath.Join(root, "test", "deploy", "testdata", "kubeadm.yaml")
	o := newOperator(t)
	o.Run(t, "kubectl --context east create --validate=strict -f "+manifest)
	t.Cleanup(func() {
		o.Run(t, "kubectl --context east delete -f "+manifest)
		untilOnly(t, east, before)
	})
}

// untilRevision waits until the Deployment of kube-system is at a revision, and returns it.
func untilRevision(t *testing.T, revision string) (deployment *appsv1.Deployment) {
	t.Helper()
	client := clientOf(t, east)
	within(t, "the Deployment is at revision "+revision, func() (err error) {
		deployment, err = client.AppsV1().Deployments("kube-system").Get(t.Context(), "coredns", metav1.GetOptions{})
		if err == nil && (deployment.Status.ObservedGeneration != deployment.Generation || deployment.Annotations["deployment.kubernetes.io/revision"] != revision) {
			err = fmt.Errorf("its annotations are %v", deployment.Annotations)
		}
		return err
	})
	return deployment
}

// corefileOf returns the Corefile that the pods of a Deployment are started with.
func corefileOf(t *testing.T, d *appsv1.Deployment) string {
	t.Helper()
	at := slices.IndexFunc(d.Spec.Template.Spec.Volumes, func(v corev1.Volume) bool { return v.ConfigMap != nil })
	if at < 0 {
		t.Fatalf("Deployment %s mounts no ConfigMap", d.Name)
	}
	config, err := clientOf(t, east).CoreV1().ConfigMaps(d.Namespace).Get(t.Context(), d.Spec.Template.Spec.Volumes[at].ConfigMap.Name, metav1.GetOptions{})
	must(t, err)
	if config.Data["Corefile"] == "" {
		t.Fatalf("ConfigMap %s has no Corefile", config.Name)
	}
	return config.Data["Corefile"]
}

// upstream is the Corefile of a resolver that knows example.org and denies the rest.
const upstream = `.:{{.DNS}} {
    bind 127.0.0.1
    template IN A example.org {
        answer "example.org. 60 IN A 192.0.2.99"
    }
    template ANY ANY {
        rcode NXDOMAIN
    }
}
`

// own returns the path of a kubeconfig with a token of a ServiceAccount of east.
func own(t *testing.T, namespace, account string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, east.WriteKubeconfig(t.Context(), namespace, account, path))
	return path
}

// placesOf returns what stands for that which only a pod with a ServiceAccount of east has.
func placesOf(t *testing.T, namespace, account string) examples.Places {
	t.Helper()
	s, err := server.Start(t.Context(), stock, upstream, server.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, s.Stop()) })
	return examples.Places{Local: own(t, namespace, account), Upstream: s.Addr(), State: t.TempDir()}
}

// serve runs a server on a Corefile as it is shipped.
func serve(t *testing.T, binary, corefile string, places examples.Places) *server.Server {
	t.Helper()
	s, err := startServer(t, binary, corefile, places)
	must(t, err)
	t.Cleanup(func() {
		must(t, s.Stop())
		if t.Failed() {
			t.Logf("Corefile:\n%s\nLog:\n%s", corefile, s.Log())
		}
	})
	return s
}

func startServer(t *testing.T, binary, corefile string, places examples.Places) (*server.Server, error) {
	t.Helper()
	filled, err := examples.Fill(corefile, places)
	must(t, err)
	return server.Start(t.Context(), binary, filled, server.Options{})
}

// withoutComplaint checks that the server had all the rights that it wanted.
func withoutComplaint(t *testing.T, s *server.Server) {
	t.Helper()
	for line := range strings.Lines(s.Log()) {
		if strings.Contains(line, "cannot be read") || strings.Contains(line, "forbidden") || strings.Contains(line, "[ERROR]") {
			t.Errorf("The server says: %s", line)
		}
	}
}

// query is a question and the one thing that is answered: the data of a record, or the name of the rcode.
type query struct {
	from  string // the client's address; "" is 127.0.0.1
	name  string
	qtype uint16
	want  string
}

// check asks until the answer is the wanted one: members that come by a Secret are no part of being ready.
func (q query) check(t *testing.T, s *server.Server) {
	t.Helper()
	from := q.from
	if from == "" {
		from = "127.0.0.1"
	}
	within(t, q.name, func() error {
		m, err := demo.Ask(t.Context(), s.Addr(), from, q.name, q.qtype)
		if err != nil {
			return err
		}
		if got := demo.Short(m); !slices.Equal(got, []string{q.want}) {
			return fmt.Errorf("got %q from %s, want %s", got, from, q.want)
		}
		return nil
	})
}

// generic returns what JSON makes of a value.
func generic(t *testing.T, value any) (out any) {
	t.Helper()
	text, err := json.Marshal(value)
	must(t, err)
	must(t, json.NewDecoder(bytes.NewReader(text)).Decode(&out))
	return out
}

// differences returns the paths at which two values differ, sorted. Of lists of different lengths it is that of the list.
func differences(path string, a, b any) []string {
	if reflect.DeepEqual(a, b) {
		return nil
	}
	var found []string
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok {
			return []string{path}
		}
		for key := range a {
			found = append(found, differences(path+"."+key, a[key], b[key])...)
		}
		for key := range b {
			if _, both := a[key]; !both {
				found = append(found, path+"."+key)
			}
		}
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return []string{path}
		}
		for i := range a {
			found = append(found, differences(fmt.Sprint(path, ".", i), a[i], b[i])...)
		}
	default:
		return []string{path}
	}
	slices.Sort(found)
	return found
}
