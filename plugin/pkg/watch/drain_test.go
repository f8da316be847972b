package watch

import (
	"net/netip"
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
