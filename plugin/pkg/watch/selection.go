package watch

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

const (
	// selectAtMost is how long a label selector may become, in bytes: it stands in a URL, and proxies before an API server
	// take 8 KiB of that. It has room for about 300 names; who exports more is watched whole.
	selectAtMost = 6000
	// reselectEvery is how long it is at least from one selection to the next, so that many new exports make one.
	reselectEvery = time.Second
)

// selection is which EndpointSlices of a member are asked for: those of services that have one of the names, in whatever
// namespace. A cluster's other endpoints come and go all day; nothing is heard of them.
type selection struct {
	whole bool
	names map[string]struct{}
}

// selectionOf selects what belongs to these services, by a selector of at most so many bytes.
func selectionOf(held map[mcs.ServiceKey]*held, atMost int) selection {
	s := selection{names: map[string]struct{}{}}
	length := 0
	for key := range held {
		if _, there := s.names[key.Name]; there {
			continue
		}
		s.names[key.Name] = struct{}{}
		if length += len(key.Name) + len("%2C"); length > atMost {
			return selection{whole: true}
		}
	}
	return s
}

func (s selection) covers(name string) bool {
	_, there := s.names[name]
	return s.whole || there
}

// selector returns the label selector, "" for all.
func (s selection) selector() string {
	switch {
	case s.whole:
		return ""
	case len(s.names) == 0:
		return labelServiceName + ",!" + labelServiceName // nothing has it and lacks it
	default:
		return labelServiceName + " in (" + strings.Join(slices.Sorted(maps.Keys(s.names)), ",") + ")"
	}
}

// selectSlices makes a request for EndpointSlices one for those that are selected. A list that is made because the
// selection has changed must not be older than what the watch before it has told.
func (f *exportFeed) selectSlices(o *metav1.ListOptions) {
	f.mu.Lock()
	o.LabelSelector = f.selected.selector()
	f.mu.Unlock()
	if o.ResourceVersion == "0" {
		f.notOlder(o)
	}
}

// mind has the selection looked at, for an export that it may lack and whose objects have just been fetched. Not before: of a
// fetch and a list that overlap nobody can tell which is older.
func (f *exportFeed) mind(key mcs.ServiceKey) {
	if f.selected.covers(key.Name) {
		return
	}
	select {
	case f.reselect <- struct{}{}:
	default:
	}
}

// selectAnew returns when EndpointSlices must be listed anew since the selection lacks some, or when ctx ends.
func (f *exportFeed) selectAnew(ctx context.Context) {
	began := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.reselect:
		}
		if sleep(ctx, reselectEvery-time.Since(began)); f.lacks() {
			return
		}
	}
}

// lacks reports whether an export is not covered by the selection.
func (f *exportFeed) lacks() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key := range f.held {
		if !f.selected.covers(key.Name) {
			return true
		}
	}
	return false
}
