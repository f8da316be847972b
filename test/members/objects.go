package members

import (
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
)

// object is what an API server holds.
type object interface {
	metav1.Object
	runtime.Object
}

// resource is a kind of objects. Those of a member are numbered from 0 to count.
type resource struct {
	schema.GroupVersionKind
	plural string
	// protobuf tells whether it can be had in protobuf, which is so for what is no CRD.
	protobuf bool
	count    func(World) int
	// make makes an object, without its kind; nil where a member has none. It is given what has changed since the
	// beginning, which is the zero value for most.
	make func(m *Member, i int, c change) object
	// empty makes one that has nothing in it, for bookmarks.
	empty func() object
}

// change is what has happened to an object since the beginning.
type change struct {
	version uint64
	at      time.Time
	// address is that of its first endpoint.
	address netip.Addr
}

func services(w World) int { return w.Services }
func none(World) int       { return 0 }

var exports = resource{
	GroupVersionKind: mcsv1beta1.SchemeGroupVersion.WithKind("ServiceExport"), plural: "serviceexports",
	count: services, make: (*Member).export, empty: func() object { return &mcsv1beta1.ServiceExport{} },
}

var endpointSlices = resource{
	GroupVersionKind: discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), plural: "endpointslices", protobuf: true,
	count: services, make: (*Member).slice, empty: func() object { return &discoveryv1.EndpointSlice{} },
}

// resources are all that the members serve. Of ClusterProperties and ServiceCIDRs there are none.
var resources = []resource{
	exports,
	endpointSlices,
	{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Service"), plural: "services", protobuf: true,
		count: services, make: (*Member).service, empty: func() object { return &corev1.Service{} },
	},
	{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Namespace"), plural: "namespaces", protobuf: true,
		count: func(World) int { return Namespaces }, make: (*Member).namespace, empty: func() object { return &corev1.Namespace{} },
	},
	{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Node"), plural: "nodes", protobuf: true,
		count: func(World) int { return Nodes }, make: (*Member).node, empty: func() object { return &corev1.Node{} },
	},
	{
		GroupVersionKind: networkingv1.SchemeGroupVersion.WithKind("ServiceCIDR"), plural: "servicecidrs", protobuf: true,
		count: none, empty: func() object { return &networkingv1.ServiceCIDR{} },
	},
	{
		GroupVersionKind: schema.GroupVersionKind{Group: "about.k8s.io", Version: "v1beta1", Kind: "ClusterProperty"}, plural: "clusterproperties",
		count: none, empty: func() object { return &metav1.PartialObjectMetadata{} },
	},
}

// created is when everything was made.
var created = metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))

// managed is about what an API server sends along of who has written an object: as much as the rest.
func managed(manager string) []metav1.ManagedFieldsEntry {
	return []metav1.ManagedFieldsEntry{{
		Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", Time: &created, FieldsType: "FieldsV1",
		FieldsV1: metav1.NewFieldsV1(`{"f:addressType":{},"f:endpoints":{},"f:metadata":{"f:annotations":{".":{},` +
			`"f:endpoints.kubernetes.io/last-change-trigger-time":{}},"f:generateName":{},"f:labels":{".":{},` +
			`"f:endpointslice.kubernetes.io/managed-by":{},"f:kubernetes.io/service-name":{}},"f:ownerReferences":{".":{},` +
			`"k:{\"uid\":\"7d3a8e52-1111-4222-8333-000000000000\"}":{}}},"f:ports":{}}`),
	}}
}

// meta makes the metadata that all objects have. n tells objects of a member apart, whatever they are.
func (m *Member) meta(namespace, name string, n int, c change) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: namespace, Name: name, UID: uid(m.number, n, 0), CreationTimestamp: created, Generation: 1,
		ResourceVersion: fmt.Sprint(max(c.version, firstVersion)),
	}
}

func uid(a, b, c int) types.UID {
	return types.UID(fmt.Sprintf("7d3a8e52-%04x-4%03x-8%03x-%04x%08x", a&0xffff, b>>12&0xfff, b&0xfff, c&0xffff, a*31+b))
}

