package demo

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/miekg/dns"
)

// screen prints for people.
type screen struct {
	w      io.Writer
	colour bool
}

// The few colours there are, as parameters of the terminal's SGR sequence.
const (
	bold  = "1"
	faint = "2"
	red   = "31"
	green = "32"
)

func (s *screen) paint(colour, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

func (s *screen) heading(title, format string, args ...any) {
	fmt.Fprintf(s.w, "\n%s  %s\n", s.paint(bold, title), s.paint(faint, fmt.Sprintf(format, args...)))
}

func (s *screen) line(format string, args ...any) {
	fmt.Fprintf(s.w, "  "+format+"\n", args...)
}

func (s *screen) command(format string, args ...any) {
	s.line("  %s", fmt.Sprintf(format, args...))
}

// question prints a question, its answer, and why it is so or what is wrong with it.
func (s *screen) question(number int, q question, got []string) {
	fmt.Fprintf(s.w, "\n%s %s %s %s\n", s.paint(faint, fmt.Sprintf("%2d", number)), s.paint(bold, q.name),
		dns.TypeToString[q.qtype], s.paint(faint, "from "+q.from.String()))
	right := q.answeredBy(got)
	colour := green
	if !right {
		colour = red
	}
	for _, record := range got {
		s.line("  %s", s.paint(colour, record))
	}
	if !right {
		s.line("  %s", s.paint(red, "WRONG, expected: "+strings.Join(q.want, ", ")))
	}
	s.line("  %s", s.paint(faint, q.why))
}

// indented indents what the builders print, line by line.
type indented struct{ w io.Writer }

func (i indented) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		if _, err := fmt.Fprintf(i.w, "  %s", line); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}
