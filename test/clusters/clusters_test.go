package clusters

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// binaries are the programs of all tests.
var binaries Binaries

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashEnv); dir != "" {
		waitForCrash(dir)
	}
	var err error
	// Outside of any test, so that a first build does not count against the time limit of the tests.
	if binaries, err = Build(context.Background(), os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// crashEnv makes the test binary only start a program in the named folder, print its process id and wait to be killed.
const crashEnv = "CLUSTERS_TEST_CRASH_IN"

func waitForCrash(dir string) {
	p, err := startProcess(dir, "/bin/sleep", []string{"300"})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(p.os.Pid)
	<-p.done
	os.Exit(0)
}

// timeout bounds a single wait or request of a test.
const timeout = time.Minute

// startCluster starts a cluster for a test.
func startCluster(t *testing.T, o Options) *Cluster {
	t.Helper()
	start := time.Now()
	c, err := Start(t.Context(), binaries, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	t.Logf("cluster %s (%s) ready after %.1f s", o.Name, o.CRDs, time.Since(start).Seconds())
	return c
}

func stopAll(t *testing.T, started []*Cluster) {
	t.Helper()
	if err := StopAll(started...); err != nil {
		t.Error(err)
	}
}

// serverConfig is the client configuration that the DNS server would use.
func serverConfig(t *testing.T, c *Cluster) *rest.Config {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func clientFor(t *testing.T, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func dynamicFor(t *testing.T, config *rest.Config) *dynamic.DynamicClient {
	t.Helper()
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// serves tells which versions of ServiceExport the server's account can list.
func serves(t *testing.T, c *Cluster) string {
	t.Helper()
	client := dynamicFor(t, serverConfig(t, c))
	var versions []string
	for _, version := range []string{"v1alpha1", "v1beta1"} {
		resource := schema.GroupVersionResource{Group: mcsGroup, Version: version, Resource: "serviceexports"}
		_, err := client.Resource(resource).List(t.Context(), metav1.ListOptions{})
		switch {
		case err == nil:
			versions = append(versions, version)
		case !apierrors.IsNotFound(err):
			t.Errorf("List ServiceExports %s: %v", version, err)
		}
	}
	return strings.Join(versions, " ")
}

func TestThreeClustersStartInParallel(t *testing.T) {
	start := time.Now()
	started, err := StartAll(t.Context(), binaries,
		Options{Name: "east"}, Options{Name: "west.eu"}, Options{Name: "north", ServiceCIDR: "10.200.0.0/16,fd00:200::/108"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopAll(t, started) })
	t.Logf("Three clusters ready after %.1f s", time.Since(start).Seconds())

	wantNetworks := map[string]string{"east": "10.96.", "west.eu": "10.97.", "north": "10.200."}
	for _, c := range started {
		if got := serves(t, c); got != "v1alpha1 v1beta1" {
			t.Errorf("Cluster %s serves %q, want both versions", c.Name(), got)
		}
		service, err := clientFor(t, c.Admin()).CoreV1().Services("default").Create(t.Context(), dualStackService("web"), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(service.Spec.ClusterIP, wantNetworks[c.Name()]) || len(service.Spec.ClusterIPs) != 2 {
			t.Errorf("Service in %s has the addresses %v, want two, the first from %s", c.Name(), service.Spec.ClusterIPs, wantNetworks[c.Name()])
		}
	}
	checkKubeconfigs(t, started[1])
	checkStop(t, started)
}

func dualStackService(name string) *corev1.Service {
	policy := corev1.IPFamilyPolicyRequireDualStack
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{IPFamilyPolicy: &policy, Ports: []corev1.ServicePort{{Port: 80}}},
	}
}

// checkKubeconfigs checks names, modes and that the server's certificate is verified.
func checkKubeconfigs(t *testing.T, c *Cluster) {
	t.Helper()
	for _, path := range []string{c.Kubeconfig(), c.AdminKubeconfig()} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v, want 0600", path, info.Mode())
		}
	}
	config, err := clientcmd.LoadFromFile(c.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	if config.CurrentContext != c.Name() || config.Contexts[c.Name()].Namespace != "clusterset-dns" {
		t.Errorf("Server's kubeconfig has the context %q in namespace %q", config.CurrentContext, config.Contexts[c.Name()].Namespace)
	}
	stranger := serverConfig(t, c)
	if stranger.CAData, _, err = servingPair(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := clientFor(t, stranger).Discovery().ServerVersion(); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("A client that trusts another CA got %v, want a certificate error", err)
	}
}

// checkStop stops clusters, twice, and checks that no process, folder or port is left.
func checkStop(t *testing.T, started []*Cluster) {
	t.Helper()
	for _, c := range started {
		pids := []int{c.etcd.os.Pid, c.api.os.Pid}
		for _, pid := range pids {
			if !processExists(pid) {
				t.Errorf("Process %d of %s is not there before Stop", pid, c.Name())
			}
		}
		for range 2 {
			if err := c.Stop(); err != nil {
				t.Error(err)
			}
		}
		for _, pid := range pids {
			if processExists(pid) {
				t.Errorf("Process %d of %s outlives Stop", pid, c.Name())
			}
		}
		if _, err := os.Stat(c.Dir()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Folder %s outlives Stop: %v", c.Dir(), err)
		}
		l, err := net.Listen("tcp", strings.TrimPrefix(c.URL(), "https://"))
		if err != nil {
			t.Errorf("Port of %s is not free after Stop: %v", c.Name(), err)
			continue
		}
		l.Close()
	}
}

// processExists asks /proc, or the kernel where there is none.
func processExists(pid int) bool {
	if _, err := os.Stat("/proc/self"); err == nil {
		_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
		return err == nil
	}
	p := process{os: &os.Process{Pid: pid}}
	return p.signal(0) == nil
}

func TestCRDsChangeWhileRunning(t *testing.T) {
	c := startCluster(t, Options{Name: "old", CRDs: OnlyV1Alpha1})
	if got := serves(t, c); got != "v1alpha1" {
		t.Fatalf("A cluster started with only v1alpha1 serves %q", got)
	}
	if err := c.Apply(t.Context(), []byte(exportManifest)); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		mode    CRDMode
		serves  string
		exports int
	}{
		{V1Beta1AndV1Alpha1, "v1alpha1 v1beta1", 1},
		{V1Beta1AndV1Alpha1, "v1alpha1 v1beta1", 1},
		{OnlyV1Alpha1, "v1alpha1", 1},
		{NoCRDs, "", 0},
		{NoCRDs, "", 0},
		{V1Beta1AndV1Alpha1, "v1alpha1 v1beta1", 0},
	} {
		start := time.Now()
		if err := c.ApplyCRDs(t.Context(), step.mode); err != nil {
			t.Fatal(err)
		}
		t.Logf("Serving %s after %s", step.mode, time.Since(start).Round(time.Millisecond))
		if got := serves(t, c); got != step.serves {
			t.Errorf("After applying %s the cluster serves %q, want %q", step.mode, got, step.serves)
		}
		if got := countExports(t, c); got != step.exports {
			t.Errorf("After applying %s there are %d ServiceExports, want %d", step.mode, got, step.exports)
		}
	}
	if err := c.ApplyCRDs(t.Context(), NoCRDs+1); err == nil {
		t.Error("An unknown mode is accepted")
	}
}

// TestADeletedCRDThatStaysIsTouched holds up the end of a CRD until something is changed in it.
func TestADeletedCRDThatStaysIsTouched(t *testing.T) {
	c := startCluster(t, Options{Name: "touch"})
	name, crds := mcsResources[0]+"."+mcsGroup, c.dynamic.Resource(crdResource)
	finalizers := func(list string) {
		patch := fmt.Appendf(nil, `{"metadata": {"finalizers": [%s]}}`, list)
		if _, err := crds.Patch(t.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			t.Error(err)
		}
	}
	finalizers(`"clusterset-dns.test/hold"`)
	deleted := make(chan error, 1)
	go func() { deleted <- c.DeleteCRDs(t.Context()) }()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := poll(ctx, func(ctx context.Context) error {
		object, err := crds.Get(ctx, name, metav1.GetOptions{})
		if err == nil && object.GetAnnotations()[fieldManager+"/try"] == "" {
			err = errors.New("not touched")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	finalizers("")
	if err := <-deleted; err != nil {
		t.Error(err)
	}
}

const exportManifest = `
apiVersion: multicluster.x-k8s.io/v1alpha1
kind: ServiceExport
metadata: {name: web}
---
# An empty document is skipped.
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
`

// countExports counts the ServiceExports in every namespace, 0 where the resource is unknown.
func countExports(t *testing.T, c *Cluster) int {
	t.Helper()
	resource := schema.GroupVersionResource{Group: mcsGroup, Version: "v1alpha1", Resource: "serviceexports"}
	list, err := c.dynamic.Resource(resource).List(t.Context(), metav1.ListOptions{})
	if apierrors.IsNotFound(err) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return len(list.Items)
}

func TestServerMayOnlyRead(t *testing.T) {
	c := startCluster(t, Options{Name: "east"})
	allowed := map[string]bool{"get services": true}
	for _, resource := range []string{
		"services", "endpointslices.discovery.k8s.io", "serviceexports.multicluster.x-k8s.io", "serviceimports.multicluster.x-k8s.io",
		"namespaces", "nodes", "servicecidrs.networking.k8s.io", "clusterproperties.about.k8s.io",
	} {
		allowed["list "+resource], allowed["watch "+resource] = true, true
	}
	resources := []string{
		"services", "endpointslices.discovery.k8s.io", "serviceexports.multicluster.x-k8s.io", "serviceimports.multicluster.x-k8s.io",
		"namespaces", "nodes", "servicecidrs.networking.k8s.io", "clusterproperties.about.k8s.io", "secrets", "configmaps", "pods", "serviceaccounts", "clusterroles.rbac.authorization.k8s.io",
		"customresourcedefinitions.apiextensions.k8s.io",
	}
	verbs := []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}
	config := serverConfig(t, c)
	config.QPS = -1 // a hundred reviews
	client := clientFor(t, config)
	for _, resource := range resources {
		for _, verb := range verbs {
			if got, want := mayDo(t, client, verb, resource), allowed[verb+" "+resource]; got != want {
				t.Errorf("May %s %s is %t, want %t", verb, resource, got, want)
			}
		}
	}
	checkRealAttempts(t, c)
}

func mayDo(t *testing.T, client *kubernetes.Clientset, verb, resource string) bool {
	t.Helper()
	name, group, _ := strings.Cut(resource, ".")
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Group: group, Resource: name},
	}}
	answer, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), review, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return answer.Status.Allowed
}

// checkRealAttempts tries for real what reviews only promise.
func checkRealAttempts(t *testing.T, c *Cluster) {
	t.Helper()
	client := clientFor(t, serverConfig(t, c))
	if _, err := client.CoreV1().Services("").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("List Services: %v", err)
	}
	if _, err := client.Discovery().ServerVersion(); err != nil {
		t.Errorf("Get the version: %v", err)
	}
	_, createErr := client.CoreV1().Services("default").Create(t.Context(), dualStackService("web"), metav1.CreateOptions{})
	deleteErr := client.CoreV1().Services("default").Delete(t.Context(), "kubernetes", metav1.DeleteOptions{})
	_, secretsErr := client.CoreV1().Secrets("clusterset-dns").List(t.Context(), metav1.ListOptions{})
	for what, err := range map[string]error{"create a Service": createErr, "delete a Service": deleteErr, "list Secrets": secretsErr} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("Attempt to %s: got %v, want forbidden", what, err)
		}
	}
}

