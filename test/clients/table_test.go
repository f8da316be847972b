package clients

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// row is what was found of a client.
type row struct {
	name, version, first, srv, large, order4, order6, kept, search, absolute string
}

// table is what was found of all.
type table struct{ rows []row }

const (
	tableBegin = "<!-- begin of the table: written by test/clients -->\n"
	tableEnd   = "<!-- end of the table -->\n"
)

func (t *table) add(r row) { t.rows = append(t.rows, r) }

// String is the table in Markdown.
func (t *table) String() string {
	var b strings.Builder
	b.WriteString("| client | version | asks first | SRV | of 300 endpoints it gives | order of A | order of AAAA | keeps answers | queries for a name | with a dot at its end |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|--:|--:|\n")
	for _, r := range t.rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", r.name, r.version, r.first, r.srv, r.large, r.order4, r.order6, r.kept,
			r.search, r.absolute)
	}
	return b.String()
}

// write puts the table into a file, in place of the one that is there.
func (t *table) write(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), tableBegin)
	_, after, ended := strings.Cut(rest, tableEnd)
	if !ok || !ended {
		return fmt.Errorf("%s has no place for the table: it must be between %q and %q", file, tableBegin, tableEnd)
	}
	return os.WriteFile(file, []byte(before+tableBegin+t.String()+tableEnd+after), 0o644)
}

func TestTheTableIsWrittenIntoADocument(t *testing.T) {
	file := filepath.Join(t.TempDir(), "clients.md")
	found := &table{}
	found.add(row{"a", "1", "UDP", "no", "7, over TCP", "x", "y", "z", "8", "2"})
	must(t, os.WriteFile(file, []byte("above\n"+tableBegin+"old\n"+tableEnd+"below\n"), 0o600))
	must(t, found.write(file))
	text, err := os.ReadFile(file)
	must(t, err)
	if got := string(text); !strings.HasPrefix(got, "above\n"+tableBegin+"| client") ||
		!strings.HasSuffix(got, "\n| a | 1 | UDP | no | 7, over TCP | x | y | z | 8 | 2 |\n"+tableEnd+"below\n") {
		t.Errorf("It is\n%s", got)
	}
	must(t, os.WriteFile(file, []byte("no place"), 0o600))
	if found.write(file) == nil {
		t.Error("It was written where there is no place for it")
	}
}
