package deploy

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/readme"
)

// operator types the commands of deploy/README.md.
type operator struct{ readme.Operator }

// newOperator returns one with deploy/README.md in hand.
func newOperator(t *testing.T) operator {
	t.Helper()
	return operator{readme.New(t, kubeconfig, kubectl, limit)}
}

// reads puts another document into the operator's hands.
func (o operator) reads(t *testing.T, document string) operator {
	t.Helper()
	return operator{o.Reads(t, document)}
}

// strictly is what makes an API server refuse what it would pass over: fields that it does not know, or that stand there
// twice. A warning is an error too.
const strictly = "--validate=strict --warnings-as-errors"

// applies applies a bundle, twice, the second of which changes nothing. At the end of the test it is deleted, and then the
// cluster has what it had before.
func (o operator) applies(t *testing.T, c *clusters.Cluster, bundle string) {
	t.Helper()
	before := inventory(t, c)
	apply := fmt.Sprintf("kubectl --context %s apply --server-side -k deploy/%s", c.Name(), bundle)
	o.Does(t, apply, strictly)
	t.Cleanup(func() {
		o.Does(t, fmt.Sprintf("kubectl --context %s delete --ignore-not-found -k deploy/%s", c.Name(), bundle))
		untilOnly(t, c, before)
	})
	first := o.objects(t, c, bundle)
	o.Does(t, apply, strictly)
	if second := o.objects(t, c, bundle); !reflect.DeepEqual(first, second) {
		t.Errorf("deploy/%s, applied again, changes something:\n%v\n%v", bundle, first, second)
	}
}

// objects returns the objects of a bundle as the API server has them, without what controllers write.
func (o operator) objects(t *testing.T, c *clusters.Cluster, bundle string) []map[string]any {
	t.Helper()
	var list struct{ Items []map[string]any }
	must(t, yaml.Unmarshal([]byte(o.Run(t, fmt.Sprintf("kubectl --context %s get -k deploy/%s -o yaml", c.Name(), bundle))), &list))
	if len(list.Items) == 0 {
		t.Fatalf("deploy/%s has no objects", bundle)
	}
	for _, object := range list.Items {
		delete(object, "status")
		if object["kind"] == "Secret" {
			delete(object, "data") // the token
		}
		for _, field := range []string{"resourceVersion", "managedFields", "annotations"} {
			unstructured.RemoveNestedField(object, "metadata", field)
		}
	}
	return list.Items
}

// passing are resources that come and go by themselves.
var passing = []string{"events", "leases", "componentstatuses"}

// inventory returns what there is in a cluster, as "resource namespace/name".
func inventory(t *testing.T, c *clusters.Cluster) map[string]bool {
	t.Helper()
	found, err := listAll(context.WithoutCancel(t.Context()), c)
	must(t, err)
	return found
}

func listAll(ctx context.Context, c *clusters.Cluster) (map[string]bool, error) {
	known, err := discovery.NewDiscoveryClientForConfig(c.Admin())
	if err != nil {
		return nil, err
	}
	config := c.Admin()
	config.WarningHandler = rest.NoWarnings{} // about Endpoints, which are there all the same
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	lists, err := known.ServerPreferredResources()
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, resource := range list.APIResources {
			if !slices.Contains(resource.Verbs, "list") || slices.Contains(passing, resource.Name) {
				continue
			}
			objects, err := client.Resource(version.WithResource(resource.Name)).List(ctx, metav1.ListOptions{})
			if apierrors.IsMethodNotSupported(err) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("list %s: %w", resource.Name, err)
			}
			for _, object := range objects.Items {
				if metav1.GetControllerOf(&object) != nil {
					continue // of a Deployment, a Service, ...: it goes with that
				}
				found[resource.Name+" "+object.GetNamespace()+"/"+object.GetName()] = true
			}
		}
	}
	return found, nil
}

// untilOnly waits until a cluster has what it had before, and nothing else.
func untilOnly(t *testing.T, c *clusters.Cluster, before map[string]bool) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	within(t, "the cluster "+c.Name()+" is as before", func() error {
		now, err := listAll(ctx, c)
		if err == nil && !maps.Equal(before, now) {
			err = fmt.Errorf("left over: %q; missing: %q", without(now, before), without(before, now))
		}
		return err
	})
}

func without(a, b map[string]bool) []string {
	var rest []string
	for name := range a {
		if !b[name] {
			rest = append(rest, name)
		}
	}
	slices.Sort(rest)
	return rest
}
