package watch

import (
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// TestServiceAddresses looks at which cluster IPs of all Services are told, exported or not.
func TestServiceAddresses(t *testing.T) {
	server := newAPIServer(t)
	server.set("serviceexports", export("shop", "a"))
	server.set("services", service("shop", "a", "10.0.0.1"))
	server.set("services", service("shop", "z", "10.0.0.9"))
	headless := service("shop", "h", "")
	headless.Spec.ClusterIP, headless.Spec.ClusterIPs = corev1.ClusterIPNone, []string{corev1.ClusterIPNone}
	server.set("services", headless)
	p := &pedant{told: newTold(), test: t}
	seed := &Seed{Facts: mcs.Facts{Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("10.0.0.9")}}, Proof: time.Now()}
	w := p.start(t, Spec{Connection: server.connection(), Seed: seed})
	w.TellServiceAddresses()
	are := func(what string, want ...string) {
		t.Helper()
		var got []string
		eventually(t, what, func() bool {
			p.look(func() {
				got = nil
				for _, a := range slices.SortedFunc(maps.Keys(p.addresses), netip.Addr.Compare) {
					got = append(got, a.String())
				}
			})
			return slices.Equal(got, want)
		})
	}
	are("those of the first list, and no longer those of before", "10.0.0.1", "10.0.0.9")
	server.set("services", service("shop", "y", "10.0.0.8"))
	are("that of a new Service", "10.0.0.1", "10.0.0.8", "10.0.0.9")
	server.del("services", service("shop", "z", "10.0.0.9"))
	are("not that of one that is gone", "10.0.0.1", "10.0.0.8")
	external := service("shop", "x", "")
	external.Spec.ClusterIPs, external.Spec.Type = nil, corev1.ServiceTypeExternalName
	server.set("services", service("shop", "x", "10.0.0.4"))
	are("that of another", "10.0.0.1", "10.0.0.4", "10.0.0.8")
	server.set("services", external)
	are("not that of one that has become an ExternalName", "10.0.0.1", "10.0.0.8")
	addr := server.stop()
	server.del("services", service("shop", "y", "10.0.0.8"))
	server.set("services", service("shop", "x", "10.0.0.3"))
	server.start(addr)
	are("those of a later list", "10.0.0.1", "10.0.0.3")
	late := newTold()
	w.Subscribe(late)
	defer w.Unsubscribe(late)
	if len(late.addresses) != 2 {
		t.Errorf("A late subscriber was told %v", late.addresses)
	}
}

func TestServiceAddressesAreNotToldUnlessAskedFor(t *testing.T) {
	server := newAPIServer(t)
	server.set("serviceexports", export("shop", "a"))
	server.set("services", service("shop", "a", "10.0.0.1"))
	_, sink := startWatcher(t, mcs.Exports, server.connection())
	sink.has(t, oneIP)
	sink.look(func() {
		if len(sink.addresses) != 0 {
			t.Errorf("Told %v", sink.addresses)
		}
	})
}