func (m *Member) serviceName(i int) (namespace, name string) {
	return m.world.Namespace(i), m.world.Name(m.number, i)
}

func (m *Member) export(i int, c change) object {
	namespace, name := m.serviceName(i)
	return &mcsv1beta1.ServiceExport{ObjectMeta: m.meta(namespace, name, 3*i, c)}
}

func (m *Member) service(i int, c change) object {
	namespace, name := m.serviceName(i)
	out := &corev1.Service{ObjectMeta: m.meta(namespace, name, 3*i+1, c)}
	out.ManagedFields = managed("kubectl")
	ip, single := corev1.ClusterIPNone, corev1.IPFamilyPolicySingleStack
	if !m.world.Headless(i) {
		ip = m.world.ClusterIP(m.number, i).String()
	}
	out.Spec = corev1.ServiceSpec{
		Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: []string{ip}, SessionAffinity: corev1.ServiceAffinityNone,
		IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, IPFamilyPolicy: &single, Selector: map[string]string{"app": name},
		Ports: []corev1.ServicePort{{Name: PortName, Protocol: corev1.ProtocolTCP, Port: port, TargetPort: intstr.FromInt32(targetPort)}},
	}
	return out
}

func (m *Member) slice(i int, c change) object {
	namespace, name := m.serviceName(i)
	out := &discoveryv1.EndpointSlice{ObjectMeta: m.meta(namespace, name+"-x7k2p", 3*i+2, c), AddressType: discoveryv1.AddressTypeIPv4}
	out.GenerateName = name + "-"
	out.Labels = map[string]string{discoveryv1.LabelServiceName: name, discoveryv1.LabelManagedBy: "endpointslice-controller.k8s.io"}
	yes := true
	out.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: "v1", Kind: "Service", Name: name, UID: uid(m.number, 3*i+1, 0), Controller: &yes, BlockOwnerDeletion: &yes,
	}}
	out.ManagedFields = managed("kube-controller-manager")
	if !c.at.IsZero() {
		out.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: c.at.Format(time.RFC3339Nano)}
	}
	portName, number, protocol := PortName, int32(targetPort), corev1.ProtocolTCP
	out.Ports = []discoveryv1.EndpointPort{{Name: &portName, Port: &number, Protocol: &protocol}}
	out.Endpoints = make([]discoveryv1.Endpoint, m.world.Endpoints)
	for e := range out.Endpoints {
		address := m.world.Address(m.number, i, e)
		if e == 0 && c.address.IsValid() {
			address = c.address
		}
		out.Endpoints[e] = m.endpoint(i, e, address, namespace, name)
	}
	return out
}

func (m *Member) endpoint(i, e int, address netip.Addr, namespace, name string) discoveryv1.Endpoint {
	yes, no := true, false
	node := i*m.world.Endpoints + e
	nodeName, zone := m.nodeName(node%Nodes), zone(node%Nodes)
	return discoveryv1.Endpoint{
		Addresses:  []string{address.String()},
		Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes, Terminating: &no},
		NodeName:   &nodeName, Zone: &zone,
		TargetRef: &corev1.ObjectReference{
			Kind: "Pod", Namespace: namespace, Name: fmt.Sprintf("%s-6b7d9c5f8d-%05d", name, e), UID: uid(m.number, i, e+1),
		},
	}
}

func (m *Member) namespace(i int, c change) object {
	return &corev1.Namespace{ObjectMeta: m.meta("", m.world.Namespace(i), 1<<20+i, c)}
}

func (m *Member) nodeName(i int) string {
	return fmt.Sprintf("%s-node%d", m.world.Cluster(m.number), i)
}

func zone(node int) string { return fmt.Sprintf("eu-%c", 'a'+node%3) }

func (m *Member) node(i int, c change) object {
	out := &corev1.Node{ObjectMeta: m.meta("", m.nodeName(i), 1<<21+i, c)}
	out.Labels = map[string]string{corev1.LabelTopologyRegion: "eu", corev1.LabelTopologyZone: zone(i), corev1.LabelHostname: out.Name}
	out.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: within([4]byte{192, 168}, m.number*Nodes+i).String()}}
	return out
}
