package watch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/klog/v2"
	mcsclient "sigs.k8s.io/mcs-api/pkg/client/clientset/versioned"
)

// userAgent names us to API servers, so that their operators can tell who asks.
const userAgent = "clusterset-dns"

// Connection says how to reach one API server. Two connections of the same Key are the same.
type Connection struct {
	config *rest.Config
	// Key is a digest of everything that configures the connection; it holds no secret that could be read back.
	Key string
}

// LoadKubeconfig reads a kubeconfig file and takes the given context, or the file's current one if it is "". The error
// names the file and what is wrong with it.
func LoadKubeconfig(path, contextName string) (Connection, error) {
	if _, err := os.ReadFile(path); err != nil {
		return Connection{}, fmt.Errorf("kubeconfig: %w", err)
	}
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: path},
		&clientcmd.ConfigOverrides{CurrentContext: contextName})
	raw, err := loader.RawConfig()
	if err != nil {
		return Connection{}, fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	if contextName == "" {
		contextName = raw.CurrentContext
	}
	chosen, ok := raw.Contexts[contextName]
	switch {
	case contextName == "":
		return Connection{}, fmt.Errorf("kubeconfig %s has no current-context: name the context after the file", path)
	case !ok:
		return Connection{}, fmt.Errorf("kubeconfig %s has no context %q", path, contextName)
	}
	config, err := loader.ClientConfig()
	if err != nil {
		return Connection{}, fmt.Errorf("kubeconfig %s, context %q: %w", path, contextName, err)
	}
	return connection(config, raw.Clusters[chosen.Cluster], raw.AuthInfos[chosen.AuthInfo])
}

// InCluster returns the connection to the API server of the cluster this process runs in, by the ServiceAccount of its
// pod.
func InCluster() (Connection, error) {
	config, err := rest.InClusterConfig()
	if err != nil {
		return Connection{}, fmt.Errorf("not in a pod with a ServiceAccount, so a KUBECONFIG is needed: %w", err)
	}
	return connection(config, &clientcmdapi.Cluster{Server: config.Host}, nil)
}

// NewConnection wraps a configuration made elsewhere. Its Key covers the address and the credentials.
func NewConnection(config *rest.Config) (Connection, error) {
	cluster := &clientcmdapi.Cluster{Server: config.Host, CertificateAuthority: config.CAFile, CertificateAuthorityData: config.CAData}
	user := &clientcmdapi.AuthInfo{
		Token: config.BearerToken, TokenFile: config.BearerTokenFile,
		ClientCertificate: config.CertFile, ClientCertificateData: config.CertData,
		ClientKey: config.KeyFile, ClientKeyData: config.KeyData,
	}
	return connection(config, cluster, user)
}

func connection(config *rest.Config, cluster *clientcmdapi.Cluster, user *clientcmdapi.AuthInfo) (Connection, error) {
	text, err := json.Marshal([]any{cluster, user})
	if err != nil {
		return Connection{}, fmt.Errorf("kubeconfig: %w", err)
	}
	sum := sha256.Sum256(text)
	config = rest.CopyConfig(config)
	config.UserAgent = userAgent
	// A handful of requests per member: client-go's own limiter would only delay the ones that matter.
	config.QPS = -1
	// A time-out here would end every watch.
	config.Timeout = 0
	return Connection{config: config, Key: hex.EncodeToString(sum[:])}, nil
}

// clients are the typed clients of one connection. They share one HTTP client, so one connection where HTTP/2 is spoken.
type clients struct {
	core     kubernetes.Interface
	mcs      mcsclient.Interface
	metadata metadata.Interface
	dynamic  dynamic.Interface
	http     *http.Client
}

func (c Connection) clients() (clients, error) {
	httpClient, err := rest.HTTPClientFor(c.config)
	if err != nil {
		return clients{}, fmt.Errorf("connection to %s: %w", c.config.Host, err)
	}
	httpClient.Transport = limited{httpClient.Transport}
	protobuf := rest.CopyConfig(c.config)
	protobuf.ContentType = runtime.ContentTypeProtobuf
	protobuf.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	out := clients{http: httpClient}
	if out.core, err = kubernetes.NewForConfigAndClient(protobuf, httpClient); err != nil {
		return clients{}, fmt.Errorf("connection to %s: %w", c.config.Host, err)
	}
	if out.mcs, err = mcsclient.NewForConfigAndClient(c.config, httpClient); err != nil {
		return clients{}, fmt.Errorf("connection to %s: %w", c.config.Host, err)
	}
	if out.metadata, err = metadata.NewForConfigAndClient(metadata.ConfigFor(c.config), httpClient); err != nil {
		return clients{}, fmt.Errorf("connection to %s: %w", c.config.Host, err)
	}
	if out.dynamic, err = dynamic.NewForConfigAndClient(c.config, httpClient); err != nil {
		return clients{}, fmt.Errorf("connection to %s: %w", c.config.Host, err)
	}
	return out, nil
}

// quiet keeps client-go from logging: what matters is told to the Observer, once per change.
func quiet(ctx context.Context) context.Context { return klog.NewContext(ctx, logr.Discard()) }
