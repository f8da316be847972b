package balance

// Counts are the endpoints of one tier. Excluded ones (drained members, members not probed yet) are not part of Total;
// they count only when everything is in panic.
type Counts struct{ Healthy, Degraded, Total, Excluded int }

// Load is a tier's part of the answers, of a given scale: to its healthy endpoints and, after all healthy load is
// placed, to its degraded ones. A tier in Panic uses all its ready endpoints, whatever their health.
type Load struct {
	Healthy, Degraded int
	Panic             bool
}

// scale is what the loads of an answer add up to: hundredths of a percent.
const scale = 10000

// allOrNothing is the overprovisioning factor under which one healthy endpoint makes a tier whole.
const allOrNothing = 0

// loads spreads scale over the tiers, first to last (Envoy, "Priority levels" and "Degraded endpoints", in integers).
// overprovision is in percent (140: a tier with 72 % of its endpoints healthy counts as whole), or allOrNothing.
// panicBelow is the percentage of healthy and degraded endpoints under which a tier panics when not all load can be
// placed; 0 switches it off. Where nothing is healthy or degraded, all tiers share by their size: fail open.
func loads(scale, overprovision, panicBelow int, tiers []Counts) []Load {
	out := make([]Load, len(tiers))
	healthy := make([]int, len(tiers))
	degraded := make([]int, len(tiers))
	available := 0
	for i, t := range tiers {
		healthy[i] = capacity(scale, overprovision, t.Healthy, t.Total)
		degraded[i] = capacity(scale, overprovision, t.Degraded, t.Total)
		available += healthy[i] + degraded[i]
	}
	available = min(scale, available)
	panics := 0
	for i, t := range tiers {
		if available < scale && percent(t.Healthy+t.Degraded, t.Total) < panicBelow {
			out[i].Panic = true
			panics++
		}
	}
	if available == 0 || panics == len(tiers) {
		shareBySize(scale, tiers, out)
		return out
	}
	rest := scale
	for i := range out {
		out[i].Healthy = min(rest, healthy[i]*scale/available)
		rest -= out[i].Healthy
	}
	for i := range out {
		out[i].Degraded = min(rest, degraded[i]*scale/available)
		rest -= out[i].Degraded
	}
	giveRest(rest, healthy, degraded, out)
	return out
}

func capacity(scale, overprovision, n, total int) int {
	switch {
	case n == 0 || total == 0:
		return 0
	case overprovision == allOrNothing:
		return scale
	default:
		return min(scale, overprovision*scale*n/(100*total))
	}
}

func percent(n, total int) int {
	if total == 0 {
		return 0
	}
	return 100 * n / total
}

// giveRest gives what rounding left to the first tier with any healthy endpoint, else to the first with a degraded one.
func giveRest(rest int, healthy, degraded []int, out []Load) {
	for i := range out {
		if healthy[i] > 0 {
			out[i].Healthy += rest
			return
		}
	}
	for i := range out {
		if degraded[i] > 0 {
			out[i].Degraded += rest
			return
		}
	}
}

// shareBySize is total panic: every tier by the number of its endpoints, healthy or not.
func shareBySize(scale int, tiers []Counts, out []Load) {
	sum := 0
	for _, t := range tiers {
		sum += t.Total + t.Excluded
	}
	rest, first := scale, -1
	for i, t := range tiers {
		out[i].Panic = true
		n := t.Total + t.Excluded
		if n == 0 {
			continue
		}
		if first < 0 {
			first = i
		}
		out[i].Healthy = scale * n / sum
		rest -= out[i].Healthy
	}
	if first < 0 {
		first = 0
	}
	if len(out) > 0 {
		out[first].Healthy += rest
	}
}
