package watch

import (
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// freshFor is how long an endpoint that has never been ready does not count as missing: scaling up is not an outage.
const freshFor = 5 * time.Minute

// freshen marks the endpoints of a slice that are new and not ready yet. What was there before stays what it was; what
// the first full list brings counts, for nobody knows how long it has been there. The new slice must not be shared yet.
func (f *exportFeed) freshen(id mcs.ServiceKey, old, now *mcs.Slice) {
	var since map[mcs.Identity]time.Time
	for i := range now.Endpoints.Len() {
		conditions := now.Endpoints.Conditions(i)
		if conditions&(mcs.Ready|mcs.Terminating) != 0 {
			continue
		}
		key := now.Endpoints.Identity(i)
		began, known := f.fresh[id][key]
		if !known {
			if !f.synced() || old != nil && knows(old, key) {
				continue
			}
			began = time.Now()
		}
		now.Endpoints.SetConditions(i, conditions|mcs.Fresh)
		if since == nil {
			since = map[mcs.Identity]time.Time{}
		}
		since[key] = began
	}
	if since == nil {
		delete(f.fresh, id)
		return
	}
	f.fresh[id] = since
}

func knows(s *mcs.Slice, key mcs.Identity) bool {
	for i := range s.Endpoints.Len() {
		if s.Endpoints.Identity(i) == key {
			return true
		}
	}
	return false
}

// tick lets endpoints count that have been fresh for long enough.
func (f *exportFeed) tick(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, since := range f.fresh {
		grown := false
		for key, began := range since {
			if now.Sub(began) >= freshFor {
				delete(since, key)
				grown = true
			}
		}
		if grown {
			f.unmark(id, since)
		}
	}
}

// unmark replaces a slice by a copy in which only the endpoints in since are fresh.
func (f *exportFeed) unmark(id mcs.ServiceKey, since map[mcs.Identity]time.Time) {
	if len(since) == 0 {
		delete(f.fresh, id)
	}
	service, _ := f.ownerOf(id)
	h := f.of(service)
	at, there := h.find(id.Name)
	if !there {
		return
	}
	h.slices[at].fact = grown(h.slices[at].fact, since)
	f.tell(service, h, time.Time{})
}
