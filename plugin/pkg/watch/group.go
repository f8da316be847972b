package watch

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// mcsGroup reads one resource of multicluster.x-k8s.io in the version that the API server offers.
type mcsGroup struct {
	clients clients
	plural  string
	version atomic.Pointer[string] // the one discovered last
}

// crdVersions are the versions we read of what CRDs serve, the preferred one first. Their schemas are the same.
var crdVersions = []string{"v1beta1", "v1alpha1"}

// discover finds the version to read. The error is errNotServed when there is none.
func (g *mcsGroup) discover(ctx context.Context) error {
	version, err := servedVersion(ctx, g.clients, "multicluster.x-k8s.io", g.plural)
	if err == nil {
		g.version.Store(&version)
	}
	return err
}

// servedVersion returns the version to read of a resource that a CRD brings. The error is errNotServed when the API
// server has none of those we read.
func servedVersion(ctx context.Context, c clients, group, plural string) (string, error) {
	var served metav1.APIGroup
	err := c.core.Discovery().RESTClient().Get().AbsPath("/apis", group).Do(ctx).Into(&served)
	if apierrors.IsNotFound(err) {
		return "", errNotServed
	}
	if err != nil {
		return "", fmt.Errorf("discovery of %s: %w", group, err)
	}
	for _, version := range crdVersions {
		for _, offered := range served.Versions {
			if offered.Version != version {
				continue
			}
			has, err := hasResource(ctx, c, group, version, plural)
			if err != nil || has {
				return version, err
			}
		}
	}
	return "", errNotServed
}

// hasResource reports whether a version has the resource: the CRDs of a group can be installed one by one.
func hasResource(ctx context.Context, c clients, group, version, plural string) (bool, error) {
	var list metav1.APIResourceList
	err := c.core.Discovery().RESTClient().Get().AbsPath("/apis", group, version).Do(ctx).Into(&list)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("discovery of %s/%s: %w", group, version, err)
	}
	return slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == plural }), nil
}

func (g *mcsGroup) client() rest.Interface {
	if v := g.version.Load(); v != nil {
		return g.clients.mcs[*v]
	}
	return g.clients.mcs[crdVersions[0]]
}

// listing lists all objects. They are made for JSON: API servers know nothing else for what a CRD brings.
func (g *mcsGroup) listing(objects func() (next func() any)) *listing {
	return &listing{client: g.client(), plural: g.plural, objects: objects}
}

// ask lists nothing, from the API server's cache: it proves that the server answers and that we may read.
func (g *mcsGroup) ask(ctx context.Context) error {
	return g.client().Get().Resource(g.plural).
		VersionedParams(&metav1.ListOptions{ResourceVersion: "0", Limit: 1, FieldSelector: "metadata.name=-"}, metav1.ParameterCodec).
		Do(ctx).Error()
}
