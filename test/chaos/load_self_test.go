package chaos

import (
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestTheLoadSeesWhatIsWrong gives it answers.
func TestTheLoadSeesWhatIsWrong(t *testing.T) {
	const asked = "a.example."
	addresses := func(addresses ...string) *dns.Msg {
		m := new(dns.Msg).SetQuestion(asked, dns.TypeA)
		for _, a := range addresses {
			rr, err := dns.NewRR(asked + " 5 IN A " + a)
			must(t, err)
			m.Answer = append(m.Answer, rr)
		}
		return m
	}
	code := func(rcode int) *dns.Msg { return &dns.Msg{MsgHdr: dns.MsgHdr{Rcode: rcode}} }
	before, after := allowed{}, allowed{}
	before.add(asked, of([]string{"10.0.0.1", "10.0.0.2"}))
	after.add(asked, of(nil), answered(dns.RcodeServerFailure))
	for _, row := range []struct {
		name          string
		answer        *dns.Msg
		before, after allowed
		want          tally
		wrong         int
	}{
		{"what is right before", addresses("10.0.0.2", "10.0.0.1"), before, before, tally{right: 1}, 0},
		{"what was right when it was asked", addresses("10.0.0.1", "10.0.0.2"), before, after, tally{right: 1}, 0},
		{"what is right when it is answered", code(dns.RcodeNameError), before, after, tally{right: 1}, 0},
		{"what is not right any more", addresses("10.0.0.1", "10.0.0.2"), after, after, tally{}, 1},
		{"an address too few", addresses("10.0.0.1"), before, before, tally{}, 1},
		{"an address too many", addresses("10.0.0.1", "10.0.0.2", "10.0.0.3"), before, before, tally{}, 1},
		{"a name that is denied though it exists", code(dns.RcodeNameError), before, before, tally{}, 1},
		{"no records, and no denial", addresses(), before, after, tally{}, 1},
		{"SERVFAIL is no answer", code(dns.RcodeServerFailure), before, before, tally{servfail: 1}, 0},
		{"but may be right", code(dns.RcodeServerFailure), after, after, tally{right: 1, servfail: 1}, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			begin := time.Now().Add(-time.Minute)
			l := &load{right: map[string]time.Time{asked: begin}, tally: tally{wrong: map[string]int{}, refused: map[string]int{}}}
			l.note(asked, row.answer, nil, &phase{allowed: row.before}, &phase{allowed: row.after})
			got := l.tally
			if got.queries != 1 || got.right != row.want.right || got.servfail != row.want.servfail || len(got.wrong) != row.wrong {
				t.Errorf("It counts %+v, want %+v and %d wrong ones", got, row.want, row.wrong)
			}
			if gap := got.gap >= time.Minute; gap != (row.want.right == 1) {
				t.Errorf("The gap is %s: only a right answer ends it", got.gap)
			}
		})
	}
}

// TestBelief derives what may be answered.
func TestBelief(t *testing.T) {
	e, w, n := east.now, west.now, north.now
	one := func(v version) []version { return []version{v} }
	of := func(c *cluster) []string { return c.endpoints(everywhere, c.now) }
	join := func(lists ...[]string) outcome {
		var all []string
		for _, l := range lists {
			all = append(all, l...)
		}
		return answered(dns.RcodeSuccess, all...)
	}
	for _, row := range []struct {
		name  string
		north []version
		stale map[*cluster][]bool
		want  []outcome // of everywhere
		far   []outcome
	}{
		{"everything is well", one(n), nil, []outcome{join(of(east), of(west), of(north))},
			[]outcome{"NOERROR " + outcome(west.clusterIP(far)), "NOERROR " + outcome(north.clusterIP(far))}},
		{"north exports nothing", one(version{}), nil, []outcome{join(of(east), of(west))}, []outcome{"NOERROR " + outcome(west.clusterIP(far))}},
		{"north is stale", one(n), map[*cluster][]bool{north: {true}}, []outcome{join(of(east), of(west))}, []outcome{"NOERROR " + outcome(west.clusterIP(far))}},
		{"north and west are stale: clients of east spread", one(n), map[*cluster][]bool{north: {true}, west: {true}},
			[]outcome{join(of(east)), join(of(west), of(north))},
			[]outcome{"NOERROR " + outcome(west.clusterIP(far)), "NOERROR " + outcome(north.clusterIP(far))}},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := belief{versions: map[*cluster][]version{east: one(e), west: one(w), north: row.north}, stale: row.stale}.allows()
			for name, want := range map[string][]outcome{name(everywhere): row.want, name(far): row.far} {
				if len(got[name]) != len(want) {
					t.Errorf("%s may be %v, want %v", name, got[name], want)
				}
				for _, o := range want {
					if !got[name][o] {
						t.Errorf("%s may not be %s, but %v", name, o, got[name])
					}
				}
			}
		})
	}
}
