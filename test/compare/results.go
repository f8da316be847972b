//go:build linux

package compare

import (
	"slices"
)

// figure is something that is measured of a subject.
type figure string

// The figures.
const (
	cpuPerQuery      figure = "CPU per query, us"
	queriesPerSecond figure = "queries per second"
)

// Round holds what was measured in a round, by subject and figure.
type Round map[key]float64

type key struct {
	subject string
	figure  figure
}

func (r Round) set(subject string, f figure, value float64) { r[key{subject, f}] = value }

// Results are what Run has measured.
type Results struct {
	Services int
	Rounds   []Round
	// Groups are those that were measured, Subjects who was, in their order, and Skipped who was not, and why.
	Groups   []Group
	Subjects []string
	Skipped  []string
}

// values returns a figure of all rounds in which it was measured.
func (r *Results) values(subject string, f figure) []float64 {
	var all []float64
	for _, round := range r.Rounds {
		if v, ok := round[key{subject, f}]; ok {
			all = append(all, v)
		}
	}
	return all
}

// ratios returns how a figure of a subject relates to that of another in each round in which both were measured.
func (r *Results) ratios(subject, to string, f figure) []float64 {
	var all []float64
	for _, round := range r.Rounds {
		a, okA := round[key{subject, f}]
		b, okB := round[key{to, f}]
		if okA && okB && b != 0 {
			all = append(all, a/b)
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