func TestKilledAPIServerComesBackWithItsData(t *testing.T) {
	c := startCluster(t, Options{Name: "east"})
	url := c.URL()
	if err := c.Apply(t.Context(), []byte(exportManifest)); err != nil {
		t.Fatal(err)
	}
	if err := c.StartAPIServer(t.Context()); err == nil {
		t.Error("A running API server is started a second time")
	}
	pid := c.api.os.Pid
	if err := c.KillAPIServer(); err != nil {
		t.Fatal(err)
	}
	if processExists(pid) {
		t.Errorf("Process %d outlives KillAPIServer", pid)
	}
	if _, err := net.DialTimeout("tcp", strings.TrimPrefix(url, "https://"), timeout); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("Dialling a killed API server: got %v, want refused", err)
	}
	for what, do := range map[string]func() error{"kill": c.KillAPIServer, "pause": c.PauseAPIServer, "resume": c.ResumeAPIServer} {
		if err := do(); err == nil {
			t.Errorf("A killed API server can be made to %s", what)
		}
	}
	start := time.Now()
	if err := c.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("API server back after %.1f s", time.Since(start).Seconds())
	if c.URL() != url {
		t.Errorf("URL is %s after the restart, was %s", c.URL(), url)
	}
	if got := countExports(t, c); got != 1 {
		t.Errorf("After the restart there are %d ServiceExports, want 1", got)
	}
	if got := serves(t, c); got != "v1alpha1 v1beta1" {
		t.Errorf("After the restart the server's account sees %q", got)
	}
}

