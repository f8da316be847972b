package realcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clusterset-dns/clusterset-dns/test/kube"
	"github.com/clusterset-dns/clusterset-dns/test/readme"
	"github.com/clusterset-dns/clusterset-dns/test/suite"
)

// testOperation does what operators do on a quiet day.
func (w *world) testOperation(t *testing.T) {
	t.Helper()
	w.row(t, "The Corefile is edited, until every replica has reloaded it", w.all(localName, setName), func(t *testing.T) string {
		t.Helper()
		return w.each(t, func(t *testing.T, c *cluster, o readme.Operator) {
			t.Helper()
			before := w.policies(t, c)
			o.EditsCorefile(t, strings.NewReplacer("    clusterset {\n", "    clusterset {\n        prefer service\n        "+statusProperty+"\n"))
			o.Does(t, applyDropIn)
			suite.Within(t, startLimit, "the replicas have reloaded", func(context.Context) error {
				for pod, policy := range w.policies(t, c) {
					if policy == before[pod] {
						return fmt.Errorf("%s has not", pod)
					}
				}
				return nil
			})
		})
	})
	w.row(t, "`kubectl port-forward` to the status address, until `clustersetctl` has said what it knows", w.all(localName, setName), w.testStatus)
	w.row(t, "Clients are given what is on their node, or in their zone, by the labels of Nodes", w.all(localName, setName), w.testLocality)
	w.row(t, fmt.Sprintf("West exports %d services with %d endpoints each, until every replica of east knows them", many, endpoints),
		w.all(localName, setName), w.testMany)
	t.Run("The replicas keep to their memory", w.testMemory)
	w.row(t, "`rollout restart`", w.all(localName, setName), func(t *testing.T) string {
		t.Helper()
		var slowest time.Duration
		var mu sync.Mutex
		took := w.each(t, func(t *testing.T, c *cluster, o readme.Operator) {
			t.Helper()
			before, err := c.podsOf(t.Context(), "kube-system", dnsPods)
			must(t, err)
			w.kubectl(t, c, "-n kube-system rollout restart deployment coredns")
			ends := newEnds(before)
			suite.Within(t, startLimit, "all pods are new ones", func(ctx context.Context) error {
				if err := ends.look(ctx, c); err != nil {
					return err
				}
				return c.replaced(ctx, before)
			})
			o.Does(t, rolloutStatus)
			mu.Lock()
			defer mu.Unlock()
			slowest = max(slowest, ends.slowest())
		})
		w.table.add("A replica that is told to end (and answers for 5 seconds) is out of service, at most after", seconds(slowest))
		return took
	})
}

// ends are when pods were told to end, and when nobody was sent to them any more, by their address.
type ends struct{ told, out map[string]time.Time }

func newEnds(pods []corev1.Pod) ends {
	e := ends{map[string]time.Time{}, map[string]time.Time{}}
	for _, pod := range pods {
		e.told[pod.Status.PodIP], e.out[pod.Status.PodIP] = time.Time{}, time.Time{}
	}
	return e
}

// look looks at the EndpointSlices of the cluster's DNS.
func (e ends) look(ctx context.Context, c *cluster) error {
	slices, err := c.client.DiscoveryV1().EndpointSlices("kube-system").List(ctx, metav1.ListOptions{LabelSelector: dnsPods})
	if err != nil {
		return err
	}
	state := map[string]discoveryv1.EndpointConditions{}
	for _, slice := range slices.Items {
		for _, endpoint := range slice.Endpoints {
			state[endpoint.Addresses[0]] = endpoint.Conditions
		}
	}
	now := time.Now()
	for address, told := range e.told {
		conditions, known := state[address]
		if told.IsZero() && (!known || *conditions.Terminating) {
			e.told[address] = now
		}
		if e.out[address].IsZero() && (!known || !*conditions.Serving) {
			e.out[address] = now
		}
	}
	return nil
}

// slowest returns the longest time between the two.
func (e ends) slowest() time.Duration {
	var longest time.Duration
	for address, told := range e.told {
		longest = max(longest, e.out[address].Sub(told))
	}
	return longest
}

// policies returns the policy hash of every replica by its name.
func (w *world) policies(t *testing.T, c *cluster) map[string]string {
	t.Helper()
	return w.metric(t, c, "coredns_clusterset_policy_hash")
}

// metric returns the value of a metric of every replica by its name, "" where it has none. The metric has its labels with it.
func (w *world) metric(t *testing.T, c *cluster, metric string) map[string]string {
	t.Helper()
	found := map[string]string{}
	suite.Within(t, limit, "the replicas of "+c.name+" tell their metrics", func(ctx context.Context) error {
		pods, err := c.podsOf(ctx, "kube-system", dnsPods)
		if err != nil {
			return err
		}
		for _, pod := range pods {
			page, err := w.get(ctx, pod, "9153", "/metrics")
			if err != nil {
				return err
			}
			found[pod.Name] = ""
			for line := range strings.Lines(string(page)) {
				if value, ok := strings.CutPrefix(line, metric+" "); ok {
					found[pod.Name] = strings.TrimSpace(value)
				}
			}
		}
		return nil
	})
	return found
}

// replaced returns an error until the DNS of a cluster is as before, with none of the pods that were.
func (c *cluster) replaced(ctx context.Context, before []corev1.Pod) error {
	for _, pod := range before {
		_, err := c.client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
		if err == nil {
			return fmt.Errorf("pod %s is still there", pod.Name)
		}
	}
	return c.serves(ctx, ourImage)
}

