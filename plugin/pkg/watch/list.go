package watch

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
)

// A full list is one answer of the API server, and each object in it is turned into an item as soon as it has arrived, so that
// they are never all in memory. A list that is streamed as events of a watch (KEP-3157) would spare as much, but costs an
// API server two to three times the processor time, and a client half as much again.

// maxObject is how large one object of a list may be, in octets. An API server takes no more than 3 MiB.
const maxObject = 8 << 20

// listing asks for all objects of a resource.
type listing struct {
	client    rest.Interface
	plural    string
	namespace string // "" for all
	// narrow is nil where all objects are wanted.
	narrow func(*metav1.ListOptions)
	// objects makes, for each list, what makes the objects to decode into: by JSON, and by protobuf where the API server knows that.
	objects func() (next func() any)
	// brief, where there is one, is true while the metadata of the objects are all that there is of them; see brief.go.
	brief *atomic.Bool
}

// newObjects makes new ones, for who keeps them.
func newObjects[T any]() (next func() any) { return func() any { return new(T) } }

// recycledServices makes the same Service again and again, for who keeps nothing of it but texts and numbers.
func recycledServices() (next func() any) {
	var s corev1.Service
	return func() any {
		clear(s.Spec.Ports) // JSON is decoded over what is there
		s = corev1.Service{ObjectMeta: recycled(s.ObjectMeta), Spec: corev1.ServiceSpec{Ports: s.Spec.Ports[:0]}}
		return &s
	}
}

// recycledSlices does the same with EndpointSlices.
func recycledSlices() (next func() any) {
	var s discoveryv1.EndpointSlice
	return func() any {
		clear(s.Endpoints)
		clear(s.Ports)
		s = discoveryv1.EndpointSlice{ObjectMeta: recycled(s.ObjectMeta), Endpoints: s.Endpoints[:0], Ports: s.Ports[:0]}
		return &s
	}
}

// recycledExports does the same with ServiceExports.
func recycledExports() (next func() any) {
	var s shortExport
	return func() any {
		labels, annotations := s.Spec.ExportedLabels, s.Spec.ExportedAnnotations
		clear(labels)
		clear(annotations)
		clear(s.Metadata.Annotations)
		s.Metadata = shortMetadata{Annotations: s.Metadata.Annotations}
		s.Spec = mcsv1beta1.ServiceExportSpec{ExportedLabels: labels, ExportedAnnotations: annotations}
		return &s
	}
}

// recycled is empty but for the room in its maps.
func recycled(m metav1.ObjectMeta) metav1.ObjectMeta {
	clear(m.Labels)
	clear(m.Annotations)
	return metav1.ObjectMeta{Labels: m.Labels, Annotations: m.Annotations}
}

// lists is the listing as client-go knows it.
func (l *listing) lists() *cache.ListWatch {
	out := cache.NewFilteredListWatchFromClient(l.client, l.plural, l.namespace, l.narrowed)
	out.WatchFuncWithContext = l.watch
	return out
}

// services lists all Services.
func (c *clients) services() *listing {
	return &listing{client: c.core.CoreV1().RESTClient(), plural: "services", objects: recycledServices}
}

// endpointSlices lists those EndpointSlices that narrow selects.
func (c *clients) endpointSlices(narrow func(*metav1.ListOptions)) *listing {
	return &listing{
		client: c.core.DiscoveryV1().RESTClient(), plural: "endpointslices", narrow: narrow,
		objects: recycledSlices,
	}
}

func (l *listing) narrowed(o *metav1.ListOptions) {
	if l.narrow != nil {
		l.narrow(o)
	}
}

// all calls each for every object, as it arrives. What it returns is about the list as a whole.
func (l *listing) all(ctx context.Context, options metav1.ListOptions, each func(obj any) error) (about metav1.ListMeta, err error) {
	l.narrowed(&options)
	request := l.client.Get().Namespace(l.namespace).Resource(l.plural).VersionedParams(&options, metav1.ParameterCodec)
	if l.isBrief() {
		request.SetHeader("Accept", acceptBrief)
		request.SetHeader("Accept-Encoding", "identity") // to compress them costs an API server half of what it costs to make them
	}
	body, err := request.Stream(context.WithValue(ctx, piecewise{}, true))
	if err != nil {
		return about, err
	}
	defer func() { _ = body.Close() }() // all that is wanted of it was read
	return l.read(body, each)
}

// read does the same with an answer.
func (l *listing) read(body io.Reader, each func(obj any) error) (about metav1.ListMeta, err error) {
	meter := &meter{body, maxObject}
	in := bufio.NewReaderSize(meter, 64<<10)
	arrived := func(obj any) error {
		meter.rest = maxObject
		return each(obj)
	}
	how := l.json
	if start, err := in.Peek(len(protobufMagic)); err == nil && bytes.Equal(start, protobufMagic) {
		how = l.protobuf
	}
	if about, err = how(in, arrived); err == nil && about.Continue != "" {
		err = errPart
	}
	if err != nil {
		return about, fmt.Errorf("a list of %s: %w", l.plural, err)
	}
	return about, nil
}

// piecewise marks a request whose answer is read piece by piece, so that the pieces are what is bounded.
type piecewise struct{}

