package statuspage

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// level says how much attention something deserves; it is a class of the style sheet.
type level string

const (
	good level = "good"
	info level = "info"
	warn level = "warn"
	bad  level = "bad"
)

// rank orders levels, the worst first.
func (l level) rank() int { return strings.Index("bad warn info good", string(l)) }

// expiresSoon is how long before their end credentials are worth a warning: what renews them has mostly had its chances by then.
const expiresSoon = 7 * 24 * time.Hour

// age puts seconds into words, as exactly as a reader needs it.
func age(seconds float64) string {
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

// end says how far away the end of something is, and what to think of it.
func end(at, now time.Time) (string, level) {
	left := at.Sub(now)
	switch {
	case left <= 0:
		return "ended " + age(-left.Seconds()) + " ago", bad
	case left < expiresSoon:
		return "in " + age(left.Seconds()), warn
	default:
		return "in " + age(left.Seconds()), good
	}
}

// number puts commas between the thousands of a whole number that is not negative.
func number(n any) string {
	text := fmt.Sprint(n)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

// decimal is a figure with two places at most.
func decimal(f float64) string { return strconv.FormatFloat(math.Round(f*100)/100, 'f', -1, 64) }

// percent is a share from 0 to 1 in percent: whole ones, but never 0 or 100 for what is not.
func percent(share float64) string {
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

// plural counts things in words.
func plural(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return number(n) + " " + more
}
