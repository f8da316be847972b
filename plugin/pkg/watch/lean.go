package watch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	mcsv1alpha1 "sigs.k8s.io/mcs-api/pkg/apis/v1alpha1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
	mcsscheme "sigs.k8s.io/mcs-api/pkg/client/clientset/versioned/scheme"
)

// A member can have ten thousand ServiceExports, and an API server knows JSON only for them. The general decoder of client-go goes
// nine times over each: here it is four times, and what nobody asks for is left where it is. Whatever does not look just as an
// API server writes it goes the general way.

// newMCSClients makes the REST clients of multicluster.x-k8s.io, by version.
func newMCSClients(config *rest.Config, h *http.Client) (map[string]rest.Interface, error) {
	out := map[string]rest.Interface{}
	for _, gv := range []schema.GroupVersion{mcsv1beta1.SchemeGroupVersion, mcsv1alpha1.SchemeGroupVersion} {
		c := rest.CopyConfig(config)
		c.APIPath, c.GroupVersion = "/apis", &gv
		c.NegotiatedSerializer = lean{rest.CodecFactoryForGeneratedClient(mcsscheme.Scheme, mcsscheme.Codecs).WithoutConversion()}
		client, err := rest.RESTClientForConfigAndClient(c, h)
		if err != nil {
			return nil, err
		}
		out[gv.Version] = client
	}
	return out, nil
}

// lean is a serializer with short ways for the events of a watch and for ServiceExports.
type lean struct{ runtime.NegotiatedSerializer }

// SupportedMediaTypes implements runtime.NegotiatedSerializer.
func (l lean) SupportedMediaTypes() []runtime.SerializerInfo {
	var out []runtime.SerializerInfo
	for _, info := range l.NegotiatedSerializer.SupportedMediaTypes() {
		if info.MediaType == runtime.ContentTypeJSON && info.StreamSerializer != nil {
			stream := *info.StreamSerializer
			stream.Serializer = leanEvents{stream.Serializer}
			info.StreamSerializer = &stream
		}
		out = append(out, info)
	}
	return out
}

// DecoderToVersion implements runtime.NegotiatedSerializer.
func (l lean) DecoderToVersion(d runtime.Decoder, gv runtime.GroupVersioner) runtime.Decoder {
	return leanExports{l.NegotiatedSerializer.DecoderToVersion(d, gv)}
}

// leanEvents finds the object in an event of a watch.
type leanEvents struct{ runtime.Serializer }

const (
	eventBegin  = `{"type":"`
	eventMiddle = `","object":`
	longestType = len("BOOKMARK")
)

// Decode implements runtime.Decoder.
func (l leanEvents) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	event, ok := into.(*metav1.WatchEvent)
	if !ok || !splitEvent(data, event) {
		return l.Serializer.Decode(data, defaults, into)
	}
	kind := metav1.SchemeGroupVersion.WithKind("WatchEvent")
	return event, &kind, nil
}

// splitEvent reports whether it has found the type and the object, and nothing else.
func splitEvent(data []byte, event *metav1.WatchEvent) bool {
	rest, begins := bytes.CutPrefix(data, []byte(eventBegin))
	if !begins {
		return false
	}
	at := bytes.Index(rest[:min(len(rest), longestType+len(eventMiddle))], []byte(eventMiddle))
	if at < 0 {
		return false
	}
	object, ends := bytes.CutSuffix(bytes.TrimRight(rest[at+len(eventMiddle):], " \t\r\n"), []byte("}"))
	if !ends || !json.Valid(object) {
		return false
	}
	event.Type, event.Object.Raw = string(rest[:at]), object
	return true
}

// leanExports decodes ServiceExports.
type leanExports struct{ runtime.Decoder }

// leanExport is what anybody asks of a ServiceExport.
type leanExport struct {
	Metadata struct {
		Name              string            `json:"name"`
		Namespace         string            `json:"namespace"`
		ResourceVersion   string            `json:"resourceVersion"`
		CreationTimestamp metav1.Time       `json:"creationTimestamp"`
		Annotations       map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec mcsv1beta1.ServiceExportSpec `json:"spec"`
}

// Decode implements runtime.Decoder.
func (l leanExports) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	if into != nil {
		return l.Decoder.Decode(data, defaults, into)
	}
	for _, version := range crdVersions {
		if !bytes.HasPrefix(data, []byte(`{"apiVersion":"multicluster.x-k8s.io/`+version+`","kind":"ServiceExport",`)) {
			continue
		}
		var e leanExport
		if err := json.Unmarshal(data, &e); err != nil {
			if other := (*json.UnmarshalTypeError)(nil); errors.As(err, &other) {
				break // the general way takes more
			}
			return nil, nil, fmt.Errorf("ServiceExport: %w", err)
		}
		kind := schema.GroupVersionKind{Group: mcsv1beta1.GroupName, Version: version, Kind: "ServiceExport"}
		return e.object(), &kind, nil
	}
	return l.Decoder.Decode(data, defaults, nil)
}

// object is of version v1beta1, whatever it was: the schemas are the same.
func (e *leanExport) object() runtime.Object {
	m := &e.Metadata
	return &mcsv1beta1.ServiceExport{Spec: e.Spec, ObjectMeta: metav1.ObjectMeta{
		Name: m.Name, Namespace: m.Namespace, ResourceVersion: m.ResourceVersion, CreationTimestamp: m.CreationTimestamp, Annotations: m.Annotations,
	}}
}
