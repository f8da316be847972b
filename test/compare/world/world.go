// Package world says which services exist in a comparison, under which names and with which addresses. Clusters are
// filled from it, the servers that know everything beforehand answer from it, and questions are drawn from it.
package world

import (
	"fmt"
	"net/netip"
)

const (
	// Namespaces is how many namespaces the services are spread over.
	Namespaces = 100
	// Endpoints is how many endpoints every service has, in one EndpointSlice.
	Endpoints = 5
	// Cluster is the id of the cluster that has them.
	Cluster = "east"
	// PortName is the name of the one TCP port that every service has.
	PortName = "http"
	// Port is its number at a service with a cluster IP.
	Port = 80
	// TargetPort is its number at the endpoints.
	TargetPort = 8080
)

// Service is a service, by its number from 0.
type Service int

// Namespace returns its namespace, ns0 to ns99.
func (s Service) Namespace() string { return fmt.Sprintf("ns%d", int(s)%Namespaces) }

// Name returns its name.
func (s Service) Name() string { return fmt.Sprintf("svc%d", int(s)) }

// FQDN returns its domain name in a zone, which ends with a dot.
func (s Service) FQDN(zone string) string { return s.Name() + "." + s.Namespace() + ".svc." + zone }

// Headless tells whether it has no cluster IP: every other one of each namespace.
func (s Service) Headless() bool { return int(s)/Namespaces%2 == 1 }

// Records is how many A records it has: one cluster IP, or its endpoints.
func (s Service) Records() int {
	if s.Headless() {
		return Endpoints
	}
	return 1
}

// Addresses returns those of its endpoints, below 10.128.0.0/9 and different for every service up to 1,600,000.
func (s Service) Addresses() []netip.Addr {
	all := make([]netip.Addr, Endpoints)
	for i := range all {
		n := int(s)*Endpoints + i
		all[i] = netip.AddrFrom4([4]byte{10, byte(128 + n>>16), byte(n >> 8), byte(n)})
	}
	return all
}

// ClusterIP returns an address in 10.96.0.0/16 for a server that makes them up itself; a cluster assigns its own.
func (s Service) ClusterIP() netip.Addr {
	return netip.AddrFrom4([4]byte{10, 96, byte(int(s) >> 8), byte(s)})
}
