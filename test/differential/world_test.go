package differential

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
)

// The exporters. The servers belong to the first; the second has an id of two labels.
const (
	local  = "east"
	remote = "west.eu"
)

// service is one service of a world. Exactly one cluster exports it.
type service struct {
	namespace, name string
	cluster         string
	shape           shape
	ports           []port
	ips             []string // of the Service, once it is made
	slices          []slice
}

type port struct {
	name     string
	protocol corev1.Protocol
	number   int32 // of the Service
	target   int32 // of the endpoints
}

// slice is an EndpointSlice: at the exporter, and its copy at the importer.
type slice struct {
	name      string
	family    discoveryv1.AddressType
	ports     []port
	endpoints []endpoint
}

type endpoint struct {
	address  netip.Addr
	hostname string
	ready    *bool
}

func (e endpoint) isReady() bool { return e.ready == nil || *e.ready }

// label is the endpoint's part of its DNS name (KEP-1645 specification 2.1; what CoreDNS makes of an address).
func (e endpoint) label() string {
	if e.hostname != "" {
		return e.hostname
	}
	label := strings.NewReplacer(".", "-", ":", "-").Replace(e.address.String())
	if strings.HasSuffix(label, "-") {
		label += "0"
	}
	return label
}

// shape is a sort of service. Every round makes one of each, with details drawn by chance.
type shape struct {
	name            string
	headless        bool
	kind            corev1.ServiceType // "" is ClusterIP
	families        []discoveryv1.AddressType
	ports           portSort
	endpoints       endpointSort
	publishNotReady bool
	twoLabelID      bool
}

type portSort int

const (
	namedPorts    portSort = iota // one to three
	unnamedPort                   // one, without a name
	noPorts                       // none, which only a headless Service may have
	sameNumber                    // one number over TCP and UDP
	portsOfSlices                 // the second slice lacks a port that the first has
)

type endpointSort int

const (
	mixedEndpoints endpointSort = iota // with and without a hostname, most of them ready
	onlyHostnames
	onlyAddresses
	sharedHostnames // every hostname in each slice
	noneReady
	noEndpoints
)

const (
	v4 = discoveryv1.AddressTypeIPv4
	v6 = discoveryv1.AddressTypeIPv6
)

var shapes = []shape{
	{name: "plain", families: []discoveryv1.AddressType{v4}},
	{name: "unnamed", families: []discoveryv1.AddressType{v4}, ports: unnamedPort},
	{name: "six", families: []discoveryv1.AddressType{v6}},
	{name: "both", families: []discoveryv1.AddressType{v4, v6}},
	{name: "empty", families: []discoveryv1.AddressType{v4}, endpoints: noEndpoints},
	{name: "dns", families: []discoveryv1.AddressType{v4, v6}, ports: sameNumber},
	{name: "node-port", families: []discoveryv1.AddressType{v4}, kind: corev1.ServiceTypeNodePort},
	{name: "balancer", families: []discoveryv1.AddressType{v4}, kind: corev1.ServiceTypeLoadBalancer},
	{name: "far", families: []discoveryv1.AddressType{v4, v6}, twoLabelID: true},

	{name: "db", headless: true, families: []discoveryv1.AddressType{v4}, endpoints: onlyHostnames},
	{name: "nameless", headless: true, families: []discoveryv1.AddressType{v4}, endpoints: onlyAddresses},
	{name: "mixed", headless: true, families: []discoveryv1.AddressType{v4, v4}},
	{name: "db-six", headless: true, families: []discoveryv1.AddressType{v6}},
	{name: "db-both", headless: true, families: []discoveryv1.AddressType{v4, v6}, endpoints: sharedHostnames},
	{name: "db-partly", headless: true, families: []discoveryv1.AddressType{v4, v6}, endpoints: sharedHostnames, ports: portsOfSlices},
	{name: "down", headless: true, families: []discoveryv1.AddressType{v4}, endpoints: noneReady},
	{name: "vacant", headless: true, families: []discoveryv1.AddressType{v4}, endpoints: noEndpoints},
	{name: "portless", headless: true, families: []discoveryv1.AddressType{v4}, ports: noPorts},
	{name: "db-unnamed", headless: true, families: []discoveryv1.AddressType{v4}, ports: unnamedPort},
	{name: "db-dns", headless: true, families: []discoveryv1.AddressType{v4, v6}, ports: sameNumber},
	{name: "early", headless: true, families: []discoveryv1.AddressType{v4, v6}, publishNotReady: true},
	{name: "db-far", headless: true, families: []discoveryv1.AddressType{v4}, twoLabelID: true},
}

