package clusterset

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/clusterset-dns/clusterset-dns/internal/model"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch/watchtest"
)

// The names of the simulated world. There are few, so that clusters meet in them.
var (
	simNamespaces = []string{"shop", "data"}
	simServices   = []string{"web", "db", "api", "mix"}
	simPorts      = []model.Port{
		{Name: "http", Protocol: "tcp", Number: 80}, {Name: "http", Protocol: "tcp", Number: 8080}, {Name: "dns", Protocol: "udp", Number: 53},
		{Protocol: "tcp", Number: 9}, {Name: "metrics", Protocol: "tcp", Number: 9100}, {Name: "web", Protocol: "tcp", Number: 80},
		{Name: "call", Protocol: "sctp", Number: 53},
	}
	simNonsense = []string{"127.0.0.1", "169.254.1.1", "::1", "fe80::7", "::ffff:10.0.0.9", "224.0.0.5", "0.0.0.0", "nonsense"}
)

// simCluster is a cluster of the simulation: its API server, and the model's facts after each change of it.
type simCluster struct {
	id      string
	number  int
	api     *watchtest.Virtual
	rng     *rand.Rand
	history []model.Cluster // by the index of the change
	backups []simBackup
}

type simBackup struct {
	image watchtest.Image
	facts model.Cluster
}

// crowd is how many exports more a crowded cluster has, with names so long that no label selector has room for them: all its
// EndpointSlices are watched then.
const crowd = 92

func newSimCluster(number int, id string, rng *rand.Rand, local, crowded bool) *simCluster {
	c := &simCluster{id: id, number: number, rng: rng, api: watchtest.NewVirtual(rng.Uint64())}
	c.history = []model.Cluster{{
		Exports: map[model.Key]model.Export{}, Services: map[model.Key]model.Service{}, Slices: map[model.Key]model.Slice{}, Namespaces: map[string]bool{},
	}}
	if local {
		c.setNamespace(simNamespaces[0], true)
		c.setNamespace(simNamespaces[1], rng.IntN(4) > 0)
		c.setRanges()
	}
	for range 30 {
		c.mutate()
	}
	for i := range crowd {
		if key := (model.Key{Namespace: "crowd", Name: fmt.Sprintf("x%062d", i)}); crowded {
			o := &mcsv1beta1.ServiceExport{ObjectMeta: simMeta(key)}
			o.CreationTimestamp = metav1.Unix(1_000_000, 0)
			c.put("serviceexports", o, func(f *model.Cluster) {
				f.Exports = with(f.Exports, key, &model.Export{Created: 1_000_000, Percent: 100})
			})
		}
	}
	return c
}

func (c *simCluster) now() *model.Cluster { return &c.history[len(c.history)-1] }

// note tells the model what has changed.
func (c *simCluster) note(index int, change func(*model.Cluster)) {
	next := *c.now()
	change(&next)
	if index == len(c.history) {
		c.history = append(c.history, next)
	} else if index != len(c.history)-1 {
		panic(fmt.Sprintf("change %d follows on %d", index, len(c.history)-1))
	}
}

// with returns a copy of a map with one value more or, if there is none, less.
func with[V any](m map[model.Key]V, key model.Key, value *V) map[model.Key]V {
	out := maps.Clone(m)
	if value == nil {
		delete(out, key)
	} else {
		out[key] = *value
	}
	return out
}

func (c *simCluster) put(resource string, o runtime.Object, change func(*model.Cluster)) {
	index, err := c.api.Put(resource, o)
	if err != nil {
		panic(err)
	}
	c.note(index, change)
}

// chance is true in so many of a hundred cases.
func (c *simCluster) chance(percent int) bool { return c.rng.IntN(100) < percent }

func pick[T any](rng *rand.Rand, from []T) T { return from[rng.IntN(len(from))] }

func (c *simCluster) key() model.Key {
	return model.Key{Namespace: pick(c.rng, simNamespaces), Name: pick(c.rng, simServices)}
}

