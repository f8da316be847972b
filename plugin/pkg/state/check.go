package state

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unique"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// check refuses what could not have been written: what is read must be as sound as what a watch tells.
func (e *entry) check() error {
	set := 0
	for _, is := range []bool{e.Shard != nil, e.Import != nil, e.Address != nil, e.Range != nil, e.Drained, e.Settings != nil} {
		if is {
			set++
		}
	}
	switch {
	case set > 1:
		return errors.New("an entry says two things")
	case set == 0 && e.Name != "":
		return errors.New("an entry says nothing of a service")
	case (set == 0 || e.Shard != nil || e.Import != nil) && !topology.IsLabel(e.Namespace),
		(e.Shard != nil || e.Import != nil) && !topology.IsLabel(e.Name):
		return fmt.Errorf("%q, %q cannot stand in a DNS name", e.Namespace, e.Name)
	case e.Address != nil && !usable(*e.Address):
		return fmt.Errorf("the address %v", *e.Address)
	case e.Range != nil && !e.Range.IsValid():
		return errors.New("a range that is none")
	}
	if e.Shard != nil {
		return checkShard(e.Shard)
	}
	if e.Import != nil {
		return checkImport(e.Import)
	}
	return nil
}

func checkShard(s *mcs.Shard) error {
	if s.Export.WeightPercent > 100 {
		return fmt.Errorf("weight-percent %d", s.Export.WeightPercent)
	}
	if s.Service != nil {
		if err := checkService(s.Service); err != nil {
			return err
		}
	}
	return checkSlices(s.Slices)
}

func checkService(s *mcs.ServiceSpec) error {
	if s.Type > mcs.Headless {
		return fmt.Errorf("the type %d", s.Type)
	}
	balancer := mcs.LoadBalancer{}
	if s.LoadBalancer != nil {
		balancer = *s.LoadBalancer
	}
	for _, a := range append(balancer.Addrs, s.ClusterIPs[:]...) {
		if a.IsValid() && !usable(a) {
			return fmt.Errorf("the address %v", a)
		}
	}
	for _, host := range balancer.Hosts {
		for label := range strings.SplitSeq(host, ".") {
			if !topology.IsLabel(label) {
				return fmt.Errorf("the host name %q", host)
			}
		}
	}
	return checkPorts(s.Ports)
}

func checkImport(s *mcs.ImportShard) error {
	if s.Import.Type > mcs.Headless {
		return fmt.Errorf("the type %d", s.Import.Type)
	}
	for _, a := range s.Import.IPs {
		if a.IsValid() && !usable(a) {
			return fmt.Errorf("the address %v", a)
		}
	}
	if err := checkPorts(s.Import.Ports); err != nil {
		return err
	}
	return checkSlices(s.Slices)
}

// checkSlices also gives repeated strings one copy, and lets every endpoint count: after a restart nobody knows how long
// one has been there.
func checkSlices(all []*mcs.Slice) error {
	if slices.Contains(all, nil) || !slices.IsSortedFunc(all, func(a, b *mcs.Slice) int { return strings.Compare(a.Name, b.Name) }) {
		return errors.New("EndpointSlices out of order")
	}
	for _, s := range all {
		if s.Source != "" {
			if id, err := topology.ParseClusterID(string(s.Source)); err != nil || id != s.Source {
				return fmt.Errorf("the cluster %q", s.Source)
			}
		}
		if err := checkPorts(s.Ports); err != nil {
			return err
		}
		for i := range s.Endpoints.Len() {
			if addr, label := s.Endpoints.Addr(i), s.Endpoints.Label(i); !usable(addr) || !topology.IsLabel(label) {
				return fmt.Errorf("the endpoint %v, %q", addr, label)
			}
			s.Endpoints.SetConditions(i, s.Endpoints.Conditions(i)&(mcs.Ready|mcs.Serving|mcs.Terminating))
		}
	}
	return nil
}

func checkPorts(ports []mcs.Port) error {
	for i := range ports {
		p := &ports[i]
		if p.Number == 0 || p.Protocol > mcs.SCTP || p.Name != "" && !topology.IsLabel(p.Name) {
			return fmt.Errorf("the port %+v", *p)
		}
		p.Name = unique.Make(p.Name).Value()
	}
	return nil
}

// usable is what package watch accepts of any cluster.
func usable(a netip.Addr) bool {
	return a.IsValid() && a.Zone() == "" && !a.Is4In6() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() &&
		!a.IsLinkLocalUnicast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
