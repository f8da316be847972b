// Package plugincfg reads plugin.cfg, the ordered list of plugins, and turns it
// into the Go source that links them into the server. It owns the file's grammar
// and the shape of the generated source; it opens and writes no file.
package plugincfg

import (
	"bufio"
	"bytes"
	"fmt"
	"go/format"
	"go/token"
	"io"
	"slices"
	"strings"
)

// coreDNSPlugins is where CoreDNS keeps its own plugins.
const coreDNSPlugins = "github.com/coredns/coredns/plugin/"

// Plugin is one line of plugin.cfg.
type Plugin struct {
	// Name is the directive: the word that a Corefile uses.
	Name string
	// Package is the full import path of the package that registers Name.
	Package string
}

// Parse reads a plugin list. It skips empty lines and lines that start with #,
// and refuses everything that is not NAME:PACKAGE, and a NAME that comes twice;
// the error names the line.
func Parse(r io.Reader) ([]Plugin, error) {
	var plugins []Plugin
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		p, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if slices.ContainsFunc(plugins, func(q Plugin) bool { return q.Name == p.Name }) {
			return nil, fmt.Errorf("line %d: plugin %q is listed twice: remove one of the two", n, p.Name)
		}
		plugins = append(plugins, p)
	}
	return plugins, lines.Err()
}

func parseLine(line string) (Plugin, error) {
	name, pkg, ok := strings.Cut(line, ":")
	if !ok || name == "" || pkg == "" || strings.ContainsAny(line, " \t\"`\\") || strings.Contains(pkg, ":") {
		return Plugin{}, fmt.Errorf("%q is not NAME:PACKAGE", line)
	}
	if !strings.Contains(pkg, "/") {
		pkg = coreDNSPlugins + pkg
	}
	return Plugin{Name: name, Package: pkg}, nil
}

// Names returns the directives of plugins in the same order.
func Names(plugins []Plugin) []string {
	names := make([]string, 0, len(plugins))
	for _, p := range plugins {
		names = append(names, p.Name)
	}
	return names
}

// Source returns a gofmt-ed Go file of package pkg which imports every plugin and
// declares the variable Directives, their names in order.
func Source(pkg string, plugins []Plugin) ([]byte, error) {
	if !token.IsIdentifier(pkg) {
		return nil, fmt.Errorf("%q is not a package name", pkg)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "// Code generated from plugin.cfg by go generate. DO NOT EDIT.\n\npackage %s\n\nimport (\n", pkg)
	for _, path := range importPaths(plugins) {
		fmt.Fprintf(&b, "_ %q\n", path)
	}
	b.WriteString(")\n\n// Directives are the names of all plugins in the order in which a query meets them.\n")
	b.WriteString("var Directives = []string{\n")
	for _, p := range plugins {
		fmt.Fprintf(&b, "%q,\n", p.Name)
	}
	b.WriteString("}\n")
	return format.Source(b.Bytes())
}

// importPaths returns the packages of plugins, sorted, each once: a package may
// register several names.
func importPaths(plugins []Plugin) []string {
	paths := make([]string, 0, len(plugins))
	for _, p := range plugins {
		paths = append(paths, p.Package)
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}
