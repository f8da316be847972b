//go:build linux

package scale

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

	"github.com/clusterset-dns/clusterset-dns/test/members"
	"github.com/clusterset-dns/clusterset-dns/test/server"
)

func TestMain(m *testing.M) {
	// The server is built before any test, so that a first build does not count against the time limit.
	if _, err := server.Build(context.Background(), os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// TestEveryFigureIsThere runs everything once, in small worlds. Whether bounds are kept is not looked at.
func TestEveryFigureIsThere(t *testing.T) {
	o := Options{
		Endpoints: []int{2000}, Members: 4, Changes: 10, Burst: 200 * time.Millisecond, Clients: 10, Outage: time.Second,
		Profiles: t.TempDir(), Progress: t.Output(),
	}
	results, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	text := string(results.Document(time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)))
	t.Log(text)
	if len(results.Worlds) != len(worlds)*len(o.Endpoints) {
		t.Fatalf("%d worlds", len(results.Worlds))
	}
	for _, w := range results.Worlds {
		for _, f := range figures() {
			v, there := w.Figures[f]
			common := f == commonMedian || f == common99
			switch {
			case common && w.Name != worlds[0].name:
				if there {
					t.Errorf("%s: %s is %v, but all names are common", w.Name, f, v)
				}
			case !there && len(results.Notes) > 0: // a busy machine, which the test does not judge
			case !there || math.IsNaN(v) || math.IsInf(v, 0) || !plausible(f, v):
				t.Errorf("%s, %d endpoints: %s is %v, %v", w.Name, w.Endpoints, f, v, there)
			}
			if !strings.Contains(text, "| "+string(f)+" ") {
				t.Errorf("%s is not in the tables", f)
			}
		}
	}
	if profiles, err := os.ReadDir(o.Profiles); err != nil || len(profiles) != len(results.Worlds) {
		t.Errorf("%d profiles, %v", len(profiles), err)
	}
	checkReturn(t, results.Return, o)
}

// plausible tells whether a figure can be true on whatever machine.
func plausible(f figure, v float64) bool {
	switch f {
	case compiled, compiledEach:
		return v > -1e6 // a few names take less than what comes and goes in a heap
	case factsEach:
		return v > 20 && v < 10_000
	case received:
		return v > 0.3 && v < 100
	case shownMedian, shown99, commonMedian, common99:
		return v > 0 && v <= shownWithin.Seconds()*1e3
	}
	return v > 0 || strings.Contains(string(f), "waited") && v == 0
}

func checkReturn(t *testing.T, r Return, o Options) {
	t.Helper()
	var sum Second
	for _, s := range r.Seconds {
		sum.Connections += s.Connections
		sum.Requests += s.Requests
		sum.Watches += s.Watches
		sum.Known = s.Known
	}
	// Of a member, ServiceExports, Services, EndpointSlices and ClusterProperties are watched. Of what has changed in between
	// each server makes a list.
	if r.Watches < 4*o.Clients || sum.Watches < r.Watches || sum.Requests < o.Clients || sum.Connections < o.Clients || sum.Known != o.Clients {
		t.Errorf("%d watches were open before, %+v after the return", r.Watches, sum)
	}
}

func TestOptions(t *testing.T) {
	good := Options{Endpoints: []int{200, 2000}, Members: 20, Changes: 1, Clients: 1}
	tests := []struct {
		name   string
		change func(*Options)
		want   string // in the error, "" for none
	}{
		{"sizes that grow", func(*Options) {}, ""},
		{"sizes that shrink", func(o *Options) { o.Endpoints = []int{2000, 200} }, "grow"},
		{"no sizes", func(o *Options) { o.Endpoints = nil }, "grow"},
		{"one member, which has no other", func(o *Options) { o.Members = 1 }, "two members"},
		{"a size that cannot be shared out", func(o *Options) { o.Endpoints = []int{250} }, "multiples of 200"},
		{"fewer endpoints than members", func(o *Options) { o.Endpoints = []int{0} }, "multiples of 200"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := good
			o.Endpoints = slices.Clone(good.Endpoints)
			test.change(&o)
			err := o.check()
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

func TestBounds(t *testing.T) {
	results := func(small, large float64) *Results {
		r := &Results{}
		for _, w := range worlds {
			for i, v := range []float64{small, large} {
				f := Figures{}
				for _, name := range figures() {
					f[name] = v
				}
				r.Worlds = append(r.Worlds, World{w.name, 10_000 * (1 + 9*i), f})
			}
		}
		return r
	}
	tests := []struct {
		name         string
		small, large float64
		missed       int
	}{
		{"everything stays as it is", 100, 100, 0},
		{"twice as much is met", 50, 100, 0},
		{"more is missed in both worlds", 90, 190, 4},
		{"facts count for themselves", 201, 201, 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var text strings.Builder
			results(test.small, test.large).Write(&text)
			if got := strings.Count(text.String(), "**missed**"); got != test.missed {
				t.Errorf("%d bounds are missed, want %d:\n%s", got, test.missed, text.String())
			}
		})
	}
}

// TestSeconds puts traffic into the seconds after a return.
func TestSeconds(t *testing.T) {
	up := time.Now()
	at := func(d time.Duration, kind members.Kind) members.Traffic {
		return members.Traffic{At: up.Add(d), Kind: kind}
	}
	r := Return{Back: 2500 * time.Millisecond, Known: time.Second}
	r.count([]members.Traffic{
		at(-time.Second, members.Watch), at(0, members.Connection), at(100*time.Millisecond, members.Request),
		at(999*time.Millisecond, members.Watch), at(1001*time.Millisecond, members.Watch), at(2400*time.Millisecond, members.Watch),
		at(time.Minute, members.Watch),
	}, up, []time.Duration{900 * time.Millisecond, time.Second})
	want := []Second{{1, 1, 1, 1}, {0, 0, 1, 2}, {0, 0, 1, 2}}
	if !slices.Equal(r.Seconds, want) {
		t.Errorf("%+v, want %+v", r.Seconds, want)
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int]string{7: "7", 999: "999", 1000: "1,000", 123456: "123,456", 1000000: "1,000,000"} {
		if got := thousands(n); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