// testLocality looks two services up that are the probes themselves.
func (w *world) testLocality(t *testing.T) string {
	t.Helper()
	begin := time.Now()
	for _, n := range w.nodes() {
		var node, zone []string
		for _, other := range w.nodes() {
			pod, err := other.probe(t.Context())
			must(t, err)
			if other == n {
				node = append(node, pod.Status.PodIP)
			}
			if other.zone == n.zone {
				zone = append(zone, pod.Status.PodIP)
			}
		}
		w.looks(t, n, "same-node.shop.svc.clusterset.local", node...)
		w.looks(t, n, "same-zone.shop.svc.clusterset.local", zone...)
	}
	return seconds(time.Since(begin))
}

// many services with so many endpoints each are a large cluster's, for its DNS.
const (
	many      = 1000
	endpoints = 10
)

// testMany has west export many headless services, which cost nobody anything but the DNS.
func (w *world) testMany(t *testing.T) string {
	t.Helper()
	const namespace = "many"
	for _, c := range w.both() {
		client, err := kube.New(c.Cluster)
		must(t, err)
		must(t, client.Namespace(t.Context(), namespace))
	}
	client, err := kube.New(w.west.Cluster)
	must(t, err)
	begin := time.Now()
	var group sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		group.Go(func() {
			for n := i; n < many && errs[i] == nil; n += len(errs) {
				service := kube.Simple{Namespace: namespace, Name: fmt.Sprintf("service-%d", n), Headless: true}
				for e := range endpoints {
					service.Addresses = append(service.Addresses, fmt.Sprintf("10.2.%d.%d", 16+n/20, n%20*endpoints+e))
				}
				_, err := client.Create(t.Context(), service)
				errs[i] = errors.Join(err, client.Export(t.Context(), namespace, service.Name))
			}
		})
	}
	group.Wait()
	must(t, errors.Join(errs...))
	for _, n := range w.east.nodes {
		suite.Within(t, limit, "the services are known in east", func(context.Context) error {
			for pod, known := range w.metric(t, w.east, `coredns_clusterset_member_services{cluster="west",source="exports"}`) {
				if got, err := strconv.Atoi(known); err != nil || got < many {
					return fmt.Errorf("%s knows %s", pod, known)
				}
			}
			return nil
		})
		w.looks(t, n, fmt.Sprintf("service-%d.%s.svc.clusterset.local", 0, namespace),
			"10.2.16.0", "10.2.16.1", "10.2.16.2", "10.2.16.3", "10.2.16.4", "10.2.16.5", "10.2.16.6", "10.2.16.7", "10.2.16.8", "10.2.16.9")
	}
	return seconds(time.Since(begin))
}

// testMemory looks at the control groups of the replicas, as the kernel does that kills what takes too much.
func (w *world) testMemory(t *testing.T) {
	var most, limit int64
	for _, c := range w.both() {
		pods, err := c.podsOf(t.Context(), "kube-system", dnsPods)
		must(t, err)
		for _, pod := range pods {
			status := pod.Status.ContainerStatuses[0]
			if status.RestartCount > 0 {
				t.Errorf("Pod %s of %s has been restarted: %v", pod.Name, c.name, status.LastTerminationState)
			}
			_, id, _ := strings.Cut(status.ContainerID, "://")
			m, err := memoryOf(pod.Spec.NodeName, string(pod.UID), id)
			must(t, err)
			t.Logf("%s: %+v", pod.Name, m)
			if want := pod.Spec.Containers[0].Resources.Limits.Memory().Value(); m.limit != want || m.limit != 170<<20 {
				t.Errorf("The limit is %d octets, want %d", m.limit, want)
			}
			if m.killed != 0 {
				t.Errorf("%d processes of pod %s of %s were killed for want of memory", m.killed, pod.Name, c.name)
			}
			most, limit = max(most, m.most), m.limit
		}
		// Go is told nine tenths of it, by the server itself.
		for pod, goal := range w.metric(t, c, "go_gc_gomemlimit_bytes") {
			if got, err := strconv.ParseFloat(goal, 64); err != nil || got < 0.85*float64(limit) || got > 0.95*float64(limit) {
				t.Errorf("Go of pod %s of %s has the limit %s, of %d octets", pod, c.name, goal, limit)
			}
		}
	}
	if most >= limit {
		t.Errorf("The most that was used is %d MiB, of %d", most>>20, limit>>20)
	}
	w.table.add("Memory of a replica, at most", fmt.Sprintf("%d of %d MiB", most>>20, limit>>20))
}

// memory is what a control group tells, in octets.
type memory struct{ most, limit, killed int64 }

// memoryOf reads the control group of a container.
func memoryOf(node, pod, container string) (m memory, err error) {
	files := []string{"memory/", "memory.max_usage_in_bytes", "memory.limit_in_bytes", "memory.oom_control"}
	if unified() {
		files = []string{"", "memory.peak", "memory.max", "memory.events"}
	}
	pattern := filepath.Join(cgroups, files[0], groupPrefix+node, "kubepods", "*", "pod"+pod, container)
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		return m, errors.Join(fmt.Errorf("%s is %q", pattern, found), err)
	}
	read := func(file string) string {
		text, readErr := os.ReadFile(filepath.Join(found[0], file))
		err = errors.Join(err, readErr)
		return strings.TrimSpace(string(text))
	}
	number := func(text string) int64 {
		n, parseErr := strconv.ParseInt(text, 10, 64)
		err = errors.Join(err, parseErr)
		return n
	}
	m.most, m.limit = number(read(files[1])), number(read(files[2]))
	for line := range strings.Lines(read(files[3])) {
		if value, ok := strings.CutPrefix(line, "oom_kill "); ok {
			m.killed = number(strings.TrimSpace(value))
		}
	}
	return m, err
}
