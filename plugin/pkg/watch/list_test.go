package watch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
	mcsv1alpha1 "sigs.k8s.io/mcs-api/pkg/apis/v1alpha1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
	mcsscheme "sigs.k8s.io/mcs-api/pkg/client/clientset/versioned/scheme"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

var (
	exportListing  = listing{plural: "serviceexports", objects: newObjects[shortExport]}
	importListing  = listing{plural: "serviceimports", objects: newObjects[mcsv1beta1.ServiceImport]}
	serviceListing = listing{plural: "services", objects: newObjects[corev1.Service]}
	sliceListing   = listing{plural: "endpointslices", objects: newObjects[discoveryv1.EndpointSlice]}
)

// readAll reads an answer of which little arrives at a time.
func (l *listing) readAll(answer string) (objects []any, about metav1.ListMeta, err error) {
	return l.readBy(61, answer)
}

// readBy reads an answer of which so much arrives at a time.
func (l *listing) readBy(octets int, answer string) (objects []any, about metav1.ListMeta, err error) {
	about, err = l.read(&dripping{strings.NewReader(answer), octets}, func(obj any) error {
		objects = append(objects, obj)
		return nil
	})
	return objects, about, err
}

// dripping is a reader that gives at most so much at a time.
type dripping struct {
	io.Reader
	at int
}

func (d *dripping) Read(p []byte) (int, error) { return d.Reader.Read(p[:min(len(p), d.at)]) }

// exportJSON is a ServiceExport as an API server writes it.
func exportJSON(version, name string) string {
	return fmt.Sprintf(`{"apiVersion":"multicluster.x-k8s.io/%s","kind":"ServiceExport","metadata":{"annotations":{"clusterset-dns.io/weight-percent":"30"},`+
		`"creationTimestamp":"2026-11-01T10:00:00Z","generation":1,"labels":{"a":"b"},"managedFields":[{"apiVersion":"multicluster.x-k8s.io/%s","fieldsType":"FieldsV1",`+
		`"fieldsV1":{"f:metadata":{"f:annotations":{".":{},"f:clusterset-dns.io/weight-percent":{}}}},"manager":"kubectl","operation":"Update","time":"2026-11-01T10:00:00Z"}],`+
		`"name":%q,"namespace":"shop","resourceVersion":"1017","uid":"6f9619ff-8b86-d011-b42d-00c04fc964ff"},"spec":{"exportedAnnotations":{"x":"1"},"exportedLabels":{"y":"2"}},`+
		`"status":{"conditions":[{"type":"Valid","status":"True","lastTransitionTime":"2026-11-01T10:00:00Z","reason":"Valid","message":""}]}}`, version, version, name)
}

// listJSON is a list of a CRD's objects as an API server writes it.
func listJSON(kind string, items ...string) string {
	return `{"apiVersion":"multicluster.x-k8s.io/v1beta1","items":[` + strings.Join(items, ",") + `],"kind":"` + kind + `List","metadata":{"continue":"","resourceVersion":"2099"}}` + "\n"
}

const importJSON = `{"apiVersion":"multicluster.x-k8s.io/v1beta1","kind":"ServiceImport","metadata":{"name":"web","namespace":"shop","resourceVersion":"9"},` +
	`"spec":{"type":"ClusterSetIP","ips":["10.0.0.1"],"ports":[{"port":80,"protocol":"TCP"}],"sessionAffinity":"ClientIP"},"status":{"clusters":[{"cluster":"east"}]}}`

// protobufOf is an object as an API server sends it.
func protobufOf(tb testing.TB, list runtime.Object) string {
	tb.Helper()
	var out bytes.Buffer
	if err := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(list, &out); err != nil {
		tb.Fatal(err)
	}
	return out.String()
}

func textOf(tb testing.TB, obj any) string {
	tb.Helper()
	text, err := json.Marshal(obj)
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

func fullService(name string) corev1.Service {
	s := service("shop", name, "10.0.0.1")
	s.TypeMeta = metav1.TypeMeta{}
	s.ResourceVersion, s.Labels = "7", map[string]string{"app": name}
	s.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl", FieldsV1: metav1.NewFieldsV1(`{"f:spec":{}}`)}}
	s.Spec.Ports = []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}}
	return *s
}

