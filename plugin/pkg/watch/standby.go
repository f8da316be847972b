package watch

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// standby keeps the Services and EndpointSlices that nobody exports, of a member of which all are watched anyway and few are not
// exported: an export of one of them is told at once then, and not every server of the ClusterSet asks the API server for it. What
// it has is all that the watches have told, or else it has nothing.
type standby struct {
	held      map[mcs.ServiceKey]*held // nil while nothing is kept
	endpoints int                      // in held
	// asked tells that nothing is lost of the full lists that were asked for last, listed that they have come.
	asked, listed struct{ services, slices bool }
	// full is true from when there was no room until all is listed anew.
	full bool
}

// complete reports whether a service that is not there does not exist.
func (s *standby) complete() bool { return s.held != nil && s.listed.services && s.listed.slices }

// room is how many services are kept that nobody exports, and room*endpointsEach how many endpoints.
func (f *exportFeed) room() int { return max(f.limits.standby, len(f.held)/4) }

const endpointsEach = 10

// beginStandby is called before each full list of Services and EndpointSlices, with what is noted about it.
func (f *exportFeed) beginStandby(asked *bool) {
	if f.standby.held == nil && !f.standby.full && selectionOf(f.held, f.limits.selector).whole {
		f.standby.held = map[mcs.ServiceKey]*held{}
	}
	*asked = f.standby.held != nil
}

// endStandby forgets what is kept.
func (f *exportFeed) endStandby() {
	for key, h := range f.standby.held {
		f.disown(key, h)
	}
	f.standby = standby{full: true}
}

// disown forgets to which service the slices belonged that it had.
func (f *exportFeed) disown(key mcs.ServiceKey, h *held) {
	for i := range h.slices {
		delete(f.strays, mcs.ServiceKey{Namespace: key.Namespace, Name: h.slices[i].fact.Name})
	}
}

// of returns what is known of a service, exported or not; nil if nothing is.
func (f *exportFeed) of(key mcs.ServiceKey) *held {
	if h := f.held[key]; h != nil {
		return h
	}
	return f.standby.held[key]
}

// wants reports whether something of a service is kept.
func (f *exportFeed) wants(key mcs.ServiceKey) bool {
	return f.held[key] != nil || f.standby.held != nil && key.Name != ""
}

// have is of, but makes room for a service of which nothing is known yet; nil where there is none.
func (f *exportFeed) have(key mcs.ServiceKey) *held {
	h := f.of(key)
	if h == nil && f.standby.held != nil {
		if len(f.standby.held) >= f.room() {
			f.endStandby()
			return nil
		}
		h = newHeld(false)
		key.Namespace = intern(key.Namespace) // it is that of many
		f.standby.held[key] = h
	}
	return h
}

// keep counts endpoints that a service gets, or with less than 0 loses. It reports whether there is room for them.
func (f *exportFeed) keep(h *held, more int) bool {
	switch {
	case h.exported && more > 0 && f.kept+more > f.limits.endpoints:
		f.leaveOut()
		return false
	case h.exported:
		f.kept += more
	case f.standby.held == nil: // h is of a moment ago
		return false
	case more > 0 && f.standby.endpoints+more > f.room()*endpointsEach:
		f.endStandby()
		return false
	default:
		f.standby.endpoints += more
	}
	return true
}

// prune forgets a service that nobody exports when there is nothing of it any more.
func (f *exportFeed) prune(key mcs.ServiceKey, h *held) {
	if !h.exported && h.service.fact == nil && len(h.slices) == 0 && !h.doubtful {
		delete(f.standby.held, key)
	}
}

// arrive returns the place of a service that is exported now, and whether all is known of it. What was left out of one that nobody
// exported was not counted: that one has to be fetched.
func (f *exportFeed) arrive(key mcs.ServiceKey) (h *held, known bool) {
	known = f.standby.complete()
	h = f.standby.held[key]
	if h == nil {
		return newHeld(true), known
	}
	delete(f.standby.held, key)
	n := h.endpoints()
	f.standby.endpoints -= n
	if !known || h.doubtful || f.kept+n > f.limits.endpoints {
		f.disown(key, h)
		return newHeld(true), false
	}
	h.exported = true
	f.kept += n
	return h, true
}

