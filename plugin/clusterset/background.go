package clusterset

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

// How often slow facts are read anew, and how soon again after a failure.
const (
	slowlyEvery = 10 * time.Minute
	slowlyRetry = time.Minute
)

// slowly calls read at once and then now and then until stop is called, which waits for it. read returns how long to
// wait.
func slowly(read func(context.Context) time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		timer := time.NewTimer(0)
		defer timer.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
				timer.Reset(read(ctx))
			}
		}
	})
	return func() {
		cancel()
		done.Wait()
	}
}

// followRegion reads the region of a cluster for which none is written.
func followRegion(id topology.ClusterID, connection watch.Connection) (stop func()) {
	last, lastError := "", ""
	return slowly(func(ctx context.Context) time.Duration {
		region, err := connection.Region(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			if lastError != err.Error() {
				lastError = err.Error()
				log.Warningf("Cluster %s: its region is not known: %v; write it as 'region' in the Corefile or allow listing nodes", id, err)
			}
			return slowlyRetry
		case region != last:
			last = region
			process.conditions.setRegion(id, region)
			log.Infof("Cluster %s: region %s, by the labels of its nodes", id, region)
		}
		return slowlyEvery
	})
}

// front holds the addresses of the DNS Service in front of this server.
type front struct{ addrs atomic.Pointer[[]netip.Addr] }

// addresses returns what is known, nil when no Service is.
func (f *front) addresses() []netip.Addr {
	if addrs := f.addrs.Load(); addrs != nil {
		return *addrs
	}
	return nil
}

// namespaceFile holds the namespace of the pod this process runs in.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// followFront looks for the Service in front of this server, which runs as a pod of the local cluster or finds nothing.
// A pod is behind its Service only when it is ready, so the first look may come too early.
func followFront(f *front, connection watch.Connection) (stop func()) {
	text, err := os.ReadFile(namespaceFile)
	if err != nil {
		return func() {} // not a pod
	}
	namespace, self := strings.TrimSpace(string(text)), interfaceAddresses()
	return slowly(func(ctx context.Context) time.Duration {
		addrs, err := connection.ServiceInFront(ctx, namespace, self)
		if err != nil || len(addrs) == 0 {
			return slowlyRetry / 12
		}
		if !slices.Equal(addrs, f.addresses()) {
			f.addrs.Store(&addrs)
			log.Infof("The DNS Service in front of this server has %v", addrs)
		}
		return slowlyEvery
	})
}
