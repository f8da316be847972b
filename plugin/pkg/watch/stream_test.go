package watch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	clientwatch "k8s.io/client-go/rest/watch"
	mcsscheme "sigs.k8s.io/mcs-api/pkg/client/clientset/versioned/scheme"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// frame is an event as an API server sends it in protobuf.
func frame(tb testing.TB, kind, object string) string {
	tb.Helper()
	e := metav1.WatchEvent{Type: kind, Object: apiruntime.RawExtension{Raw: []byte(object)}}
	octets, err := e.Marshal()
	if err != nil {
		tb.Fatal(err)
	}
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(octets)))) + string(octets) //nolint:gosec // short
}

// line is one in JSON.
func line(kind, object string) string {
	return fmt.Sprintf(`{"type":%q,"object":%s}`+"\n", kind, object)
}

// typed gives an object its kind, as an API server does.
func typed[T apiruntime.Object](obj T) T {
	kinds, _, err := scheme.Scheme.ObjectKinds(obj)
	if err == nil {
		obj.GetObjectKind().SetGroupVersionKind(kinds[0])
	}
	return obj
}

// fullSlice has everything that a controller writes.
func fullSlice(name string, endpoints int) *discoveryv1.EndpointSlice {
	s := typed(slice("shop", name+"-x", name))
	s.ResourceVersion, s.UID, s.GenerateName = "17", "6f9619ff-8b86-d011-b42d-00c04fc964ff", name+"-"
	yes, node, zone := true, "node-1", "eu-a"
	s.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: name, UID: "7", Controller: &yes, BlockOwnerDeletion: &yes}}
	s.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kube-controller-manager", FieldsV1: metav1.NewFieldsV1(`{"f:addressType":{},"f:endpoints":{}}`)}}
	s.Annotations = map[string]string{annotationChanged: "2026-11-01T10:00:00Z"}
	http, port := "http", int32(8080)
	s.Ports = []discoveryv1.EndpointPort{{Name: &http, Port: &port}}
	for i := range endpoints {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{fmt.Sprintf("10.8.0.%d", i+1)}, NodeName: &node, Zone: &zone,
			Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes},
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: fmt.Sprint(name, "-", i), UID: "8"},
		})
	}
	return s
}

// takeAll takes all events of an answer, as a Reflector does, and what each is when it is taken.
func (l *listing) takeAll(tb testing.TB, answer io.Reader, each func(watch.Event) any) (out []any) {
	tb.Helper()
	events := l.events(quiet(tb.Context()), io.NopCloser(answer))
	defer events.Stop()
	for e := range events.ResultChan() {
		out = append(out, each(e))
	}
	return out
}

// eventSaid is what matters of an event, in text, so that nothing of it is kept.
func eventSaid(e watch.Event) any {
	obj := any(e.Object)
	switch o := obj.(type) {
	case *discoveryv1.EndpointSlice:
		o.TypeMeta = metav1.TypeMeta{}
	case *corev1.Service:
		o.TypeMeta = metav1.TypeMeta{}
	case *metav1.Status:
		o.TypeMeta = metav1.TypeMeta{}
	}
	return fmt.Sprintf("%s %+v", e.Type, said(obj))
}

// TestAWatchSaysWhatItSaysToClientGo compares with client-go's decoders.
func TestAWatchSaysWhatItSaysToClientGo(t *testing.T) {
	web, api := fullService("web"), fullService("api")
	gone := &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Reason: metav1.StatusReasonExpired, Code: 410, Message: "too old"}
	bookmark := &corev1.Service{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "99", Annotations: map[string]string{"k8s.io/initial-events-end": "true"}}}
	for _, tc := range []struct {
		name    string
		listing listing
		answer  string
		events  int
	}{
		{"nothing", serviceListing, "", 0},
		{"a service comes, changes and goes", serviceListing,
			frame(t, "ADDED", protobufOf(t, typed(&web))) + frame(t, "MODIFIED", protobufOf(t, typed(&api))) + frame(t, "DELETED", protobufOf(t, typed(&web))), 3},
		{"a bookmark", serviceListing, frame(t, "BOOKMARK", protobufOf(t, typed(bookmark))), 1},
		{"an error", serviceListing, frame(t, "ERROR", protobufOf(t, gone)), 1},
		{"EndpointSlices large and small", sliceListing,
			frame(t, "ADDED", protobufOf(t, fullSlice("web", 100))) + frame(t, "ADDED", protobufOf(t, fullSlice("api", 1))) + frame(t, "MODIFIED", protobufOf(t, fullSlice("web", 0))), 3},
		{"exports of both versions", exportListing, line("ADDED", exportJSON("v1beta1", "web")) + line("DELETED", exportJSON("v1alpha1", "api")), 2},
		{"an error in JSON", exportListing, line("ERROR", textOf(t, gone)), 1},
		{"a service in JSON, from who knows no protobuf", serviceListing, line("ADDED", textOf(t, typed(&web))) + line("BOOKMARK", textOf(t, typed(bookmark))), 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := tc.listing.takeAll(t, &dripping{strings.NewReader(tc.answer), 61}, eventSaid)
			want := takenByClientGo(t, tc.answer)
			if len(got) != tc.events || !reflect.DeepEqual(got, want) {
				t.Errorf("Got %d events:\n%v\nwant %d:\n%v", len(got), got, len(want), want)
			}
		})
	}
}