// mutate makes one change by chance. It returns what it did.
func (c *simCluster) mutate() string {
	key := c.key()
	switch n := c.rng.IntN(100); {
	case n < 42:
		return c.putSlice(key, c.rng.IntN(3))
	case n < 50:
		return c.deleteSlice()
	case n < 68:
		return c.putService(key)
	case n < 73:
		return c.deleteService(key)
	case n < 89:
		return c.putExport(key)
	case n < 97:
		return c.deleteExport(key)
	case n < 99 || len(c.now().Namespaces) == 0:
		return c.setDrained(!c.now().Drained && c.chance(60))
	case n < 100 && c.chance(30):
		return c.setRanges()
	default:
		name := simNamespaces[1]
		return c.setNamespace(name, !c.now().Namespaces[name])
	}
}

func simMeta(key model.Key) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}
}

func (c *simCluster) putExport(key model.Key) string {
	old, there := c.now().Exports[key]
	made := model.Export{Created: cmp.Or(old.Created, int64(1_000_000+1000*c.rng.IntN(5))), Percent: 100}
	o := &mcsv1beta1.ServiceExport{ObjectMeta: simMeta(key)}
	o.CreationTimestamp = metav1.Unix(made.Created, 0)
	if text := pick(c.rng, []string{"", "", "", "", "", "0", "50", "much"}); text != "" {
		o.Annotations = map[string]string{"clusterset-dns.io/weight-percent": text}
		if n, err := strconv.Atoi(text); err == nil {
			made.Percent = n
		}
		o.Spec.ExportedLabels = map[string]string{"text": text} // there is more than metadata
	}
	if !c.serves() {
		return "nothing: there are no CRDs"
	}
	c.put("serviceexports", o, func(f *model.Cluster) { f.Exports = with(f.Exports, key, &made) })
	return fmt.Sprintf("export %v again=%v created %d percent %d", key, there, made.Created, made.Percent)
}

// serves tells whether there are CRDs.
func (c *simCluster) serves() bool { return c.api.Serves("multicluster.x-k8s.io") }

func (c *simCluster) deleteExport(key model.Key) string {
	c.note(c.api.Delete("serviceexports", key.Namespace, key.Name), func(f *model.Cluster) { f.Exports = with(f.Exports, key, nil) })
	return fmt.Sprintf("unexport %v", key)
}

// putService makes a Service, changes one, or deletes it and makes another. Of one that there is, the type and the cluster
// IPs stay, as the API demands, but for what ExternalName does to them.
func (c *simCluster) putService(key model.Key) string {
	was := entry(c.now().Services, key)
	if was != nil && c.chance(50) {
		return c.deleteService(key) + "; " + c.putService(key)
	}
	s := model.Service{Headless: c.chance(45), ExternalName: c.chance(5), NotReadyToo: c.chance(8), Sticky: c.chance(15)}
	if was != nil && !was.ExternalName {
		s.Headless = was.Headless
	}
	for _, p := range simPorts {
		if c.chance(35) && !slices.ContainsFunc(s.Ports, func(o model.Port) bool { return o.Name == p.Name }) {
			s.Ports = append(s.Ports, p)
		}
	}
	switch {
	case s.ExternalName, s.Headless:
	case was != nil && !was.ExternalName:
		s.ClusterIPs = was.ClusterIPs
	default:
		s.ClusterIPs = c.clusterIPs(key)
	}
	if !s.Headless && c.chance(50) {
		s.Ingress = append(s.Ingress, fmt.Sprintf("203.0.113.%d", 16*c.number+c.rng.IntN(4)))
	}
	o := &corev1.Service{ObjectMeta: simMeta(key), Spec: corev1.ServiceSpec{
		ClusterIPs: s.ClusterIPs, PublishNotReadyAddresses: s.NotReadyToo, SessionAffinity: corev1.ServiceAffinityNone,
	}}
	if s.Headless {
		o.Spec.ClusterIPs = []string{corev1.ClusterIPNone}
	}
	if s.ExternalName {
		o.Spec.Type = corev1.ServiceTypeExternalName
	}
	if s.Sticky {
		o.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	}
	for _, p := range s.Ports {
		o.Spec.Ports = append(o.Spec.Ports, corev1.ServicePort{Name: p.Name, Protocol: corev1.Protocol(strings.ToUpper(p.Protocol)), Port: int32(p.Number)})
	}
	for _, ip := range s.Ingress {
		o.Status.LoadBalancer.Ingress = append(o.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ip})
	}
	c.put("services", o, func(f *model.Cluster) { f.Services = with(f.Services, key, &s) })
	return fmt.Sprintf("service %v %+v", key, s)
}

