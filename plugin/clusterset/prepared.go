package clusterset

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"unsafe"
	"weak"

	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/balance"
)

// prepared are the address records of an answer that was made for a query before, of one family. Answers share them: no plugin of
// CoreDNS changes a record that it did not make or copy (a test asks through those that might).
type prepared struct {
	four []record4
	six  []record6
}

// preparedOne has its only record in the same place of memory, as nearly all answers of services with a cluster IP.
type preparedOne[R record4 | record6] struct {
	prepared
	one [1]R
}

// prepare makes the records of addresses that are all of one family.
func prepare(owner string, ttl uint32, addrs []netip.Addr) *prepared {
	var p *prepared
	switch four := count4(addrs); {
	case len(addrs) == 1 && four == 1:
		room := &preparedOne[record4]{}
		p, room.four = &room.prepared, room.one[:]
	case len(addrs) == 1:
		room := &preparedOne[record6]{}
		p, room.six = &room.prepared, room.one[:]
	case four > 0:
		p = &prepared{four: make([]record4, four)}
	default:
		p = &prepared{six: make([]record6, len(addrs))}
	}
	for i := range p.four {
		p.four[i].make(owner, ttl, addrs[i])
	}
	for i := range p.six {
		p.six[i].make(owner, ttl, addrs[i])
	}
	return p
}

func (p *prepared) len() int { return len(p.four) + len(p.six) }

// records returns the records. Answers do not share the slice, which loadbalance and dnssec may change.
func (p *prepared) records() []dns.RR {
	out := make([]dns.RR, 0, p.len())
	for i := range p.four {
		out = append(out, &p.four[i].A)
	}
	for i := range p.six {
		out = append(out, &p.six[i].AAAA)
	}
	return out
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
func (s *stock) keep(plan *balance.Plan, slot, zones int, p *prepared) {
	if !s.mu.TryLock() {
		return
	}
	defer s.mu.Unlock()
	if preparedAt(plan, slot) != nil {
		return
	}
	setPrepared(plan, slot, zones, p)
	k := stocked{weak.Make(plan), slot, zones, p.size()}
	s.queue = append(s.queue, k)
	for s.used += k.bytes; s.used > s.most; s.queue = s.queue[1:] {
		oldest := s.queue[0]
		s.used -= oldest.bytes
		if plan := oldest.of.Value(); plan != nil {
			setPrepared(plan, oldest.slot, oldest.zones, nil)
		}
	}
}

// size returns about how many bytes the records take, with what is kept beside them.
func (p *prepared) size() int {
	return int(unsafe.Sizeof(stocked{})+unsafe.Sizeof(prepared{})) + len(p.four)*int(unsafe.Sizeof(record4{})) + len(p.six)*int(unsafe.Sizeof(record6{}))
}
