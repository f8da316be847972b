package watch

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	restwatch "k8s.io/client-go/rest/watch"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
	mcsscheme "sigs.k8s.io/mcs-api/pkg/client/clientset/versioned/scheme"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// received is one event of a watch.
type received struct {
	event  watch.EventType
	object runtime.Object
	err    error
}

// receive reads the events of a stream as client-go's watch does.
func receive(tb testing.TB, serializer runtime.NegotiatedSerializer, stream string) (out []received) {
	tb.Helper()
	decoder, streamer, framer, err := runtime.NewClientNegotiator(serializer, mcsv1beta1.SchemeGroupVersion).StreamDecoder("application/json", nil)
	if err != nil {
		tb.Fatal(err)
	}
	d := restwatch.NewDecoder(streaming.NewDecoder(framer.NewFrameReader(io.NopCloser(strings.NewReader(stream))), streamer), decoder)
	defer d.Close()
	for {
		event, object, err := d.Decode()
		if errors.Is(err, io.EOF) {
			return out
		}
		if out = append(out, received{event, object, err}); err != nil {
			return out
		}
	}
}

func general() runtime.NegotiatedSerializer {
	return rest.CodecFactoryForGeneratedClient(mcsscheme.Scheme, mcsscheme.Codecs).WithoutConversion()
}

// exportJSON is a ServiceExport as an API server writes it.
func exportJSON(version, name string) string {
	return fmt.Sprintf(`{"apiVersion":"multicluster.x-k8s.io/%s","kind":"ServiceExport","metadata":{"annotations":{"clusterset-dns.io/weight-percent":"30"},`+
		`"creationTimestamp":"2026-11-01T10:00:00Z","generation":1,"labels":{"a":"b"},"managedFields":[{"apiVersion":"multicluster.x-k8s.io/%s","fieldsType":"FieldsV1",`+
		`"fieldsV1":{"f:metadata":{"f:annotations":{".":{},"f:clusterset-dns.io/weight-percent":{}}}},"manager":"kubectl","operation":"Update","time":"2026-11-01T10:00:00Z"}],`+
		`"name":%q,"namespace":"shop","resourceVersion":"1017","uid":"6f9619ff-8b86-d011-b42d-00c04fc964ff"},"spec":{"exportedAnnotations":{"x":"1"},"exportedLabels":{"y":"2"}},`+
		`"status":{"conditions":[{"type":"Valid","status":"True","lastTransitionTime":"2026-11-01T10:00:00Z","reason":"Valid","message":""}]}}`, version, version, name)
}

// TestTheShortWayDecodesWhatTheGeneralOneDoes compares what becomes of events.
func TestTheShortWayDecodesWhatTheGeneralOneDoes(t *testing.T) {
	event := func(kind, object string) string { return `{"type":"` + kind + `","object":` + object + "}\n" }
	const bookmark = `{"apiVersion":"multicluster.x-k8s.io/v1beta1","kind":"ServiceExport","metadata":{"annotations":{"k8s.io/initial-events-end":"true"},"creationTimestamp":null,"resourceVersion":"77"},"spec":{}}`
	const status = `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old","reason":"Expired","code":410}`
	for _, tc := range []struct {
		name, stream string
	}{
		{"an export", event("ADDED", exportJSON("v1beta1", "web"))},
		{"one of v1alpha1", event("MODIFIED", exportJSON("v1alpha1", "web"))},
		{"several, and one that goes", event("ADDED", exportJSON("v1beta1", "a")) + event("ADDED", exportJSON("v1beta1", "b")) + event("DELETED", exportJSON("v1beta1", "a"))},
		{"the bookmark that ends a list", event("BOOKMARK", bookmark)},
		{"an error", event("ERROR", status)},
		{"another order of fields", `{"object":` + exportJSON("v1beta1", "web") + `,"type":"ADDED"}`},
		{"room between the fields", `{ "type": "ADDED", "object": ` + exportJSON("v1beta1", "web") + ` }`},
		{"a field behind the object", `{"type":"ADDED","object":` + exportJSON("v1beta1", "web") + `,"more":1}`},
		{"the kind after the metadata", event("ADDED", `{"metadata":{"name":"web","namespace":"shop"},"apiVersion":"multicluster.x-k8s.io/v1beta1","kind":"ServiceExport"}`)},
		{"a ServiceImport", event("ADDED", `{"apiVersion":"multicluster.x-k8s.io/v1beta1","kind":"ServiceImport","metadata":{"name":"web","namespace":"shop"},"spec":{"type":"Headless","ports":null}}`)},
		{"a type that is none", event("GONE", exportJSON("v1beta1", "web"))},
		{"a name that is no text", event("ADDED", `{"apiVersion":"multicluster.x-k8s.io/v1beta1","kind":"ServiceExport","metadata":{"name":7}}`)},
		{"a time that is none", event("ADDED", `{"apiVersion":"multicluster.x-k8s.io/v1beta1","kind":"ServiceExport","metadata":{"name":"web","creationTimestamp":"yesterday"}}`)},
		{"another kind that nobody knows", event("ADDED", `{"apiVersion":"example.org/v1","kind":"Thing","metadata":{}}`)},
		{"an object that ends early", `{"type":"ADDED","object":{"apiVersion":"multicluster.x-k8s.io/v1beta1","kind":"ServiceExport","metadata":{"name":"web"`},
	} {
		t.Run(tc.name, func(t *testing.T) { compareWays(t, tc.stream) })
	}
}

func compareWays(t *testing.T, stream string) {
	t.Helper()
	got, want := receive(t, lean{general()}, stream), receive(t, general(), stream)
	if len(got) != len(want) {
		t.Fatalf("%d events, want %d: %+v", len(got), len(want), got)
	}
	c := converter{reject: func(Rejection) {}}
	for i := range want {
		if got[i].event != want[i].event || (got[i].err == nil) != (want[i].err == nil) {
			t.Fatalf("Event %d is %+v, want %+v", i, got[i], want[i])
		}
		if a, b := identify(got[i].object), identify(want[i].object); *a != *b {
			t.Errorf("Event %d is of %+v, want %+v", i, a, b)
		}
		key, export, ok := c.export(got[i].object)
		wantKey, wantExport, wantOK := c.export(want[i].object)
		if key != wantKey || export != wantExport || ok != wantOK {
			t.Errorf("Event %d says %v %+v %v, want %v %+v %v", i, key, export, ok, wantKey, wantExport, wantOK)
		}
	}
}

// TestMostGoesTheShortWay makes sure that what an API server writes does.
func TestMostGoesTheShortWay(t *testing.T) {
	for _, version := range crdVersions {
		o, _, err := (leanExports{}).Decode([]byte(exportJSON(version, "web")), nil, nil)
		if key, export, ok := (converter{reject: func(Rejection) {}}).export(o); err != nil || !ok || key != (mcs.ServiceKey{Namespace: "shop", Name: "web"}) || export.WeightPercent != 30 {
			t.Errorf("%s: got %v %+v, %v", version, key, export, err)
		}
	}
}

func BenchmarkExportsOfAList(b *testing.B) {
	var stream strings.Builder
	for i := range 1000 {
		stream.WriteString(`{"type":"ADDED","object":` + exportJSON("v1beta1", fmt.Sprint("web-", i)) + "}\n")
	}
	for _, way := range []struct {
		name       string
		serializer runtime.NegotiatedSerializer
	}{{"short", lean{general()}}, {"general", general()}} {
		b.Run(way.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if got := receive(b, way.serializer, stream.String()); len(got) != 1000 {
					b.Fatalf("%d events", len(got))
				}
			}
		})
	}
}
