package verdict

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// Age puts seconds into words, as exactly as a reader needs it.
func Age(seconds float64) string {
	switch s := math.Max(seconds, 0); {
	case s < 10:
		return strconv.FormatFloat(math.Round(s*10)/10, 'f', -1, 64) + " s"
	case s < 120:
		return strconv.Itoa(int(s)) + " s"
	case s < 2*3600:
		return strconv.Itoa(int(s/60)) + " min"
	case s < 48*3600:
		return strconv.Itoa(int(s/3600)) + " h"
	default:
		return strconv.Itoa(int(s/86400)) + " d"
	}
}

// Ago says how long ago something was, in seconds; nil is never.
func Ago(seconds *float64) string {
	if seconds == nil {
		return "never"
	}
	return Age(*seconds) + " ago"
}

// End says how far away the end of something is, and what to think of it.
func End(at, now time.Time) (string, Level) {
	left := at.Sub(now)
	switch {
	case left <= 0:
		return "ended " + Age(-left.Seconds()) + " ago", Bad
	case left < soon:
		return "in " + Age(left.Seconds()), Warn
	default:
		return "in " + Age(left.Seconds()), Good
	}
}

// Number puts commas between the thousands of a whole number that is not negative.
func Number(n any) string {
	text := fmt.Sprint(n)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

// Decimal is a figure with two places at most.
func Decimal(f float64) string { return strconv.FormatFloat(math.Round(f*100)/100, 'f', -1, 64) }

// Percent is a share from 0 to 1 in percent: whole ones, but never 0 or 100 for what is not.
func Percent(share float64) string {
	p := share * 100
	switch {
	case p <= 0:
		return "0"
	case p < 0.5:
		return "<1"
	case p > 99.5 && p < 100-1e-9:
		return ">99"
	default:
		return strconv.Itoa(int(math.Round(p)))
	}
}

// Plural counts things in words.
func Plural(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return Number(n) + " " + more
}