// meter bounds how much is read until rest is set anew.
type meter struct {
	io.Reader
	rest int
}

// Read implements io.Reader.
func (m *meter) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	if m.rest -= n; m.rest < 0 {
		return 0, fmt.Errorf("%w: an object of more than %d MiB", errTooLarge, maxObject>>20)
	}
	return n, err
}

// errPart says that an API server answered with less than it was asked for.
var errPart = errors.New("the API server has sent only a part of a list")

// JSON: {"apiVersion": ..., "items": [...], "kind": ..., "metadata": {...}}, in any order.

func (l *listing) json(in *bufio.Reader, each func(obj any) error) (about metav1.ListMeta, err error) {
	d := json.NewDecoder(in)
	if err := expect(d, '{'); err != nil {
		return about, err
	}
	for d.More() {
		field, err := d.Token()
		if err != nil {
			return about, err
		}
		switch field {
		case "metadata":
			err = d.Decode(&about)
		case "items":
			err = l.items(d, each)
		default:
			err = d.Decode(new(json.RawMessage))
		}
		if err != nil {
			return about, err
		}
	}
	if err := expect(d, '}'); err != nil {
		return about, err
	}
	_, _ = io.Copy(io.Discard, in) // an answer that is read to its end leaves a connection that can be used again
	return about, nil
}

func (l *listing) items(d *json.Decoder, each func(obj any) error) error {
	start, err := d.Token()
	if err != nil || start == nil { // null is an empty list
		return err
	}
	if start != json.Delim('[') {
		return fmt.Errorf("items begin with %v", start)
	}
	for next := l.objects(); d.More(); {
		obj := next()
		if err := d.Decode(obj); err != nil {
			return err
		}
		if short, ok := obj.(*shortExport); ok {
			obj = short.object()
		}
		if err := each(obj); err != nil {
			return err
		}
	}
	return expect(d, ']')
}

func expect(d *json.Decoder, want json.Delim) error {
	got, err := d.Token()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err == nil && got != want {
		err = fmt.Errorf("%v where there should be %v", got, want)
	}
	return err
}

// Protobuf: an envelope with the list. In that, field 1 is about the list, and each field 2 is an object.

const (
	listMeta = 1
	listItem = 2
)

func (l *listing) protobuf(in *bufio.Reader, each func(obj any) error) (about metav1.ListMeta, err error) {
	w := &wire{in: in}
	item := l.item(each)
	if _, err := w.octets(uint64(len(protobufMagic))); err != nil {
		return about, err
	}
	found := false
	for {
		field, size, err := w.field()
		switch {
		case errors.Is(err, io.EOF) && found:
			return about, nil
		case err != nil:
		case field == unknownRaw:
			found = true
			err = w.list(w.at+size, &about, item)
		default:
			_, err = w.octets(size)
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return about, err
		}
	}
}

// item returns what takes the octets of one object after the other.
func (l *listing) item(each func(obj any) error) func(octets []byte) error {
	next := l.objects()
	if l.isBrief() {
		next = recycledMetadata()
	}
	var room []byte
	return func(octets []byte) (err error) {
		if l.isBrief() && hasMore(octets) {
			return errMore
		}
		obj := next()
		if room, err = unmarshal(obj, octets, room); err != nil {
			return err
		}
		return each(obj)
	}
}

// list reads a list that ends at an offset.
func (w *wire) list(end uint64, about *metav1.ListMeta, item func(octets []byte) error) error {
	for w.at < end {
		field, size, err := w.field()
		if err != nil {
			return err
		}
		if w.at > end || size > end-w.at {
			return errors.New("the last object is longer than the list")
		}
		octets, err := w.octets(size)
		if err != nil {
			return err
		}
		switch field {
		case listMeta:
			err = about.Unmarshal(octets)
		case listItem:
			err = item(octets)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// shortExport is what anybody asks of a ServiceExport, of which a member can have ten thousand. API servers know JSON only for them.
type shortExport struct {
	Metadata shortMetadata                `json:"metadata"`
	Spec     mcsv1beta1.ServiceExportSpec `json:"spec"`
}

type shortMetadata struct {
	Name              string            `json:"name"`
	Namespace         string            `json:"namespace"`
	ResourceVersion   string            `json:"resourceVersion"`
	CreationTimestamp time.Time         `json:"creationTimestamp"`
	Annotations       map[string]string `json:"annotations"`
}

// object is of version v1beta1, whatever it was: the schemas are the same.
func (e *shortExport) object() *mcsv1beta1.ServiceExport {
	m := &e.Metadata
	return &mcsv1beta1.ServiceExport{Spec: e.Spec, ObjectMeta: metav1.ObjectMeta{
		Name: m.Name, Namespace: m.Namespace, ResourceVersion: m.ResourceVersion, CreationTimestamp: metav1.NewTime(m.CreationTimestamp), Annotations: m.Annotations,
	}}
}

// itemList is a full list whose objects have been turned into items.
type itemList struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []runtime.Object
}

// DeepCopyObject implements runtime.Object: nobody changes a list or what is in it.
func (l *itemList) DeepCopyObject() runtime.Object { return l }

// GetObjectKind implements runtime.Object.
func (i *item) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject implements runtime.Object: nobody changes an item.
func (i *item) DeepCopyObject() runtime.Object { return i }
