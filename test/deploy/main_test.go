// Package deploy holds tests of the manifests in deploy, on real API servers: every bundle is accepted as it is, can be
// applied again without a change and leaves nothing when it is deleted; the commands that deploy/README.md and docs print do what it
// says; and the server answers with exactly the rights and the Corefile that are shipped.
package deploy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/demo"
	"github.com/clusterset-dns/clusterset-dns/test/kube"
	"github.com/clusterset-dns/clusterset-dns/test/server"
	"github.com/clusterset-dns/clusterset-dns/test/suite"
)

// limit bounds every wait of a test.
const limit = 30 * time.Second

var (
	// coredns is the server, and stock is CoreDNS as its project builds it.
	coredns, stock string
	// kubectl is the folder of kubectl, root that of the repository.
	kubectl, root string
	// east and west have nothing of deploy in them when a test begins, and when it ends.
	east, west *clusters.Cluster
	// kubeconfig has the contexts east and west, which may do everything.
	kubeconfig string
)

func TestMain(m *testing.M) { os.Exit(suite.Run(m, start)) }

// start builds the programs, starts the clusters and gives them services.
func start(ctx context.Context) (stop func() error, err error) {
	binaries, err := clusters.Build(ctx, os.Stderr, clusters.Kubectl)
	if err != nil {
		return nil, err
	}
	kubectl = filepath.Dir(binaries.Kubectl)
	if coredns, err = server.Build(ctx, os.Stderr); err != nil {
		return nil, err
	}
	if stock, err = server.BuildStock(ctx, os.Stderr); err != nil {
		return nil, err
	}
	if root, err = clusters.Root(); err != nil {
		return nil, err
	}
	var options []clusters.Options
	for _, name := range []string{"east", "west"} {
		options = append(options, clusters.Options{Name: name, ControllerManager: true, Bare: true, Controllers: []string{
			"deployment-controller", "replicaset-controller", "disruption-controller", "serviceaccount-token-controller",
		}})
	}
	started, err := clusters.StartAll(ctx, binaries, options...)
	if err != nil {
		return nil, err
	}
	stop = func() error { return clusters.StopAll(started...) }
	east, west = started[0], started[1]
	if err := fill(ctx); err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

// fill makes services: web in both clusters, echo in west, which exports it. It also writes the kubeconfig.
func fill(ctx context.Context) error {
	merged := clientcmdapi.NewConfig()
	for _, c := range []*clusters.Cluster{east, west} {
		if _, err := demo.Deploy(ctx, c); err != nil {
			return err
		}
		admin, err := clientcmd.LoadFromFile(c.AdminKubeconfig())
		if err != nil {
			return err
		}
		name := admin.CurrentContext
		merged.Clusters[name], merged.AuthInfos[name] = admin.Clusters[name], admin.AuthInfos[name]
		merged.Contexts[c.Name()] = admin.Contexts[name]
	}
	kubeconfig = filepath.Join(east.Dir(), "both.kubeconfig")
	if err := clientcmd.WriteToFile(*merged, kubeconfig); err != nil {
		return err
	}
	client, err := kube.New(west)
	if err != nil {
		return err
	}
	echo := kube.Simple{Namespace: "shop", Name: "echo", Addresses: []string{"10.2.0.81"}}
	object := echo.Service()
	object.Spec.ClusterIP = echoAddress
	if _, err := client.Service(ctx, object); err != nil {
		return err
	}
	return errors.Join(client.Slice(ctx, echo.Slice()), client.Export(ctx, "shop", "echo"))
}

// The addresses of web in the two clusters, and of echo in west.
const (
	webInEast   = "10.96.0.80"
	webInWest   = "10.97.0.80"
	echoAddress = "10.97.0.81"
)

var must = suite.Must

// within waits until check returns nil, for as long as limit.
func within(t *testing.T, what string, check func() error) {
	t.Helper()
	suite.Within(t, limit, what, func(context.Context) error { return check() })
}
