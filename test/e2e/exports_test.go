package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/kube"
)

// visibleAfter is how soon a new export of an existing Service must show.
const visibleAfter = 100 * time.Millisecond

func TestNewExportShowsAtOnceAndNothingElseIsKept(t *testing.T) {
	const exports, others = 50, 50
	s := run(t, corefile(stanza([]cluster{east, west})))
	ready(t, s)
	labels := []string{"cluster", "west", "source", "exports"}
	servicesBefore, err := metric(t.Context(), s, "coredns_clusterset_member_services", labels...)
	must(t, err)
	endpointsBefore, err := metric(t.Context(), s, "coredns_clusterset_member_endpoints", labels...)
	must(t, err)

	service := func(sort string, i int) kube.Simple {
		return kube.Simple{
			Namespace: namespace, Name: fmt.Sprintf("%s-%d", sort, i), Headless: i%2 == 0,
			Addresses: []string{fmt.Sprintf("10.2.1.%d", i+1), fmt.Sprintf("10.2.2.%d", i+1)},
		}
	}
	for i := range others {
		_, err := west.Create(t.Context(), service("private", i))
		must(t, err)
	}
	for i := range exports {
		_, err := west.Create(t.Context(), service("public", i))
		must(t, err)
	}
	now(t, shows(s, servicesBefore, "coredns_clusterset_member_services", labels...))

	var took []time.Duration
	for i := range exports {
		of := service("public", i)
		must(t, west.Export(t.Context(), namespace, of.Name))
		want := 1
		if of.Headless {
			want = len(of.Addresses)
		}
		took = append(took, within(t, limit, of.Name, answers(s, name(of.Name), want)))
	}
	slices.Sort(took)
	median := took[len(took)/2]
	t.Logf("a new export shows after %s (median), %s at most", median.Round(100*time.Microsecond), took[len(took)-1].Round(100*time.Microsecond))
	if median > visibleAfter {
		t.Errorf("median %s, want %s", median, visibleAfter)
	}
	now(t, shows(s, servicesBefore+exports, "coredns_clusterset_member_services", labels...))
	now(t, shows(s, endpointsBefore+2*exports, "coredns_clusterset_member_endpoints", labels...))

	for i := range exports {
		must(t, west.Unexport(t.Context(), namespace, service("public", i).Name))
	}
	within(t, limit, "nothing is kept of what is no longer exported", shows(s, servicesBefore, "coredns_clusterset_member_services", labels...))
	within(t, limit, "nothing is kept of what is no longer exported", shows(s, endpointsBefore, "coredns_clusterset_member_endpoints", labels...))
}
