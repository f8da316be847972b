//go:build linux

package measure

import (
	"bytes"
	"debug/buildinfo"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Short prints three digits or what stands before the point.
func Short(v float64) string {
	switch {
	case math.Abs(v) >= 100:
		return fmt.Sprintf("%.0f", v)
	case math.Abs(v) >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// Table prints a table as Markdown that can be read as it is.
func Table(w io.Writer, head []string, lines [][]string) {
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

// Machine describes what this runs on.
func Machine() string {
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

// Versions says of what a binary of ours is made, as far as it matters for what it costs.
func Versions(binary string) ([]string, error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	all := []string{info.GoVersion}
	for _, dep := range info.Deps {
		switch dep.Path {
		case "github.com/coredns/coredns", "github.com/miekg/dns", "k8s.io/client-go":
			all = append(all, dep.Path+" "+dep.Version)
		}
	}
	return all, nil
}
