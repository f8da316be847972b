package realcluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clusterset-dns/clusterset-dns/test/suite"
)

// testOutages pulls out cables.
func (w *world) testOutages(t *testing.T) {
	t.Helper()
	client, lost := w.east.nodes[0], w.east.nodes[1]
	cut := watched{
		nodes: []*node{client}, names: []string{localName, setName},
		mayFail: "half of the DNS is on the other node, and Kubernetes goes on asking it until that node counts as dead",
	}
	w.row(t, "The node of a Deployment is cut off, until its clients are in the other cluster", cut, func(t *testing.T) string {
		t.Helper()
		w.spread(t)
		away := w.west.serviceIP(t, "web")
		begin := time.Now()
		must(t, ip("link set "+lost.cable()+" down"))
		t.Cleanup(func() { must(t, ip("link set "+lost.cable()+" up")) })
		suite.Within(t, limit, "clients are in west", func(ctx context.Context) error {
			got, err := w.look(ctx, client, setName)
			if err == nil && !slices.Equal(got, []string{away}) {
				err = fmt.Errorf("%s is %q", setName, got)
			}
			return err
		})
		took := time.Since(begin)
		w.answers(t, client, w.west)
		must(t, ip("link set "+lost.cable()+" up"))
		suite.Within(t, limit, "the node is ready", lost.ready)
		suite.Within(t, limit, "the DNS is as before", func(ctx context.Context) error { return w.east.serves(ctx, ourImage) })
		return seconds(took)
	})
	w.row(t, "It is back, until they are back", w.all(localName, setName), func(t *testing.T) string {
		t.Helper()
		begin := time.Now()
		w.answers(t, client, w.east)
		w.untilAsked(t, setName, enough)
		return seconds(time.Since(begin))
	})
	w.row(t, "The clusters are cut off from each other, until each finds the other stale", w.all(localName, setName), func(t *testing.T) string {
		t.Helper()
		begin := time.Now()
		must(t, w.separate("add"))
		t.Cleanup(func() {
			if t.Failed() {
				_ = w.separate("del") // where it is
			}
		})
		for _, c := range w.both() {
			stale := fmt.Sprintf(`coredns_clusterset_member_state{cluster=%q,source="exports",state="stale"}`, w.other(c).name)
			suite.Within(t, startLimit, w.other(c).name+" is stale in "+c.name, func(context.Context) error {
				for pod, value := range w.metric(t, c, stale) {
					if value != "1" {
						return fmt.Errorf("%s is %q in %s", stale, value, pod)
					}
				}
				return nil
			})
		}
		took := time.Since(begin)
		for _, n := range w.nodes() {
			w.answers(t, n, n.cluster)
			other := w.other(n.cluster)
			w.looks(t, n, "only-"+other.name+".shop.svc.clusterset.local", other.serviceIP(t, "only-"+other.name))
			w.looks(t, n, "db-0."+other.name+".db.shop.svc.clusterset.local", other.podIP(t, "db-0"))
		}
		return seconds(took)
	})
	w.row(t, "They find together again, until a change that was made meanwhile shows", w.all(localName, setName), func(t *testing.T) string {
		t.Helper()
		w.kubectl(t, w.west, "-n shop scale statefulset db --replicas=3")
		suite.Within(t, limit, "there is one more peer in west", func(ctx context.Context) error {
			return w.west.settled(ctx, "shop", "app=db", 3)
		})
		begin := time.Now()
		must(t, w.separate("del"))
		w.looks(t, client, "db.shop.svc.clusterset.local", w.addresses(t, "app=db")...)
		return seconds(time.Since(begin))
	})
}

// podIP returns the address of a pod in the namespace shop.
func (c *cluster) podIP(t *testing.T, name string) string {
	t.Helper()
	pod, err := c.client.CoreV1().Pods("shop").Get(t.Context(), name, metav1.GetOptions{})
	must(t, err)
	return pod.Status.PodIP
}

// separate makes ("add") the nodes and pods of each cluster unable to reach anything of the other one, and API servers unable to
// reach the pods of the other one, or takes that back ("del"). Nothing says so to them: packets vanish.
func (w *world) separate(what string) error {
	var errs []error
	for _, c := range w.both() {
		errs = append(errs, ip(fmt.Sprintf("rule %s preference 10 from %s to %s blackhole", what, c.address, w.other(c).pods)))
	}
	for _, n := range w.nodes() {
		other := w.other(n.cluster)
		ranges := []string{other.address.String(), other.services.String(), other.pods.String()}
		for _, m := range other.nodes {
			ranges = append(ranges, m.address.String())
		}
		for _, to := range ranges {
			errs = append(errs, n.ip(fmt.Sprintf("rule %s preference 10 to %s blackhole", what, to)))
		}
	}
	return errors.Join(errs...)
}

// spread makes sure that each node of east has one of its two replicas, as the scheduler prefers it but does not promise.
func (w *world) spread(t *testing.T) {
	t.Helper()
	suite.Within(t, startLimit, "each node of east has a replica", func(ctx context.Context) error {
		if err := w.east.serves(ctx, ourImage); err != nil {
			return err
		}
		pods, err := w.east.podsOf(ctx, "kube-system", dnsPods)
		if err != nil {
			return err
		}
		if pods[0].Spec.NodeName != pods[1].Spec.NodeName {
			return nil
		}
		err = w.east.client.CoreV1().Pods("kube-system").Delete(ctx, pods[0].Name, metav1.DeleteOptions{})
		return errors.Join(fmt.Errorf("both are on %s", pods[0].Spec.NodeName), err)
	})
}
