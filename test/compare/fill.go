//go:build linux

package compare

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/compare/world"
	"github.com/clusterset-dns/clusterset-dns/test/kube"
)

const (
	// writers is how many objects are written at a time. More make an API server no faster.
	writers = 32
	// fewExports is how many services the cluster exports that exports few.
	fewExports = 100
	// filledFile lies in the folder of a kept cluster and says what it was filled with.
	filledFile = "filled.json"
)

// plane is a control plane with something in it. All are the cluster "east", each the only one to its servers.
type plane struct {
	name string
	fill func(ctx context.Context, c kube.Client, services int) error
}

// The planes.
var (
	// everything has all services, and exports all.
	everything = plane{"everything", func(ctx context.Context, c kube.Client, services int) error {
		return errors.Join(fillServices(ctx, c, services, world.Endpoints), fillExports(ctx, c, services))
	}}
	// few has all services and exports a hundred of them.
	few = plane{"few", func(ctx context.Context, c kube.Client, services int) error {
		return errors.Join(fillServices(ctx, c, services, world.Endpoints), fillExports(ctx, c, min(services, fewExports)))
	}}
	// imports has a ServiceImport for each service and its endpoints as a controller copies them, and no Services.
	imports = plane{"imports", fillImports}
	// usual is as large as kubeadm expects a cluster to be: half as many Services, each with one Pod.
	usual = plane{"usual", func(ctx context.Context, c kube.Client, services int) error {
		return errors.Join(fillServices(ctx, c, services/2, 1), fillExports(ctx, c, min(services/2, fewExports)))
	}}
	// nothing is what memory is compared with.
	nothing = plane{"nothing", func(context.Context, kube.Client, int) error { return nil }}
)

// planes are control planes that run, by name.
type planes map[string]*clusters.Cluster

func (p planes) stop() error { return clusters.StopAll(slices.Collect(maps.Values(p))...) }

// filled is the content of filledFile.
type filled struct {
	Plane    string
	Services int
}

// startPlanes starts control planes and fills them, or takes those that an earlier run has left in the folder keep; an
// empty keep means temporary ones. With an error, those that were started are stopped.
func startPlanes(ctx context.Context, w io.Writer, b clusters.Binaries, keep string, services int, wanted ...plane) (planes, error) {
	var options []clusters.Options
	for _, p := range wanted {
		o := clusters.Options{Name: world.Cluster + "-" + p.name, ServiceCIDR: "10.96.0.0/16,fd00:10:96::/108"}
		if keep != "" {
			o.Dir = filepath.Join(keep, p.name)
		}
		options = append(options, o)
	}
	all, err := clusters.StartAll(ctx, b, options...)
	if err != nil {
		return nil, err
	}
	started := planes{}
	for i, p := range wanted {
		started[p.name] = all[i]
		if err := fillOnce(ctx, w, all[i], p, services); err != nil {
			return nil, errors.Join(fmt.Errorf("fill the control plane %q: %w", p.name, err), clusters.StopAll(all...))
		}
	}
	return started, nil
}

// fillOnce fills a control plane unless it is filled already.
func fillOnce(ctx context.Context, w io.Writer, c *clusters.Cluster, p plane, services int) error {
	want := filled{p.name, services}
	mark := filepath.Join(c.Dir(), filledFile)
	switch text, err := os.ReadFile(mark); {
	case err == nil:
		var has filled
		if err := json.Unmarshal(text, &has); err != nil || has != want {
			return fmt.Errorf("%s says %s: keep control planes of another size in another folder", mark, text)
		}
		return nil
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	begin := time.Now()
	client, err := kube.New(c)
	if err != nil {
		return err
	}
	if err := p.fill(ctx, client, services); err != nil {
		return err
	}
	fmt.Fprintf(w, "filled the control plane %q for %d services in %s\n", p.name, services, time.Since(begin).Round(100*time.Millisecond))
	text, err := json.Marshal(want)
	if err != nil {
		return err
	}
	return os.WriteFile(mark, text, 0o600)
}

// simple is a service as it is written into clusters.
func simple(s world.Service) kube.Simple {
	out := kube.Simple{Namespace: s.Namespace(), Name: s.Name(), Headless: s.Headless()}
	for _, address := range s.Addresses() {
		out.Addresses = append(out.Addresses, address.String())
	}
	return out
}

func fillServices(ctx context.Context, c kube.Client, services, endpoints int) error {
	if err := fillNamespaces(ctx, c, services); err != nil {
		return err
	}
	return each(ctx, services, func(ctx context.Context, i int) error {
		s := simple(world.Service(i))
		s.Addresses = s.Addresses[:endpoints]
		_, err := c.Create(ctx, s)
		return err
	})
}

func fillNamespaces(ctx context.Context, c kube.Client, services int) error {
	return each(ctx, min(services, world.Namespaces), func(ctx context.Context, i int) error {
		return c.Namespace(ctx, world.Service(i).Namespace())
	})
}

func fillExports(ctx context.Context, c kube.Client, services int) error {
	return each(ctx, services, func(ctx context.Context, i int) error {
		s := world.Service(i)
		return c.Export(ctx, s.Namespace(), s.Name())
	})
}

func fillImports(ctx context.Context, c kube.Client, services int) error {
	if err := fillNamespaces(ctx, c, services); err != nil {
		return err
	}
	return each(ctx, services, func(ctx context.Context, i int) error {
		s := world.Service(i)
		slice := simple(s).Slice()
		slice.Labels = map[string]string{
			mcsv1beta1.LabelServiceName:   s.Name(),
			mcsv1beta1.LabelSourceCluster: world.Cluster,
			discoveryv1.LabelManagedBy:    "importer.test",
		}
		return errors.Join(c.Slice(ctx, slice), c.Import(ctx, serviceImport(s)))
	})
}

func serviceImport(s world.Service) *mcsv1beta1.ServiceImport {
	out := &mcsv1beta1.ServiceImport{}
	out.Namespace, out.Name = s.Namespace(), s.Name()
	out.Spec.Type = mcsv1beta1.Headless
	if !s.Headless() {
		out.Spec.Type, out.Spec.IPs = mcsv1beta1.ClusterSetIP, []string{s.ClusterIP().String()}
	}
	out.Spec.Ports = []mcsv1beta1.ServicePort{{Name: world.PortName, Protocol: "TCP", Port: world.Port}}
	out.Status.Clusters = []mcsv1beta1.ClusterStatus{{Cluster: world.Cluster}}
	return out
}

// each calls do for 0 to n-1, several at a time, and stops at the first error.
func each(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		next    atomic.Int64
		workers sync.WaitGroup
	)
	for range min(n, writers) {
		workers.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := do(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}