// clusterIPs are new ones, which no other Service of the cluster has.
func (c *simCluster) clusterIPs(key model.Key) []string {
	n := 8*slices.Index(simNamespaces, key.Namespace) + 2*slices.Index(simServices, key.Name) + c.rng.IntN(2)
	out := []string{fmt.Sprintf("10.%d.0.%d", 16*c.number, 10+n)}
	if c.number > 0 && c.chance(15) {
		out[0] = fmt.Sprintf("10.0.0.%d", 10+c.rng.IntN(16)) // where the local cluster has its own
	}
	if c.chance(30) {
		out = append(out, fmt.Sprintf("fd00:%d::%d", 1+c.number, 10+n))
	}
	if c.number > 0 && c.chance(4) {
		out[0] = pick(c.rng, simNonsense)
	}
	return out
}

func (c *simCluster) deleteService(key model.Key) string {
	c.note(c.api.Delete("services", key.Namespace, key.Name), func(f *model.Cluster) { f.Services = with(f.Services, key, nil) })
	return fmt.Sprintf("no service %v", key)
}

// pod is one of a cluster's pods: its identity never changes.
func (c *simCluster) pod(n int) (uid, host string, v4, v6 string) {
	if n%3 > 0 {
		uid = fmt.Sprintf("uid-%d-%d", c.number, n)
	}
	host = []string{"", "db-0", "db-1", "Bad_Host"}[n%4]
	return uid, host, fmt.Sprintf("172.%d.0.%d", 16+c.number, 1+n), fmt.Sprintf("fd01:%d::%d", 1+c.number, 1+n)
}

func (c *simCluster) putSlice(key model.Key, number int) string {
	id := model.Key{Namespace: key.Namespace, Name: fmt.Sprintf("%s-%d", key.Name, number)}
	s := model.Slice{Of: key, V4: true}
	kind := discoveryv1.AddressTypeIPv4
	switch n := c.rng.IntN(100); {
	case n < 25:
		s.V4, s.V6, kind = false, true, discoveryv1.AddressTypeIPv6
	case n < 28:
		s.V4, kind = false, discoveryv1.AddressTypeFQDN
	}
	labels := map[string]string{"kubernetes.io/service-name": key.Name}
	switch {
	case c.chance(6): // it changes hands
		s.Of.Name = pick(c.rng, simServices)
		labels["kubernetes.io/service-name"] = s.Of.Name
	case c.chance(4): // a copy of another cluster's
		s.Of = model.Key{}
		labels["multicluster.kubernetes.io/service-name"] = key.Name
	}
	o := &discoveryv1.EndpointSlice{ObjectMeta: simMeta(id), AddressType: kind}
	o.Labels = labels
	for _, p := range simPorts {
		if c.chance(30) {
			s.Ports = append(s.Ports, p)
			protocol := corev1.Protocol(strings.ToUpper(p.Protocol))
			number := int32(p.Number)
			o.Ports = append(o.Ports, discoveryv1.EndpointPort{Name: &p.Name, Protocol: &protocol, Port: &number})
		}
	}
	for range c.rng.IntN(5) {
		e, own := c.endpoint(s.V6)
		s.Endpoints, o.Endpoints = append(s.Endpoints, e), append(o.Endpoints, own)
	}
	c.put("endpointslices", o, func(f *model.Cluster) { f.Slices = with(f.Slices, id, &s) })
	return fmt.Sprintf("slice %v %+v", id, s)
}

