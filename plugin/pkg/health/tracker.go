package health

import (
	"maps"
	"slices"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// Defaults of a Config: what HAProxy and Envoy use, with the interval chosen so that the Bound is under 15 s.
const (
	DefaultInterval = 5 * time.Second
	DefaultTimeout  = 2 * time.Second
	DefaultFall     = 3
	DefaultRise     = 2
)

// Hold-down follows outlier ejection (gRPC A50, Envoy): a member that went down stays down for 30 s, and for 30 s more
// each time it does so again, at most 300 s. Every 30 s without a failed probe take one step back. Since a step back
// takes as long as the shortest hold-down, an admitted member changes its state at most three times in a minute.
const (
	holdDown    = 30 * time.Second
	maxHoldDown = 300 * time.Second
	cleanAfter  = 30 * time.Second
	maxFlaps    = int(maxHoldDown / holdDown)
)

// Config is what a Tracker is told once.
type Config struct {
	// Interval is the time between the starts of two probes of a member, give or take 10 %.
	Interval time.Duration
	// Timeout is when a probe has failed. It must not exceed Interval.
	Timeout time.Duration
	// Fall is how many probes in a row must fail until a member is Unhealthy, Rise how many must succeed until it is
	// Healthy again. At least 1.
	Fall, Rise int
	// Local is the member that the prober itself is in, "" if unknown. See the mass-failure guard.
	Local topology.ClusterID
	// Drained members are Excluded whatever their probes say. They need not be probed.
	Drained []topology.ClusterID
	// Seed makes the jitter of one prober differ from that of another.
	Seed uint64
}

// Bound returns how long a member whose data path dies is Healthy at most: it dies just after a good probe, the next
// one starts after the longest interval, each of Fall probes hangs until its timeout with the edge interval between
// them, and a second is left for the rest. 14.5 s with the defaults. It holds unless the mass-failure guard steps in.
func (c Config) Bound() time.Duration {
	bound := c.Interval + c.Interval/10 + c.Timeout + time.Second
	for range c.Fall - 1 {
		bound += c.edge() + c.Timeout
	}
	return bound
}

// Tracker is the state machine of a set of members. It holds no clock and no socket: whoever drives it tells it the
// time, which must never go back, starts the probes that Begin names, and reports each once to Observe. At the time that
// Next says, it wants Begin or Advance to be called. Not safe for concurrent use.
type Tracker struct {
	config  Config
	epoch   time.Time
	ids     []topology.ClusterID // sorted
	members map[topology.ClusterID]*member
	drained map[topology.ClusterID]bool
	// held is when the mass-failure guard began to hold back, zero when it does not.
	held     time.Time
	statuses map[topology.ClusterID]Status
	snapshot *Snapshot
}

// level is what probes have shown so far.
type level uint8

const (
	unknown level = iota
	up
	down
)

// member is one probed member. Times of probes are those of their start, unless it says otherwise.
type member struct {
	level level
	// oks and fails count the last results that were alike; one of them is 0.
	oks, fails int
	// failing is the first probe of the fails, good the last one that succeeded.
	failing, good time.Time
	// flaps is how many times in a row it went down with too little time between, at most maxFlaps.
	flaps int
	// clean is since when it has been up without a failed probe.
	clean     time.Time
	heldUntil time.Time
	// back is when it was admitted again, zero if it never was.
	back time.Time

	inFlight bool
	started  time.Time
	due      time.Time
	probes   uint64
}

// NewTracker returns a Tracker of the given members, none of them probed yet.
func NewTracker(c Config, members []topology.ClusterID, now time.Time) *Tracker {
	t := &Tracker{
		config:  c,
		epoch:   now,
		ids:     slices.Compact(slices.Sorted(slices.Values(members))),
		members: make(map[topology.ClusterID]*member, len(members)),
		drained: make(map[topology.ClusterID]bool, len(c.Drained)),
	}
	for _, id := range t.ids {
		t.members[id] = &member{due: now.Add(t.firstDelay(id))}
	}
	for _, id := range c.Drained {
		t.drained[id] = true
	}
	return t
}

// Inherit takes over what another Tracker has learned of a member, hold-down and slow start included, and what it holds
// back. It is for a changed configuration that probes this member the same way, before the first Begin.
func (t *Tracker) Inherit(from *Tracker, id topology.ClusterID) {
	old, m := from.members[id], t.members[id]
	if old == nil || m == nil || old.level == unknown {
		return
	}
	due := m.due
	*m = *old
	m.inFlight, m.due = false, due
	if t.held.IsZero() || !from.held.IsZero() && from.held.Before(t.held) {
		t.held = from.held
	}
}

// Begin returns the members to be probed now. Each counts as being probed until Observe is told the result.
func (t *Tracker) Begin(now time.Time) []topology.ClusterID {
	var ids []topology.ClusterID
	suspected := t.newestFailure()
	for _, id := range t.ids {
		m := t.members[id]
		if m.inFlight || t.dueAt(m, suspected).After(now) {
			continue
		}
		m.inFlight, m.started = true, now
		m.probes++
		ids = append(ids, id)
	}
	return ids
}

// Observe takes the result of a probe that has just ended. What Begin did not name is ignored.
func (t *Tracker) Observe(id topology.ClusterID, ok bool, now time.Time) {
	m := t.members[id]
	if m == nil || !m.inFlight {
		return
	}
	m.inFlight = false
	m.count(ok, now)
	t.settle(now)
	m.due = t.nextProbe(id, m, now)
}

// Advance lets time pass: the guard may have held long enough.
func (t *Tracker) Advance(now time.Time) { t.settle(now) }

func (m *member) count(ok bool, now time.Time) {
	if ok {
		m.oks, m.fails = m.oks+1, 0
		m.good = m.started
		return
	}
	m.forgive(m.started)
	if m.fails == 0 {
		m.failing = m.started
	}
	m.oks, m.fails = 0, m.fails+1
	m.clean = now
}

// forgive forgets one flap for each clean interval.
func (m *member) forgive(now time.Time) {
	for m.level == up && m.flaps > 0 && now.Sub(m.clean) >= cleanAfter {
		m.flaps--
		m.clean = m.clean.Add(cleanAfter)
	}
}

// settle draws the conclusions of what is known. Members that fall may be held back, those that rise never are: a
// success is proof, whoever is to blame for the failures.
func (t *Tracker) settle(now time.Time) {
	var falling []*member
	for _, id := range t.ids {
		m := t.members[id]
		switch {
		case m.level != up && m.mayRise(t.config.Rise):
			m.rise(now)
		case m.level == unknown && m.fails >= t.config.Fall:
			m.level = down // never was up, so this is no flap
		case m.level == up && m.fails >= t.config.Fall:
			falling = append(falling, m)
		}
	}
	if t.guard(len(falling) > 0, now) {
		return
	}
	for _, m := range falling {
		m.fall(now)
	}
}

// mayRise reports whether a member that is not up may be. At start one success is enough; later it takes several, and
// the last of them must be of a probe that began after the hold-down.
func (m *member) mayRise(rise int) bool {
	if m.level == unknown {
		return m.oks > 0
	}
	return m.oks >= rise && !m.good.Before(m.heldUntil)
}

func (m *member) rise(now time.Time) {
	if m.level == down {
		m.back = now
	}
	m.level, m.clean = up, now
}

func (m *member) fall(now time.Time) {
	m.level = down
	m.flaps = min(m.flaps+1, maxFlaps)
	m.heldUntil = now.Add(time.Duration(m.flaps) * holdDown)
}

// Settled reports whether every member has been probed at least once.
func (t *Tracker) Settled() bool {
	for _, m := range t.members {
		if m.oks == 0 && m.fails == 0 {
			return false
		}
	}
	return true
}

// Snapshot returns the statuses of all members, the same pointer as before if they are the same. What changes with time
// alone, slow start, does so for all members together and at most once a second.
func (t *Tracker) Snapshot(now time.Time) *Snapshot {
	statuses := make(map[topology.ClusterID]Status, len(t.ids)+len(t.drained))
	for id, m := range t.members {
		statuses[id] = t.status(m, now)
	}
	for id := range t.drained {
		statuses[id] = Status{State: Excluded, Factor: 1, Probed: statuses[id].Probed, Reason: ReasonDrained}
	}
	if t.snapshot == nil || !maps.Equal(statuses, t.statuses) {
		t.statuses, t.snapshot = statuses, NewSnapshot(statuses)
	}
	return t.snapshot
}

func (t *Tracker) status(m *member, now time.Time) Status {
	s := Status{Factor: 1, Probed: m.level != unknown}
	switch {
	case m.level == unknown:
		s.State, s.Reason = Excluded, ReasonUnknown
	case m.level == down && m.oks >= t.config.Rise:
		s.State, s.Reason = Unhealthy, ReasonHoldDown
	case m.level == down:
		s.State, s.Reason = Unhealthy, ReasonFailing
	default:
		s.State, s.Reason = Healthy, ReasonGood
		if s.Factor = t.factor(m, now); s.Factor < 1 {
			s.Reason = ReasonSlow
		}
		if m.fails >= t.config.Fall {
			s.Reason = ReasonFrozen
		}
	}
	return s
}

// factor is the slow start of a member, on the second hand that all members share.
func (t *Tracker) factor(m *member, now time.Time) float64 {
	if m.back.IsZero() {
		return 1
	}
	second := t.epoch.Add(now.Sub(t.epoch).Truncate(time.Second))
	return SlowStart(slowStart, second.Sub(m.back))
}
