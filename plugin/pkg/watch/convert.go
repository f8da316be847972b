package watch

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unique"

	"github.com/cespare/xxhash/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	mcsv1alpha1 "sigs.k8s.io/mcs-api/pkg/apis/v1alpha1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// Rejection says why something that an API server sent was left out. A closed set, used as metric label.
type Rejection string

// The reasons for leaving something out.
const (
	BadAddress     Rejection = "address"        // no address, of the wrong family, or one that must not leave its host
	BadAddressType Rejection = "address_type"   // an EndpointSlice that holds no IP addresses
	BadHostname    Rejection = "hostname"       // no DNS label: the endpoint is named by its address instead
	BadPort        Rejection = "port"           // no valid number, name or protocol
	BadName        Rejection = "name"           // a namespace or name that cannot stand in a DNS name
	BadSource      Rejection = "source_cluster" // an imported EndpointSlice without a valid source cluster
	BadType        Rejection = "type"           // a ServiceImport of unknown type
	BadWeight      Rejection = "weight"         // a weight-percent that is no whole number from 0 to 100: 100 instead
	TooMany        Rejection = "too_many"       // one service or EndpointSlice more than a cluster may have
)

// Rejections returns every reason.
func Rejections() []Rejection {
	return []Rejection{BadAddress, BadAddressType, BadHostname, BadPort, BadName, BadSource, BadType, BadWeight, TooMany}
}

// Labels and annotations that we read.
const (
	labelServiceName   = "kubernetes.io/service-name"
	labelImportName    = "multicluster.kubernetes.io/service-name"
	labelSourceCluster = "multicluster.kubernetes.io/source-cluster"
	annotationChanged  = "endpoints.kubernetes.io/last-change-trigger-time"
	annotationWeight   = "clusterset-dns.io/weight-percent"
)

// converter turns API objects into facts. What it leaves out goes to reject.
type converter struct {
	reject func(Rejection)
	// ports are nil where nothing that is converted is kept. Their user holds a lock.
	ports *portLists
}

// portLists are some of the lists of ports that were converted last: thousands of Services and EndpointSlices have one of a few.
type portLists struct {
	known [16][]mcs.Port
	next  int
}

// share returns an equal list that is kept already, or this one.
func (l *portLists) share(ports []mcs.Port) []mcs.Port {
	if l == nil || len(ports) == 0 {
		return ports
	}
	for _, known := range l.known {
		if slices.Equal(known, ports) {
			return known
		}
	}
	l.known[l.next] = slices.Clip(ports)
	l.next = (l.next + 1) % len(l.known)
	return ports
}

// key checks that a namespace and a name can stand in a DNS name.
func (c converter) key(namespace, name string) (mcs.ServiceKey, bool) {
	if !topology.IsLabel(namespace) || !topology.IsLabel(name) {
		c.reject(BadName)
		return mcs.ServiceKey{}, false
	}
	return mcs.ServiceKey{Namespace: namespace, Name: name}, true
}

// export accepts both versions of ServiceExport, whose schemas are the same, and the metadata of one.
func (c converter) export(obj any) (mcs.ServiceKey, mcs.Export, bool) {
	var meta *metav1.ObjectMeta
	var labels, annotations map[string]string
	switch o := obj.(type) {
	case *mcsv1beta1.ServiceExport:
		meta, labels, annotations = &o.ObjectMeta, o.Spec.ExportedLabels, o.Spec.ExportedAnnotations
	case *mcsv1alpha1.ServiceExport:
		meta, labels, annotations = &o.ObjectMeta, o.Spec.ExportedLabels, o.Spec.ExportedAnnotations
	case *metav1.PartialObjectMetadata: // of one that has nothing else
		meta = &o.ObjectMeta
	default:
		return mcs.ServiceKey{}, mcs.Export{}, false
	}
	key, ok := c.key(meta.Namespace, meta.Name)
	return key, mcs.Export{
		Created:       meta.CreationTimestamp.Unix(),
		WeightPercent: c.weightPercent(meta.Annotations),
		Labels:        mcs.Digest(labels),
		Annotations:   mcs.Digest(annotations),
	}, ok
}

