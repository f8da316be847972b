package watch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	mcsv1alpha1 "sigs.k8s.io/mcs-api/pkg/apis/v1alpha1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
	mcsscheme "sigs.k8s.io/mcs-api/pkg/client/clientset/versioned/scheme"
)

// userAgent names us to API servers, so that their operators can tell who asks.
const userAgent = "clusterset-dns"

// Connection says how to reach one API server. Two connections of the same Key are the same. Copies of one share its
// credentials, which are followed where they come from while somebody uses the connection.
type Connection struct {
	access *access
	// Key is a digest of what is written about the connection: the path and the context of a kubeconfig, not what the
	// file holds, which may change; the content where that is all there is. No secret can be read back from it.
	Key string
}

// LoadKubeconfig reads a kubeconfig file and takes the given context, or the file's current one if it is "". The file and
// those that it names may change later on. The error names the file and what is wrong with it, and shows nothing secret.
func LoadKubeconfig(path, contextName string) (Connection, error) {
	read := func() (settings, error) { return readKubeconfig(path, contextName) }
	return follow("kubeconfig "+path, read, "kubeconfig", path, contextName)
}

// InCluster returns the connection to the API server of the cluster this process runs in, by the ServiceAccount of its
// pod.
func InCluster() (Connection, error) {
	read := func() (settings, error) {
		config, err := rest.InClusterConfig()
		if err != nil {
			return settings{}, fmt.Errorf("not in a pod with a ServiceAccount, so a KUBECONFIG is needed: %w", err)
		}
		return readFiles(config)
	}
	return follow("ServiceAccount of this pod", read, "in-cluster")
}

// NewConnection wraps a configuration made elsewhere. Its Key covers the address and the credentials.
func NewConnection(config *rest.Config) (Connection, error) {
	key, err := keyOf(config.Host, config.CAFile, config.CAData, config.BearerToken, config.BearerTokenFile,
		config.CertFile, config.CertData, config.KeyFile, config.KeyData)
	if err != nil {
		return Connection{}, err
	}
	return Connection{access: newAccess(config.Host, settings{config: tuned(config)}, nil), Key: key}, nil
}

// Absent returns a connection to an API server of which only is known that there is one: each request ends with that error.
func Absent(why error) (Connection, error) {
	return NewConnection(&rest.Config{Host: "https://absent.invalid", Transport: absent{why}})
}

type absent struct{ why error }

// RoundTrip implements http.RoundTripper.
func (a absent) RoundTrip(*http.Request) (*http.Response, error) { return nil, a.why }

// CloseIdleConnections is called at the end; without it apimachinery logs a warning.
func (absent) CloseIdleConnections() {}

// follow makes a connection whose settings are read now and, while it is used, again and again.
func follow(name string, read func() (settings, error), written ...any) (Connection, error) {
	first, err := read()
	if err != nil {
		return Connection{}, err
	}
	key, err := keyOf(written...)
	return Connection{access: newAccess(name, first, read), Key: key}, err
}

func keyOf(parts ...any) (string, error) {
	sum, err := digestOf(parts...)
	return hex.EncodeToString(sum[:]), err
}

// digest is equal for equal things, and tells nothing else about them.
type digest [sha256.Size]byte

func digestOf(parts ...any) (digest, error) {
	text, err := json.Marshal(parts)
	if err != nil {
		return digest{}, fmt.Errorf("digest of a connection: %w", err)
	}
	return sha256.Sum256(text), nil
}

// tuned returns a copy of a configuration that asks as we do.
func tuned(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.UserAgent = userAgent
	// A handful of requests per member: client-go's own limiter would only delay the ones that matter.
	config.QPS = -1
	// A time-out here would end every watch.
	config.Timeout = 0
	return config
}

// String names the connection and shows nothing secret.
func (c Connection) String() string {
	if c.access == nil {
		return "no connection"
	}
	return c.access.name
}

// GoString does the same for %#v.
func (c Connection) GoString() string { return c.String() }

// Insecure reports whether the API server's certificate is not verified: anybody on the way can then read the
// credentials and forge every answer.
func (c Connection) Insecure() bool {
	if r := c.access.current.Load(); r != nil {
		return r.insecure
	}
	return c.access.latest().config.Insecure
}

// clients are the typed clients of one connection. They share one HTTP client, so one connection where HTTP/2 is spoken.
type clients struct {
	core     kubernetes.Interface
	mcs      map[string]rest.Interface // by version of multicluster.x-k8s.io
	metadata metadata.Interface
	dynamic  dynamic.Interface
	http     *http.Client
}

// clients makes clients that know no credentials: those are the business of the access below them.
func (c Connection) clients() (clients, error) {
	base, err := c.access.open()
	if err != nil {
		return clients{}, fmt.Errorf("connection to %s: %w", c.access.name, err)
	}
	out := clients{http: &http.Client{Transport: limited{c.access}}}
	config := tuned(&rest.Config{Host: base.String()})
	protobuf := rest.CopyConfig(config)
	protobuf.ContentType = runtime.ContentTypeProtobuf
	protobuf.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	if out.core, err = kubernetes.NewForConfigAndClient(protobuf, out.http); err != nil {
		return clients{}, fmt.Errorf("connection to %s: %w", c.access.name, err)
	}
	if out.mcs, err = newMCSClients(config, out.http); err != nil {
		return clients{}, fmt.Errorf("connection to %s: %w", c.access.name, err)
	}
	if out.metadata, err = metadata.NewForConfigAndClient(metadata.ConfigFor(config), out.http); err != nil {
		return clients{}, fmt.Errorf("connection to %s: %w", c.access.name, err)
	}
	if out.dynamic, err = dynamic.NewForConfigAndClient(config, out.http); err != nil {
		return clients{}, fmt.Errorf("connection to %s: %w", c.access.name, err)
	}
	return out, nil
}

// once is clients for who asks a few things and is done then.
func (c Connection) once() (out clients, done func(), err error) {
	if out, err = c.clients(); err != nil {
		return out, nil, err
	}
	c.access.join(nil)
	return out, func() { c.access.leave(nil) }, nil
}

// quiet keeps client-go from logging: what matters is told to the Observer, once per change.
func quiet(ctx context.Context) context.Context { return klog.NewContext(ctx, logr.Discard()) }

// newMCSClients makes the REST clients of multicluster.x-k8s.io, by version.
func newMCSClients(config *rest.Config, h *http.Client) (map[string]rest.Interface, error) {
	out := map[string]rest.Interface{}
	for _, gv := range []schema.GroupVersion{mcsv1beta1.SchemeGroupVersion, mcsv1alpha1.SchemeGroupVersion} {
		c := rest.CopyConfig(config)
		c.APIPath, c.GroupVersion = "/apis", &gv
		c.NegotiatedSerializer = rest.CodecFactoryForGeneratedClient(mcsscheme.Scheme, mcsscheme.Codecs).WithoutConversion()
		client, err := rest.RESTClientForConfigAndClient(c, h)
		if err != nil {
			return nil, err
		}
		out[gv.Version] = client
	}
	return out, nil
}