// world makes services by chance. The same seed makes the same ones.
type world struct {
	*rand.Rand
	services []*service
	made     int
	address  int // how many addresses have been given out
}

var namespaces = []string{"shop", "data", "a"}

// grow makes one service of each shape.
func (w *world) grow() []*service {
	var fresh []*service
	for _, sh := range shapes {
		w.made++
		s := &service{
			namespace: namespaces[w.IntN(len(namespaces))],
			name:      fmt.Sprintf("%s-%d", sh.name, w.made),
			cluster:   local,
			shape:     sh,
		}
		// In the other cluster endpoint names have one label more, which CoreDNS does not know.
		if sh.twoLabelID || !sh.headless && w.IntN(3) == 0 {
			s.cluster = remote
		}
		s.ports = w.somePorts(sh.ports)
		for i := range sh.families {
			s.slices = append(s.slices, slice{name: fmt.Sprintf("%s-s%d", s.name, i), family: sh.families[i]})
			w.fill(s, i)
		}
		fresh = append(fresh, s)
	}
	w.services = append(w.services, fresh...)
	return fresh
}

func (w *world) somePorts(sort portSort) []port {
	target := func() int32 { return 8000 + w.Int32N(1000) }
	switch sort {
	case noPorts:
		return nil
	case unnamedPort:
		return []port{{protocol: corev1.ProtocolTCP, number: 80, target: target()}}
	case sameNumber:
		return []port{
			{"dns-tcp", corev1.ProtocolTCP, 53, 5353},
			{"dns", corev1.ProtocolUDP, 53, 5353},
			{"metrics", corev1.ProtocolTCP, 9153, target()},
		}
	}
	all := []port{
		{"http", corev1.ProtocolTCP, 80, target()},
		{"media", corev1.ProtocolUDP, 5004, target()},
		{"signal", corev1.ProtocolSCTP, 2905, target()},
		{"a", corev1.ProtocolTCP, 1, target()},
	}
	w.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	if sort == portsOfSlices {
		return all[:2]
	}
	return all[:1+w.IntN(3)]
}

// fill gives the i-th slice of a service ports and endpoints.
func (w *world) fill(s *service, i int) {
	sl := &s.slices[i]
	sl.ports, sl.endpoints = slices.Clone(s.ports), nil
	if s.shape.ports == portsOfSlices && i > 0 {
		sl.ports = sl.ports[:1]
	}
	if s.shape.endpoints == noEndpoints {
		return
	}
	for n := range 1 + w.IntN(5) {
		e := endpoint{address: w.next(sl.family), ready: w.readiness(s.shape)}
		switch s.shape.endpoints {
		case onlyHostnames, sharedHostnames:
			e.hostname = fmt.Sprintf("db-%d", n)
		case mixedEndpoints:
			if w.IntN(2) == 0 {
				e.hostname = fmt.Sprintf("h%d-%d", i, n)
			}
		}
		sl.endpoints = append(sl.endpoints, e)
	}
	if s.shape.endpoints != noneReady {
		sl.endpoints[0].ready = nil // unknown counts as ready (discovery/v1)
	}
	if s.shape.publishNotReady {
		no := false
		sl.endpoints = append(sl.endpoints, endpoint{address: w.next(sl.family), hostname: fmt.Sprintf("late-%d", i), ready: &no})
	}
}

func (w *world) readiness(sh shape) *bool {
	ready := sh.endpoints != noneReady && w.IntN(4) > 0
	return &ready
}

// next gives out an address that no other endpoint has.
func (w *world) next(family discoveryv1.AddressType) netip.Addr {
	w.address++
	hi, lo := byte(w.address>>8), byte(w.address)
	if family == v4 {
		return netip.AddrFrom4([4]byte{10, 128, hi, lo})
	}
	bytes := [16]byte{0xfd, 0, 0xbe, 0xef}
	if w.IntN(3) == 0 {
		bytes[6], bytes[7] = hi, lo // as fd00:beef:0:123::, which ends in a colon
	} else {
		bytes[14], bytes[15] = hi, lo
	}
	return netip.AddrFrom16(bytes)
}

// hosts returns the addresses behind each host label of a headless service, ready ones only or all.
func (s *service) hosts(all bool) map[string][]netip.Addr {
	hosts := map[string][]netip.Addr{}
	for _, sl := range s.slices {
		for _, e := range sl.endpoints {
			if all || e.isReady() {
				hosts[e.label()] = append(hosts[e.label()], e.address)
			}
		}
	}
	return hosts
}

