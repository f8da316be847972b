package nearest

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/miekg/dns"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// endpointsPerSlice is how many the EndpointSlice controller puts into one.
const endpointsPerSlice = 100

// usualSize is the size of answers over UDP that resolvers ask for since the DNS flag day of 2020. It holds 64 addresses.
const usualSize = 1232

// TestLargeService compares what a query over UDP costs the server for a headless service of 5,000 endpoints and for
// one of 64. Only what fits is built, so it must be at most three times as much.
func TestLargeService(t *testing.T) {
	const most, rounds, queries = 3.0, 5, 3000
	north.offers(t, service{name: "small", headless: true, endpoints: pods(64, "10.3.60.1")})
	large := pods(5000, "10.3.64.1")
	north.offers(t, service{name: "large", headless: true, endpoints: large[:endpointsPerSlice]})
	for i := 1; i < len(large)/endpointsPerSlice; i++ {
		part := offer{service: service{name: "large", endpoints: large[i*endpointsPerSlice : (i+1)*endpointsPerSlice]}, in: north, ready: endpointsPerSlice}
		for _, slice := range part.slices() {
			slice.Name += "-" + strconv.Itoa(i)
			slice.AddressType = discoveryv1.AddressTypeIPv4
			must(t, north.Slice(t.Context(), slice))
		}
	}
	for _, e := range large {
		everything.add(name("large"), north, e.addresses)
	}
	s := run(t, block("DNS", locality(), clusterset(three())))
	one := dial(t, s, "DNS", north.at(0))
	defer one.close()
	within(t, limit, "all endpoints are known", func() error {
		answer, err := s.Ask(t.Context(), server.Question{Name: name("large"), Type: dns.TypeA, TCP: true})
		if err == nil && len(answer.Answer) < 4000 { // a message holds some 4,090
			err = fmt.Errorf("%d records over TCP", len(answer.Answer))
		}
		return err
	})
	cost := func(of string) float64 {
		before := cpuOf(t, s.PID())
		for range queries {
			m := (&dns.Msg{}).SetQuestion(name(of), dns.TypeA)
			m.SetEdns0(usualSize, false)
			answer, err := one.exchange(m)
			for try := 1; err != nil && try < queryTries; try++ {
				answer, err = one.exchange(m)
			}
			must(t, err)
			if n := len(answer.Answer); n < 64 || answer.Truncated != (of == "large") {
				t.Fatalf("%s: %d records, TC %v", of, n, answer.Truncated)
			}
		}
		return float64(cpuOf(t, s.PID())-before) / queries * 10_000 // ticks of 10 ms, in us
	}
	cost("small")
	cost("large")
	var ratios []float64
	for range rounds {
		small, large := cost("small"), cost("large")
		t.Logf("%.1f us of CPU per query for 64 endpoints, %.1f us for 5,000", small, large)
		ratios = append(ratios, large/small)
	}
	slices.Sort(ratios)
	if median := ratios[rounds/2]; median > most {
		t.Errorf("The median of the ratios is %.2f, want at most %.1f", median, most)
	} else {
		t.Logf("The median of the ratios is %.2f", median)
	}
}

// cpuOf returns the user and system time of a process in clock ticks (proc(5): fields 14 and 15 of stat).
func cpuOf(t *testing.T, pid int) int {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(t, err)
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	sum := 0
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(string(field))
		must(t, err)
		sum += n
	}
	return sum
}
