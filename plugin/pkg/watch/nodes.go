package watch

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// Node is what is kept of a Node of the local cluster. It must not be changed.
type Node struct {
	Region, Zone string
	// Addresses are those that packets of the node itself can have: its own, and those of overlay interfaces as far as
	// annotations tell them. Sorted.
	Addresses []netip.Addr
	// PodCIDRs are the ranges of its pods as Kubernetes assigned them; not every CNI plugin uses them. Sorted.
	PodCIDRs []netip.Prefix
}

// Equal reports whether two Nodes say the same.
func (n *Node) Equal(o *Node) bool {
	return n.Region == o.Region && n.Zone == o.Zone &&
		slices.Equal(n.Addresses, o.Addresses) && slices.Equal(n.PodCIDRs, o.PodCIDRs)
}

// Place is an address of an endpoint and where its EndpointSlice says that it is. Node or Zone may be "". Comparable.
type Place struct {
	Addr       netip.Addr
	Node, Zone string
	Ready      bool
}

// PlaceSink receives what a source of kind Nodes says, in order. Calls never overlap. It must return at once and must
// not call back into the Watcher.
type PlaceSink interface {
	// ApplyNode replaces what is known of a Node; nil means that it is gone.
	ApplyNode(name string, n *Node)
	// ApplyPlaces replaces what an EndpointSlice (namespace, name) says; nil means nothing any more. The places must not
	// be changed.
	ApplyPlaces(slice mcs.ServiceKey, places []Place)
	// SetNodesListed says that every Node has been told.
	SetNodesListed()
	// SetPlacesListed says that every EndpointSlice has been told.
	SetPlacesListed()
}

// addressAnnotations hold addresses of a node's overlay interfaces, which its own processes use towards pods of other
// nodes: Calico's of IP-in-IP, VXLAN and WireGuard, and Cilium's host interface under its present and its old name.
// Flannel's is the first address of the node's pod range.
var addressAnnotations = []string{
	"projectcalico.org/IPv4IPIPTunnelAddr",
	"projectcalico.org/IPv4VXLANTunnelAddr",
	"projectcalico.org/IPv6VXLANTunnelAddr",
	"projectcalico.org/IPv4WireguardInterfaceAddr",
	"projectcalico.org/IPv6WireguardInterfaceAddr",
	"network.cilium.io/ipv4-cilium-host",
	"network.cilium.io/ipv6-cilium-host",
	"io.cilium.network.ipv4-cilium-host",
	"io.cilium.network.ipv6-cilium-host",
}

// ownSlices selects EndpointSlices about this cluster: MCS implementations and meshes put copies of other clusters'
// slices beside them, whose node names mean nothing here.
const ownSlices = "!" + labelSourceCluster + ",!" + labelImportName

// nodeFeed reads the Nodes of the local cluster, and from its EndpointSlices which address is on which node.
type nodeFeed struct {
	w       *Watcher
	clients clients
	convert converter
	// nodesListed is set when every Node has been told.
	nodesListed atomic.Bool
	endpoints   atomic.Int64

	mu           sync.Mutex // guards what follows; held while the sink is called
	sink         PlaceSink
	nodes        map[string]*Node
	places       map[mcs.ServiceKey][]Place
	placesListed bool
}

func newNodeFeed(w *Watcher, c clients) *nodeFeed {
	return &nodeFeed{
		w: w, clients: c, sink: w.spec.Places,
		convert: converter{reject: func(r Rejection) { w.spec.Observer.Reject(w.spec.Name(), r) }},
		nodes:   map[string]*Node{}, places: map[mcs.ServiceKey][]Place{},
	}
}

