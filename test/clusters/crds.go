package clusters

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/mcs-api/config/crd"
)

// CRDMode says which versions of the Multi-Cluster Services API a cluster serves.
type CRDMode int

// The CRD modes.
const (
	V1Beta1AndV1Alpha1 CRDMode = iota // what mcs-api v0.5.2 ships: both served, v1beta1 stored
	OnlyV1Alpha1                      // as an older release: v1alpha1 served and stored
	NoCRDs                            // the API is not installed
)

func (m CRDMode) String() string {
	switch m {
	case V1Beta1AndV1Alpha1:
		return "v1beta1 and v1alpha1"
	case OnlyV1Alpha1:
		return "only v1alpha1"
	case NoCRDs:
		return "no CRDs"
	}
	return fmt.Sprintf("CRDMode(%d)", int(m))
}

// serves returns which of the versions are served in this mode.
func (m CRDMode) serves() (map[string]bool, error) {
	switch m {
	case V1Beta1AndV1Alpha1:
		return map[string]bool{"v1alpha1": true, "v1beta1": true}, nil
	case OnlyV1Alpha1:
		return map[string]bool{"v1alpha1": true, "v1beta1": false}, nil
	case NoCRDs:
		return map[string]bool{"v1alpha1": false, "v1beta1": false}, nil
	}
	return nil, fmt.Errorf("unknown %s", m)
}

const mcsGroup = "multicluster.x-k8s.io"

var (
	crdResource  = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	mcsResources = []string{"serviceexports", "serviceimports"}
)

// ApplyCRDs installs or replaces the ServiceExport and ServiceImport CRDs and returns once discovery and the resources
// themselves show exactly the versions of the mode. Objects survive a change of versions; NoCRDs is DeleteCRDs.
func (c *Cluster) ApplyCRDs(ctx context.Context, mode CRDMode) error {
	versions, err := mode.serves()
	if err != nil {
		return fmt.Errorf("apply CRDs to cluster %s: %w", c.name, err)
	}
	if mode == NoCRDs {
		return c.DeleteCRDs(ctx)
	}
	for _, manifest := range [][]byte{crd.ServiceExportCRD, crd.ServiceImportCRD} {
		objects, err := decode(manifest)
		if err != nil {
			return fmt.Errorf("decode the CRDs of mcs-api: %w", err)
		}
		for _, object := range objects {
			if err := setServed(object, versions); err != nil {
				return fmt.Errorf("CRD %s: %w", object.GetName(), err)
			}
			options := metav1.ApplyOptions{FieldManager: fieldManager, Force: true}
			if _, err := c.dynamic.Resource(crdResource).Apply(ctx, object.GetName(), object, options); err != nil {
				return fmt.Errorf("apply CRD %s to cluster %s: %w", object.GetName(), c.name, err)
			}
		}
	}
	return c.untilServed(ctx, versions)
}

// DeleteCRDs removes the CRDs and with them every ServiceExport and ServiceImport, and returns once neither is served
// any more. Nothing happens when they are not there.
func (c *Cluster) DeleteCRDs(ctx context.Context) error {
	for _, resource := range mcsResources {
		err := c.dynamic.Resource(crdResource).Delete(ctx, resource+"."+mcsGroup, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete CRD %s of cluster %s: %w", resource, c.name, err)
		}
	}
	if err := c.untilFinalized(ctx); err != nil {
		return err
	}
	versions, err := NoCRDs.serves()
	if err != nil {
		return err
	}
	return c.untilServed(ctx, versions)
}

