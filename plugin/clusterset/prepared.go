package clusterset

import (
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"
	"weak"

	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/balance"
)

// prepared are the address records of an answer that was made for a query before. Answers share the records: no plugin of CoreDNS
// changes a record that it did not make or copy (a test asks through those that might). They do not share the slice, which
// loadbalance and dnssec may change.
type prepared struct{ records []dns.RR }

// preparedOne has its only record in the same place of memory, as nearly all answers of services with a cluster IP.
type preparedOne[R record4 | record6] struct {
	prepared
	room [1]dns.RR
	one  R
}

// holding makes the record, which is in one, that of the answer.
func (p *preparedOne[R]) holding(rr dns.RR) *prepared {
	p.room[0] = rr
	p.records = p.room[:]
	return &p.prepared
}

// prepare returns records to keep: a copy.
func prepare(records []dns.RR) *prepared {
	if len(records) == 1 {
		switch rr := records[0].(type) {
		case *dns.A:
			p := &preparedOne[record4]{one: record4{A: *rr}}
			p.one.A.A = append(p.one.ip[:0], rr.A...)
			return p.holding(&p.one.A)
		case *dns.AAAA:
			p := &preparedOne[record6]{one: record6{AAAA: *rr}}
			p.one.AAAA.AAAA = append(p.one.ip[:0], rr.AAAA...)
			return p.holding(&p.one.AAAA)
		}
	}
	return &prepared{slices.Clone(records)}
}

// slotOf is the place of an answer among all of a plan: of a zone, a balance.Choice.Set and a family.
func slotOf(zones, zone, set int, qtype uint16) int {
	slot := 2 * (set*zones + zone)
	if qtype == dns.TypeAAAA {
		slot++
	}
	return slot
}

// seldom are the answers of a plan for which it has no place of their own.
type seldom []atomic.Pointer[prepared]

// inPlan is how many have one: those of services with one answer and one zone, which are most.
const inPlan = len(balance.Plan{}.Memo) - 1

// preparedAt returns what is kept in a slot of a plan, nil for nothing.
func preparedAt(plan *balance.Plan, slot int) *prepared {
	if slot < inPlan {
		p, _ := plan.Memo[slot].Load().(*prepared)
		return p
	}
	if more, _ := plan.Memo[inPlan].Load().(seldom); slot-inPlan < len(more) {
		return more[slot-inPlan].Load()
	}
	return nil
}

// setPrepared puts something into a slot of a plan, nil for nothing. There may be one caller at a time.
func setPrepared(plan *balance.Plan, slot, zones int, p *prepared) {
	if slot < inPlan {
		plan.Memo[slot].Store(p)
		return
	}
	more, _ := plan.Memo[inPlan].Load().(seldom)
	if more == nil {
		more = make(seldom, 2*plan.Sets*zones-inPlan)
		plan.Memo[inPlan].Store(more)
	}
	more[slot-inPlan].Store(p)
}

// preparedAtMost is how many bytes of prepared records a process keeps: those of about 100,000 answers.
const preparedAtMost = 16 << 20

// stock bounds the memory of prepared records. The oldest go first; who still needs them makes them anew.
type stock struct {
	most int // bytes

	mu    sync.Mutex // guards what follows
	used  int
	queue []stocked
}

// stocked is one answer. It does not keep the plan alive.
type stocked struct {
	of          weak.Pointer[balance.Plan]
	slot, zones int
	bytes       int
}

// keep lets later queries find the records. It waits for nobody: while another query does the same, it keeps nothing.
func (s *stock) keep(plan *balance.Plan, slot, zones int, records []dns.RR) {
	if !s.mu.TryLock() {
		return
	}
	defer s.mu.Unlock()
	if preparedAt(plan, slot) != nil {
		return
	}
	setPrepared(plan, slot, zones, prepare(records))
	k := stocked{weak.Make(plan), slot, zones, sizeOf(records)}
	s.queue = append(s.queue, k)
	for s.used += k.bytes; s.used > s.most; s.queue = s.queue[1:] {
		oldest := s.queue[0]
		s.used -= oldest.bytes
		if plan := oldest.of.Value(); plan != nil {
			setPrepared(plan, oldest.slot, oldest.zones, nil)
		}
	}
}

// sizeOf returns about how many bytes the address records of one answer take, with what is kept beside them.
func sizeOf(records []dns.RR) int {
	const each = int(unsafe.Sizeof(dns.AAAA{})+unsafe.Sizeof(dns.RR(nil))) + 16
	return int(unsafe.Sizeof(stocked{})+unsafe.Sizeof(prepared{})) + each*len(records)
}
