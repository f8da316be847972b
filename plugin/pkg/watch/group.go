package watch

import (
	"context"
	"fmt"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// mcsGroup reads one resource of multicluster.x-k8s.io in the version that the API server offers.
type mcsGroup struct {
	clients clients
	plural  string
	version atomic.Pointer[string] // the one discovered last
}

// mcsVersions are the versions we read, the preferred one first. Their schemas are the same.
var mcsVersions = []string{"v1beta1", "v1alpha1"}

// discover finds the version to read. The error is errNotServed when there is none.
func (g *mcsGroup) discover(ctx context.Context) error {
	var group metav1.APIGroup
	err := g.clients.core.Discovery().RESTClient().Get().AbsPath("/apis/multicluster.x-k8s.io").Do(ctx).Into(&group)
	if apierrors.IsNotFound(err) {
		return errNotServed
	}
	if err != nil {
		return fmt.Errorf("discovery of multicluster.x-k8s.io: %w", err)
	}
	for _, version := range mcsVersions {
		for _, served := range group.Versions {
			if served.Version != version {
				continue
			}
			offers, err := g.offered(ctx, version)
			if err != nil {
				return err
			}
			if offers {
				g.version.Store(&version)
				return nil
			}
		}
	}
	return errNotServed
}

// offered reports whether a version has our resource: the CRDs of the group can be installed one by one.
func (g *mcsGroup) offered(ctx context.Context, version string) (bool, error) {
	var list metav1.APIResourceList
	err := g.clients.core.Discovery().RESTClient().Get().AbsPath("/apis/multicluster.x-k8s.io", version).Do(ctx).Into(&list)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("discovery of multicluster.x-k8s.io/%s: %w", version, err)
	}
	for i := range list.APIResources {
		if list.APIResources[i].Name == g.plural {
			return true, nil
		}
	}
	return false, nil
}

func (g *mcsGroup) client() rest.Interface {
	if v := g.version.Load(); v != nil && *v == "v1alpha1" {
		return g.clients.mcs.MulticlusterV1alpha1().RESTClient()
	}
	return g.clients.mcs.MulticlusterV1beta1().RESTClient()
}

func (g *mcsGroup) lists() *cache.ListWatch {
	return cache.NewFilteredListWatchFromClient(g.client(), g.plural, "", func(*metav1.ListOptions) {})
}

// ask lists nothing, from the API server's cache: it proves that the server answers and that we may read.
func (g *mcsGroup) ask(ctx context.Context) error {
	return g.client().Get().Resource(g.plural).
		VersionedParams(&metav1.ListOptions{ResourceVersion: "0", Limit: 1, FieldSelector: "metadata.name=-"}, metav1.ParameterCodec).
		Do(ctx).Error()
}
