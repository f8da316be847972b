package cases

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
)

// plane writes to one API server.
type plane struct {
	*clusters.Cluster
	client *dynamic.DynamicClient
	mapper meta.RESTMapper
}

func newPlane(c *clusters.Cluster) (*plane, error) {
	d, err := discovery.NewDiscoveryClientForConfig(c.Admin())
	if err != nil {
		return nil, err
	}
	groups, err := restmapper.GetAPIGroupResources(d)
	if err != nil {
		return nil, fmt.Errorf("discover the resources of cluster %s: %w", c.Name(), err)
	}
	config := c.Admin()
	config.WarningHandler = rest.NoWarnings{} // case files may use what is deprecated
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &plane{Cluster: c, client: client, mapper: restmapper.NewDiscoveryRESTMapper(groups)}, nil
}

// apiVersions are those of objects that are only named by their kind.
var apiVersions = map[string]string{
	"Namespace":       "v1",
	"Service":         "v1",
	"Node":            "v1",
	"Pod":             "v1",
	"EndpointSlice":   "discovery.k8s.io/v1",
	"ServiceExport":   "multicluster.x-k8s.io/v1beta1",
	"ServiceImport":   "multicluster.x-k8s.io/v1beta1",
	"ClusterProperty": "about.k8s.io/v1beta1",
}

// kindOf finds a kind by any spelling: ServiceExport, serviceexport, serviceexports.
func kindOf(word string) (kind string, ok bool) {
	short := map[string]string{"ns": "Namespace", "svc": "Service", "slice": "EndpointSlice", "export": "ServiceExport", "import": "ServiceImport"}
	word = strings.ToLower(word)
	singular := strings.TrimSuffix(word, "s")
	for known := range maps.Keys(apiVersions) {
		if lower := strings.ToLower(known); lower == word || lower == singular {
			return known, true
		}
	}
	if kind, ok = short[word]; !ok {
		kind, ok = short[singular]
	}
	return kind, ok
}

// resource returns the client for objects like o.
func (p *plane) resource(o Object) (dynamic.ResourceInterface, error) {
	version := text(o["apiVersion"])
	if version == "" {
		version = apiVersions[o.kind()]
	}
	gv, err := schema.ParseGroupVersion(version)
	if err != nil {
		return nil, err
	}
	mapping, err := p.mapper.RESTMapping(schema.GroupKind{Group: gv.Group, Kind: o.kind()}, gv.Version)
	if err != nil {
		return nil, err
	}
	if mapping.Scope.Name() != meta.RESTScopeNameNamespace {
		return p.client.Resource(mapping.Resource), nil
	}
	namespace := o.namespace()
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	return p.client.Resource(mapping.Resource).Namespace(namespace), nil
}

// put creates the object, or replaces it when it exists, and writes its status where it has one.
func (p *plane) put(ctx context.Context, o Object) (*unstructured.Unstructured, error) {
	resource, err := p.resource(o)
	if err != nil {
		return nil, p.failed("write", o, err)
	}
	written, err := put(ctx, resource, o)
	if err != nil {
		return nil, p.failed("write", o, err)
	}
	status, ok := o["status"].(map[string]any)
	if !ok || len(status) == 0 || o.kind() == "Namespace" {
		return written, nil
	}
	if err := patchStatus(ctx, resource, o.name(), status); err != nil {
		return written, p.failed("write the status of", o, err)
	}
	return written, nil
}

func put(ctx context.Context, resource dynamic.ResourceInterface, o Object) (*unstructured.Unstructured, error) {
	// Asked first, for to create a Service again with its own IP is refused because of the IP.
	current, err := resource.Get(ctx, o.name(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return resource.Create(ctx, clean(o), metav1.CreateOptions{})
	}
	if err != nil || o.kind() == "Namespace" {
		return current, err
	}
	updated, err := replace(ctx, resource, clean(o))
	if !apierrors.IsInvalid(err) {
		return updated, err
	}
	// Either only what changes is given, or a field that cannot be changed, such as the IP of a Service: then it is
	// another object of the same name.
	patched, err := resource.Patch(ctx, o.name(), types.MergePatchType, []byte(show(clean(o).Object)), metav1.PatchOptions{})
	if !apierrors.IsInvalid(err) {
		return patched, err
	}
	if err := resource.Delete(ctx, o.name(), metav1.DeleteOptions{}); err != nil {
		return nil, err
	}
	return resource.Create(ctx, clean(o), metav1.CreateOptions{})
}

// replace updates the object in the version that it has just now.
func replace(ctx context.Context, resource dynamic.ResourceInterface, u *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	for attempt := 1; ; attempt++ {
		current, err := resource.Get(ctx, u.GetName(), metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		u.SetResourceVersion(current.GetResourceVersion())
		updated, err := resource.Update(ctx, u, metav1.UpdateOptions{})
		if !apierrors.IsConflict(err) || attempt == 5 {
			return updated, err
		}
	}
}

// clean copies the object without what only the API server writes.
func clean(o Object) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: runtime.DeepCopyJSON(o)}
	delete(u.Object, "status")
	if u.GetAPIVersion() == "" {
		u.SetAPIVersion(apiVersions[u.GetKind()])
	}
	for _, field := range []string{"creationTimestamp", "resourceVersion", "uid", "generation", "managedFields"} {
		unstructured.RemoveNestedField(u.Object, "metadata", field)
	}
	return u
}

