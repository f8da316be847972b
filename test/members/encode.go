package members

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
)

// Media types of the Kubernetes API.
const (
	mediaJSON     = runtime.ContentTypeJSON
	mediaProtobuf = runtime.ContentTypeProtobuf
)

// protobufMagic stands before every object in protobuf.
var protobufMagic = []byte{'k', '8', 's', 0}

// format is how a client wants objects of a resource.
type format struct {
	kind     schema.GroupVersionKind
	protobuf bool
	// partial is for who wants no more than the metadata.
	partial bool
}

// formatOf reads what a client accepts: what stands first, and JSON for a resource that cannot be had in protobuf.
func formatOf(r *resource, accept string) format {
	first, _, _ := strings.Cut(accept, ",")
	f := format{kind: r.GroupVersionKind}
	if f.partial = strings.Contains(first, "as=PartialObjectMetadata"); f.partial {
		f.kind = metav1.SchemeGroupVersion.WithKind("PartialObjectMetadata")
	}
	f.protobuf = strings.HasPrefix(first, mediaProtobuf) && (r.protobuf || f.partial)
	return f
}

func (f format) media() string {
	if f.protobuf {
		return mediaProtobuf
	}
	return mediaJSON
}

// complete gives an object its kind, and takes away what was not asked for.
func (f format) complete(o object) object {
	if f.partial {
		o = &metav1.PartialObjectMetadata{ObjectMeta: *metaOf(o)}
	}
	o.GetObjectKind().SetGroupVersionKind(f.kind)
	return o
}

func metaOf(o object) *metav1.ObjectMeta {
	return o.(metav1.ObjectMetaAccessor).GetObjectMeta().(*metav1.ObjectMeta)
}

// object encodes a single object.
func (f format) object(o object) ([]byte, error) {
	o = f.complete(o)
	if !f.protobuf {
		return json.Marshal(o)
	}
	raw, err := marshal(o)
	if err != nil {
		return nil, err
	}
	return envelope(f.kind, raw)
}

// marshaler is implemented by all types that can be had in protobuf.
type marshaler interface{ Marshal() ([]byte, error) }

func marshal(o object) ([]byte, error) {
	m, ok := o.(marshaler)
	if !ok {
		return nil, fmt.Errorf("%T cannot be had in protobuf", o)
	}
	return m.Marshal()
}

// envelope puts the kind of an object before its encoding.
func envelope(kind schema.GroupVersionKind, raw []byte) ([]byte, error) {
	unknown := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: kind.GroupVersion().String(), Kind: kind.Kind}, Raw: raw}
	text, err := unknown.Marshal()
	return append(slices.Clip(protobufMagic), text...), err
}

// list encodes a list of objects.
func (f format) list(meta metav1.ListMeta, objects []object) ([]byte, error) {
	kind := f.kind.GroupVersion().WithKind(f.kind.Kind + "List")
	if f.protobuf {
		// All lists have their metadata in field 1 and their items in field 2, both messages.
		head, err := meta.Marshal()
		raw := field(nil, 1, head)
		for _, o := range objects {
			if err == nil {
				var item []byte
				item, err = marshal(f.complete(o))
				raw = field(raw, 2, item)
			}
		}
		if err != nil {
			return nil, err
		}
		return envelope(kind, raw)
	}
	for i, o := range objects {
		objects[i] = f.complete(o)
	}
	return json.Marshal(struct {
		metav1.TypeMeta
		metav1.ListMeta `json:"metadata"`
		Items           []object `json:"items"`
	}{metav1.TypeMeta{APIVersion: kind.GroupVersion().String(), Kind: kind.Kind}, meta, objects})
}

// field appends a field of bytes to a protobuf message.
func field(to []byte, number byte, content []byte) []byte {
	const bytesType = 2
	to = append(to, number<<3|bytesType)
	to = binary.AppendUvarint(to, uint64(len(content)))
	return append(to, content...)
}

// event encodes a frame of a watch.
func (f format) event(kind watch.EventType, o object) ([]byte, error) {
	raw, err := f.object(o)
	if err != nil {
		return nil, err
	}
	return f.frame(kind, raw)
}

func (f format) frame(kind watch.EventType, raw []byte) ([]byte, error) {
	event := metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Raw: raw}}
	if !f.protobuf {
		text, err := json.Marshal(event)
		return append(text, '\n'), err
	}
	text, err := event.Marshal()
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...), err //nolint:gosec // an object has far less than 4 GiB
}

// status encodes a frame that says why a watch ends.
func (f format) status(s metav1.Status) ([]byte, error) {
	kind := schema.GroupVersionKind{Version: "v1", Kind: "Status"}
	s.SetGroupVersionKind(kind)
	var (
		raw []byte
		err error
	)
	if f.protobuf {
		if raw, err = s.Marshal(); err == nil {
			raw, err = envelope(kind, raw)
		}
	} else {
		raw, err = json.Marshal(s)
	}
	if err != nil {
		return nil, err
	}
	return f.frame(watch.Error, raw)
}
