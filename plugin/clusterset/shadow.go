package clusterset

import (
	"cmp"
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/time/rate"
)

// comparison is what came of a query that was answered by the next plugin and in the shadow.
type comparison string

const (
	same       comparison = "same"        // the same response code and records, whatever their order and TTL
	different  comparison = "different"   // something else
	passedOn   comparison = "fallthrough" // without `shadow` the next plugin would answer too
	unanswered comparison = "unanswered"  // the next plugin answered nothing
	broken     comparison = "panic"       // a fault of ours, which the client does not notice
)

var shadowAnswers = promauto.NewCounterVec(prometheus.CounterOpts{
	Namespace: plugin.Namespace,
	Subsystem: pluginName,
	Name:      "shadow_answers_total",
	Help:      "Queries that the next plugin answered because of `shadow`, by how its answer compares (same, different, fallthrough, unanswered, panic).",
}, []string{"result"})

// shadowLog bounds what the comparison says in the log to a line a second.
var shadowLog = rate.Sometimes{Interval: time.Second}

// serveShadow lets the next plugin answer, and compares what this one would say. The answer is made first, since plugins above may
// change the other one as soon as it is written.
func (c *Clusterset) serveShadow(ctx context.Context, w dns.ResponseWriter, r *dns.Msg, zone int, qname string) (int, error) {
	about, ok := ctx.Value(cellKey{}).(*cell)
	if !ok {
		about = &cell{}
		ctx = context.WithValue(ctx, cellKey{}, about)
	}
	s := &shadowWriter{ResponseWriter: w, about: about, result: unanswered}
	s.reply, s.broken = c.shadowed(ctx, w, r, zone, qname)
	rcode, err := plugin.NextOrFailure(pluginName, c.Next, ctx, s, r)
	shadowAnswers.WithLabelValues(string(s.result)).Inc()
	return rcode, err
}

// shadowed makes our answer, nil where the next plugin would be asked anyway.
func (c *Clusterset) shadowed(ctx context.Context, w dns.ResponseWriter, r *dns.Msg, zone int, qname string) (reply *dns.Msg, failed bool) {
	defer func() {
		if p := recover(); p != nil {
			reply, failed = nil, true
			shadowLog.Do(func() { log.Errorf("Shadow: %s: panic: %v\n%s", r.Question[0].String(), p, debug.Stack()) })
		}
	}()
	return c.answer(ctx, w, r, zone, qname), false
}

// shadowWriter hands on the answer of the next plugin and compares it with ours.
type shadowWriter struct {
	dns.ResponseWriter
	reply  *dns.Msg
	broken bool
	about  *cell
	result comparison
}

// WriteMsg implements dns.ResponseWriter.
func (s *shadowWriter) WriteMsg(m *dns.Msg) error {
	s.compare(m)
	return s.ResponseWriter.WriteMsg(m)
}

// Write implements dns.ResponseWriter.
func (s *shadowWriter) Write(packed []byte) (int, error) {
	var m dns.Msg
	if err := m.Unpack(packed); err == nil {
		s.compare(&m)
	}
	return s.ResponseWriter.Write(packed)
}

func (s *shadowWriter) compare(m *dns.Msg) {
	switch {
	case s.broken:
		s.result = broken
	case s.reply == nil:
		s.result = passedOn
	case s.reply.Rcode == m.Rcode && slices.Equal(contents(s.reply.Answer), contents(m.Answer)):
		s.result = same
	default:
		s.result = different
		shadowLog.Do(func() {
			log.Infof("Shadow: %s asked %s %s: answered %s, would be %s (member %s, tier %s, %s)", s.RemoteAddr(), m.Question[0].Name,
				dns.Type(m.Question[0].Qtype), summary(m), summary(s.reply), dash(s.about.member), dash(s.about.tier), dash(s.about.why))
		})
	}
}

// contents are records without their TTL and in an order of their own.
func contents(records []dns.RR) []string {
	out := make([]string, len(records))
	for i, rr := range records {
		rr = dns.Copy(rr)
		rr.Header().Ttl, rr.Header().Name = 0, strings.ToLower(rr.Header().Name)
		out[i] = rr.String()
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// summary is an answer in few words.
func summary(m *dns.Msg) string {
	const most = 4
	var data []string
	for _, rr := range m.Answer {
		if len(data) == most {
			data = append(data, fmt.Sprintf("and %d more", len(m.Answer)-most))
			break
		}
		data = append(data, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	return dns.RcodeToString[m.Rcode] + " [" + strings.Join(data, ", ") + "]"
}

func dash(word string) string { return cmp.Or(word, "-") }
