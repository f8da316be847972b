package realcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/clusterset-dns/clusterset-dns/test/readme"
	"github.com/clusterset-dns/clusterset-dns/test/suite"
)

// The commands of the README, for east.
const (
	applyDropIn   = "kubectl --context east apply --server-side -k deploy/drop-in"
	patch         = "kubectl --context east -n kube-system patch deployment coredns --patch-file deploy/drop-in/corednsdeployment+strategic.yaml"
	rolloutStatus = "kubectl --context east -n kube-system rollout status deployment coredns --timeout=120s"
	rolloutUndo   = "kubectl --context east -n kube-system rollout undo deployment coredns"
)

// enough is how many lookups are made of a name where nothing but lookups happens.
const enough = 25

// testSwap puts our image in the place of kubeadm's, and tells the clusters about each other.
func (w *world) testSwap(t *testing.T) bool {
	t.Helper()
	return w.row(t, "Nothing happens, before the swap", w.all(localName), func(t *testing.T) string {
		t.Helper()
		w.untilAsked(t, localName, enough)
		return ""
	}) && w.row(t, "Bundles are applied, and kubeconfigs made", w.all(localName), func(t *testing.T) string {
		t.Helper()
		w.atEast.Does(t, "kubectl --context west apply --server-side -k deploy/member")
		w.atEast.Does(t, "kubectl --context east apply --server-side -k deploy/member")
		return w.each(t, func(t *testing.T, c *cluster, o readme.Operator) {
			t.Helper()
			o.MakesKubeconfig(t, w.other(c).URL())
			o.Does(t, applyDropIn)
		})
	}) && w.row(t, "Our image takes the place of kubeadm's", w.all(localName), func(t *testing.T) string {
		t.Helper()
		return w.each(t, w.swapIn)
	}) && w.row(t, "`rollout undo` in east", w.all(localName), func(t *testing.T) string {
		t.Helper()
		took := suite.Within(t, limit, "undone", func(context.Context) error { w.atEast.Does(t, rolloutUndo); return nil })
		took += suite.Within(t, limit, "kubeadm's image serves", func(ctx context.Context) error { return w.east.serves(ctx, stockImage) })
		w.looks(t, w.east.nodes[0], setName, "NXDOMAIN")
		return seconds(took)
	}) && w.row(t, "Our image again in east", w.all(localName), func(t *testing.T) string {
		t.Helper()
		return seconds(suite.Within(t, limit, "it serves", func(context.Context) error { w.swapIn(t, w.east, w.atEast); return nil }))
	}) && t.Run("The containers may no more than kubeadm's", w.testContainers) &&
		t.Run("Port 53 is bound without the sysctl, too", w.testPort) &&
		w.row(t, "A member is added by a Secret", w.all(localName), func(t *testing.T) string {
			t.Helper()
			return w.each(t, func(t *testing.T, c *cluster, o readme.Operator) {
				t.Helper()
				o.IsTold(t)
				other := w.other(c)
				for _, n := range c.nodes {
					w.looks(t, n, "only-"+other.name+".shop.svc.clusterset.local", other.serviceIP(t, "only-"+other.name))
				}
			})
		})
}

// swapIn patches the Deployment of a cluster and waits until nothing but our image serves.
func (w *world) swapIn(t *testing.T, c *cluster, o readme.Operator) {
	t.Helper()
	o.Does(t, patch)
	o.Does(t, rolloutStatus)
	suite.Within(t, limit, "our image serves", func(ctx context.Context) error { return c.serves(ctx, ourImage) })
}

// looks waits until a name is answered so on a node, ten times in a row: by every replica.
func (w *world) looks(t *testing.T, n *node, name string, want ...string) {
	t.Helper()
	slices.Sort(want)
	suite.Within(t, limit, name+" is looked up on "+n.name, func(ctx context.Context) error {
		for range 10 {
			got, err := w.look(ctx, n, name)
			if err != nil {
				return err
			}
			if !slices.Equal(got, want) {
				return fmt.Errorf("it is %q, want %q", got, want)
			}
		}
		return nil
	})
}

// serviceIP returns the cluster IP of a service in the namespace shop.
func (c *cluster) serviceIP(t *testing.T, name string) string {
	t.Helper()
	service, err := c.client.CoreV1().Services("shop").Get(context.WithoutCancel(t.Context()), name, metav1.GetOptions{})
	must(t, err)
	return service.Spec.ClusterIP
}

// processes returns those of a pod that run a program.
func processes(pod types.UID, program string) ([]int, error) {
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return nil, err
	}
	var found []int
	for _, path := range groups {
		text, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			return nil, err
		}
		if !strings.Contains(string(text), "/pod"+string(pod)+"/") {
			continue
		}
		line, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if err != nil {
			continue // it has ended
		}
		// The first container of every pod may have the same program, with an argument.
		if args := strings.Split(strings.TrimRight(string(line), "\x00"), "\x00"); args[0] != program || slices.Contains(args, "pause") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return nil, err
		}
		found = append(found, pid)
	}
	return found, nil
}

// process returns the one process of a pod that runs a program.
func process(t *testing.T, pod corev1.Pod, program string) int {
	t.Helper()
	found, err := processes(pod.UID, program)
	must(t, err)
	if len(found) != 1 {
		t.Fatalf("Pod %s has the processes %v of %s, want one", pod.Name, found, program)
	}
	return found[0]
}

func (w *world) testContainers(t *testing.T) {
	for _, c := range w.both() {
		pods, err := c.podsOf(t.Context(), "kube-system", dnsPods)
		must(t, err)
		for _, pod := range pods {
			checkProcess(t, process(t, pod, "/coredns"))
		}
	}
}

// checkProcess checks what a server may do.
func checkProcess(t *testing.T, pid int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	const netBindService = "0000000000000400"
	got := map[string]string{}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		got[key] = strings.Join(strings.Fields(value), " ")
	}
	for key, want := range map[string]string{
		"Uid": "65532 65532 65532 65532", "CapBnd": netBindService, "CapPrm": netBindService, "CapEff": netBindService, "NoNewPrivs": "1",
	} {
		if got[key] != want {
			t.Errorf("Its %s is %q, want %q", key, got[key], want)
		}
	}
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/root/written", pid), nil, 0o600); err == nil {
		t.Error("Its root can be written to")
	}
}

// testPort runs our image as a pod of the Deployment would be without the sysctl of the patch: on one kind of node by the file
// capability alone, on the other because everybody may.
func (w *world) testPort(t *testing.T) {
	for _, c := range w.both() {
		n := c.nodes[0]
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "without-sysctl"}, Spec: c.deployment(t).Spec.Template.Spec}
		pod.Spec.SecurityContext, pod.Spec.NodeName = nil, n.name
		pods := c.client.CoreV1().Pods("kube-system")
		pod, err := pods.Create(t.Context(), pod, metav1.CreateOptions{})
		must(t, err)
		suite.Within(t, limit, "the pod on "+n.name+" is ready", func(ctx context.Context) error {
			now, err := pods.Get(ctx, pod.Name, metav1.GetOptions{})
			if err == nil && !ready(*now) {
				err = fmt.Errorf("it is %s: %v", now.Status.Phase, now.Status.ContainerStatuses)
			}
			return err
		})
		first, want := firstPort(t, process(t, *pod, "/coredns")), "1024"
		if n.unprivileged {
			want = "0"
		}
		if first != want {
			t.Errorf("The first port for everybody in a pod on %s is %s, want %s", n.name, first, want)
		}
		must(t, pods.Delete(t.Context(), pod.Name, metav1.DeleteOptions{}))
	}
}
