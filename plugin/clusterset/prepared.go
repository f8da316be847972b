package clusterset

import (
	"sync"
	"sync/atomic"
	"unsafe"
	"weak"

	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/balance"
)

// prepared holds address records of one plan that were made for a query before. Answers share the records: no plugin of
// CoreDNS changes a record that it did not make or copy (a test asks through those that might). They do not share the slice,
// which loadbalance and dnssec may change.
type prepared struct {
	zones int
	// first are the slots of services with one answer and one zone, which are most; more are the others.
	first [2]atomicRecords
	more  []atomicRecords
}

type atomicRecords = atomic.Pointer[[]dns.RR]

// slot is the place of an answer among all of the plan: of a zone, a balance.Choice.Set and a family.
func (p *prepared) slot(zone, set int, qtype uint16) int {
	slot := 2 * (set*p.zones + zone)
	if qtype == dns.TypeAAAA {
		slot++
	}
	return slot
}

// at returns the records of a slot.
func (p *prepared) at(slot int) *atomicRecords {
	if slot < len(p.first) {
		return &p.first[slot]
	}
	return &p.more[slot-len(p.first)]
}

// preparedOf returns what is prepared of a plan. It lives as long as the plan does.
func preparedOf(plan *balance.Plan, zones int) *prepared {
	if p, ok := plan.Memo.Load().(*prepared); ok {
		return p
	}
	p := &prepared{zones: zones}
	if n := 2*plan.Sets*zones - len(p.first); n > 0 {
		p.more = make([]atomicRecords, n)
	}
	plan.Memo.Store(p) // of two queries that do this at once one loses its work
	return p
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
	of    weak.Pointer[prepared]
	slot  int
	bytes int
}

// keep lets later queries find the records. It waits for nobody: while another query does the same, it keeps nothing.
func (s *stock) keep(p *prepared, slot int, records []dns.RR) {
	if !s.mu.TryLock() {
		return
	}
	defer s.mu.Unlock()
	if !p.at(slot).CompareAndSwap(nil, &records) {
		return
	}
	k := stocked{weak.Make(p), slot, sizeOf(records)}
	s.queue = append(s.queue, k)
	for s.used += k.bytes; s.used > s.most; s.queue = s.queue[1:] {
		oldest := s.queue[0]
		s.used -= oldest.bytes
		if p := oldest.of.Value(); p != nil {
			p.at(oldest.slot).Store(nil)
		}
	}
}

// sizeOf returns about how many bytes the address records of one answer take, with what is kept beside them.
func sizeOf(records []dns.RR) int {
	const each = int(unsafe.Sizeof(dns.AAAA{})+unsafe.Sizeof(dns.RR(nil))) + 16
	return int(unsafe.Sizeof(stocked{})+unsafe.Sizeof([]dns.RR{})) + each*len(records)
}
