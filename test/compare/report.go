//go:build linux

package compare

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// row is a figure of ours with the bound that it must keep.
type row struct {
	group Group
	what  string
	unit  string
	bound float64
	// of returns the figure in each round.
	of func(*Results) []float64
}

// ratio compares a figure of two subjects.
func ratio(a, b subject, f figure) func(*Results) []float64 {
	return func(r *Results) []float64 { return r.ratios(a.name, b.name, f) }
}

// rows are in the order of the table.
var rows = []row{
	{CPU, "CPU per query: ours / prebuilt records", "", 1.10, ratio(ours, prebuilt, cpuPerQuery)},
	{CPU, "CPU per query: ours / kubernetes", "", 0.55, ratio(ours, kubernetes, cpuPerQuery)},
	{CPU, "CPU per query in kubeadm's chain: ours / kubernetes", "", 0.65, ratio(chainOurs, chain, cpuPerQuery)},
}

// columns are the figures of the table of subjects.
var columns = []figure{cpuPerQuery, queriesPerSecond}

// Write prints the tables: figures with their bounds, then what was measured of each subject.
func (r *Results) Write(w io.Writer) {
	var table [][]string
	for _, row := range rows {
		if slices.Contains(r.Groups, row.group) {
			table = append(table, row.cells(r))
		}
	}
	align(w, []string{"figure", "measured", "rounds", "bound", ""}, table)
	fmt.Fprintln(w)

	table = nil
	for _, name := range r.Subjects {
		cells := []string{name}
		for _, f := range columns {
			cells = append(cells, number(r.values(name, f)))
		}
		table = append(table, append(cells, number(r.ratios(name, kubernetes.name, cpuPerQuery))))
	}
	head := []string{"subject"}
	for _, f := range columns {
		head = append(head, string(f))
	}
	align(w, append(head, "CPU / kubernetes"), table)
	for _, s := range r.Skipped {
		fmt.Fprintf(w, "\nSkipped: %s.\n", s)
	}
}

// cells are those of a line of the table.
func (row row) cells(r *Results) []string {
	values := row.of(r)
	if len(values) == 0 {
		return []string{row.what, "-", "", row.limit(), "not measured"}
	}
	verdict := "met"
	if median(values) > row.bound {
		verdict = "**missed**"
	}
	spread := fmt.Sprintf("%s to %s", short(slices.Min(values)), short(slices.Max(values)))
	return []string{row.what, strings.TrimSpace(short(median(values)) + " " + row.unit), spread, row.limit(), verdict}
}

func (row row) limit() string { return strings.TrimSpace("<= " + short(row.bound) + " " + row.unit) }

// number is the median of some values, a hyphen for none.
func number(values []float64) string {
	if len(values) == 0 {
		return "-"
	}
	return short(median(values))
}

// short prints three digits or what stands before the point.
func short(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// align prints a table as Markdown that can be read as it is.
func align(w io.Writer, head []string, lines [][]string) {
	widths := make([]int, len(head))
	for _, cells := range append([][]string{head}, lines...) {
		for i, cell := range cells {
			widths[i] = max(widths[i], len(cell), 3)
		}
	}
	rule := make([]string, len(head))
	for i, width := range widths {
		rule[i] = strings.Repeat("-", width)
	}
	for _, cells := range append([][]string{head, rule}, lines...) {
		for i, cell := range cells {
			fmt.Fprintf(w, "| %-*s ", widths[i], cell)
		}
		fmt.Fprintln(w, "|")
	}
}

// machine describes what this runs on.
func machine() string {
	model := "unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	kernel := "unknown kernel"
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		kernel = "Linux " + string(bytes.TrimRight(name.Release[:], "\x00"))
	}
	return fmt.Sprintf("%s, %d processors, %s", model, runtime.NumCPU(), kernel)
}

// versions says of what this was compiled.
func versions() string {
	out := runtime.Version()
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return out
	}
	for _, dep := range info.Deps {
		switch dep.Path {
		case "github.com/coredns/coredns", "github.com/miekg/dns", "k8s.io/client-go":
			out += fmt.Sprintf(", %s %s", dep.Path, dep.Version)
		}
	}
	return out
}

// Document is what is kept of a run: the tables, and how to read them.
func (r *Results) Document(at time.Time) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Comparison\n\nWritten by `make compare` on %s.\n\n", at.UTC().Format("2 January 2006"))
	fmt.Fprintf(&b, "* Machine: %s\n* Versions: %s\n* World: %d services, %d rounds\n\n", machine(), versions(), r.Services, len(r.Rounds))
	r.Write(&b)
	b.WriteString(reading)
	return b.Bytes()
}

const reading = `
## How to read it

Ratios count, absolute figures do not: they move by half with what else the machine does. "measured" is the median over the
rounds of what was compared within a round, "rounds" the smallest and the largest of them. Where these lie far apart, the
machine had other things to do, and the run says little.
`
