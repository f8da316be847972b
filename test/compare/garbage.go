//go:build linux

package compare

import (
	"regexp"
	"time"
)

// traceGarbage lets a program of Go say how long each collection of garbage took (package runtime, "Environment Variables").
const traceGarbage = "GODEBUG=gctrace=1"

// collection is what it prints, for example "gc 7 @3.536s 2%: 0.054+145+0.005 ms clock, ...": the time in the middle is that in which
// the rest of the program goes on, beside it or, with one processor, by turns.
var collection = regexp.MustCompile(`(?m)^gc \d+ @[\d.]+s \d+%: ([\d.]+)\+([\d.]+)\+([\d.]+) ms clock`)

// collecting returns for how long a program has collected garbage, by what it has printed.
func collecting(log string) (sum time.Duration) {
	for _, match := range collection.FindAllStringSubmatch(log, -1) {
		for _, ms := range match[1:] {
			d, err := time.ParseDuration(ms + "ms")
			if err != nil {
				continue // digits and points that are no number
			}
			sum += d
		}
	}
	return sum
}
