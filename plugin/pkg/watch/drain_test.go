package watch

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

func (s *told) SetDrained(topology.ClusterID, bool) {}

func (s *told) SetClusterID(topology.ClusterID, string) {}

func (s *told) ApplyServiceRanges([]netip.Prefix) {}

// drainSink notes what it is told of drains.
type drainSink struct {
	told
	drained []bool
}

func (s *drainSink) SetDrained(_ topology.ClusterID, drained bool) {
	s.drained = append(s.drained, drained)
}

func property(name string, value any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"metadata": map[string]any{"name": name}, "spec": map[string]any{"value": value},
	}}
}

func TestPropertyFeed(t *testing.T) {
	steps := []struct {
		name string
		do   func(*propertyFeed)
		want bool
	}{
		{"a cluster without properties is not drained", func(f *propertyFeed) { f.replace(nil) }, false},
		{"the property with the value true drains", func(f *propertyFeed) { f.set(property(drainProperty, "true")) }, true},
		{"another value does not", func(f *propertyFeed) { f.set(property(drainProperty, "yes")) }, false},
		{"a full list drains too", func(f *propertyFeed) { f.replace([]any{property(drainProperty, "true")}) }, true},
		{"deleting the property ends it", func(f *propertyFeed) { f.remove(property(drainProperty, "true")) }, false},
		{"another property means nothing", func(f *propertyFeed) { f.set(property("cluster.clusterset.k8s.io", "true")) }, false},
		{"a value that is no string means nothing", func(f *propertyFeed) { f.set(property(drainProperty, true)) }, false},
		{"a CRD that is gone takes the drain along", func(f *propertyFeed) { f.set(property(drainProperty, "true")); f.clear() }, false},
	}
	f := newPropertyFeed(&Watcher{spec: Spec{Kind: mcs.Properties, Cluster: "east"}}, clients{})
	sink := &drainSink{}
	f.subscribe(sink)
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			step.do(f)
			if len(sink.drained) == 0 || sink.drained[len(sink.drained)-1] != step.want {
				t.Errorf("Told %v, want last %v", sink.drained, step.want)
			}
			late := &drainSink{}
			f.subscribe(late)
			defer f.unsubscribe(late)
			if len(late.drained) != 1 || late.drained[0] != step.want {
				t.Errorf("A late subscriber was told %v, want %v", late.drained, step.want)
			}
		})
	}
}

func (*scriptedFeed) tick(time.Time) {}

// idSink notes what it is told of ids.
type idSink struct {
	told
	claimed []string
}

func (s *idSink) SetClusterID(_ topology.ClusterID, claimed string) {
	s.claimed = append(s.claimed, claimed)
}

func TestPropertyFeedTellsTheID(t *testing.T) {
	steps := []struct {
		name string
		do   func(*propertyFeed)
		want string
	}{
		{"a cluster without properties says nothing", func(f *propertyFeed) { f.replace(nil) }, ""},
		{"its id", func(f *propertyFeed) { f.set(property(idProperty, "west")) }, "west"},
		{"another property does not change it", func(f *propertyFeed) { f.set(property(drainProperty, "true")) }, "west"},
		{"another id", func(f *propertyFeed) { f.set(property(idProperty, "north")) }, "north"},
		{"a full list with both", func(f *propertyFeed) {
			f.replace([]any{property(drainProperty, "true"), property("x", "y"), property(idProperty, "east")})
		}, "east"},
		{"one that is far too long is cut", func(f *propertyFeed) { f.set(property(idProperty, strings.Repeat("x", 1000))) }, strings.Repeat("x", maxValue)},
		{"deleting the property ends it", func(f *propertyFeed) { f.remove(property(idProperty, "east")) }, ""},
	}
	f := newPropertyFeed(&Watcher{spec: Spec{Kind: mcs.Properties, Cluster: "east"}}, clients{})
	sink := &idSink{}
	f.subscribe(sink)
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			step.do(f)
			if sink.claimed[len(sink.claimed)-1] != step.want {
				t.Errorf("Told %q, want last %q", sink.claimed, step.want)
			}
			late := &idSink{}
			f.subscribe(late)
			defer f.unsubscribe(late)
			if len(late.claimed) != 1 || late.claimed[0] != step.want {
				t.Errorf("A late subscriber was told %q, want %q", late.claimed, step.want)
			}
		})
	}
	if len(sink.claimed) != 6 {
		t.Errorf("Told %q, want each change once", sink.claimed)
	}
}
