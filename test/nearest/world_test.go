package nearest

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// world knows the addresses that a name may be answered with, and which cluster each belongs to. An answer with anything
// else fails the whole run.
type world struct {
	answers, addresses atomic.Int64

	mu      sync.Mutex // guards what follows
	owners  map[string]map[netip.Addr]string
	strange []string
}

var everything = world{owners: map[string]map[netip.Addr]string{}}

// add says that a cluster serves a name at some addresses.
func (w *world) add(name string, c cluster, addresses ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.owners[name] == nil {
		w.owners[name] = map[netip.Addr]string{}
	}
	for _, a := range addresses {
		w.owners[name][netip.MustParseAddr(a)] = c.Name()
	}
}

// who returns the clusters that addresses belong to, in alphabetical order, each once.
func (w *world) who(name string, addresses []netip.Addr) ([]string, error) {
	w.answers.Add(1)
	w.addresses.Add(int64(len(addresses)))
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for _, a := range addresses {
		owner, ok := w.owners[name][a]
		if !ok {
			err := fmt.Errorf("%s is answered with %s, which does not exist", name, a)
			w.strange = append(w.strange, err.Error())
			return nil, err
		}
		names = append(names, owner)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (w *world) err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.strange) == 0 {
		return nil
	}
	return errors.New(strings.Join(w.strange[:min(10, len(w.strange))], "\n"))
}

// name is the name of a service.
func name(service string) string { return service + "." + namespace + ".svc." + zone }

// endpoint is a pod: its address or, separated by a space, its addresses.
type endpoint struct{ addresses, hostname, zone string }

// service is a Service with one TCP port, 80, here and in its pods.
type service struct {
	name             string
	headless, sticky bool
	families         []corev1.IPFamily // IPv4 unless said otherwise
	distribution     string
	endpoints        []endpoint
	// elsewhere is true when its cluster IPs are not what is answered.
	elsewhere bool
}

// pods returns endpoints with consecutive addresses from first on.
func pods(n int, first string) []endpoint {
	out := make([]endpoint, n)
	a := netip.MustParseAddr(first)
	for i := range out {
		out[i].addresses = a.String()
		a = a.Next()
	}
	return out
}

// offer is a service that a cluster exports.
type offer struct {
	service
	in     cluster
	object *corev1.Service
	ready  int // the first so many endpoints are ready
}

// offers makes a service with all endpoints ready, and exports it.
func (c cluster) offers(t *testing.T, s service) *offer {
	t.Helper()
	o := &offer{service: s, in: c, ready: len(s.endpoints)}
	for _, slice := range o.slices() {
		must(t, c.Slice(t.Context(), slice))
	}
	object := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: s.name},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(80)}}},
	}
	policy := corev1.IPFamilyPolicySingleStack
	switch len(s.families) {
	case 0:
		object.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
	case 2:
		policy = corev1.IPFamilyPolicyRequireDualStack
		fallthrough
	default:
		object.Spec.IPFamilies = s.families
	}
	object.Spec.IPFamilyPolicy = &policy
	if s.headless {
		object.Spec.ClusterIP = corev1.ClusterIPNone
	}
	if s.sticky {
		object.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	}
	if s.distribution != "" {
		object.Spec.TrafficDistribution = &s.distribution
	}
	made, err := c.Service(t.Context(), object)
	must(t, err)
	o.object = made
	if s.headless {
		for _, e := range s.endpoints {
			everything.add(name(s.name), c, strings.Fields(e.addresses)...)
		}
	} else if !s.elsewhere {
		everything.add(name(s.name), c, made.Spec.ClusterIPs...)
	}
	must(t, c.Export(t.Context(), namespace, s.name))
	return o
}