func TestPausedAPIServerHangsAndGoesOn(t *testing.T) {
	c := startCluster(t, Options{Name: "east"})
	client := clientFor(t, c.Admin())
	if err := c.PauseAPIServer(); err != nil {
		t.Fatal(err)
	}
	// The request is sent on an open connection and stays unanswered until the API server goes on.
	type answer struct {
		at  time.Time
		err error
	}
	answered := make(chan answer, 1)
	go func() {
		_, err := client.CoreV1().Services("default").Get(context.Background(), "kubernetes", metav1.GetOptions{})
		answered <- answer{time.Now(), err}
	}()
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := c.ready(short); !errors.Is(err, context.DeadlineExceeded) && (err == nil || !strings.Contains(err.Error(), "deadline")) {
		t.Errorf("A paused API server answers %v, want no answer", err)
	}
	resumed := time.Now()
	if err := c.ResumeAPIServer(); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-answered:
		if got.err != nil || got.at.Before(resumed) {
			t.Errorf("Request during the pause: answered %s after it ended, error %v", got.at.Sub(resumed), got.err)
		}
	case <-time.After(timeout):
		t.Fatal("No answer after the pause")
	}
	// A paused cluster can be stopped.
	if err := c.PauseAPIServer(); err != nil {
		t.Fatal(err)
	}
	checkStop(t, []*Cluster{c})
}

