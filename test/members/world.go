// Package members simulates the API servers of many clusters in one process, so that a server can be measured with more
// clusters and endpoints than fit on a machine. Each has an address of its own and speaks what a client that lists and
// watches asks for, over TLS and HTTP/2, in protobuf and JSON: full lists, lists in pieces, watches with bookmarks,
// selectors, single objects and discovery. What they hold is computed when somebody asks for it: a million endpoints take
// no memory here, only what has changed does.
package members

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
)

const (
	// Namespaces is how many namespaces the services are spread over; each cluster has all of them.
	Namespaces = 10
	// Nodes is how many nodes a cluster has.
	Nodes = 50
	// PortName is the name of the one TCP port that every service has.
	PortName = "http"
	port     = 80
	// targetPort is its number at the endpoints.
	targetPort = 8080
)

// World says what the clusters hold. Every service is exported, and has one EndpointSlice.
type World struct {
	// Members is how many clusters there are.
	Members int
	// Services is how many services each of them has.
	Services int
	// Endpoints is how many endpoints each service has, up to 100.
	Endpoints int
	// Same gives the services of all clusters the same names. Otherwise names are distinct, but for the first service:
	// that is the same one in all clusters.
	Same bool
}

// maxEndpoints and maxServices are how many of all clusters can have an address of their own.
const (
	maxEndpoints = 1 << 24
	maxServices  = 1 << 20
)

func (w World) check() error {
	services := w.Members * w.Services
	if w.Members < 1 || w.Services < 0 || w.Endpoints < 1 || w.Endpoints > 100 || services > maxServices || services*w.Endpoints > maxEndpoints {
		return fmt.Errorf("no world of %d clusters with %d services of %d endpoints: there must be clusters, with %d services and %d endpoints at most in all",
			w.Members, w.Services, w.Endpoints, maxServices, maxEndpoints)
	}
	return nil
}

// Total is how many endpoints all clusters have.
func (w World) Total() int { return w.Members * w.Services * w.Endpoints }

// Cluster returns the id of a cluster, by its number from 0.
func (w World) Cluster(member int) string { return fmt.Sprintf("m%d", member) }

// Namespace returns that of a service.
func (w World) Namespace(service int) string { return fmt.Sprintf("team%d", service%Namespaces) }

// Name returns the name of a service of a cluster.
func (w World) Name(member, service int) string {
	if w.Same || service == 0 {
		return fmt.Sprintf("svc-%d", service)
	}
	return fmt.Sprintf("svc-%d-%d", service, member)
}

// FQDN returns the domain name of a service in a zone, which ends with a dot.
func (w World) FQDN(member, service int, zone string) string {
	return w.Name(member, service) + "." + w.Namespace(service) + ".svc." + zone
}

// EndpointFQDN returns the domain name of one endpoint of a headless service, by its address, where the cluster is called
// as Cluster says.
func (w World) EndpointFQDN(member, service int, address netip.Addr, zone string) string {
	return EndpointLabel(address) + "." + w.Cluster(member) + "." + w.FQDN(member, service, zone)
}

// EndpointLabel returns the first label of that name.
func EndpointLabel(address netip.Addr) string { return strings.ReplaceAll(address.String(), ".", "-") }

// Headless tells whether a service has no cluster IP: every other one, from the first on.
func (w World) Headless(service int) bool { return service%2 == 0 }

// Records is how many A records a service has where one cluster is answered: a cluster IP, or the endpoints.
func (w World) Records(service int) int {
	if w.Headless(service) {
		return w.Endpoints
	}
	return 1
}

// Address returns the address of an endpoint as it is in the beginning: in 10.0.0.0/8, and different for each.
func (w World) Address(member, service, endpoint int) netip.Addr {
	return within([4]byte{10}, (member*w.Services+service)*w.Endpoints+endpoint)
}

// ClusterIP returns the address of a service that is not headless: in 172.16.0.0/12, and different for each.
func (w World) ClusterIP(member, service int) netip.Addr {
	return within([4]byte{172, 16}, member*w.Services+service)
}

// moved returns the address that an endpoint gets by the n-th change: in 100.64.0.0/10.
func moved(n uint64) netip.Addr { return within([4]byte{100, 64}, int(n%(1<<22))) } //nolint:gosec // 22 bits

// within returns the n-th address after a first one.
func within(first [4]byte, n int) netip.Addr {
	var out [4]byte
	binary.BigEndian.PutUint32(out[:], binary.BigEndian.Uint32(first[:])+uint32(n)) //nolint:gosec // checked by World.check
	return netip.AddrFrom4(out)
}