// takenByClientGo is what client-go makes of an answer.
func takenByClientGo(t *testing.T, answer string) (out []any) {
	t.Helper()
	var d watch.Decoder
	body := io.NopCloser(strings.NewReader(answer))
	if strings.HasPrefix(answer, "{") {
		codecs := scheme.Codecs
		if strings.Contains(answer, "multicluster.x-k8s.io") {
			codecs = mcsscheme.Codecs
		}
		s := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, json.SerializerOptions{})
		d = clientwatch.NewDecoder(streaming.NewDecoder(json.Framer.NewFrameReader(body), s), codecs.UniversalDeserializer())
	} else {
		s := protobuf.NewRawSerializer(scheme.Scheme, scheme.Scheme)
		d = clientwatch.NewDecoder(streaming.NewDecoder(protobuf.LengthDelimitedFramer.NewFrameReader(body), s), scheme.Codecs.UniversalDeserializer())
	}
	for {
		kind, obj, err := d.Decode()
		if err != nil {
			return out
		}
		out = append(out, eventSaid(watch.Event{Type: kind, Object: obj}))
	}
}

// TestNothingIsLeftOfAnEventInTheNext reads events of which each has something that others lack, and keeps facts as the feed does.
func TestNothingIsLeftOfAnEventInTheNext(t *testing.T) {
	f := testWatcher(t, mcs.Exports, newTold(), clients{}).feed.(*exportFeed)
	f.setExport(export("shop", "web"))
	var answer, inJSON string
	for i := range 8 {
		s := fullSlice("web", 8-i)
		if i%2 == 0 {
			s.Annotations, s.Ports = nil, nil
		}
		for n := range s.Endpoints {
			if (n+i)%2 == 0 {
				s.Endpoints[n].NodeName, s.Endpoints[n].TargetRef, s.Endpoints[n].Conditions = nil, nil, discoveryv1.EndpointConditions{}
			}
		}
		answer += frame(t, "MODIFIED", protobufOf(t, s))
		inJSON += line("MODIFIED", textOf(t, s))
	}
	keep := func(e watch.Event) any { return *f.compactSlice(e.Object).(*item) }
	fresh := listing{objects: newObjects[discoveryv1.EndpointSlice]}
	shared := listing{objects: recycledSlices}
	for name, answer := range map[string]string{"in protobuf": answer, "in JSON": inJSON} {
		t.Run(name, func(t *testing.T) {
			got, want := shared.takeAll(t, strings.NewReader(answer), keep), fresh.takeAll(t, strings.NewReader(answer), keep)
			if len(got) != 8 || !reflect.DeepEqual(got, want) {
				t.Errorf("Kept %+v, want %+v", got, want)
			}
		})
	}
}

func TestAWatchThatIsBrokenEnds(t *testing.T) {
	web := fullService("web")
	whole := frame(t, "ADDED", protobufOf(t, typed(&web)))
	inJSON := line("ADDED", exportJSON("v1beta1", "web"))
	enveloped := func(object string) string { return frame(t, "ADDED", "k8s\x00"+object) }
	for _, tc := range []struct {
		name    string
		listing listing
		answer  string
		events  int
		want    string // of the error that is told; "" where the watch just ends
	}{
		{"in the length", serviceListing, whole + whole[:3], 1, ""},
		{"behind the length", serviceListing, whole + whole[:4], 1, ""},
		{"in an event", serviceListing, whole + whole[:30], 1, ""},
		{"in an event in JSON", exportListing, inJSON + inJSON[:30], 1, ""},
		{"text", serviceListing, whole + "<html>", 1, "an event of more than 8 MiB"},
		{"an event larger than any", serviceListing, "\x00\x80\x00\x01", 0, "a watch of services: the API server sends more than a cluster can have: an event of more than 8 MiB"},
		{"one larger than any in JSON", exportListing, `{"type":"ADDED","object":{"x":"` + strings.Repeat("x", maxObject+1), 0, "an object of more than 8 MiB"},
		{"an event that is none", serviceListing, "\x00\x00\x00\x02\xff\xff", 0, "a watch of services: an event that cannot be read: unexpected EOF"},
		{"an empty event", serviceListing, "\x00\x00\x00\x00", 0, "not in protobuf"},
		{"an object that is none", serviceListing, enveloped(field(unknownRaw, "\xff\xff")), 0, "a watch of services: an event that cannot be read: unexpected EOF"},
		{"an envelope that is none", serviceListing, enveloped("\xff\xff"), 0, "a watch of services: an event that cannot be read: unexpected EOF"},
		{"an object that is not in an envelope", serviceListing, frame(t, "ADDED", "{}"), 0, "not in protobuf"},
		{"a type that nobody knows", serviceListing, frame(t, "SHOUTED", protobufOf(t, typed(&web))), 0, "an event of type"},
		{"no type in JSON", exportListing, `{"object":{}}`, 0, "an event of type"},
		{"no object in JSON", exportListing, `{"type":"ADDED"}`, 0, "unexpected end of JSON input"},
		{"another object in JSON", exportListing, line("ADDED", `{"metadata":7}`), 0, "cannot unmarshal number"},
		{"no event in JSON", exportListing, inJSON + `{"type":7}`, 1, "cannot unmarshal number"},
		{"protobuf of what has none", exportListing, whole, 0, "a watch of serviceexports: an event that cannot be read: it is in protobuf"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var told error
			got := tc.listing.takeAll(t, strings.NewReader(tc.answer), func(e watch.Event) any {
				if e.Type == watch.Error {
					told = apierrors.FromObject(e.Object)
				}
				return e.Type
			})
			if told != nil {
				got = got[:len(got)-1]
			}
			if len(got) != tc.events || (told != nil) != (tc.want != "") || told != nil && !strings.Contains(told.Error(), tc.want) {
				t.Errorf("Got %d events and the error %v, want %d and %q", len(got), told, tc.events, tc.want)
			}
		})
	}
}

