package watch

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/klog/v2"
)

// The events of a watch are read into objects that are used again, as those of a list are: client-go makes three copies of each
// event and a new object, which is half of all the garbage that a change of an endpoint makes.

// watch asks for what changes from a version on. Who takes the events must be done with one when it takes the next.
func (l *listing) watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	l.narrowed(&options)
	options.Watch = true
	body, err := l.client.Get().Namespace(l.namespace).Resource(l.plural).VersionedParams(&options, metav1.ParameterCodec).Stream(ctx)
	switch {
	case err == nil:
		return l.events(ctx, body), nil
	case utilnet.IsProbableEOF(err), utilnet.IsTimeout(err):
		return watch.NewEmptyWatch(), nil // one that has ended at once
	default:
		return nil, err
	}
}

// events reads an answer until it ends or is stopped, and closes it then.
func (l *listing) events(ctx context.Context, body io.ReadCloser) watch.Interface {
	errorReporter := apierrors.NewClientErrorReporter(http.StatusInternalServerError, http.MethodGet, "ClientWatchDecoding")
	return watch.NewStreamWatcherWithLogger(klog.FromContext(ctx), l.decoder(body), errorReporter)
}

func (l *listing) decoder(body io.ReadCloser) *eventDecoder {
	return &eventDecoder{plural: l.plural, body: body, in: meter{body, maxObject}, next: [2]func() any{l.objects(), l.objects()}}
}

// eventDecoder implements watch.Decoder.
type eventDecoder struct {
	plural string
	body   io.Closer
	in     meter
	// next are used in turn: while one object is looked at, the event after it is read into the other.
	next [2]func() any
	turn int
	// json is nil for protobuf.
	json *json.Decoder
	text jsonEvent
	// head, frame and room are used for one event after the other.
	head        [frameHead]byte
	frame, room []byte
}

// Decode implements watch.Decoder. The object is good until the call after the next.
func (d *eventDecoder) Decode() (watch.EventType, runtime.Object, error) {
	kind, obj, err := d.decode()
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("a watch of %s: %w", d.plural, err)
	}
	return kind, obj, err
}

// Close implements watch.Decoder.
func (d *eventDecoder) Close() { _ = d.body.Close() } // there is nobody to tell

func (d *eventDecoder) decode() (watch.EventType, runtime.Object, error) {
	d.in.rest = maxObject
	if d.json != nil {
		return d.jsonEvent()
	}
	if _, err := io.ReadFull(&d.in, d.head[:]); err != nil {
		return "", nil, err
	}
	if d.head[0] == '{' { // no event is as long as that
		d.json = json.NewDecoder(io.MultiReader(bytes.NewReader(d.head[:]), &d.in))
		return d.jsonEvent()
	}
	return d.protobufEvent(binary.BigEndian.Uint32(d.head[:]))
}

// object returns the object for the next event.
func (d *eventDecoder) object() any {
	d.turn = 1 - d.turn
	return d.next[d.turn]()
}

// JSON: one {"type": ..., "object": {...}} after the other.

type jsonEvent struct {
	Type   watch.EventType `json:"type"`
	Object json.RawMessage `json:"object"`
}

func (d *eventDecoder) jsonEvent() (watch.EventType, runtime.Object, error) {
	d.text = jsonEvent{Object: d.text.Object[:0]}
	if err := d.json.Decode(&d.text); err != nil {
		return "", nil, err
	}
	into := any(&metav1.Status{})
	if d.text.Type != watch.Error {
		into = d.object()
	}
	if err := json.Unmarshal(d.text.Object, into); err != nil {
		return "", nil, err
	}
	if short, ok := into.(*shortExport); ok {
		into = short.object()
	}
	return event(d.text.Type, into)
}

// event checks that an event is one.
func event(kind watch.EventType, obj any) (watch.EventType, runtime.Object, error) {
	out, ok := obj.(runtime.Object)
	if !ok {
		return "", nil, fmt.Errorf("%T in it", obj)
	}
	switch kind {
	case watch.Added, watch.Modified, watch.Deleted, watch.Bookmark, watch.Error:
		return kind, out, nil
	}
	return "", nil, fmt.Errorf("an event of type %q", kind)
}

// Protobuf: each event is behind its length, four octets of it. Its field 1 is the type, and field 1 of its field 2 an object as it
// would be sent alone: in an envelope.

const (
	frameHead   = 4
	eventType   = 1
	eventObject = 2
	rawOctets   = 1
)

func (d *eventDecoder) protobufEvent(size uint32) (watch.EventType, runtime.Object, error) {
	if size > maxObject {
		return "", nil, fmt.Errorf("%w: an event of more than %d MiB", errTooLarge, maxObject>>20)
	}
	if uint32(cap(d.frame)) < size { //nolint:gosec // not negative, and at most maxObject
		d.frame = make([]byte, size)
	}
	d.frame = d.frame[:size]
	if _, err := io.ReadFull(&d.in, d.frame); err != nil {
		return "", nil, err
	}
	kind, err := octetsOf(d.frame, eventType)
	if err != nil {
		return "", nil, unreadable(err)
	}
	object, err := octetsOf(d.frame, eventObject, rawOctets)
	if err != nil {
		return "", nil, unreadable(err)
	}
	object, enveloped := bytes.CutPrefix(object, protobufMagic)
	if !enveloped {
		return "", nil, errors.New("an object that is not in protobuf")
	}
	if object, err = octetsOf(object, unknownRaw); err != nil {
		return "", nil, unreadable(err)
	}
	return d.protobufObject(watch.EventType(kind), object)
}

func (d *eventDecoder) protobufObject(kind watch.EventType, object []byte) (watch.EventType, runtime.Object, error) {
	obj := any(&metav1.Status{})
	if kind != watch.Error {
		obj = d.object()
	}
	var err error
	if d.room, err = unmarshal(obj, object, d.room); err != nil {
		return "", nil, unreadable(err)
	}
	return event(kind, obj)
}

// unreadable hides what an error is: within an event, the end of the octets is not that of the watch.
func unreadable(err error) error {
	return errors.New("an event that cannot be read: " + err.Error())
}