// weightPercent reads how much of its weight a member wants for a service. It can lower the own share, never raise it.
func (c converter) weightPercent(annotations map[string]string) uint8 {
	text, ok := annotations[annotationWeight]
	if !ok {
		return 100
	}
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil || n > 100 {
		c.reject(BadWeight)
		return 100
	}
	return uint8(n)
}

func (c converter) service(s *corev1.Service) *mcs.ServiceSpec {
	out := &mcs.ServiceSpec{
		ExternalName:    s.Spec.Type == corev1.ServiceTypeExternalName,
		PublishNotReady: s.Spec.PublishNotReadyAddresses,
	}
	out.Traits = traits(s.Spec.SessionAffinity, s.Spec.SessionAffinityConfig, s.Spec.InternalTrafficPolicy, s.Spec.TrafficDistribution, s.Spec.IPFamilies)
	if s.Spec.ClusterIP == corev1.ClusterIPNone || len(s.Spec.ClusterIPs) > 0 && s.Spec.ClusterIPs[0] == corev1.ClusterIPNone {
		out.Type = mcs.Headless
	}
	out.ClusterIPs = c.addresses(clusterIPs(s))
	out.LoadBalancer = c.loadBalancer(s.Status.LoadBalancer.Ingress)
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if port, ok := c.port(p.Name, p.Protocol, p.Port); ok {
			out.Ports = append(out.Ports, port)
		}
	}
	out.Ports = c.ports.share(out.Ports)
	return out
}

// loadBalancer returns nil when nothing is left.
func (c converter) loadBalancer(ingress []corev1.LoadBalancerIngress) *mcs.LoadBalancer {
	var out mcs.LoadBalancer
	for i := range ingress {
		switch {
		case ingress[i].IP != "":
			if a, ok := c.address(ingress[i].IP); ok {
				out.Addrs = append(out.Addrs, a)
			}
		case ingress[i].Hostname != "":
			if host, ok := c.host(ingress[i].Hostname); ok {
				out.Hosts = append(out.Hosts, host)
			}
		}
	}
	if len(out.Addrs)+len(out.Hosts) == 0 {
		return nil
	}
	slices.SortFunc(out.Addrs, netip.Addr.Compare)
	slices.Sort(out.Hosts)
	out.Hosts = slices.Compact(out.Hosts)
	return &out
}

// clusterIPs returns the addresses of a Service as they are written; none for a headless one.
func clusterIPs(s *corev1.Service) []string {
	ips := s.Spec.ClusterIPs
	if len(ips) == 0 && s.Spec.ClusterIP != "" {
		ips = []string{s.Spec.ClusterIP}
	}
	if len(ips) > 0 && ips[0] == corev1.ClusterIPNone {
		return nil
	}
	return ips
}

// serviceImport accepts both versions of ServiceImport.
func (c converter) serviceImport(obj any) (mcs.ServiceKey, mcs.Import, bool) {
	var o *mcsv1beta1.ServiceImport
	switch v := obj.(type) {
	case *mcsv1beta1.ServiceImport:
		o = v
	case *mcsv1alpha1.ServiceImport:
		o = fromV1alpha1(v)
	default:
		return mcs.ServiceKey{}, mcs.Import{}, false
	}
	key, ok := c.key(o.Namespace, o.Name)
	if !ok {
		return key, mcs.Import{}, false
	}
	out := mcs.Import{NoSlices: o.Status.EndpointSliceObjects == mcsv1beta1.EndpointSliceObjectsAbsent}
	out.Traits = traits(o.Spec.SessionAffinity, o.Spec.SessionAffinityConfig, o.Spec.InternalTrafficPolicy, o.Spec.TrafficDistribution, o.Spec.IPFamilies)
	switch o.Spec.Type {
	case mcsv1beta1.Headless:
		out.Type = mcs.Headless
	case mcsv1beta1.ClusterSetIP:
		out.IPs = c.addresses(o.Spec.IPs)
	default:
		c.reject(BadType)
		return key, mcs.Import{}, false
	}
	for i := range o.Spec.Ports {
		p := &o.Spec.Ports[i]
		if port, ok := c.port(p.Name, p.Protocol, p.Port); ok {
			out.Ports = append(out.Ports, port)
		}
	}
	return key, out, true
}

