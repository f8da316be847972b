package health

import (
	"slices"
	"testing"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

func TestSnapshotOfNobodyIsNeutral(t *testing.T) {
	var none *Snapshot
	for _, s := range []*Snapshot{none, NewSnapshot(nil)} {
		if got := s.Status("a"); got != (Status{}) || got.State != Healthy || got.Weight() != 1 {
			t.Errorf("Expected a healthy member with its whole weight, got %+v", got)
		}
		for id := range s.All() {
			t.Errorf("Expected no member, got %s", id)
		}
	}
}

func TestSnapshotDoesNotChangeWithWhatItWasMadeOf(t *testing.T) {
	members := map[topology.ClusterID]Status{"b": {State: Degraded}, "a": {State: Unhealthy, Factor: 0.5}}
	s := NewSnapshot(members)
	members["a"], members["c"] = Status{}, Status{}
	if got := s.Status("a"); got != (Status{State: Unhealthy, Factor: 0.5}) || got.Weight() != 0.5 {
		t.Errorf("Expected what was given, got %+v", got)
	}
	var ids []topology.ClusterID
	for id := range s.All() {
		ids = append(ids, id)
	}
	if !slices.Equal(ids, []topology.ClusterID{"a", "b"}) {
		t.Errorf("Expected the members in order, got %v", ids)
	}
	for id := range s.All() {
		if id != "a" {
			t.Errorf("Expected to stop after the first, got %s", id)
		}
		break
	}
}

func TestStatesHaveNames(t *testing.T) {
	var names []string
	for _, s := range States() {
		names = append(names, s.String())
	}
	if want := []string{"healthy", "degraded", "unhealthy", "excluded"}; !slices.Equal(names, want) {
		t.Errorf("Expected %v, got %v", want, names)
	}
}