// patchStatus merges into the status subresource.
func patchStatus(ctx context.Context, resource dynamic.ResourceInterface, name string, status map[string]any) error {
	_, err := resource.Patch(ctx, name, types.MergePatchType, []byte(show(map[string]any{"status": status})), metav1.PatchOptions{}, "status")
	return err
}

// patch merges a part of an object (RFC 7386) into the one there; status goes to the subresource.
func (p *plane) patch(ctx context.Context, o Object, part map[string]any) error {
	resource, err := p.resource(o)
	if err != nil {
		return p.failed("patch", o, err)
	}
	part = maps.Clone(part)
	if status, ok := part["status"].(map[string]any); ok {
		delete(part, "status")
		if err := patchStatus(ctx, resource, o.name(), status); err != nil {
			return p.failed("patch the status of", o, err)
		}
	}
	if len(part) == 0 {
		return nil
	}
	_, err = resource.Patch(ctx, o.name(), types.MergePatchType, []byte(show(part)), metav1.PatchOptions{})
	return p.failed("patch", o, err)
}

// remove deletes the object. An object without a name stands for all of its kind in the namespace. An object that is not
// there is an error: the case file meant something else.
func (p *plane) remove(ctx context.Context, o Object) error {
	if o.kind() == "Namespace" {
		return p.removeNamespace(ctx, o.name())
	}
	resource, err := p.resource(o)
	if err != nil {
		return p.failed("delete", o, err)
	}
	if o.name() != "" {
		return p.failed("delete", o, resource.Delete(ctx, o.name(), metav1.DeleteOptions{}))
	}
	list, err := resource.List(ctx, metav1.ListOptions{})
	if err != nil {
		return p.failed("list", o, err)
	}
	for _, item := range list.Items {
		if err := resource.Delete(ctx, item.GetName(), metav1.DeleteOptions{}); err != nil {
			return p.failed("delete", o, err)
		}
	}
	return nil
}

// removeNamespace empties and deletes a namespace, for which a cluster with controllers would need no help.
func (p *plane) removeNamespace(ctx context.Context, name string) error {
	for _, kind := range []string{"ServiceExport", "ServiceImport", "EndpointSlice", "Service"} {
		all := Object{"kind": kind, "metadata": map[string]any{"namespace": name}}
		if err := p.remove(ctx, all); err != nil {
			return err
		}
	}
	o := Object{"kind": "Namespace", "metadata": map[string]any{"name": name}}
	resource, err := p.resource(o)
	if err != nil {
		return p.failed("delete", o, err)
	}
	if err := resource.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return p.failed("delete", o, err)
	}
	current, err := resource.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return p.failed("delete", o, err)
	}
	unstructured.RemoveNestedField(current.Object, "spec", "finalizers")
	_, err = resource.Update(ctx, current, metav1.UpdateOptions{}, "finalize")
	if apierrors.IsNotFound(err) {
		return nil
	}
	return p.failed("finalize", o, err)
}

// failed says what was tried where; nil stays nil.
func (p *plane) failed(what string, o Object, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s in cluster %s: %w", what, o, p.Name(), err)
}

// createdTogether creates the object in each of the planes until the API servers have given all of them the same
// creation time, which they count in seconds.
func createdTogether(ctx context.Context, planes []*plane, o func(*plane) Object) error {
	const attempts = 10
	for range attempts {
		times := map[string]bool{}
		for _, p := range planes {
			created, err := p.put(ctx, o(p))
			if err != nil {
				return err
			}
			times[created.GetCreationTimestamp().String()] = true
		}
		if len(times) == 1 {
			return nil
		}
		for _, p := range planes {
			if err := p.remove(ctx, o(p)); err != nil {
				return err
			}
		}
		// The next attempt starts right after a second begins, to have all of it.
		next := time.Now().Truncate(time.Second).Add(time.Second + 20*time.Millisecond)
		if err := waitUntil(ctx, next); err != nil {
			return err
		}
	}
	return errors.New("create objects at the same second: it never worked")
}

// waitUntil waits for a moment, for where the clock is what matters.
func waitUntil(ctx context.Context, moment time.Time) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(moment)):
		return nil
	}
}

// sortedKeys returns the keys of a mapping in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// has tells whether the object exists.
func (p *plane) has(ctx context.Context, o Object) (bool, error) {
	resource, err := p.resource(o)
	if err != nil {
		return false, p.failed("get", o, err)
	}
	_, err = resource.Get(ctx, o.name(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, p.failed("get", o, err)
}