func (c *simCluster) endpoint(v6 bool) (model.Endpoint, discoveryv1.Endpoint) {
	uid, host, a4, a6 := c.pod(c.rng.IntN(12))
	e := model.Endpoint{Addresses: []string{a4}, Hostname: host, UID: uid, Ready: !c.chance(25), Terminating: c.chance(10)}
	if v6 {
		e.Addresses = []string{a6}
	}
	if c.chance(4) {
		e.Addresses = []string{pick(c.rng, simNonsense)}
	}
	out := discoveryv1.Endpoint{Addresses: e.Addresses, Conditions: discoveryv1.EndpointConditions{Terminating: &e.Terminating}}
	if !e.Ready || c.chance(50) {
		out.Conditions.Ready = &e.Ready
	}
	if uid != "" {
		out.TargetRef = &corev1.ObjectReference{UID: types.UID(uid)}
	}
	if host != "" {
		out.Hostname = &host
	}
	return e, out
}

// sliceNames are those that there are, in order.
func (c *simCluster) sliceNames() []model.Key {
	return slices.SortedFunc(maps.Keys(c.now().Slices), compareKeys)
}

func (c *simCluster) deleteSlice() string {
	names := c.sliceNames()
	if len(names) == 0 {
		return "nothing: there are no slices"
	}
	id := pick(c.rng, names)
	c.note(c.api.Delete("endpointslices", id.Namespace, id.Name), func(f *model.Cluster) { f.Slices = with(f.Slices, id, nil) })
	return fmt.Sprintf("no slice %v", id)
}

func (c *simCluster) setNamespace(name string, exists bool) string {
	change := func(f *model.Cluster) {
		f.Namespaces = maps.Clone(f.Namespaces)
		if f.Namespaces[name] = exists; !exists {
			delete(f.Namespaces, name)
		}
	}
	if exists {
		c.put("namespaces", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, change)
	} else {
		c.note(c.api.Delete("namespaces", "", name), change)
	}
	return fmt.Sprintf("namespace %s %v", name, exists)
}

// setRanges says which service network the cluster has.
func (c *simCluster) setRanges() string {
	texts := pick(c.rng, [][]string{{"10.0.0.0/20"}, {"10.0.0.0/20", "fd00:1::/32"}, {"10.0.0.96/29"}, {"10.0.0.96/29"}})
	var ranges []netip.Prefix
	for _, text := range texts {
		ranges = append(ranges, netip.MustParsePrefix(text))
	}
	o := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: texts}}
	c.put("servicecidrs", o, func(f *model.Cluster) { f.Ranges = ranges })
	return fmt.Sprintf("ranges %v", texts)
}

func (c *simCluster) setDrained(drained bool) string {
	value := "no"
	if drained {
		value = "true"
	}
	o := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"value": value}}}
	o.SetName("drain.clusterset-dns.io")
	c.put("clusterproperties", o, func(f *model.Cluster) { f.Drained = drained })
	return fmt.Sprintf("drained %v", drained)
}

// endpoints counts those of all exported services.
func (c *simCluster) endpoints() (n int) {
	now := c.now()
	for _, s := range now.Slices {
		if _, exported := now.Exports[s.Of]; !exported {
			continue
		}
		for _, e := range s.Endpoints {
			if a, ok := model.Address(e.Addresses[0]); ok && (a.Is4() && s.V4 || a.Is6() && s.V6) {
				n++
			}
		}
	}
	return n
}

// backup and restore are what an operator of etcd does.
func (c *simCluster) backup() {
	c.backups = append(c.backups, simBackup{c.api.Backup(), *c.now()})
}

func (c *simCluster) restore() bool {
	if len(c.backups) == 0 {
		return false
	}
	b := pick(c.rng, c.backups)
	c.note(c.api.Restore(b.image), func(f *model.Cluster) { *f = b.facts })
	return true
}

// serve installs the CRDs of the Multi-Cluster Services API or removes them.
func (c *simCluster) serve(served bool) {
	c.note(c.api.Serve("multicluster.x-k8s.io", served), func(f *model.Cluster) {
		if !served {
			f.Exports = map[model.Key]model.Export{}
		}
	})
	if !served {
		c.backups = nil // with CRDs
	}
}