// connect makes one stage of both: where one of them must not be read, the other goes on.
func (f *nodeFeed) connect(context.Context) ([]stage, error) {
	nodes := &store{
		w: f.w, resource: "nodes", complete: make(chan struct{}), begin: func() {},
		set: f.setNode, remove: f.removeNode, replace: f.replaceNodes, compact: f.compactNode,
	}
	endpointSlices := &store{
		w: f.w, resource: "endpointslices", complete: make(chan struct{}), begin: func() {},
		set: f.setSlice, remove: f.removeSlice, replace: f.replaceSlices, compact: f.compactSlice,
	}
	all := &listing{client: f.clients.core.CoreV1().RESTClient(), plural: "nodes", objects: newObjects[corev1.Node]}
	own := func(o *metav1.ListOptions) { o.LabelSelector = ownSlices }
	return []stage{{all.resource(nodes), f.clients.endpointSlices(own).resource(endpointSlices)}}, nil
}

func (f *nodeFeed) ask(ctx context.Context) error {
	_, err := f.clients.core.CoreV1().Nodes().List(ctx,
		metav1.ListOptions{ResourceVersion: "0", Limit: 1, FieldSelector: "metadata.name=-"})
	return err
}

func (f *nodeFeed) synced() bool { return f.nodesListed.Load() }

func (f *nodeFeed) size() (services, endpoints int) { return 0, int(f.endpoints.Load()) }

// clear has nothing to do: every API server has Nodes and EndpointSlices.
func (f *nodeFeed) clear() {}

// restore has nothing to do: places of a while ago are no better than none.
func (f *nodeFeed) restore(mcs.Facts, bool) {}
func (f *nodeFeed) wasRestored() bool       { return false }

// subscribe has nothing to do, nor unsubscribe: what is told goes to Spec.Places.
func (f *nodeFeed) subscribe(Sink)   {}
func (f *nodeFeed) unsubscribe(Sink) {}

func (f *nodeFeed) tick(time.Time) {}

// Nodes.

// compactNode makes an item whose fact is a *Node.
func (f *nodeFeed) compactNode(obj any) any {
	n, ok := obj.(*corev1.Node)
	if !ok {
		return identify(obj) // an item already, or nothing that belongs here
	}
	out := identify(n)
	out.fact = f.convert.node(n)
	return out
}

func (f *nodeFeed) setNode(obj any) {
	it := f.compactNode(obj).(*item)
	f.mu.Lock()
	defer f.mu.Unlock()
	n, _ := it.fact.(*Node)
	f.tellNode(it.name, n)
}

func (f *nodeFeed) removeNode(obj any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tellNode(identify(obj).name, nil)
}

func (f *nodeFeed) replaceNodes(items []any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	there := make(map[string]*Node, len(items))
	for _, obj := range items {
		it := obj.(*item)
		if n, ok := it.fact.(*Node); ok {
			there[it.name] = n
		}
	}
	for name := range f.nodes {
		if there[name] == nil {
			f.tellNode(name, nil)
		}
	}
	for name, n := range there {
		f.tellNode(name, n)
	}
	if !f.nodesListed.Swap(true) {
		f.sink.SetNodesListed()
	}
}

// tellNode passes on what is news: most updates of a Node are its kubelet's reports.
func (f *nodeFeed) tellNode(name string, n *Node) {
	old := f.nodes[name]
	switch {
	case n == nil && old == nil, n != nil && old != nil && n.Equal(old):
		return
	case n == nil:
		delete(f.nodes, name)
	default:
		f.nodes[name] = n
	}
	f.sink.ApplyNode(name, n)
}

// EndpointSlices.

// compactSlice makes an item whose fact is a []Place.
func (f *nodeFeed) compactSlice(obj any) any {
	s, ok := obj.(*discoveryv1.EndpointSlice)
	if !ok {
		return identify(obj)
	}
	out := identify(s)
	out.fact = f.convert.places(s)
	return out
}

func (f *nodeFeed) setSlice(obj any) {
	it := f.compactSlice(obj).(*item)
	f.mu.Lock()
	defer f.mu.Unlock()
	places, _ := it.fact.([]Place)
	f.tellPlaces(it.id(), places)
}

func (f *nodeFeed) removeSlice(obj any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tellPlaces(identify(obj).id(), nil)
}

