package chaos

import (
	"context"
	"fmt"
	"testing"

	"github.com/clusterset-dns/clusterset-dns/test/kube"
)

// The flood: so many changes of the endpoints of so many services. The endpoint is one of so many addresses, in turn.
const (
	floodEvents    = 20_000
	floodServices  = 20
	floodAddresses = 200
)

func floodName(i int) string { return fmt.Sprintf("flood-%d", i) }

// floodAddress is the address after so many events.
func floodAddress(event int) string { return north.address(0, 1+event%floodAddresses) }

// flooding is a service of the flood after so many events.
func flooding(i, event int) kube.Simple {
	return kube.Simple{Namespace: namespace, Name: floodName(i), Headless: true, Addresses: []string{floodAddress(event)}}
}

// floodFrom makes the services, until the test is over.
func floodFrom(t *testing.T) {
	t.Helper()
	for i := range floodServices {
		_, err := north.Create(t.Context(), flooding(i, 0))
		must(t, err)
		must(t, north.Export(t.Context(), namespace, floodName(i)))
	}
	t.Cleanup(func() {
		for i := range floodServices {
			must(t, north.Remove(context.Background(), namespace, floodName(i)))
		}
	})
}
