//go:build linux

package compare

import "slices"

// figure is something that is measured of a subject. 1 MB is 1,000,000 octets.
type figure string

// The figures.
const (
	cpuPerQuery         figure = "CPU per query, us"
	queriesPerSecond    figure = "queries/s"
	allocationsPerQuery figure = "allocations per query"
	octetsPerQuery      figure = "octets per query"
	updatesPerSecond    figure = "updates/s"
	changeMedian        figure = "change, p50 ms"
	change99            figure = "change, p99 ms"
	changeChurnMedian   figure = "change under updates, p50 ms"
	changeChurn99       figure = "change under updates, p99 ms"
	startTime           figure = "start to right answers, s"
	resident            figure = "RSS, MB"
	residentPeak        figure = "RSS peak, MB"
	reloadPeak          figure = "RSS peak in a reload, MB"
	liveHeap            figure = "live heap, MB"
	heapPerService      figure = "live heap per service, kB"
)

// timely are the figures of a server that is asked at a fixed rate.
type timely struct{ median, p99, leftOut, stolen, collecting figure }

func (t timely) all() []figure { return []figure{t.median, t.p99, t.leftOut, t.stolen, t.collecting} }

// They are measured beside others that wait, and alone, before and under updates.
var (
	quietly = timely{"p50 us", "p99 us", "left out, %", "stolen, %", "collecting garbage, %"}
	before  = timely{
		"p50 us before", "p99 us before", "left out before, %", "stolen before, %", "collecting garbage before, %",
	}
	underUpdates = timely{
		"p50 us under updates", "p99 us under updates", "left out under updates, %", "stolen under updates, %",
		"collecting garbage under updates, %",
	}
)

// Round holds what was measured in a round, by subject and figure.
type Round map[key]float64

type key struct {
	subject string
	figure  figure
}

// setTimely sets the figures of a server that was asked at a fixed rate.
func (r Round) setTimely(subject string, f timely, t times) {
	r.set(subject, f.median, micro(t.Took, 0.5))
	r.set(subject, f.p99, micro(t.Took, 0.99))
	r.set(subject, f.leftOut, 100*t.LeftOut)
	r.set(subject, f.stolen, 100*t.Stolen)
	if t.collects {
		r.set(subject, f.collecting, 100*t.collecting)
	}
}

func (r Round) set(subject string, f figure, value float64) { r[key{subject, f}] = value }

// Results are what Run has measured.
type Results struct {
	Services int
	Rounds   []Round
	// Groups are those that were measured.
	Groups []Group
	// Versions are those of the programs.
	Versions []string
	// Notes are sentences about what was not measured, and why.
	Notes []string
}

// values returns a figure of all rounds in which it was measured.
func (r *Results) values(subject string, f figure) []float64 {
	return r.each(func(round Round) (float64, bool) {
		v, ok := round[key{subject, f}]
		return v, ok
	})
}

// ratios returns how a figure of a subject relates to one of another, in each round in which both were measured.
func (r *Results) ratios(a, b key) []float64 {
	return r.each(func(round Round) (float64, bool) {
		x, okX := round[a]
		y, okY := round[b]
		return x / y, okX && okY && y != 0
	})
}

// differences returns by how much a figure of a subject exceeds one of another.
func (r *Results) differences(a, b key) []float64 {
	return r.each(func(round Round) (float64, bool) {
		x, okX := round[a]
		y, okY := round[b]
		return x - y, okX && okY
	})
}

func (r *Results) each(of func(Round) (float64, bool)) []float64 {
	var all []float64
	for _, round := range r.Rounds {
		if v, ok := of(round); ok {
			all = append(all, v)
		}
	}
	return all
}

// median returns the middle of some values, the mean of the two in the middle of an even number; 0 of none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}
