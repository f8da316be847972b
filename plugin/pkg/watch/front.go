package watch

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ServiceInFront returns the cluster IPs of the Services of a namespace that send UDP to one of the given addresses: with
// a DNS server's own namespace and addresses, the address under which its clients know it. None is no error.
func (c Connection) ServiceInFront(ctx context.Context, namespace string, self []netip.Addr) ([]netip.Addr, error) {
	clients, done, err := c.once()
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(quiet(ctx), askTimeout)
	defer cancel()
	list, err := clients.core.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, c.access.conceal(fmt.Errorf("the Service in front of this server: %w", err))
	}
	var found []netip.Addr
	convert := converter{reject: func(Rejection) {}}
	for i := range list.Items {
		s := &list.Items[i]
		name := s.Labels[labelServiceName]
		if name == "" || !sendsUDP(s) || !holds(s, self) {
			continue
		}
		service, err := clients.core.CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, c.access.conceal(fmt.Errorf("the Service in front of this server: %w", err))
		}
		for _, a := range convert.service(service).ClusterIPs {
			if a.IsValid() {
				found = append(found, a)
			}
		}
	}
	slices.SortFunc(found, netip.Addr.Compare)
	return slices.Compact(found), nil
}

func sendsUDP(s *discoveryv1.EndpointSlice) bool {
	return slices.ContainsFunc(s.Ports, func(p discoveryv1.EndpointPort) bool { return value(p.Protocol) == corev1.ProtocolUDP })
}

func holds(s *discoveryv1.EndpointSlice, self []netip.Addr) bool {
	for i := range s.Endpoints {
		for _, text := range s.Endpoints[i].Addresses {
			if a, err := netip.ParseAddr(text); err == nil && slices.Contains(self, a) {
				return true
			}
		}
	}
	return false
}