// leave keeps a service that nobody exports any more, or forgets it.
func (f *exportFeed) leave(key mcs.ServiceKey, was *held) {
	if f.standby.held == nil {
		f.disown(key, was)
		return
	}
	h := newHeld(false)
	h.service = was.service
	h.slices = append(h.slices, was.slices...)
	for i := range h.slices {
		h.slices[i].fact = grown(h.slices[i].fact, nil)
	}
	// While it is fetched, not all is known.
	h.doubtful = was.doubtful || was.fetch != nil
	if len(f.standby.held) >= f.room() {
		f.disown(key, h)
		f.endStandby()
		return
	}
	f.standby.held[key] = h
	if !f.keep(h, h.endpoints()) {
		f.disown(key, h)
		return
	}
	f.prune(key, h)
}

// standbyServices takes what nobody exports from a full list of Services.
func (f *exportFeed) standbyServices(items []any) {
	for _, h := range f.standby.held {
		h.service = fetched[*mcs.ServiceSpec]{}
	}
	for _, obj := range items {
		it := obj.(*item)
		spec, ok := it.fact.(*mcs.ServiceSpec)
		if !ok || f.held[it.key] != nil {
			continue
		}
		if h := f.have(it.key); h != nil {
			h.service, h.doubtful = fetched[*mcs.ServiceSpec]{spec, watched(it.version)}, h.doubtful || it.doubtful
		}
	}
	f.standbyListed(f.standby.asked.services, &f.standby.listed.services)
}

// standbyListed is called after each full list of Services and EndpointSlices.
func (f *exportFeed) standbyListed(asked bool, listed *bool) {
	if f.standby.held == nil {
		return
	}
	if *listed = asked; !asked {
		f.endStandby()
	}
	for key, h := range f.standby.held {
		f.prune(key, h)
	}
}

// factOfService is what is kept of a Service. Of one that nobody exports nobody wants to hear what was left out: only whether there
// was something.
func (f *exportFeed) factOfService(key mcs.ServiceKey, s *corev1.Service) (fact *mcs.ServiceSpec, doubtful bool) {
	fact = f.converterFor(key).service(s)
	return fact, f.leftOut
}

// factOfSlice does the same with an EndpointSlice, nil when it makes no sense.
func (f *exportFeed) factOfSlice(key mcs.ServiceKey, s *discoveryv1.EndpointSlice) (fact any, doubtful bool) {
	if slice := f.converterFor(key).slice(s); slice != nil {
		fact = sliceFact{slice, changedAt(s)}
	}
	return fact, f.leftOut
}

// converterFor returns one that notes in leftOut when it leaves something out.
func (f *exportFeed) converterFor(key mcs.ServiceKey) converter {
	f.leftOut = false
	if f.held[key] != nil {
		return f.counting
	}
	return f.noting
}

// newHeld makes room for a service.
func newHeld(exported bool) *held {
	h := &held{exported: exported}
	h.slices = h.only[:0]
	return h
}

// forgetSlices keeps the room for them.
func (h *held) forgetSlices() {
	clear(h.slices)
	h.slices = h.slices[:0]
}

// endpoints counts them.
func (h *held) endpoints() (n int) {
	for i := range h.slices {
		n += h.slices[i].fact.Endpoints.Len()
	}
	return n
}

// grown returns a slice of which only the endpoints in since are fresh.
func grown(s *mcs.Slice, since map[mcs.Identity]time.Time) *mcs.Slice {
	out := s
	for i := range s.Endpoints.Len() {
		if _, still := since[s.Endpoints.Identity(i)]; still || s.Endpoints.Conditions(i)&mcs.Fresh == 0 {
			continue
		}
		if out == s {
			copied := *s
			copied.Endpoints = s.Endpoints.Clone()
			out = &copied
		}
		out.Endpoints.SetConditions(i, s.Endpoints.Conditions(i)&^mcs.Fresh)
	}
	return out
}