// fromV1alpha1 copies the fields that are read; the two schemas are the same.
func fromV1alpha1(v *mcsv1alpha1.ServiceImport) *mcsv1beta1.ServiceImport {
	o := &mcsv1beta1.ServiceImport{ObjectMeta: v.ObjectMeta}
	o.Spec.Type = mcsv1beta1.ServiceImportType(v.Spec.Type)
	o.Spec.IPs, o.Spec.IPFamilies = v.Spec.IPs, v.Spec.IPFamilies
	o.Spec.SessionAffinity, o.Spec.SessionAffinityConfig = v.Spec.SessionAffinity, v.Spec.SessionAffinityConfig
	o.Spec.InternalTrafficPolicy, o.Spec.TrafficDistribution = v.Spec.InternalTrafficPolicy, v.Spec.TrafficDistribution
	o.Status.EndpointSliceObjects = mcsv1beta1.EndpointSliceObjectsStatus(v.Status.EndpointSliceObjects)
	for i := range v.Spec.Ports {
		p := &v.Spec.Ports[i]
		o.Spec.Ports = append(o.Spec.Ports, mcsv1beta1.ServicePort{Name: p.Name, Protocol: p.Protocol, Port: p.Port})
	}
	return o
}

// slice converts an EndpointSlice; nil when it holds no IP addresses.
func (c converter) slice(s *discoveryv1.EndpointSlice) *mcs.Slice {
	var fits func(netip.Addr) bool
	switch s.AddressType {
	case discoveryv1.AddressTypeIPv4:
		fits = netip.Addr.Is4
	case discoveryv1.AddressTypeIPv6:
		fits = netip.Addr.Is6
	default:
		c.reject(BadAddressType)
		return nil
	}
	out := &mcs.Slice{Name: s.Name}
	for i := range s.Ports {
		p := &s.Ports[i]
		if p.Port == nil {
			continue // "all ports" (discovery/v1): no number to answer with
		}
		if port, ok := c.port(value(p.Name), value(p.Protocol), *p.Port); ok {
			out.Ports = append(out.Ports, port)
		}
	}
	out.Ports = c.ports.share(out.Ports)
	out.Endpoints.Grow(len(s.Endpoints))
	for i := range s.Endpoints {
		c.endpoint(&out.Endpoints, &s.Endpoints[i], fits)
	}
	out.Endpoints.Clip()
	return out
}

// endpoint appends one Endpoint per address.
func (c converter) endpoint(to *mcs.Endpoints, e *discoveryv1.Endpoint, fits func(netip.Addr) bool) {
	out := mcs.Endpoint{Node: value(e.NodeName), Zone: value(e.Zone), Conditions: conditions(e.Conditions)}
	if e.TargetRef != nil {
		out.ID = targetID(string(e.TargetRef.UID))
	}
	hostname := strings.ToLower(value(e.Hostname))
	if hostname != "" && !topology.IsLabel(hostname) {
		c.reject(BadHostname)
		hostname = ""
	}
	for _, text := range e.Addresses {
		addr, ok := c.address(text)
		if !ok {
			continue
		}
		if !fits(addr) {
			c.reject(BadAddress)
			continue
		}
		out.Addr, out.Label = addr, hostname
		to.Add(&out)
	}
}

// targetID returns the ID of an endpoint whose target has that UID.
func targetID(uid string) uint64 {
	if uid == "" {
		return 0
	}
	return max(1, xxhash.Sum64String(uid))
}

// conditions resolves what is unset as the API documents it.
func conditions(in discoveryv1.EndpointConditions) mcs.Conditions {
	var out mcs.Conditions
	if in.Ready == nil || *in.Ready {
		out |= mcs.Ready
	}
	if in.Serving == nil || *in.Serving {
		out |= mcs.Serving
	}
	if in.Terminating != nil && *in.Terminating {
		out |= mcs.Terminating
	}
	return out
}

