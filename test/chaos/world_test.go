package chaos

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clusterset-dns/clusterset-dns/test/kube"
)

// version is what a cluster exports at a time. No two versions of a cluster share the address of an endpoint, so that an
// answer tells which it was made of. The zero version exports nothing.
type version struct {
	generation int
	small      bool // has half of the endpoints
}

// Services. Each cluster also exports one of its own, headless, "of-" and its name.
const (
	everywhere = "everywhere" // headless, exported by all
	near       = "near"       // has a cluster IP, exported by all: clients here are given that of east
	far        = "far"        // has a cluster IP, exported by west and north
	nobody     = "nobody"     // does not exist
)

// name is the name of a service.
func name(service string) string { return service + "." + namespace + ".svc." + zone }

// own is the service that only this cluster exports.
func (c *cluster) own() string { return "of-" + c.Name() }

// inClusterLocal is what the kubernetes plugin answers for east.
func inClusterLocal() string { return east.own() + "." + namespace + ".svc.cluster.local." }

// clusterIP is the cluster IP of far and near, one each.
func (c *cluster) clusterIP(service string) string {
	last := 50
	if service == near {
		last = 51
	}
	return fmt.Sprintf("10.%d.0.%d", 95+c.number, last)
}

// address is one that only this cluster has, and only in this generation. Generation 0 never ends.
func (c *cluster) address(generation, last int) string {
	const each = 250
	return fmt.Sprintf("10.%d.%d.%d", 16*c.number+generation/each, generation%each, last)
}

// endpoints are the addresses behind a headless service in a version.
func (c *cluster) endpoints(service string, v version) []string {
	address := func(last int) string { return c.address(v.generation, last) }
	switch {
	case v.generation == 0:
		return nil
	case service == everywhere && c == east: // so many that clients stay with east and west when north is stale
		return []string{address(3), address(4)}
	case service == everywhere:
		return []string{address(3)}
	case v.small:
		return []string{address(1)}
	}
	return []string{address(1), address(2)}
}

func (c *cluster) headless(service string, v version) kube.Simple {
	return kube.Simple{Namespace: namespace, Name: service, Headless: true, Addresses: c.endpoints(service, v)}
}

// fill makes everything in an empty cluster.
func (c *cluster) fill(ctx context.Context, v version) error {
	if err := c.Namespace(ctx, namespace); err != nil {
		return err
	}
	for _, service := range []string{c.own(), everywhere} {
		if _, err := c.Create(ctx, c.headless(service, v)); err != nil {
			return err
		}
	}
	for _, service := range c.balanced() {
		made := kube.Simple{Namespace: namespace, Name: service}
		for i := range max(c.sharesFar(), 1) {
			made.Addresses = append(made.Addresses, c.address(0, 100+i))
		}
		if err := c.Slice(ctx, made.Slice()); err != nil {
			return err
		}
		object := made.Service()
		object.Spec.ClusterIP = c.clusterIP(service)
		if _, err := c.Service(ctx, object); err != nil {
			return err
		}
	}
	c.now = v
	return c.exportAll(ctx)
}

// balanced are the services with a cluster IP that the cluster exports.
func (c *cluster) balanced() []string {
	if c == east {
		return []string{near}
	}
	return []string{near, far}
}

func (c *cluster) exportAll(ctx context.Context) error {
	for _, service := range append([]string{c.own(), everywhere}, c.balanced()...) {
		if err := c.Export(ctx, namespace, service); err != nil {
			return err
		}
	}
	return nil
}

// next is a version that has not been yet.
func (c *cluster) next() version {
	c.generations++
	return version{generation: c.generations}
}

// become changes the endpoints to those of another version.
func (c *cluster) become(ctx context.Context, v version) error {
	for _, service := range []string{c.own(), everywhere} {
		if err := c.UpdateSlice(ctx, c.headless(service, v).Slice()); err != nil {
			return err
		}
	}
	c.now = v
	return nil
}

// outcome is all of an answer that counts here: "NXDOMAIN", or "NOERROR" and the addresses in order.
type outcome string

func outcomeOf(m *dns.Msg) outcome {
	var addresses []string
	for _, rr := range m.Answer {
		if a, ok := rr.(*dns.A); ok {
			addresses = append(addresses, a.A.String())
		} else {
			addresses = append(addresses, rr.String())
		}
	}
	return answered(m.Rcode, addresses...)
}

func answered(rcode int, addresses ...string) outcome {
	slices.SortFunc(addresses, func(a, b string) int {
		x, _ := netip.ParseAddr(a)
		y, _ := netip.ParseAddr(b)
		return x.Compare(y)
	})
	return outcome(strings.Join(append([]string{dns.RcodeToString[rcode]}, addresses...), " "))
}

