package model

import "slices"

// unit is a candidate for an answer: a whole cluster of a service that is not headless, or one ready host.
type unit struct {
	part  int
	state state
	// ready and total count endpoints.
	ready, total int
	v4, v6       bool
	backend      int
}

func (u *unit) has(f family) bool { return f == anyFamily || f == v4 && u.v4 || f == v6 && u.v6 }

type family int

const (
	anyFamily family = iota
	v4
	v6
)

// tier are the candidates at one distance.
type tier struct {
	units []unit
	// missing counts endpoints that should be ready at that distance and are not.
	missing int
}

func (t *tier) of(s state) (out []unit) {
	for _, u := range t.units {
		if u.state == s && u.ready > 0 {
			out = append(out, u)
		}
	}
	return out
}

// ready are the candidates that have an endpoint, however they count.
func (t *tier) ready() []unit {
	return slices.DeleteFunc(slices.Clone(t.units), func(u unit) bool { return u.ready == 0 })
}

// choices returns the groups of candidates of which a client can be given one: whoever asks, one of them is right.
// Which one is a draw, and no matter of this model.
func (c *Config) choices(s *merged, f family) (groups [][]unit) {
	tiers := c.tiers(s)
	isIn := func(g []unit) bool { return slices.ContainsFunc(g, func(u unit) bool { return u.has(f) }) }
	// Each tier can take 1.4 times the share of its endpoints that are well, and the next one the rest.
	taken, full := 0.0, false
	take := func(st state) {
		for i := range tiers {
			g, wells, all := tiers[i].of(st), 0, tiers[i].missing
			for _, u := range g {
				wells += u.ready
			}
			for _, u := range tiers[i].units {
				if u.state != excluded {
					all += u.total
				}
			}
			if wells == 0 || full {
				continue
			}
			groups = append(groups, g)
			part := 1.4 * float64(wells) / float64(all)
			taken += min(1, part)
			// A hair more than all is needed, since whole numbers are shared out.
			full = part >= 1 || taken > 1.001
		}
	}
	take(healthy)
	take(degraded)
	if len(groups) == 0 { // nobody is well: all share
		for i := range tiers {
			groups = append(groups, tiers[i].ready())
		}
	}
	var fallback []unit
	for _, pick := range []func(*tier) []unit{
		func(t *tier) []unit { return t.of(healthy) },
		func(t *tier) []unit { return t.of(degraded) },
		(*tier).ready,
	} {
		for i := range tiers {
			if g := pick(&tiers[i]); fallback == nil && isIn(g) {
				fallback = g
			}
		}
	}
	for i := range groups {
		if !isIn(groups[i]) {
			groups[i] = fallback
		}
	}
	return c.single(s, groups, f)
}

// single makes groups of one cluster of those of several, where one is drawn.
func (c *Config) single(s *merged, groups [][]unit, f family) (out [][]unit) {
	written := slices.ContainsFunc(s.parts, func(p part) bool { return p.member.Weight != nil })
	if s.headless && !written || !s.headless && c.All {
		return groups
	}
	for _, g := range groups {
		for at := range s.parts {
			var own []unit
			for _, u := range g {
				if u.part == at {
					own = append(own, u)
				}
			}
			if slices.ContainsFunc(own, func(u unit) bool { return u.has(f) }) {
				out = append(out, own)
			}
		}
	}
	return out
}

// tiers orders the candidates by distance, the nearest first. Those that are excluded stand in them only if there is
// nobody else.
func (c *Config) tiers(s *merged) []tier {
	out := make([]tier, 3)
	units, missing := c.units(s)
	usable := slices.ContainsFunc(units, func(u unit) bool { return u.state != excluded && u.ready > 0 })
	for _, u := range units {
		if usable && u.state == excluded {
			continue
		}
		t := &out[c.distance(s, u.part)]
		t.units = append(t.units, u)
	}
	for at, n := range missing {
		if s.parts[at].state != excluded {
			out[c.distance(s, at)].missing += n
		}
	}
	return slices.DeleteFunc(out, func(t tier) bool { return len(t.units) == 0 })
}

// units returns the candidates, and how many endpoints each part of a headless service lacks.
func (c *Config) units(s *merged) (units []unit, missing []int) {
	missing = make([]int, len(s.parts))
	if s.headless {
		for i, b := range s.backends {
			u := unit{part: b.part, state: s.parts[b.part].state, ready: 1, total: 1, backend: i}
			for _, a := range b.addrs {
				u.v4, u.v6 = u.v4 || a.Is4(), u.v6 || a.Is6()
			}
			units = append(units, u)
		}
		for i := range s.parts {
			missing[i] = s.parts[i].total - s.parts[i].ready
		}
		return units, missing
	}
	for i := range s.parts {
		p := &s.parts[i]
		u := unit{part: i, state: p.state, ready: p.ready, total: p.total}
		for _, a := range p.addrs {
			u.v4, u.v6 = u.v4 || a.Is4(), u.v6 || a.Is6()
		}
		if len(p.addrs) > 0 {
			units = append(units, u)
		}
	}
	if !slices.ContainsFunc(units, func(u unit) bool { return u.ready > 0 }) {
		for i := range units {
			units[i].ready, units[i].total = 1, 1
		}
	}
	return units, missing
}

// distance tells how far a cluster is from a client of the local one.
func (c *Config) distance(s *merged, at int) int {
	if c.Prefer == "none" || c.Prefer == "" && s.headless {
		return 0
	}
	region := func(id string) string {
		for i := range c.Members {
			if c.Members[i].ID == id {
				return c.Members[i].Region
			}
		}
		return ""
	}
	m := s.parts[at].member
	switch {
	case m.ID == c.Local:
		return 0
	case m.Region != "" && m.Region == region(c.Local):
		return 1
	default:
		return 2
	}
}
