package chaos

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// result is a line of the table.
type result struct {
	tally
	recovery      time.Duration
	before, after float64 // MiB
	skipped       string  // why there is none
}

const (
	readme     = "README.md"
	tableBegin = "<!-- begin of the table: written by make chaos -->\n"
	tableEnd   = "<!-- end of the table -->\n"
)

// table is what was found so far.
type table struct {
	names   []string
	results map[string]*result
}

func (t *table) add(name string, r *result) {
	t.names = append(t.names, name)
	t.results[name] = r
}

// String is the table in Markdown.
func (t *table) String() string {
	var b strings.Builder
	b.WriteString("| what happens | queries | wrong | SERVFAIL | unanswered | longest gap | right again after | memory before, after |\n")
	b.WriteString("|---|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, name := range t.names {
		r := t.results[name]
		if r.skipped != "" {
			fmt.Fprintf(&b, "| %s | %s | | | | | | |\n", name, r.skipped)
			continue
		}
		wrong := 0
		for _, n := range r.wrong {
			wrong += n
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %.2f s | %.1f s | %.0f, %.0f MiB |\n", name, r.queries, wrong, r.servfail,
			r.unanswered, r.gap.Seconds(), r.recovery.Seconds(), r.before, r.after)
	}
	return b.String()
}

// write puts the table into the README, in place of the one that is there.
func (t *table) write() error {
	text, err := os.ReadFile(readme)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), tableBegin)
	_, after, ended := strings.Cut(rest, tableEnd)
	if !ok || !ended {
		return fmt.Errorf("%s has no place for the table: it must be between %q and %q", readme, tableBegin, tableEnd)
	}
	return os.WriteFile(readme, []byte(before+tableBegin+t.String()+tableEnd+after), 0o644)
}

// TestTheTableIsWrittenIntoAReadme keeps everything around the table.
func TestTheTableIsWrittenIntoAReadme(t *testing.T) {
	t.Chdir(t.TempDir())
	found := &table{results: map[string]*result{}}
	found.add("the sky falls", &result{tally: tally{queries: 7, wrong: map[string]int{"a": 1, "b": 2}}, recovery: time.Second})
	found.add("nothing", &result{skipped: "not here"})
	must(t, os.WriteFile(readme, []byte("above\n"+tableBegin+"old\n"+tableEnd+"below\n"), 0o600))
	must(t, found.write())
	text, err := os.ReadFile(readme)
	must(t, err)
	want := "| the sky falls | 7 | 3 | 0 | 0 | 0.00 s | 1.0 s | 0, 0 MiB |\n| nothing | not here | | | | | | |\n" + tableEnd + "below\n"
	if got := string(text); !strings.HasPrefix(got, "above\n"+tableBegin+"| what") || !strings.HasSuffix(got, want) {
		t.Errorf("It is\n%s", got)
	}
	must(t, os.WriteFile(readme, []byte("no place"), 0o600))
	if found.write() == nil {
		t.Error("It was written where there is no place for it")
	}
}