// belief is what the server may hold to be true at a time.
type belief struct {
	// versions of each cluster, one of which it is.
	versions map[*cluster][]version
	// stale says whether a cluster has been silent for too long, where that is not simply no. Others are then preferred.
	stale map[*cluster][]bool
	// unsure is set where a cluster may not have told all it knows: what is not known may be SERVFAIL.
	unsure bool
	// more are names that only one row has.
	more map[string][]outcome
	// withoutClusterLocal is set where the server has no kubernetes plugin.
	withoutClusterLocal bool
}

// state is one thing that may be believed of a cluster.
type state struct {
	version
	stale bool
}

func (b belief) states(c *cluster) []state {
	stale := b.stale[c]
	if stale == nil {
		stale = []bool{false}
	}
	var out []state
	for _, v := range b.versions[c] {
		for _, s := range stale {
			out = append(out, state{v, s})
		}
	}
	return out
}

// allowed says which outcomes of which names are right.
type allowed map[string]map[outcome]bool

func (a allowed) add(name string, outcomes ...outcome) {
	if a[name] == nil {
		a[name] = map[outcome]bool{}
	}
	for _, o := range outcomes {
		a[name][o] = true
	}
}

// allows derives the right answers from the belief.
func (b belief) allows() allowed {
	a := allowed{}
	a.add(name(near), answered(dns.RcodeSuccess, east.clusterIP(near)))
	a.add(name(nobody), answered(dns.RcodeNameError))
	if b.unsure {
		a.add(name(nobody), answered(dns.RcodeServerFailure))
	}
	for _, c := range everybody() {
		for _, v := range b.versions[c] {
			a.add(name(c.own()), of(c.endpoints(c.own(), v)))
			if c == east && !b.withoutClusterLocal {
				a.add(inClusterLocal(), of(c.endpoints(c.own(), v)))
			}
		}
	}
	for _, e := range b.states(east) {
		for _, w := range b.states(west) {
			for _, n := range b.states(north) {
				states := map[*cluster]state{east: e, west: w, north: n}
				for _, chosen := range preferred(states, (*cluster).sharesEverywhere) {
					var addresses []string
					for _, c := range chosen {
						addresses = append(addresses, c.endpoints(everywhere, states[c].version)...)
					}
					a.add(name(everywhere), of(addresses))
				}
				for _, chosen := range preferred(states, (*cluster).sharesFar) {
					for _, c := range chosen {
						a.add(name(far), answered(dns.RcodeSuccess, c.clusterIP(far)))
					}
					if len(chosen) == 0 {
						a.add(name(far), answered(dns.RcodeNameError))
					}
				}
			}
		}
	}
	for name, outcomes := range b.more {
		a.add(name, outcomes...)
	}
	return a
}

// of is how a headless service with these endpoints is answered.
func of(addresses []string) outcome {
	if len(addresses) == 0 {
		return answered(dns.RcodeNameError)
	}
	return answered(dns.RcodeSuccess, addresses...)
}

// preferred returns the groups of clusters that clients may be given, each client one group: those that are not stale,
// which take 1.4 times their share of the endpoints; and, if that is not everything, those that are.
func preferred(states map[*cluster]state, share func(*cluster) int) [][]*cluster {
	var fresh, stale []*cluster
	inFresh, inAll := 0, 0
	for _, c := range everybody() {
		n := share(c)
		if states[c].generation == 0 || n == 0 {
			continue
		}
		inAll += n
		if states[c].stale {
			stale = append(stale, c)
		} else {
			fresh = append(fresh, c)
			inFresh += n
		}
	}
	switch {
	case len(stale) == 0 || inFresh*14 >= inAll*10:
		return [][]*cluster{fresh}
	case len(fresh) == 0:
		return [][]*cluster{stale}
	}
	return [][]*cluster{fresh, stale}
}

// sharesEverywhere is the number of endpoints that a cluster has in everywhere.
func (c *cluster) sharesEverywhere() int {
	return len(c.endpoints(everywhere, version{generation: 1}))
}

// sharesFar is the number of endpoints that a cluster has in far: so many in west that clients stay there without north.
func (c *cluster) sharesFar() int {
	switch c {
	case west:
		return 9
	case north:
		return 1
	}
	return 0
}

// write makes so many objects that concern nobody, and removes them.
func (c *cluster) write(t *testing.T, n int) {
	t.Helper()
	var writers sync.WaitGroup
	for range 8 {
		writers.Go(func() {
			for range n / 8 {
				object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "nothing-"}}
				if _, err := c.Core.CoreV1().ConfigMaps(namespace).Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	must(t, c.Core.CoreV1().ConfigMaps(namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}))
}
