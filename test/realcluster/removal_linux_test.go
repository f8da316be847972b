package realcluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clusterset-dns/clusterset-dns/test/readme"
	"github.com/clusterset-dns/clusterset-dns/test/suite"
)

// testRemoval goes all the way back.
func (w *world) testRemoval(t *testing.T) {
	t.Helper()
	w.row(t, "`rollout undo --to-revision`, to kubeadm's image", w.all(localName), func(t *testing.T) string {
		t.Helper()
		return w.each(t, func(t *testing.T, c *cluster, o readme.Operator) {
			t.Helper()
			o.Does(t, "kubectl --context east -n kube-system rollout history deployment coredns")
			o.Does(t, rolloutUndo, "--to-revision="+c.revision(t))
			suite.Within(t, limit, "kubeadm's image serves", func(ctx context.Context) error { return c.serves(ctx, stockImage) })
		})
	})
	w.testBeside(t)
	w.row(t, "Everything of ours is deleted", w.all(localName), func(t *testing.T) string {
		t.Helper()
		return w.each(t, func(t *testing.T, c *cluster, o readme.Operator) {
			t.Helper()
			o.Does(t, "kubectl --context east delete --ignore-not-found -k deploy/drop-in")
			o.Does(t, "kubectl --context east delete --ignore-not-found -k deploy/member")
			suite.Within(t, limit, "nothing is left", func(context.Context) error {
				left, err := o.Try(t, "kubectl --context east get --ignore-not-found --all-namespaces --selector app.kubernetes.io/part-of=clusterset-dns -o name "+
					"namespaces,clusterroles,clusterrolebindings,roles,rolebindings,serviceaccounts,configmaps,secrets,poddisruptionbudgets,"+
					"flowschemas,prioritylevelconfigurations")
				if err == nil && left != "" {
					err = fmt.Errorf("left are %q", strings.Fields(left))
				}
				return err
			})
			if got := c.deployment(t).Spec.Template.Spec; !reflect.DeepEqual(got, c.original.Spec.Template.Spec) {
				t.Errorf("The pods of kubeadm's Deployment are now %v, were %v", got, c.original.Spec.Template.Spec)
			}
		})
	})
}

// testBeside goes the other way in, in east: kubeadm's CoreDNS stays, and asks ours.
func (w *world) testBeside(t *testing.T) {
	t.Helper()
	o := w.atEast
	w.row(t, "Beside kubeadm's CoreDNS two pods of ours start, until they are ready", w.all(localName), func(t *testing.T) string {
		t.Helper()
		begin := time.Now()
		o.Does(t, "kubectl --context east apply --server-side -k deploy/beside")
		o.Does(t, "kubectl --context east -n clusterset-dns rollout status deployment clusterset-dns --timeout=120s")
		return seconds(time.Since(begin))
	})
	corefile := w.east.corefile(t, nil)
	w.row(t, "kubeadm's CoreDNS is told to forward to them, until every replica does", w.all(localName), func(t *testing.T) string {
		t.Helper()
		begin := time.Now()
		block, err := os.ReadFile(filepath.Join(o.Dir, "deploy", "beside", "clusterset.server"))
		must(t, err)
		forwarding := corefile + string(block)
		w.east.corefile(t, &forwarding)
		for _, n := range w.east.nodes {
			w.looks(t, n, "only-west.shop.svc.clusterset.local", w.west.serviceIP(t, "only-west"))
			w.looks(t, n, setName, w.east.serviceIP(t, "web"))
			w.answers(t, n, w.east)
		}
		return seconds(time.Since(begin))
	})
	w.row(t, "It is told to leave that, until every replica does", w.all(localName), func(t *testing.T) string {
		t.Helper()
		begin := time.Now()
		w.east.corefile(t, &corefile)
		for _, n := range w.east.nodes {
			w.looks(t, n, setName, "NXDOMAIN")
		}
		took := time.Since(begin)
		o.Does(t, "kubectl --context east delete --ignore-not-found -k deploy/beside")
		return seconds(took)
	})
}

// corefile returns the Corefile of kubeadm's CoreDNS, and replaces it by another, if there is one.
func (c *cluster) corefile(t *testing.T, by *string) string {
	t.Helper()
	maps := c.client.CoreV1().ConfigMaps("kube-system")
	config, err := maps.Get(t.Context(), "coredns", metav1.GetOptions{})
	must(t, err)
	was := config.Data["Corefile"]
	if by != nil {
		config.Data["Corefile"] = *by
		_, err = maps.Update(t.Context(), config, metav1.UpdateOptions{})
		must(t, err)
	}
	return was
}

// deployment returns the Deployment of the cluster's DNS.
func (c *cluster) deployment(t *testing.T) *appsv1.Deployment {
	t.Helper()
	d, err := c.client.AppsV1().Deployments("kube-system").Get(context.WithoutCancel(t.Context()), "coredns", metav1.GetOptions{})
	must(t, err)
	return d
}

// revision returns that of the Deployment which has kubeadm's image.
func (c *cluster) revision(t *testing.T) string {
	t.Helper()
	sets, err := c.client.AppsV1().ReplicaSets("kube-system").List(t.Context(), metav1.ListOptions{LabelSelector: dnsPods})
	must(t, err)
	for _, set := range sets.Items {
		if set.Spec.Template.Spec.Containers[0].Image == stockImage {
			return set.Annotations["deployment.kubernetes.io/revision"]
		}
	}
	t.Fatal("No revision has kubeadm's image")
	return ""
}