func (c converter) addresses(texts []string) mcs.Addresses {
	var out mcs.Addresses
	n := 0
	for _, text := range texts {
		if a, ok := c.address(text); ok && n < len(out) {
			out[n] = a
			n++
		}
	}
	return out
}

// address parses and guards: an address that means something else on every host must not come from another cluster, in
// whatever notation.
func (c converter) address(text string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" || a.Is4In6() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() ||
		a.IsLinkLocalUnicast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		c.reject(BadAddress)
		return netip.Addr{}, false
	}
	return a, true
}

// maxHost is the longest name in DNS, in text without the last dot (RFC 1035 section 2.3.4).
const maxHost = 253

// host checks a load balancer's host name: at least two labels, so that it can never be completed by a search path.
func (c converter) host(text string) (string, bool) {
	host := strings.TrimSuffix(strings.ToLower(text), ".")
	labels := strings.Split(host, ".")
	for _, label := range labels {
		if !topology.IsLabel(label) {
			labels = nil
			break
		}
	}
	if len(host) > maxHost || len(labels) < 2 {
		c.reject(BadHostname)
		return "", false
	}
	return intern(host), true
}

func (c converter) port(name string, protocol corev1.Protocol, number int32) (mcs.Port, bool) {
	p := mcs.Port{Name: intern(strings.ToLower(name)), Number: uint16(number)}
	switch protocol {
	case corev1.ProtocolTCP, "":
		p.Protocol = mcs.TCP
	case corev1.ProtocolUDP:
		p.Protocol = mcs.UDP
	case corev1.ProtocolSCTP:
		p.Protocol = mcs.SCTP
	default:
		c.reject(BadPort)
		return mcs.Port{}, false
	}
	if number < 1 || number > 65535 || p.Name != "" && !topology.IsLabel(p.Name) {
		c.reject(BadPort)
		return mcs.Port{}, false
	}
	return p, true
}

func traits(affinity corev1.ServiceAffinity, config *corev1.SessionAffinityConfig, internal *corev1.ServiceInternalTrafficPolicy,
	distribution *string, families []corev1.IPFamily) mcs.Traits {
	t := mcs.Traits{
		ClientIPAffinity:      affinity == corev1.ServiceAffinityClientIP,
		InternalTrafficPolicy: intern(string(value(internal))),
		TrafficDistribution:   intern(value(distribution)),
		IPv4:                  slices.Contains(families, corev1.IPv4Protocol),
		IPv6:                  slices.Contains(families, corev1.IPv6Protocol),
	}
	if config != nil && config.ClientIP != nil {
		t.AffinitySeconds = value(config.ClientIP.TimeoutSeconds)
	}
	return t
}

// changedAt returns when the cluster says that the endpoints changed, the zero time when it does not.
func changedAt(s *discoveryv1.EndpointSlice) time.Time {
	text := s.Annotations[annotationChanged]
	if text == "" {
		return time.Time{} // as most that did not change lately: no error is made of it
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}
	}
	return t
}

// version reads a resourceVersion, which API servers since v1.35 promise to be a comparable number; 0 when it is none.
func version(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// intern keeps one copy of the few strings that thousands of endpoints repeat.
func intern(s string) string {
	if s == "" {
		return ""
	}
	return unique.Make(s).Value()
}

func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// item is an object on its way from the API server into a feed: its identity and the fact, if there is one to keep. It
// takes the place of the API object in client-go's temporary store, so that the API object can be freed at once.
type item struct {
	namespace, name string
	version         uint64
	// key is the service to which the object belongs.
	key  mcs.ServiceKey
	fact any
	// doubtful tells that something of the object was left out.
	doubtful bool
}

// identify makes an item of an API object's metadata: also of an object that does not belong here, since an API server
// can send anything. An item stays as it is.
func identify(obj any) *item {
	if it, ok := obj.(*item); ok {
		return it
	}
	m, ok := obj.(metav1.Object)
	if !ok {
		return &item{}
	}
	return &item{namespace: m.GetNamespace(), name: m.GetName(), version: version(m.GetResourceVersion())}
}

// id is the identity of an object within its resource.
func (i *item) id() mcs.ServiceKey { return mcs.ServiceKey{Namespace: i.namespace, Name: i.name} }