// slices returns the EndpointSlices, one for each address family.
func (o *offer) slices() []*discoveryv1.EndpointSlice {
	port, portName, protocol := int32(80), "http", corev1.ProtocolTCP
	families := map[bool]*discoveryv1.EndpointSlice{}
	var out []*discoveryv1.EndpointSlice
	for i, e := range o.endpoints {
		for address := range strings.FieldsSeq(e.addresses) {
			is4 := netip.MustParseAddr(address).Is4()
			of, kind := families[is4], discoveryv1.AddressTypeIPv6
			if is4 {
				kind = discoveryv1.AddressTypeIPv4
			}
			if of == nil {
				of = &discoveryv1.EndpointSlice{
					ObjectMeta: metav1.ObjectMeta{
						Namespace: namespace, Name: o.name + "-" + strings.ToLower(string(kind)),
						Labels: map[string]string{discoveryv1.LabelServiceName: o.name},
					},
					AddressType: kind,
					Ports:       []discoveryv1.EndpointPort{{Name: &portName, Port: &port, Protocol: &protocol}},
				}
				families[is4], out = of, append(out, of)
			}
			ready := i < o.ready
			made := discoveryv1.Endpoint{Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}
			if e.hostname != "" {
				made.Hostname = &e.hostname
			}
			if e.zone != "" {
				made.Zone = &e.zone
			}
			of.Endpoints = append(of.Endpoints, made)
		}
	}
	return out
}

// setReady makes the first n endpoints ready and the others not.
func (o *offer) setReady(t *testing.T, n int) {
	t.Helper()
	if n == o.ready {
		return
	}
	o.ready = n
	for _, slice := range o.slices() {
		must(t, o.in.UpdateSlice(t.Context(), slice))
	}
}

// settleExports waits until a server has seen every ServiceExport that was written to the clusters so far.
func settleExports(t *testing.T, s *server.Server, in ...cluster) {
	t.Helper()
	for _, c := range in {
		of := "export-marker-" + c.Name()
		want := c.Name()
		switch exported, known := exportMarkers[of]; {
		case !known:
			c.offers(t, service{name: of, headless: true, endpoints: pods(1, "10.201.0.0")})
		case exported:
			must(t, c.Unexport(t.Context(), namespace, of))
			want = ""
		default:
			must(t, c.Export(t.Context(), namespace, of))
		}
		exportMarkers[of] = want != ""
		one := dial(t, s, "DNS", east.at(0))
		within(t, limit, "what was exported in "+c.Name()+" is seen", func() error {
			r, err := one.ask(name(of), typeA)
			if err == nil && r.from() != want {
				err = fmt.Errorf("%v", r.addrs)
			}
			return err
		})
		one.close()
	}
}

// exportMarkers are services that tell when a server has seen all ServiceExports; whether they are exported now.
var exportMarkers = map[string]bool{}

// marker is a service that tells when a server has seen all EndpointSlices that were written before it.
type marker struct {
	*offer
	count byte
}

var markers = map[string]*marker{}

// settle waits until a server has seen every EndpointSlice that was written to the clusters so far: a watch tells of
// changes in their order.
func settle(t *testing.T, s *server.Server, in ...cluster) {
	t.Helper()
	for _, c := range in {
		of := "marker-" + c.Name()
		m := markers[of]
		if m == nil {
			m = &marker{offer: c.offers(t, service{name: of, headless: true, endpoints: pods(1, "10.200.0.0")})}
			markers[of] = m
		}
		m.count++
		address := fmt.Sprintf("10.200.0.%d", m.count)
		everything.add(name(of), c, address)
		m.endpoints = []endpoint{{addresses: address}}
		for _, slice := range m.slices() {
			must(t, c.UpdateSlice(t.Context(), slice))
		}
		one := dial(t, s, "DNS", east.at(0))
		within(t, limit, "what was written to "+c.Name()+" is seen", func() error {
			r, err := one.ask(name(of), typeA)
			if err == nil && (len(r.addrs) != 1 || r.addrs[0].String() != address) {
				err = fmt.Errorf("%v, want %s", r.addrs, address)
			}
			return err
		})
		one.close()
	}
}
