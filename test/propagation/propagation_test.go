//go:build linux

package propagation

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// The programs, built before any test so that a first build does not count against the time limit.
var (
	controlPlane clusters.Binaries
	coredns      string
)

func TestMain(m *testing.M) {
	var err error
	if controlPlane, err = clusters.Build(context.Background(), os.Stderr); err == nil {
		coredns, err = server.Build(context.Background(), os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func TestChangesShowWithinTenMilliseconds(t *testing.T) {
	const (
		changes = 100
		// attempts allow for a machine that is not idle, since other tests may run at the same time.
		attempts = 3
		want     = 10 * time.Millisecond
	)
	b, err := Start(t.Context(), controlPlane, coredns)
	t.Cleanup(func() {
		if err := b.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for attempt := 1; ; attempt++ {
		results, err := b.Run(t.Context(), changes)
		if err != nil {
			t.Fatal(err)
		}
		var table strings.Builder
		Write(&table, results)
		t.Logf("attempt %d:\n%s", attempt, table.String())
		late := late(results, want)
		if len(late) == 0 {
			return
		}
		if attempt == attempts {
			t.Fatalf("median over %s: %s", want, strings.Join(late, ", "))
		}
	}
}

// late names the results whose median is over the limit.
func late(results []Result, limit time.Duration) []string {
	var names []string
	for _, r := range results {
		if r.Median() > limit {
			names = append(names, r.Cluster+" "+r.Change)
		}
	}
	return names
}

func TestQuantile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	tests := []struct {
		name  string
		took  []time.Duration
		share float64
		want  time.Duration
	}{
		{"the median of an odd number is the one in the middle", []time.Duration{1, 2, 9}, 0.5, 2},
		{"the largest is the last", hundred, 1, 100},
		{"one of a hundred may exceed the 99th percentile", hundred, 0.99, 99},
		{"of one there is one", []time.Duration{7}, 0.9, 7},
		{"of none there is none", nil, 0.5, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := (Result{Took: test.took}).Quantile(test.share); got != test.want {
				t.Errorf("Quantile(%v) = %d, want %d", test.share, got, test.want)
			}
		})
	}
}