func (f *nodeFeed) replaceSlices(items []any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	there := make(map[mcs.ServiceKey][]Place, len(items))
	for _, obj := range items {
		it := obj.(*item)
		there[it.id()], _ = it.fact.([]Place)
	}
	for key := range f.places {
		if len(there[key]) == 0 {
			f.tellPlaces(key, nil)
		}
	}
	for key, places := range there {
		f.tellPlaces(key, places)
	}
	if !f.placesListed {
		f.placesListed = true
		f.sink.SetPlacesListed()
	}
}

func (f *nodeFeed) tellPlaces(key mcs.ServiceKey, places []Place) {
	old := f.places[key]
	if slices.Equal(old, places) {
		return
	}
	f.endpoints.Add(int64(len(places) - len(old)))
	if len(places) == 0 {
		delete(f.places, key)
	} else {
		f.places[key] = places
	}
	f.sink.ApplyPlaces(key, places)
}

// Conversion.

// node keeps what tells where clients are. Its addresses come from the local API server only, so that loopback ones do no
// harm: whoever asks from there is on this very node.
func (c converter) node(n *corev1.Node) *Node {
	out := &Node{Region: intern(n.Labels[corev1.LabelTopologyRegion]), Zone: intern(n.Labels[corev1.LabelTopologyZone])}
	for i := range n.Status.Addresses {
		if a := &n.Status.Addresses[i]; a.Type == corev1.NodeInternalIP || a.Type == corev1.NodeExternalIP {
			c.nodeAddress(out, a.Address)
		}
	}
	for _, name := range addressAnnotations {
		if text := n.Annotations[name]; text != "" {
			c.nodeAddress(out, text)
		}
	}
	slices.SortFunc(out.Addresses, netip.Addr.Compare)
	out.Addresses = slices.Compact(out.Addresses)

	cidrs := n.Spec.PodCIDRs
	if len(cidrs) == 0 && n.Spec.PodCIDR != "" {
		cidrs = []string{n.Spec.PodCIDR}
	}
	for _, text := range cidrs {
		p, err := netip.ParsePrefix(text)
		if err != nil || p.Addr().Is4In6() || p.Bits() == 0 {
			c.reject(BadAddress)
			continue
		}
		out.PodCIDRs = append(out.PodCIDRs, p.Masked())
	}
	slices.SortFunc(out.PodCIDRs, comparePrefixes)
	out.PodCIDRs = slices.Compact(out.PodCIDRs)
	return out
}

func (c converter) nodeAddress(n *Node, text string) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
		c.reject(BadAddress)
		return
	}
	n.Addresses = append(n.Addresses, a.Unmap())
}

func comparePrefixes(a, b netip.Prefix) int {
	if order := a.Addr().Compare(b.Addr()); order != 0 {
		return order
	}
	return a.Bits() - b.Bits()
}

// places keeps of an EndpointSlice which address is where, sorted by address; nothing of one that holds no IP addresses.
func (c converter) places(s *discoveryv1.EndpointSlice) []Place {
	if s.AddressType != discoveryv1.AddressTypeIPv4 && s.AddressType != discoveryv1.AddressTypeIPv6 {
		return nil
	}
	var out []Place
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		place := Place{
			Node: intern(value(e.NodeName)), Zone: intern(value(e.Zone)),
			Ready: conditions(e.Conditions)&mcs.Ready != 0,
		}
		if place.Node == "" && place.Zone == "" {
			continue
		}
		for _, text := range e.Addresses {
			if addr, ok := c.address(text); ok {
				place.Addr = addr
				out = append(out, place)
			}
		}
	}
	slices.SortFunc(out, comparePlaces)
	return slices.Compact(out)
}

func comparePlaces(a, b Place) int {
	if order := a.Addr.Compare(b.Addr); order != 0 {
		return order
	}
	if order := strings.Compare(a.Node, b.Node); order != 0 {
		return order
	}
	if order := strings.Compare(a.Zone, b.Zone); order != 0 {
		return order
	}
	if a.Ready == b.Ready {
		return 0
	}
	if a.Ready {
		return -1
	}
	return 1
}
