package nearest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
)

const drainProperty = `apiVersion: about.k8s.io/%s
kind: ClusterProperty
metadata:
  name: drain.clusterset-dns.io
spec:
  value: "%t"
`

// drainedWithin is how soon a member that drains itself must have left everybody else's answers.
const drainedWithin = time.Second

func TestDrain(t *testing.T) {
	if theirTurn.Load() {
		t.Fatal("Tests wait for what north does by itself, and this one drains it: it must run before them")
	}
	const of, times = "drains", 10
	for i, c := range []cluster{east, west, north} {
		c.offers(t, service{name: of, sticky: true, endpoints: pods(2, fmt.Sprintf("10.%d.70.1", i+1))})
	}
	drains := []struct {
		version string
		in      cluster
		others  []string
	}{
		{"v1beta1", north, []string{"east", "west"}},
		{"v1alpha1", west, []string{"east"}},
	}
	set := func(t *testing.T, in cluster, version string, drained bool) {
		t.Helper()
		must(t, in.Apply(t.Context(), fmt.Appendf(nil, drainProperty, version, drained)))
	}
	for _, d := range drains {
		must(t, d.in.Apply(t.Context(), clusters.ClusterPropertyCRD(d.version)))
		within(t, limit, "the CRD is served", func() error {
			return d.in.Apply(t.Context(), fmt.Appendf(nil, drainProperty, d.version, false))
		})
	}
	corefile := func(more ...string) string {
		return block("DNS", append([]string{locality(), clusterset(three())}, more...)...)
	}
	s := run(t, corefile())
	for _, d := range drains {
		t.Run("a member drains itself by a ClusterProperty of "+d.version, func(t *testing.T) {
			one := dial(t, s, "DNS", d.in.at(0))
			defer one.close()
			within(t, limit, "at the beginning it answers", one.gets(name(of), typeA, d.in.Name()))
			var left, back []time.Duration
			for range times {
				set(t, d.in, d.version, true)
				left = append(left, within(t, limit, "it leaves", func() error {
					r, err := one.ask(name(of), typeA)
					if err == nil && !slices.Contains(d.others, r.from()) {
						err = fmt.Errorf("answered by %q", r.from())
					}
					return err
				}))
				counts := sample(t, s, "DNS", name(of), everybody(300))
				if counts[d.in.Name()] != 0 {
					t.Errorf("%d of 300 clients are told a drained member", counts[d.in.Name()])
				}
				set(t, d.in, d.version, false)
				back = append(back, within(t, limit, "it is back", one.gets(name(of), typeA, d.in.Name())))
			}
			slices.Sort(left)
			slices.Sort(back)
			t.Logf("leaves after %.1f ms (median), %.1f ms at most; is back after %.1f ms, %.1f ms at most",
				ms(left[times/2]), ms(left[times-1]), ms(back[times/2]), ms(back[times-1]))
			if left[times-1] > drainedWithin {
				t.Errorf("it left after %s, want %s", left[times-1], drainedWithin)
			}
		})
	}
	t.Run("the operator drains a member in the Corefile", func(t *testing.T) {
		must(t, s.Reload(t.Context(), corefile("clusterhealth {\ndrain north\n}")))
		counts := sample(t, s, "DNS", name(of), everybody(300))
		if counts["north"] != 0 {
			t.Errorf("%d of 300 clients are told a drained member", counts["north"])
		}
		must(t, s.Reload(t.Context(), corefile()))
		expect(t, s, north.at(0), name(of), "north")
	})
	t.Run("when all drain themselves everybody answers", func(t *testing.T) {
		for _, d := range drains {
			set(t, d.in, d.version, true)
		}
		must(t, s.Reload(t.Context(), corefile("clusterhealth {\ndrain east\n}")))
		counts := sample(t, s, "DNS", name(of), everybody(300))
		t.Log(percent(counts))
		if len(counts) != 3 {
			t.Errorf("answered by %v, want all three", counts)
		}
		for _, d := range drains {
			set(t, d.in, d.version, false)
		}
		one := dial(t, s, "DNS", north.at(0))
		defer one.close()
		within(t, limit, "north is back", one.gets(name(of), typeA, "north"))
	})
}
