package health

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"testing"
	"time"
)

// TestVectors compares with published results. CLUSTERSET_VECTORS names a file with other rows.
func TestVectors(t *testing.T) {
	file := "testdata/vectors.json"
	if other := os.Getenv("CLUSTERSET_VECTORS"); other != "" {
		file = other
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		SlowStart []struct {
			Window         float64 `json:"window_s"`
			Aggression     float64 `json:"aggression"`
			MinimumPercent float64 `json:"min_weight_percent"`
			Elapsed        float64 `json:"seconds_in"`
			Want           float64 `json:"expected_factor"`
		} `json:"slow_start"`
	}
	if err := json.Unmarshal(content, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors.SlowStart) == 0 {
		t.Fatalf("No rows of slow_start in %s", file)
	}
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	for _, v := range vectors.SlowStart {
		t.Run(fmt.Sprintf("slow_start/%v s into a window of %v s", v.Elapsed, v.Window), func(t *testing.T) {
			if v.Aggression != 1 || v.MinimumPercent != 100*minFactor {
				t.Fatalf("Aggression %v and a minimum of %v %% are not what this package has", v.Aggression, v.MinimumPercent)
			}
			if got := SlowStart(seconds(v.Window), seconds(v.Elapsed)); math.Abs(got-v.Want) > 0.01 {
				t.Errorf("Expected %v, got %v", v.Want, got)
			}
		})
	}
}

func TestSlowStartStaysInRange(t *testing.T) {
	tests := []struct {
		name    string
		elapsed time.Duration
		want    float64
	}{
		{"at once", 0, 0.1},
		{"before it begins", -time.Second, 0.1},
		{"at the end of the minimum", 6 * time.Second, 0.1},
		{"half way", 30 * time.Second, 0.5},
		{"at the end", 60 * time.Second, 1},
		{"long after", time.Hour, 1},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			if got := SlowStart(slowStart, tc.elapsed); math.Abs(got-tc.want) > 1e-9 {
				t.Errorf("Expected %v, got %v", tc.want, got)
			}
		})
	}
}
