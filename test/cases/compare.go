package cases

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// unhandledMark is the owner of the record that the next plugin puts into the additional section.
const unhandledMark = "next-plugin.cases.invalid."

// listenIP is the address of the server, which case files call <listen-ip>.
const listenIP = "127.0.0.1"

// Compare tells what is wrong with the answer; nothing when it is as expected.
func Compare(want Expect, got *dns.Msg) []string {
	var wrong []string
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }

	if len(want.unread) > 0 {
		add("the runner does not know these expectations: %s", strings.Join(want.unread, ", "))
	}
	marked := slices.ContainsFunc(got.Extra, func(rr dns.RR) bool { return rr.Header().Name == unhandledMark })
	if handled := want.Handled == nil || *want.Handled; handled == marked {
		add("the plugin handled the query: %t, want %t", !marked, handled)
	}
	if want.Handled != nil && !*want.Handled {
		return wrong
	}
	if rcode := dns.RcodeToString[got.Rcode]; want.Rcode != nil && !containsFold(want.Rcode, rcode) {
		add("rcode %s, want %s", rcode, strings.Join(want.Rcode, " or "))
	}
	if want.AA != nil && got.Authoritative != *want.AA {
		add("aa %t, want %t", got.Authoritative, *want.AA)
	}
	if want.TC != nil && got.Truncated != *want.TC {
		add("tc %t, want %t", got.Truncated, *want.TC)
	}
	if want.Answer != nil {
		wrong = append(wrong, compareAnswer(want, got.Answer)...)
	}
	for _, rr := range got.Answer {
		if want.TTL != nil && rr.Header().Ttl != *want.TTL {
			add("answer: %s, want ttl %d", line(rr), *want.TTL)
		}
	}
	wrong = append(wrong, compareAuthority(want, got.Ns)...)
	return append(wrong, compareAdditional(want, got)...)
}

func containsFold(list []string, s string) bool {
	return slices.ContainsFunc(list, func(l string) bool { return strings.EqualFold(l, s) })
}

// compareAnswer compares the answer section as a set; owners keep their case.
func compareAnswer(want Expect, got []dns.RR) []string {
	if !want.AnswerSubsetOK {
		return compareSet("answer", *want.Answer, got, true)
	}
	wrong := compareSubset("answer", *want.Answer, got, true)
	if len(got) == 0 && len(*want.Answer) > 0 {
		wrong = append(wrong, "answer: no record, want some of them")
	}
	return wrong
}

func compareAuthority(want Expect, got []dns.RR) []string {
	var wrong []string
	if want.AuthoritySOA != nil {
		soa := slices.ContainsFunc(got, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeSOA })
		if soa != *want.AuthoritySOA {
			wrong = append(wrong, fmt.Sprintf("authority: has a SOA record: %t, want %t", soa, *want.AuthoritySOA))
		}
	}
	if want.Authority != nil {
		wrong = append(wrong, compareSet("authority", *want.Authority, got, false)...)
	}
	return wrong
}

// compareAdditional allows the listed glue, whose absence is no fault, and OPT. Where no glue is listed, addresses of the
// targets in the answer are allowed.
func compareAdditional(want Expect, got *dns.Msg) []string {
	extra := slices.DeleteFunc(slices.Clone(got.Extra), func(rr dns.RR) bool {
		return rr.Header().Rrtype == dns.TypeOPT || rr.Header().Name == unhandledMark
	})
	if want.Additional != nil {
		return compareSubset("additional", *want.Additional, extra, false)
	}
	var wrong []string
	for _, rr := range extra {
		if t := rr.Header().Rrtype; t != dns.TypeA && t != dns.TypeAAAA || !isTarget(got.Answer, rr.Header().Name) {
			wrong = append(wrong, fmt.Sprintf("additional: unexpected record %s", line(rr)))
		}
	}
	return wrong
}

// isTarget tells whether a record points to the name.
func isTarget(answer []dns.RR, name string) bool {
	return slices.ContainsFunc(answer, func(rr dns.RR) bool {
		switch rr := rr.(type) {
		case *dns.SRV:
			return strings.EqualFold(rr.Target, name)
		case *dns.NS:
			return strings.EqualFold(rr.Ns, name)
		}
		return false
	})
}

