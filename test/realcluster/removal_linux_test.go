package realcluster

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"

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
