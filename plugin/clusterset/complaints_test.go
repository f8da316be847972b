package clusterset

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

func TestWhatIsWrongWithManyServicesIsSaidAFewTimes(t *testing.T) {
	overlap := func(id topology.ClusterID) mcs.Report {
		return mcs.Report{Unusable: []mcs.Unusable{{Cluster: id, Reason: mcs.Overlap}}}
	}
	odd := mcs.Report{Unusable: []mcs.Unusable{{Cluster: "west", Reason: mcs.PortMismatch}}}
	change := func(n int, was, is mcs.Report) mcs.Change {
		return mcs.Change{Key: mcs.ServiceKey{Namespace: "shop", Name: fmt.Sprint("web-", n)}, Old: was, New: is}
	}
	many := func(n int, is mcs.Report) (out []mcs.Change) {
		for i := range n {
			out = append(out, change(i, mcs.Report{}, is))
		}
		return out
	}
	for _, tc := range []struct {
		name    string
		changes []mcs.Change
		lines   int
		last    string
	}{
		{"nothing is wrong", many(3, mcs.Report{}), 0, ""},
		{"with a few: each is named", many(5, overlap("west")), 5, "Service shop/web-4: cluster west takes no part: its cluster IP"},
		{"with one more", many(6, overlap("west")), 6, "And 1 more: cluster west takes no part: its cluster IP"},
		{"with all", many(10_000, overlap("west")), 6, "And 9995 more: cluster west takes no part: its cluster IP"},
		{"with all of two clusters", append(many(100, overlap("west")), many(100, overlap("north"))...), 12, "And 95 more: cluster west"},
		{"one that is like no other is named among them", append(many(100, overlap("west")), change(7, mcs.Report{}, odd)), 7, "And 95 more: cluster west takes no part: its cluster IP"},
		{"what was said before is not said again", []mcs.Change{change(1, odd, odd)}, 0, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, c := range tc.changes {
				countInvalid(c.Old, 1)
			}
			out := captureLog(t)
			reportChanges(tc.changes)
			for _, c := range tc.changes {
				uncount(c.New)
			}
			lines := strings.Split(strings.TrimSpace(out()), "\n")
			lines = slices.DeleteFunc(lines, func(l string) bool { return l == "" })
			if len(lines) != tc.lines || tc.lines > 0 && !strings.Contains(lines[len(lines)-1], tc.last) {
				t.Errorf("%d lines, the last %q; want %d and %q", len(lines), lines[max(0, len(lines)-1):], tc.lines, tc.last)
			}
		})
	}
}
