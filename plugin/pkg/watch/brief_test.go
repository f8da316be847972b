package watch

import (
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch/watchtest"
)

// TestExportsAreListedByTheirMetadata starts to watch exports, and then has all listed anew.
func TestExportsAreListedByTheirMetadata(t *testing.T) {
	plain := func(e *mcsv1beta1.ServiceExport) { e.Annotations = map[string]string{annotationWeight: "30"} }
	labelled := func(e *mcsv1beta1.ServiceExport) { e.Spec.ExportedLabels = map[string]string{"team": "web"} }
	const brief, whole = "brief", "whole"
	for _, tc := range []struct {
		name string
		// objects are api, web and zoo, in this order.
		objects [3]func(*mcsv1beta1.ServiceExport)
		ignores bool // the API server knows no metadata alone
		lists   []string
	}{
		{"nothing else is asked for where there is nothing else", [3]func(*mcsv1beta1.ServiceExport){plain, plain, plain}, false, []string{brief, brief}},
		{"one has labels: all are asked for whole, and from then on", [3]func(*mcsv1beta1.ServiceExport){plain, labelled, plain}, false, []string{brief, whole, whole}},
		{"one has annotations", [3]func(*mcsv1beta1.ServiceExport){plain, plain, func(e *mcsv1beta1.ServiceExport) {
			e.Spec.ExportedAnnotations = map[string]string{"note": "x"}
		}}, false, []string{brief, whole, whole}},
		{"one does not say who manages what", [3]func(*mcsv1beta1.ServiceExport){func(e *mcsv1beta1.ServiceExport) {
			e.ManagedFields = []metav1.ManagedFieldsEntry{}
		}, plain, plain}, false, []string{brief, whole, whole}},
		{"an API server that gives whole objects is not asked twice", [3]func(*mcsv1beta1.ServiceExport){plain, labelled, plain}, true, []string{brief, brief}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var lists []string
				server := watchtest.NewVirtual(1)
				connection, err := NewConnection(&rest.Config{Host: "http://east", Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
					if q := r.URL.Query(); path.Base(r.URL.Path) == "serviceexports" && !q.Has("watch") && !q.Has("limit") {
						how := whole
						if strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadataList") {
							how = brief
						}
						mu.Lock()
						lists = append(lists, how)
						mu.Unlock()
					}
					if tc.ignores {
						r = r.Clone(r.Context())
						r.Header.Set("Accept", "application/json")
					}
					return server.RoundTrip(r)
				})})
				if err != nil {
					t.Fatal(err)
				}
				want := map[mcs.ServiceKey]mcs.Export{}
				for i, name := range []string{"api", "web", "zoo"} {
					e := export("shop", name)
					e.CreationTimestamp = metav1.Unix(1000, 0)
					tc.objects[i](e)
					if _, err := server.Put("serviceexports", e); err != nil {
						t.Fatal(err)
					}
					key, fact, _ := converter{reject: func(Rejection) {}}.export(e)
					want[key] = fact
				}
				sink := newTold()
				w, err := Start(Spec{Kind: mcs.Exports, Cluster: "east", Connection: connection, Observer: sink})
				if err != nil {
					t.Fatal(err)
				}
				defer w.Close()
				w.Subscribe(sink)
				synctest.Wait()
				w.anew()
				time.Sleep(time.Minute)
				sink.look(func() {
					for key, fact := range want {
						if got := sink.shards[key]; got == nil || got.Export != fact {
							t.Errorf("%s: got %+v, want the export %+v", key, got, fact)
						}
					}
				})
				mu.Lock()
				defer mu.Unlock()
				if !slices.Equal(lists, tc.lists) {
					t.Errorf("Lists were %v, want %v", lists, tc.lists)
				}
			})
		})
	}
}

func TestHasMore(t *testing.T) {
	octets := func(o metav1.ObjectMeta) []byte {
		out, err := (&metav1.PartialObjectMetadata{ObjectMeta: o}).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	managed := func(fields ...string) (out []metav1.ManagedFieldsEntry) {
		for _, text := range fields {
			out = append(out, metav1.ManagedFieldsEntry{Manager: "kubectl", FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(text)})
		}
		return out
	}
	for _, tc := range []struct {
		name   string
		object []byte
		want   bool
	}{
		{"a spec without fields", octets(metav1.ObjectMeta{Name: "web", ManagedFields: managed(`{"f:spec":{}}`)}), false},
		{"annotations of its own", octets(metav1.ObjectMeta{Name: "web", ManagedFields: managed(`{"f:metadata":{"f:annotations":{"f:a":{}}}}`)}), false},
		{"a status", octets(metav1.ObjectMeta{Name: "web", ManagedFields: managed(`{"f:spec":{}}`, `{"f:status":{"f:conditions":{}}}`)}), false},
		{"exported labels", octets(metav1.ObjectMeta{Name: "web", ManagedFields: managed(`{"f:spec":{"f:exportedLabels":{".":{},"f:team":{}}}}`)}), true},
		{"exported annotations, by another manager", octets(metav1.ObjectMeta{Name: "web", ManagedFields: managed(`{"f:spec":{}}`, `{"f:spec":{"f:exportedAnnotations":{}}}`)}), true},
		{"nobody says who manages it", octets(metav1.ObjectMeta{Name: "web"}), true},
		{"no metadata", nil, true},
		{"what makes no sense", []byte("\xff\xff"), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := hasMore(tc.object); got != tc.want {
				t.Errorf("Got %v, want %v", got, tc.want)
			}
		})
	}
}