// compareSet reports what is missing, not expected, or there twice.
func compareSet(section string, want []Record, got []dns.RR, keepCase bool) []string {
	wrong := compareSubset(section, want, got, keepCase)
	for _, w := range want {
		if !slices.ContainsFunc(got, func(rr dns.RR) bool { return w.matches(rr, keepCase) }) {
			wrong = append(wrong, fmt.Sprintf("%s: missing %s", section, w))
		}
	}
	return wrong
}

// compareSubset reports what is not expected, or there twice.
func compareSubset(section string, want []Record, got []dns.RR, keepCase bool) []string {
	var wrong []string
	for i, rr := range got {
		if !slices.ContainsFunc(want, func(w Record) bool { return w.matches(rr, keepCase) }) {
			wrong = append(wrong, fmt.Sprintf("%s: unexpected %s", section, line(rr)))
		}
		if slices.ContainsFunc(got[:i], func(other dns.RR) bool { return dns.IsDuplicate(rr, other) }) {
			wrong = append(wrong, fmt.Sprintf("%s: twice %s", section, line(rr)))
		}
	}
	return wrong
}

// matches compares one record. "*" in the expected data stands for any one field.
func (r Record) matches(got dns.RR, keepCase bool) bool {
	h := got.Header()
	if r.Owner != h.Name && (keepCase || !strings.EqualFold(r.Owner, h.Name)) {
		return false
	}
	if !strings.EqualFold(r.Type, dns.Type(h.Rrtype).String()) || r.TTL != nil && *r.TTL != h.Ttl {
		return false
	}
	want, have := fields(strings.ReplaceAll(string(r.Rdata), "<listen-ip>", listenIP)), fields(rdata(got))
	return slices.EqualFunc(want, have, func(w, h string) bool { return w == "*" || w == h })
}

// fields splits the text form of record data, with one spelling for everything.
func fields(rdata string) []string {
	split := strings.Fields(strings.ToLower(rdata))
	for i, f := range split {
		if address, err := netip.ParseAddr(f); err == nil {
			split[i] = address.String()
		}
	}
	return split
}

// rdata returns the data of a record in text form.
func rdata(rr dns.RR) string { return strings.TrimPrefix(rr.String(), rr.Header().String()) }

// line prints a record as case files write it.
func line(rr dns.RR) string {
	h := rr.Header()
	return fmt.Sprintf("%s %s %s (ttl %d)", h.Name, dns.Type(h.Rrtype), rdata(rr), h.Ttl)
}

func (r Record) String() string {
	s := fmt.Sprintf("%s %s %s", r.Owner, r.Type, r.Rdata)
	if r.TTL != nil {
		s += fmt.Sprintf(" (ttl %d)", *r.TTL)
	}
	return s
}

// String prints an expectation in the way of formatAnswer.
func (e Expect) String() string {
	if e.Handled != nil && !*e.Handled {
		return "the next plugin gets the query"
	}
	var b strings.Builder
	b.WriteString(strings.Join(e.Rcode, " or "))
	flag := func(name string, v *bool) {
		if v != nil {
			fmt.Fprintf(&b, " %s=%t", name, *v)
		}
	}
	flag("aa", e.AA)
	flag("tc", e.TC)
	flag("authority_soa", e.AuthoritySOA)
	section := func(name string, records *[]Record) {
		if records == nil {
			return
		}
		for _, r := range *records {
			fmt.Fprintf(&b, "\n%s: %s", name, r)
		}
	}
	if e.AnswerSubsetOK {
		b.WriteString(" (a subset will do)")
	}
	section("answer", e.Answer)
	section("authority", e.Authority)
	section("additional, optional", e.Additional)
	return b.String()
}

// formatAnswer prints an answer for people.
func formatAnswer(m *dns.Msg) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s aa=%t tc=%t", dns.RcodeToString[m.Rcode], m.Authoritative, m.Truncated)
	for _, section := range []struct {
		name    string
		records []dns.RR
	}{{"answer", m.Answer}, {"authority", m.Ns}, {"additional", m.Extra}} {
		for _, rr := range section.records {
			if rr.Header().Rrtype == dns.TypeOPT {
				continue
			}
			fmt.Fprintf(&b, "\n%s: %s", section.name, line(rr))
		}
	}
	return b.String()
}
