//go:build linux

package compare

import (
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// What tests need is built before any of them, so that a first build does not count against the time limit.
	if _, err := build(context.Background(), os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// TestEveryRowGetsAFigure runs everything once, in a small world. Whether bounds are kept is not looked at.
func TestEveryRowGetsAFigure(t *testing.T) {
	o := Options{Services: 200, Rounds: 1, Burst: 200 * time.Millisecond, Progress: t.Output()}
	results, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	text := string(results.Document(time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)))
	t.Log(text)
	for _, row := range rows {
		values := row.of(results)
		if len(values) != 1 || math.IsNaN(values[0]) || math.IsInf(values[0], 0) {
			t.Errorf("%s: %v", row.what, values)
		}
	}
	for _, name := range names() {
		if !strings.Contains(text, "| "+name+" ") && !strings.Contains(text, name+" was skipped") {
			t.Errorf("%s is neither measured nor skipped", name)
		}
	}
}

func TestCells(t *testing.T) {
	rounds := func(values ...float64) *Results {
		r := &Results{}
		for _, v := range values {
			r.Rounds = append(r.Rounds, Round{{"a", cpuPerQuery}: v, {"b", cpuPerQuery}: 10})
		}
		return r
	}
	a, b := subject{name: "a"}, subject{name: "b"}
	tests := []struct {
		name    string
		row     row
		results *Results
		want    []string
	}{
		{"the median decides", row{what: "x", bound: 2, of: ratio(a, b, cpuPerQuery)}, rounds(90, 11, 12), []string{"x", "1.20", "1.10 to 9.00", "2.00", "met"}},
		{"a bound is met when it is reached", row{what: "x", bound: 1.5, of: ratio(a, b, cpuPerQuery)}, rounds(15), []string{"x", "1.50", "1.50 to 1.50", "1.50", "met"}},
		{"more is missed", row{what: "x", unit: "us", bound: 1.5, of: value(a, cpuPerQuery)}, rounds(15.4), []string{"x", "15.4 us", "15.4 to 15.4", "1.50 us", "**missed**"}},
		{"less than before is below every bound", row{what: "x", bound: 1, of: difference(a, b, cpuPerQuery)}, rounds(5), []string{"x", "-5.00", "-5.00 to -5.00", "1.00", "met"}},
		{"a row may have no bound", row{what: "x", of: value(a, cpuPerQuery)}, rounds(1, 2), []string{"x", "1.50", "1.00 to 2.00", "", ""}},
		{"what was not measured says so", row{what: "x", bound: 1, of: value(b, quietly.p99)}, rounds(1), []string{"x", "-", "", "1.00", "not measured"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := test.row.cells(test.results); !slices.Equal(got, test.want) {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

func TestParseGroups(t *testing.T) {
	tests := []struct {
		name, text string
		want       []Group
		bad        bool
	}{
		{"one", "cpu", []Group{CPU}, false},
		{"several, with spaces", "start, cpu", []Group{Start, CPU}, false},
		{"one that there is not", "cpu,gpu", nil, true},
		{"nothing is no group", "", nil, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := ParseGroups(test.text)
			if !slices.Equal(got, test.want) || (err != nil) != test.bad {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

func TestCollecting(t *testing.T) {
	tests := []struct {
		name, log string
		want      time.Duration
	}{
		{"what was printed of two collections is added", "[INFO] ready\ngc 1 @0.025s 5%: 0.014+5.9+0.006 ms clock, 0.1+1.5/0.27/0+0.007 ms cpu\ngc 2 @1s 12%: 1+2+3 ms clock\n", 11920 * time.Microsecond},
		{"a line that only ends so is none", "[INFO] gc 1 @0.025s 5%: 1+2+3 ms clock\n", 0},
		{"nothing is collected by who says nothing", "", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := collecting(test.log); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

func TestInTurn(t *testing.T) {
	tests := []struct {
		name  string
		round int
		want  []string
	}{
		{"in the first round from the first on", 0, []string{"a", "b", "c"}},
		{"in the second from the last on", 1, []string{"c", "b", "a"}},
		{"in the third as in the first", 2, []string{"a", "b", "c"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := inTurn(test.round, "a", "b", "c"); !slices.Equal(got, test.want) {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}