func services(names ...string) *corev1.ServiceList {
	list := &corev1.ServiceList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceList"}, ListMeta: metav1.ListMeta{ResourceVersion: "2099"}}
	for _, name := range names {
		list.Items = append(list.Items, fullService(name))
	}
	return list
}

// TestAListSaysPieceByPieceWhatItSaysAsAWhole compares with client-go's decoders.
func TestAListSaysPieceByPieceWhatItSaysAsAWhole(t *testing.T) {
	many := make([]string, 1000)
	for i := range many {
		many[i] = fmt.Sprint("web-", i)
	}
	large := services("web-0", "web-1", "web-2")
	for i := range large.Items {
		large.Items[i].Annotations = map[string]string{"notes": strings.Repeat("x", maxObject/2)}
	}
	oneSlice := &discoveryv1.EndpointSliceList{TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSliceList"},
		Items: []discoveryv1.EndpointSlice{*slice("shop", "web-1", "web", "10.8.0.1", "10.8.0.2")}}
	for _, tc := range []struct {
		name    string
		listing listing
		answer  string
	}{
		{"no export", exportListing, listJSON("ServiceExport")},
		{"an export", exportListing, listJSON("ServiceExport", exportJSON("v1beta1", "web"))},
		{"several, of both versions", exportListing, listJSON("ServiceExport", exportJSON("v1beta1", "web"), exportJSON("v1alpha1", "api"))},
		{"exports without most fields", exportListing, listJSON("ServiceExport", `{"apiVersion":"multicluster.x-k8s.io/v1beta1","kind":"ServiceExport","metadata":{"name":"web","creationTimestamp":null}}`)},
		{"null instead of items", exportListing, `{"kind":"ServiceExportList","apiVersion":"multicluster.x-k8s.io/v1beta1","items":null,"metadata":{"resourceVersion":"3"}}`},
		{"the metadata first, room between the fields, and one that nobody knows", exportListing,
			`{ "kind": "ServiceExportList", "apiVersion": "multicluster.x-k8s.io/v1beta1", "metadata": {"resourceVersion": "3"}, "more": [{"a": {}}], "items": [ ` + exportJSON("v1beta1", "web") + ` ] }`},
		{"an import", importListing, listJSON("ServiceImport", importJSON)},
		{"no service", serviceListing, protobufOf(t, services())},
		{"a service", serviceListing, protobufOf(t, services("web"))},
		{"a thousand services", serviceListing, protobufOf(t, services(many...))},
		{"services that are together larger than one may be", serviceListing, protobufOf(t, large)},
		{"an EndpointSlice", sliceListing, protobufOf(t, oneSlice)},
		{"a service in JSON, from who knows no protobuf", serviceListing, `{"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":"5"},"items":[{"metadata":{"name":"web","namespace":"shop"},"spec":{"clusterIP":"10.0.0.1","ports":[{"port":80,"targetPort":"http"}]}}]}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, about, err := tc.listing.readAll(tc.answer)
			if err != nil {
				t.Fatal(err)
			}
			want, wantAbout := asAWhole(t, tc.answer)
			if about != wantAbout || len(got) != len(want) {
				t.Fatalf("%d objects, %+v; want %d, %+v", len(got), about, len(want), wantAbout)
			}
			for i := range want {
				if a, b := said(got[i]), said(want[i]); !reflect.DeepEqual(a, b) {
					t.Fatalf("Object %d says %+v, want %+v", i, a, b)
				}
			}
		})
	}
}

// TestNothingIsLeftOfAnObjectInTheNext reads objects into the same one again and again, of which each has something that others
// lack, and keeps the facts as the feed does.
func TestNothingIsLeftOfAnObjectInTheNext(t *testing.T) {
	const copied = 2 // the EndpointSlice of which nothing is to be kept
	f := testWatcher(t, mcs.Exports, newTold(), clients{}).feed.(*exportFeed)
	var exports []string
	var list corev1.ServiceList
	var endpointSlices discoveryv1.EndpointSliceList
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ServiceList"))
	endpointSlices.SetGroupVersionKind(discoveryv1.SchemeGroupVersion.WithKind("EndpointSliceList"))
	for i := range 8 {
		name := fmt.Sprint("web-", i)
		e := export("shop", name)
		s := fullService(name)
		l := slice("shop", name+"-x", name)
		s.Labels, s.Spec.PublishNotReadyAddresses = nil, i%2 == 0
		if i%2 == 1 {
			s.Spec.Ports[0].Name = ""
		}
		if i%2 == 0 {
			e.Annotations = map[string]string{annotationWeight: fmt.Sprint(10 * i)}
			e.CreationTimestamp = metav1.Unix(int64(1000+i), 0)
		}
		if i%3 == 0 {
			e.Spec.ExportedLabels = map[string]string{"a": name}
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: fmt.Sprint("192.0.2.", 1+i)}}
			s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: fmt.Sprint("p", i), Port: int32(100 + i)}) //nolint:gosec // small
		}
		if i == copied {
			l.Labels[labelSourceCluster] = "west"
		}
		if i%4 == 0 {
			e.Spec.ExportedAnnotations = map[string]string{"b": name}
			l.Annotations = map[string]string{annotationChanged: "2026-11-01T10:00:00Z"}
		}
		for n := range 8 - i {
			l.Endpoints = append(l.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.8.%d.%d", i, n)}})
			if (n+i)%2 == 0 {
				ready := false
				l.Endpoints[n].NodeName, l.Endpoints[n].Conditions.Ready = &name, &ready
			}
		}
		exports = append(exports, textOf(t, e))
		list.Items, endpointSlices.Items = append(list.Items, s), append(endpointSlices.Items, *l)
	}
	kept := func(l listing, answer string, compact func(any) any) (out []item) {
		if _, err := l.read(strings.NewReader(answer), func(obj any) error {
			out = append(out, *compact(obj).(*item))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, tc := range []struct {
		name          string
		fresh, shared func() (next func() any)
		answer        string
		compact       func(any) any
	}{
		{"exports", newObjects[shortExport], recycledExports, listJSON("ServiceExport", exports...), f.compactExport},
		{"services", newObjects[corev1.Service], recycledServices, protobufOf(t, &list), f.compactService},
		{"services in JSON", newObjects[corev1.Service], recycledServices, textOf(t, &list), f.compactService},
		{"EndpointSlices", newObjects[discoveryv1.EndpointSlice], recycledSlices, protobufOf(t, &endpointSlices), f.compactSlice},
		{"EndpointSlices in JSON", newObjects[discoveryv1.EndpointSlice], recycledSlices, textOf(t, &endpointSlices), f.compactSlice},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, want := kept(listing{objects: tc.shared}, tc.answer, tc.compact), kept(listing{objects: tc.fresh}, tc.answer, tc.compact)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("Kept %+v, want %+v", got, want)
			}
			for i := range want {
				if kept := want[i].fact != nil; kept == (i == copied && strings.HasPrefix(tc.name, "EndpointSlices")) {
					t.Errorf("Something is kept of object %d: %v", i, kept)
				}
				if tc.name == "exports" {
					f.setExport(&got[i])
				}
			}
		})
	}
}

func TestLean(t *testing.T) {
	object := func(fields ...string) string { return strings.Join(fields, "") }
	managed := string(protowire.AppendBytes(protowire.AppendTag(nil, 17, protowire.BytesType), []byte("kubectl")))
	name, other := field(1, "web"), field(3, "shop")
	for _, tc := range []struct {
		name     string
		in, want string
	}{
		{"nothing", "", ""},
		{"an object without metadata", field(2, "spec"), field(2, "spec")},
		{"one without notes", object(field(1, name+other), field(2, "spec")), object(field(1, name+other), field(2, "spec"))},
		{"notes at the end", object(field(1, name+other+managed+managed), field(2, "spec")), object(field(1, name+other), field(2, "spec"))},
		{"notes between", object(field(1, managed+name+managed+other), field(2, "spec")), object(field(1, name+other), field(2, "spec"))},
		{"notes alone", field(1, managed), field(1, "")},
		{"all that nobody asks for", field(1, object(field(2, "web-"), name, field(4, "/x"), field(5, "uid"), other, "\x6a\x01o", "\x72\x01f", managed)), field(1, name+other)},
		{"what is asked for", field(1, object(field(6, "7"), field(11, "l"), field(12, "a"))), field(1, object(field(6, "7"), field(11, "l"), field(12, "a")))},
		{"a field 17 of the object itself", object(managed, field(1, name)), object(managed, field(1, name))},
		{"a number", object("\x08\x07", field(1, "\x38\x07"+managed)), object("\x08\x07", field(1, "\x38\x07"))},
		{"what makes no sense", object(field(1, name+managed), "\xff"), object(field(1, name), "\xff")},
		{"metadata that make no sense", field(1, managed+"\xff\xff"), field(1, "\xff\xff")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := string(lean(nil, []byte(tc.in))); got != tc.want {
				t.Errorf("Got %q, want %q", got, tc.want)
			}
		})
	}
}

// asAWhole decodes a list as client-go does.
func asAWhole(t *testing.T, answer string) (objects []any, about metav1.ListMeta) {
	t.Helper()
	codecs := scheme.Codecs
	if strings.Contains(answer, "multicluster.x-k8s.io") {
		codecs = mcsscheme.Codecs
	}
	list, err := runtime.Decode(codecs.UniversalDeserializer(), []byte(answer))
	if err != nil {
		t.Fatal(err)
	}
	value := reflect.ValueOf(list).Elem()
	for i := range value.FieldByName("Items").Len() {
		objects = append(objects, value.FieldByName("Items").Index(i).Addr().Interface())
	}
	return objects, value.FieldByName("ListMeta").Interface().(metav1.ListMeta)
}

// said is what matters of an object: of exports what becomes of them, of all others everything.
func said(obj any) any {
	switch o := obj.(type) {
	case *mcsv1beta1.ServiceExport, *mcsv1alpha1.ServiceExport:
		key, export, ok := (converter{reject: func(Rejection) {}}).export(o)
		return []any{key, export, ok, *identify(o)}
	case *mcsv1beta1.ServiceImport:
		o.TypeMeta = metav1.TypeMeta{}
	case *corev1.Service:
		o.ManagedFields = nil
	case *discoveryv1.EndpointSlice:
		o.OwnerReferences, o.ManagedFields, o.UID, o.GenerateName = nil, nil, "", ""
	}
	return obj
}

// TestAListThatEndsEarlyIsAnError cuts lists everywhere.
func TestAListThatEndsEarlyIsAnError(t *testing.T) {
	for _, tc := range []struct {
		name    string
		listing listing
		answer  string
	}{
		{"in JSON", exportListing, strings.TrimSpace(listJSON("ServiceExport", exportJSON("v1beta1", "web"), exportJSON("v1beta1", "api")))},
		{"in protobuf", serviceListing, protobufOf(t, services("web", "api"))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, _, err := tc.listing.readAll(tc.answer); err != nil {
				t.Fatal(err)
			}
			// An API server writes two empty fields behind the list, which nobody misses.
			whole := strings.TrimRight(tc.answer, "\x1a\x22\x00")
			for n := range len(whole) {
				if objects, _, err := tc.listing.readAll(tc.answer[:n]); err == nil {
					t.Fatalf("%d of %d octets gave %d objects and no error", n, len(tc.answer), len(objects))
				}
			}
		})
	}
}

func TestAListThatIsNoneIsAnError(t *testing.T) {
	part := services("web")
	part.Continue = "more"
	envelope := func(raw string) string { return "k8s\x00" + field(unknownRaw, raw) }
	for _, tc := range []struct {
		name    string
		listing listing
		answer  string
		want    string
		is      error
	}{
		{"nothing", serviceListing, "", "", io.ErrUnexpectedEOF},
		{"text", serviceListing, "<html>", "invalid character", nil},
		{"another value", serviceListing, "[]", "[ where there should be {", nil},
		{"items that are none", exportListing, `{"items":{}}`, "a list of serviceexports: items begin with {", nil},
		{"an export that is none", exportListing, `{"items":[7]}`, "a list of serviceexports: json: cannot unmarshal number", nil},
		{"a name that is no text", exportListing, `{"items":[{"metadata":{"name":7}}]}`, "cannot unmarshal number", nil},
		{"a part of a list", exportListing, `{"items":[],"metadata":{"continue":"more"}}`, "", errPart},
		{"a part of a list in protobuf", serviceListing, protobufOf(t, part), "", errPart},
		{"an object without end", exportListing, `{"items":[{"x":"` + strings.Repeat("x", maxObject+1), "", errTooLarge},
		{"a field without end", exportListing, `{"more":"` + strings.Repeat("x", maxObject+1), "", errTooLarge},
		{"protobuf of what has none", exportListing, protobufOf(t, services("web")), "a list of serviceexports: it is in protobuf", nil},
		{"an object larger than any", serviceListing, "k8s\x00\x12\xff\xff\xff\xff\x7f\x12\xff\xff\xff\xff\x0f", "", errTooLarge},
		{"a list that would end before it begins", serviceListing, "k8s\x00\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" + field(listItem, ""), "a list of services: a field of 18446744073709551615 octets", nil},
		{"an object larger than the list", serviceListing, envelope("\x12\x05abc") + "defghij", "a list of services: the last object is longer than the list", nil},
		{"a field that has no length", serviceListing, envelope("\x08\x01"), "a list of services: a field 1 of type 0 in it", nil},
		{"an object that is none", serviceListing, envelope(field(listItem, "\xff\xff")), "a list of services: ", nil},
		{"metadata that are none", serviceListing, envelope(field(listMeta, "\xff\xff")), "a list of services: ", nil},
		{"no list", serviceListing, "k8s\x00" + field(3, ""), "", io.ErrUnexpectedEOF},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, _, err := tc.listing.readAll(tc.answer)
			if err == nil || !strings.Contains(err.Error(), tc.want) || tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("Got error %v, want %q %v", err, tc.want, tc.is)
			}
		})
	}
}

// field is a field of protobuf that has a short text.
func field(number byte, text string) string {
	return string([]byte{number<<wireTypeLen | wireOctets, byte(len(text))}) + text
}

func TestAListEndsWithWhoReadsIt(t *testing.T) {
	enough := errors.New("enough")
	for name, answer := range map[string]string{
		"in JSON":     listJSON("Service", `{}`, `{}`),
		"in protobuf": protobufOf(t, services("web", "api")),
	} {
		t.Run(name, func(t *testing.T) {
			seen := 0
			_, err := serviceListing.read(strings.NewReader(answer), func(any) error {
				seen++
				return enough
			})
			if !errors.Is(err, enough) || seen != 1 {
				t.Errorf("Got %v after %d objects", err, seen)
			}
		})
	}
}

// FuzzList reads whatever an API server may send as a list: it says the same however it arrives.
func FuzzList(f *testing.F) {
	f.Add(listJSON("ServiceExport", exportJSON("v1beta1", "web")))
	f.Add(protobufOf(f, services("web", "api")))
	f.Add(`{"items":null,"metadata":{"resourceVersion":"3"}}`)
	f.Fuzz(func(t *testing.T, answer string) {
		for _, l := range []listing{exportListing, serviceListing} {
			objects, about, err := l.readBy(7, answer)
			atOnce, aboutAtOnce, errAtOnce := l.readBy(1<<20, answer)
			if (err == nil) != (errAtOnce == nil) || about != aboutAtOnce || !reflect.DeepEqual(objects, atOnce) {
				t.Errorf("Piece by piece: %+v, %+v, %v; at once: %+v, %+v, %v", objects, about, err, atOnce, aboutAtOnce, errAtOnce)
			}
		}
	})
}

func BenchmarkListOfExports(b *testing.B) {
	items := make([]string, 1000)
	for i := range items {
		items[i] = exportJSON("v1beta1", fmt.Sprint("web-", i))
	}
	answer := listJSON("ServiceExport", items...)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		l := listing{objects: recycledExports}
		if _, err := l.read(strings.NewReader(answer), func(any) error { n++; return nil }); err != nil || n != 1000 {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkListOfServices(b *testing.B) {
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprint("web-", i)
	}
	answer := protobufOf(b, services(names...))
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		l := listing{objects: recycledServices}
		if _, err := l.read(strings.NewReader(answer), func(any) error { n++; return nil }); err != nil || n != 1000 {
			b.Fatal(n, err)
		}
	}
}