// untilFinalized waits until the API server has forgotten the deleted CRDs. One that it could not finalize at once, as when
// it was just restarted and has not read what is stored ("storage is (re)initializing"), it takes up again when something
// but its own condition is changed in it, or after five minutes. So something is.
func (c *Cluster) untilFinalized(ctx context.Context) error {
	const every = 25 // tries: half a second
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	crds := c.dynamic.Resource(crdResource)
	try := 0
	err := poll(ctx, func(ctx context.Context) error {
		var errs []error
		try++
		for _, resource := range mcsResources {
			object, err := crds.Get(ctx, resource+"."+mcsGroup, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				continue
			}
			if err == nil && try%every == 0 {
				touch := fmt.Appendf(nil, `{"metadata": {"annotations": {"%s/try": "%d"}}}`, fieldManager, try)
				_, err = crds.Patch(ctx, object.GetName(), types.MergePatchType, touch, metav1.PatchOptions{})
			}
			if err == nil {
				conditions, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
				err = fmt.Errorf("CRD %s is still there: %v", object.GetName(), conditions)
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return fmt.Errorf("wait for the end of the CRDs of cluster %s: %w", c.name, err)
	}
	return nil
}

// setServed sets the served versions of a CRD and stores the newest of them. A version that is not served stays in the
// list: the API server refuses to forget one that objects may be stored in, and clients cannot tell the difference.
func setServed(object *unstructured.Unstructured, served map[string]bool) error {
	versions, found, err := unstructured.NestedSlice(object.Object, "spec", "versions")
	if err != nil || !found {
		return errors.Join(errors.New("no spec.versions"), err)
	}
	stored := "v1alpha1"
	if served["v1beta1"] {
		stored = "v1beta1"
	}
	known := 0
	for _, v := range versions {
		version, ok := v.(map[string]any)
		if !ok {
			return fmt.Errorf("spec.versions holds %T", v)
		}
		name, _ := version["name"].(string)
		version["served"], version["storage"] = served[name], name == stored
		if _, ok := served[name]; ok {
			known++
		}
	}
	if known != len(served) {
		return fmt.Errorf("%d of %d expected versions; has mcs-api changed?", known, len(served))
	}
	return unstructured.SetNestedSlice(object.Object, versions, "spec", "versions")
}

// untilServed waits until the API server serves exactly these versions of both resources.
func (c *Cluster) untilServed(ctx context.Context, versions map[string]bool) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err := poll(ctx, func(ctx context.Context) error {
		for version, served := range versions {
			if err := c.checkListed(ctx, schema.GroupVersion{Group: mcsGroup, Version: version}, served); err != nil {
				return err
			}
		}
		return c.checkDiscovered(ctx, versions)
	})
	if err != nil {
		return fmt.Errorf("wait for the CRDs of cluster %s: %w", c.name, err)
	}
	return nil
}

// checkListed checks that both resources can be listed in a served version (which proves the CRD to be established)
// and are unknown in another.
func (c *Cluster) checkListed(ctx context.Context, version schema.GroupVersion, served bool) error {
	for _, resource := range mcsResources {
		_, err := c.dynamic.Resource(version.WithResource(resource)).List(ctx, metav1.ListOptions{Limit: 1})
		if !served && err == nil {
			err = errors.New("still served")
		} else if !served && apierrors.IsNotFound(err) {
			err = nil
		}
		if err != nil {
			return fmt.Errorf("list %s %s: %w", version, resource, err)
		}
	}
	return nil
}

// checkDiscovered checks that discovery names both resources in the served versions and in no other, in its old form
// (the list of groups) and in the aggregated one: the API server fills the two at different times.
func (c *Cluster) checkDiscovered(ctx context.Context, versions map[string]bool) error {
	old := &metav1.APIGroupList{}
	if err := c.discovery.RESTClient().Get().AbsPath("apis").Do(ctx).Into(old); err != nil {
		return fmt.Errorf("discover groups: %w", err)
	}
	groups := map[string]bool{}
	for _, group := range old.Groups {
		for _, version := range group.Versions {
			groups[version.GroupVersion] = true
		}
	}
	_, lists, err := c.discovery.ServerGroupsAndResources()
	if err != nil {
		return fmt.Errorf("discover resources: %w", err)
	}
	resources := map[string]bool{}
	for _, list := range lists {
		for _, resource := range list.APIResources {
			resources[list.GroupVersion+"/"+resource.Name] = true
		}
	}
	for version, served := range versions {
		name := mcsGroup + "/" + version
		if groups[name] != served {
			return fmt.Errorf("discover groups: %s listed is %t, want %t", name, groups[name], served)
		}
		for _, resource := range mcsResources {
			if got := resources[name+"/"+resource]; got != served {
				return fmt.Errorf("discover resources: %s/%s listed is %t, want %t", name, resource, got, served)
			}
		}
	}
	return nil
}

// ClusterPropertyCRD is a CRD for ClusterProperty objects (KEP-2149) that serves one version.
func ClusterPropertyCRD(version string) []byte { return fmt.Appendf(nil, clusterPropertyCRD, version) }

const clusterPropertyCRD = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: clusterproperties.about.k8s.io
  annotations:
    api-approved.kubernetes.io: unapproved, for tests
spec:
  group: about.k8s.io
  scope: Cluster
  names: {kind: ClusterProperty, listKind: ClusterPropertyList, plural: clusterproperties, singular: clusterproperty}
  versions:
    - name: %s
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec:
              type: object
              properties:
                value: {type: string}
`
