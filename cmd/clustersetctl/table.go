package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/verdict"
)

// cell is a word of a table with what to think of it; its level may be "".
type cell struct {
	text  string
	level verdict.Level
}

func plain(text string) cell { return cell{text: text} }

// colour numbers of ANSI terminals.
var hues = map[verdict.Level]string{verdict.Good: "32", verdict.Info: "36", verdict.Warn: "33", verdict.Bad: "31"}

// colours tells whether to use them: on a terminal that can, unless the user wants none (no-color.org).
func colours(out *os.File, getenv func(string) string) bool {
	return getenv("NO_COLOR") == "" && getenv("TERM") != "dumb" && term.IsTerminal(int(out.Fd())) //nolint:gosec // a file descriptor
}

// paint writes a word in its colour.
func (t *terminal) paint(c cell) string {
	text := printable(c.text)
	if hue := hues[c.level]; t.colour && hue != "" && text != "" {
		return "\x1b[" + hue + "m" + text + "\x1b[0m"
	}
	return text
}

// printable replaces what could change a terminal: names and reasons come from other clusters.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) && r != '\n' {
			return '?'
		}
		return r
	}, strings.ReplaceAll(text, "\t", " "))
}

// table prints rows in columns, the first row being the headings. A column in which every cell is empty is left out.
func (t *terminal) table(rows [][]cell) {
	var widths []int
	for i := range rows[0] {
		width, used := 0, false
		for at, row := range rows {
			width = max(width, utf8.RuneCountInString(printable(row[i].text)))
			used = used || at > 0 && row[i].text != ""
		}
		if !used {
			width = 0
		}
		widths = append(widths, width)
	}
	for _, row := range rows {
		var line strings.Builder
		for i, c := range row {
			if widths[i] == 0 {
				continue
			}
			line.WriteString(t.paint(c) + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(printable(c.text))+3))
		}
		fmt.Fprintln(t.out, strings.TrimRight(line.String(), " "))
	}
}

func headings(names ...string) (out []cell) {
	for _, n := range names {
		out = append(out, plain(n))
	}
	return out
}

// facts prints terms and what is said about each, without those of which nothing is said.
func (t *terminal) facts(pairs ...cell) {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1].text != "" {
			fmt.Fprintf(t.out, "%-14s %s\n", pairs[i].text+":", t.paint(pairs[i+1]))
		}
	}
}

// notices prints what deserves attention.
func (t *terminal) notices(all []verdict.Notice) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintln(t.out)
	for _, n := range all {
		of := ""
		if n.Of != "" {
			of = n.Of + ": "
		}
		fmt.Fprintf(t.out, "%s %s\n", t.paint(cell{n.Word() + ":", n.Level}), printable(of+n.Text))
	}
}

// printJSON prints a document with indentation, whatever is in it.
func printJSON(w io.Writer, document []byte) error {
	var out bytes.Buffer
	if err := json.Indent(&out, bytes.TrimSpace(document), "", "  "); err != nil {
		return failure{fmt.Errorf("the answer is no JSON: %w", err), exitUnreachable}
	}
	out.WriteByte('\n')
	_, err := w.Write(out.Bytes())
	return err
}
