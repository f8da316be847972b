package watch

import (
	"bytes"
	"errors"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Of a ServiceExport there is mostly nothing to know but its metadata, and those an API server has in protobuf: a list of them costs
// it half of what the whole objects cost, which it has as JSON only, and us a seventh. Whether there is more, the metadata say
// themselves: an API server notes in managedFields who manages which field. So the metadata are listed, and where one of the objects
// has more, or does not say, then the whole objects.

// acceptBrief asks for metadata alone, or for whole objects from an API server that does not know how to give less.
const acceptBrief = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"

// errMore says that there is more to know of an object than its metadata.
var errMore = errors.New("there is more than metadata")

// isBrief reports whether the metadata alone are asked for.
func (l *listing) isBrief() bool { return l.brief != nil && l.brief.Load() }

// moreOf are the fields of an object beside its metadata that somebody asks for, as managedFields name them.
var moreOf = [][]byte{[]byte(`exportedLabels`), []byte(`exportedAnnotations`)}

// hasMore reports whether an object of which these are the metadata, as PartialObjectMetadata, may have one of those fields.
func hasMore(octets []byte) bool {
	for _, field := range moreOf {
		if bytes.Contains(octets, field) {
			return true
		}
	}
	const objectMeta, managedFields = 1, 17
	managed, err := octetsOf(octets, objectMeta, managedFields)
	return err != nil || len(managed) == 0
}

// recycledMetadata makes the same PartialObjectMetadata again and again.
func recycledMetadata() (next func() any) {
	var o metav1.PartialObjectMetadata
	return func() any {
		o = metav1.PartialObjectMetadata{ObjectMeta: recycled(o.ObjectMeta)}
		return &o
	}
}