func TestAuditLogNamesAgentVerbAndResource(t *testing.T) {
	c := startCluster(t, Options{Name: "east"})
	config := serverConfig(t, c)
	config.UserAgent = "audited/1.0"
	services := clientFor(t, config).CoreV1().Services("")
	if _, err := services.List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	watch, err := services.Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	got := map[string]int{}
	for _, e := range auditEvents(t, c.AuditLog()) {
		if e.UserAgent == config.UserAgent {
			got[e.Stage+" "+e.Verb+" "+e.ObjectRef.Resource]++
		}
	}
	if len(got) != 2 || got["ResponseComplete list services"] != 1 || got["ResponseStarted watch services"] != 1 {
		t.Errorf("Audit log has %v, want one complete list and one started watch of services", got)
	}
}

type auditEvent struct {
	Stage, Verb, UserAgent string
	ObjectRef              struct{ Resource string }
}

func auditEvents(t *testing.T, path string) []auditEvent {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var events []auditEvent
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e auditEvent
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("Audit log line %q: %v", lines.Text(), err)
		}
		events = append(events, e)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return events
}

func TestControllersMakeSlicesAndEndNamespaces(t *testing.T) {
	c := startCluster(t, Options{Name: "east", ControllerManager: true})
	client := clientFor(t, c.Admin())
	if err := c.Apply(t.Context(), []byte(podManifest)); err != nil {
		t.Fatal(err)
	}
	status := []byte(`{"status":{"phase":"Running","podIP":"10.1.2.3","podIPs":[{"ip":"10.1.2.3"}],"conditions":[{"type":"Ready","status":"True"}]}}`)
	if _, err := client.CoreV1().Pods("shop").Patch(t.Context(), "web-0", "application/merge-patch+json", status, metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	if err := poll(ctx, func(ctx context.Context) error { return hasSlice(ctx, client) }); err != nil {
		t.Fatal(err)
	}
	if err := client.CoreV1().Namespaces().Delete(ctx, "shop", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	// No kubelet confirms that the Pod has ended.
	now := int64(0)
	if err := client.CoreV1().Pods("shop").Delete(ctx, "web-0", metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	start := time.Now()
	if err := poll(ctx, func(ctx context.Context) error {
		_, err := client.CoreV1().Namespaces().Get(ctx, "shop", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(errors.New("the namespace is still there"), err)
	}); err != nil {
		t.Fatal(err)
	}
	t.Logf("Namespace gone after %.1f s", time.Since(start).Seconds())
}

const podManifest = `
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Node
metadata:
  name: n1
  labels: {topology.kubernetes.io/zone: zone-a}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: None
  selector: {app: web}
  ports: [{name: http, port: 80}]
---
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop, labels: {app: web}}
spec:
  nodeName: n1
  hostname: web-0
  subdomain: web
  containers: [{name: web, image: example.org/web}]
`

// hasSlice checks that the controllers have made a slice with the ready Pod.
func hasSlice(ctx context.Context, client *kubernetes.Clientset) error {
	slices, err := client.DiscoveryV1().EndpointSlices("shop").List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=web"})
	if err != nil {
		return err
	}
	for _, slice := range slices.Items {
		for _, e := range slice.Endpoints {
			if e.Addresses[0] == "10.1.2.3" && *e.Conditions.Ready && *e.Hostname == "web-0" && *e.Zone == "zone-a" {
				return nil
			}
		}
	}
	return fmt.Errorf("no slice with the ready Pod among %d", len(slices.Items))
}

func TestGivenFolderKeepsTheData(t *testing.T) {
	options := Options{Name: "east", Dir: filepath.Join(t.TempDir(), "east")}
	c := startCluster(t, options)
	if err := c.Apply(t.Context(), []byte(exportManifest)); err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	c = startCluster(t, options)
	if got := countExports(t, c); got != 1 {
		t.Errorf("A cluster in the same folder has %d ServiceExports, want 1", got)
	}
}

// TestDataGoBack restores what was copied, and then wipes everything.
func TestDataGoBack(t *testing.T) {
	c := startCluster(t, Options{Name: "east"})
	client, err := kubernetes.NewForConfig(c.Admin())
	if err != nil {
		t.Fatal(err)
	}
	namespace := func(name string) {
		t.Helper()
		object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if _, err := client.CoreV1().Namespaces().Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	// state returns which of the two namespaces there are, and the resource version.
	state := func() (has []string, version int) {
		t.Helper()
		list, err := client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range list.Items {
			if n.Name == "before" || n.Name == "after" {
				has = append(has, n.Name)
			}
		}
		if version, err = strconv.Atoi(list.ResourceVersion); err != nil {
			t.Fatal(err)
		}
		return has, version
	}
	backup := filepath.Join(t.TempDir(), "backup")
	namespace("before")
	if err := c.CopyData(t.Context(), backup); err != nil {
		t.Fatal(err)
	}
	namespace("after")
	for i := range 50 { // an API server that starts writes a few things too
		namespace(fmt.Sprintf("filler-%d", i))
	}
	has, was := state()
	if !slices.Equal(has, []string{"after", "before"}) {
		t.Fatalf("The namespaces are %q", has)
	}
	if err := c.RestoreData(t.Context(), backup); err != nil {
		t.Fatal(err)
	}
	has, restored := state()
	if !slices.Equal(has, []string{"before"}) || restored >= was {
		t.Errorf("After the restore there are %q at version %d, want the one from before, and less than %d", has, restored, was)
	}
	if err := c.Wipe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if has, _ := state(); len(has) != 0 {
		t.Errorf("After the wipe there are %q", has)
	}
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	anew, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := anew.CoreV1().Services("").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("The server's kubeconfig after the wipe: %v", err)
	}
}

func TestFailedStartSaysWhyAndLeavesNothing(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	broken := filepath.Join(t.TempDir(), "kube-apiserver")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\necho the disk is on fire >&2\nexit 7\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	missing := binaries
	missing.APIServer = filepath.Join(t.TempDir(), "kube-apiserver")
	failing := binaries
	failing.APIServer = broken
	for name, row := range map[string]struct {
		cancelled bool
		binaries  Binaries
		options   []Options
		want      string
	}{
		"a program that is missing":             {false, missing, []Options{{Name: "east"}}, "no such file"},
		"a program that exits shows its log":    {false, failing, []Options{{Name: "east"}, {Name: "west"}}, "the disk is on fire"},
		"a context that has ended":              {true, binaries, []Options{{Name: "east"}}, "context canceled"},
		"a service network that is not one":     {false, binaries, []Options{{Name: "east", ServiceCIDR: "ten"}}, "not a valid cidr"},
		"a name that cannot be part of a file":  {false, binaries, []Options{{Name: "../east"}}, "lower-case"},
		"two clusters of the same name":         {false, binaries, []Options{{Name: "east"}, {Name: "east"}}, `two are named "east"`},
		"a mode of CRDs that does not exist":    {false, binaries, []Options{{Name: "east", CRDs: -1}}, "CRDMode(-1)"},
		"one bad name stops the good ones, too": {false, binaries, []Options{{Name: "east"}, {Name: ""}}, "lower-case"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if row.cancelled {
				cancel()
			}
			started, err := StartAll(ctx, row.binaries, row.options...)
			if err == nil {
				stopAll(t, started)
				t.Fatal("Started")
			}
			if !strings.Contains(err.Error(), row.want) {
				t.Errorf("Error is %q, want it to contain %q", err, row.want)
			}
			left, err := os.ReadDir(os.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if len(left) != 0 {
				t.Errorf("Left behind: %v", left)
			}
		})
	}
}
