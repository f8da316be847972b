package health

import "time"

// slowStart is how long a member that comes back takes until it has its whole weight, minFactor what it begins with:
// Envoy's default of 10 % and HAProxy's rule, a line.
const (
	slowStart = 60 * time.Second
	minFactor = 0.1
)

// SlowStart returns what a member's weight is multiplied by, in [0.1, 1], when it has been back for elapsed of a window:
// Envoy's formula with aggression 1.
func SlowStart(window, elapsed time.Duration) float64 {
	if elapsed >= window {
		return 1
	}
	return max(minFactor, elapsed.Seconds()/window.Seconds())
}