// labels returns every host label, of ready endpoints and of others, sorted.
func (s *service) labels() []string {
	var labels []string
	for label := range s.hosts(true) {
		labels = append(labels, label)
	}
	slices.Sort(labels)
	return labels
}

// shown are the hosts that the exporting cluster wants to be shown.
func (s *service) shown() map[string][]netip.Addr { return s.hosts(s.shape.publishNotReady) }

// hasProtocol tells whether something lies below the label _protocol.
func (s *service) hasProtocol(protocol string) bool {
	named := func(p port) bool { return p.name != "" && strings.EqualFold(string(p.protocol), protocol) }
	if !s.shape.headless {
		return slices.ContainsFunc(s.ports, named)
	}
	return slices.ContainsFunc(s.slices, func(sl slice) bool {
		shown := slices.ContainsFunc(sl.endpoints, func(e endpoint) bool { return e.isReady() || s.shape.publishNotReady })
		return shown && slices.ContainsFunc(sl.ports, named)
	})
}

// object is the Service of the exporter.
func (s *service) object() *corev1.Service {
	o := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: s.name},
		Spec: corev1.ServiceSpec{
			Type:                     s.shape.kind,
			PublishNotReadyAddresses: s.shape.publishNotReady,
		},
	}
	policy := corev1.IPFamilyPolicySingleStack
	for _, family := range []discoveryv1.AddressType{v4, v6} {
		if slices.Contains(s.shape.families, family) {
			o.Spec.IPFamilies = append(o.Spec.IPFamilies, corev1.IPFamily(family))
		}
	}
	if len(o.Spec.IPFamilies) == 2 {
		policy = corev1.IPFamilyPolicyRequireDualStack
	}
	o.Spec.IPFamilyPolicy = &policy
	if s.shape.headless {
		o.Spec.ClusterIP = corev1.ClusterIPNone
	}
	for _, p := range s.ports {
		o.Spec.Ports = append(o.Spec.Ports, corev1.ServicePort{Name: p.name, Protocol: p.protocol, Port: p.number})
	}
	return o
}

// exported is a slice as the exporter has it.
func (s *service) exported(i int) *discoveryv1.EndpointSlice {
	o := s.slices[i].object()
	o.Namespace, o.Name = s.namespace, s.slices[i].name
	o.Labels = map[string]string{
		discoveryv1.LabelServiceName: s.name,
		discoveryv1.LabelManagedBy:   "differential.test",
	}
	return o
}

// imported is its copy in the cluster that imports it. Some controllers label the copies for a Service of their own too.
func (s *service) imported(i int, derived bool) *discoveryv1.EndpointSlice {
	o := s.slices[i].object()
	o.Namespace, o.Name = s.namespace, s.slices[i].name+"-imported"
	o.Labels = map[string]string{
		mcsv1beta1.LabelServiceName:   s.name,
		mcsv1beta1.LabelSourceCluster: s.cluster,
		discoveryv1.LabelManagedBy:    "importer.test",
	}
	if derived {
		o.Labels[discoveryv1.LabelServiceName] = "derived-" + s.name
	}
	return o
}

func (sl slice) object() *discoveryv1.EndpointSlice {
	o := &discoveryv1.EndpointSlice{AddressType: sl.family}
	for _, p := range sl.ports {
		o.Ports = append(o.Ports, discoveryv1.EndpointPort{Name: &p.name, Protocol: &p.protocol, Port: &p.target})
	}
	for _, e := range sl.endpoints {
		out := discoveryv1.Endpoint{Addresses: []string{e.address.String()}, Conditions: discoveryv1.EndpointConditions{Ready: e.ready}}
		if e.hostname != "" {
			out.Hostname = &e.hostname
		}
		o.Endpoints = append(o.Endpoints, out)
	}
	return o
}

// serviceImport is the ServiceImport that a controller would make of it.
func (s *service) serviceImport() *mcsv1beta1.ServiceImport {
	o := &mcsv1beta1.ServiceImport{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: s.name}}
	o.Spec.Type = mcsv1beta1.ClusterSetIP
	if s.shape.headless {
		o.Spec.Type = mcsv1beta1.Headless
	}
	o.Spec.IPs = s.ips
	o.Spec.Ports = []mcsv1beta1.ServicePort{} // required, also when there are none
	for _, p := range s.ports {
		o.Spec.Ports = append(o.Spec.Ports, mcsv1beta1.ServicePort{Name: p.name, Protocol: p.protocol, Port: p.number})
	}
	o.Status.Clusters = []mcsv1beta1.ClusterStatus{{Cluster: s.cluster}}
	return o
}
