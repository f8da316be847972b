package e2e

import (
	"context"
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
	mcsclient "sigs.k8s.io/mcs-api/pkg/client/clientset/versioned/typed/apis/v1beta1"

	"github.com/clusterset-dns/clusterset-dns/test/kube"
)

// TestExportedLabelsAreSeenAtTheStart: east exports a service without labels, and west in another way each time. What an API
// server notes in managedFields decides whether a second list is needed, which has all that there is.
func TestExportedLabelsAreSeenAtTheStart(t *testing.T) {
	labels := map[string]string{"team": "web"}
	made := func(ctx context.Context, exports mcsclient.ServiceExportInterface, name string, labels map[string]string) error {
		_, err := exports.Create(ctx, &mcsv1beta1.ServiceExport{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: mcsv1beta1.ServiceExportSpec{ExportedLabels: labels},
		}, metav1.CreateOptions{})
		return err
	}
	patched := func(ctx context.Context, exports mcsclient.ServiceExportInterface, name string, kind types.PatchType, patch string) error {
		_, err := exports.Patch(ctx, name, kind, []byte(patch), metav1.PatchOptions{FieldManager: "e2e"})
		return err
	}
	for _, tc := range []struct {
		name             string
		make             func(ctx context.Context, exports mcsclient.ServiceExportInterface, name string) error
		conflicts, lists int
	}{
		{"an export without labels", func(ctx context.Context, exports mcsclient.ServiceExportInterface, name string) error {
			return made(ctx, exports, name, nil)
		}, 0, 1},
		{"made with labels", func(ctx context.Context, exports mcsclient.ServiceExportInterface, name string) error {
			return made(ctx, exports, name, labels)
		}, 1, 2},
		{"labels came later", func(ctx context.Context, exports mcsclient.ServiceExportInterface, name string) error {
			if err := made(ctx, exports, name, nil); err != nil {
				return err
			}
			return patched(ctx, exports, name, types.MergePatchType, `{"spec":{"exportedLabels":{"team":"web"}}}`)
		}, 1, 2},
		{"applied by the server", func(ctx context.Context, exports mcsclient.ServiceExportInterface, name string) error {
			return patched(ctx, exports, name, types.ApplyPatchType, fmt.Sprintf(
				`{"apiVersion":"multicluster.x-k8s.io/v1beta1","kind":"ServiceExport","metadata":{"name":%q},"spec":{"exportedLabels":{"team":"web"}}}`, name))
		}, 1, 2},
		{"labels went again", func(ctx context.Context, exports mcsclient.ServiceExportInterface, name string) error {
			if err := made(ctx, exports, name, labels); err != nil {
				return err
			}
			return patched(ctx, exports, name, types.MergePatchType, `{"spec":{"exportedLabels":null}}`)
		}, 0, 1},
		{"nobody knows any more who made the labels", func(ctx context.Context, exports mcsclient.ServiceExportInterface, name string) error {
			if err := made(ctx, exports, name, labels); err != nil {
				return err
			}
			return patched(ctx, exports, name, types.MergePatchType, `{"metadata":{"managedFields":[{}]}}`)
		}, 1, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const service = "labelled"
			export(t, east, service, "10.1.0.1")
			_, err := west.Create(t.Context(), kube.Simple{Namespace: namespace, Name: service, Headless: true, Addresses: []string{"10.2.0.1"}})
			must(t, err)
			must(t, tc.make(t.Context(), west.MCS.MulticlusterV1beta1().ServiceExports(namespace), service))
			defer func() {
				must(t, east.Remove(context.Background(), namespace, service))
				must(t, west.Remove(context.Background(), namespace, service))
			}()

			since := mark(t, west)
			s := run(t, corefile(stanza([]cluster{east, west})))
			ready(t, s)
			within(t, limit, "both clusters answer", answers(s, name(service), 2))
			within(t, limit, "the conflict is counted", shows(s, float64(tc.conflicts), "coredns_clusterset_conflicts", "reason", "LabelsConflict"))
			within(t, limit, "everything is watched", func(context.Context) error {
				if got := since.reads(t); got["list serviceexports"] != tc.lists || got["watch serviceexports"] != 1 {
					return fmt.Errorf("%v, want %d lists of ServiceExports and a watch", got, tc.lists)
				}
				return nil
			})
		})
	}
}