// TestAWatchMayBeLongerThanAnyObject reads more in all than one object may have.
func TestAWatchMayBeLongerThanAnyObject(t *testing.T) {
	large := fullSlice("web", 1000)
	for name, event := range map[string]string{
		"in protobuf": frame(t, "MODIFIED", protobufOf(t, large)), "in JSON": line("MODIFIED", textOf(t, large)),
	} {
		t.Run(name, func(t *testing.T) {
			n := maxObject/len(event) + 10
			got := sliceListing.takeAll(t, strings.NewReader(strings.Repeat(event, n)), func(e watch.Event) any { return e.Type })
			if len(got) != n || got[n-1] != watch.Modified {
				t.Errorf("%d events, the last %v, want %d", len(got), got[max(0, len(got)-1):], n)
			}
		})
	}
}

// TestAnEventIsNotOverwrittenWhileItIsLookedAt looks at each event while those behind it are there already.
func TestAnEventIsNotOverwrittenWhileItIsLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answer strings.Builder
		for i := range 9 {
			answer.WriteString(frame(t, "ADDED", protobufOf(t, fullSlice(fmt.Sprint("web-", i), 3))))
		}
		l := listing{objects: recycledSlices}
		i := 0
		l.takeAll(t, strings.NewReader(answer.String()), func(e watch.Event) any {
			synctest.Wait() // whoever reads has read as far as it may
			s := e.Object.(*discoveryv1.EndpointSlice)
			if s.Name != fmt.Sprint("web-", i, "-x") || s.Labels[labelServiceName] != fmt.Sprint("web-", i) || len(s.Endpoints) != 3 {
				t.Errorf("Event %d is of %s with %v", i, s.Name, s.Labels)
			}
			i++
			return nil
		})
		if i != 9 {
			t.Errorf("%d events, want 9", i)
		}
	})
}

// TestWhatAnEventCosts bounds the memory that is waited for to read an event.
func TestWhatAnEventCosts(t *testing.T) {
	const events, octetsAtMost = 1000, 2000 // client-go: 5,700
	one := frame(t, "MODIFIED", protobufOf(t, fullSlice("web", 5)))
	l := listing{objects: recycledSlices}
	d := l.decoder(io.NopCloser(strings.NewReader(strings.Repeat(one, events))))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for n := range events {
		if _, _, err := d.Decode(); err != nil {
			t.Fatal(n, err)
		}
	}
	runtime.ReadMemStats(&after)
	if got := (after.TotalAlloc - before.TotalAlloc) / events; got > octetsAtMost {
		t.Errorf("An event of %d octets costs %d, want at most %d", len(one), got, octetsAtMost)
	} else {
		t.Logf("An event of %d octets costs %d", len(one), got)
	}
}

// FuzzWatch reads whatever an API server may send as a watch: it says the same however it arrives.
func FuzzWatch(f *testing.F) {
	web := fullService("web")
	f.Add(frame(f, "ADDED", protobufOf(f, typed(&web))) + frame(f, "DELETED", protobufOf(f, typed(&web))))
	f.Add(line("ADDED", exportJSON("v1beta1", "web")) + line("BOOKMARK", `{"metadata":{"resourceVersion":"9"}}`))
	f.Fuzz(func(t *testing.T, answer string) {
		for _, l := range []listing{exportListing, serviceListing} {
			dripped := l.takeAll(t, &dripping{strings.NewReader(answer), 7}, eventSaid)
			if atOnce := l.takeAll(t, bytes.NewBufferString(answer), eventSaid); !reflect.DeepEqual(dripped, atOnce) {
				t.Errorf("Piece by piece: %v; at once: %v", dripped, atOnce)
			}
		}
	})
}
