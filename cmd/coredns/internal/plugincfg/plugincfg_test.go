package plugincfg

import (
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	tests := []struct {
		name string
		in   string
		want []Plugin
	}{
		{"an empty file lists nothing", "", nil},
		{"comments and empty lines are skipped", "# a:b\n\n  \n#\n", nil},
		{"a bare package is one of CoreDNS's own", "prometheus:metrics\n",
			[]Plugin{{"prometheus", "github.com/coredns/coredns/plugin/metrics"}}},
		{"a package with a slash is an import path", "on:github.com/coredns/caddy/onevent\n",
			[]Plugin{{"on", "github.com/coredns/caddy/onevent"}}},
		{"the order of the lines is kept, also without a last newline", "b:b\r\na:a",
			[]Plugin{{"b", coreDNSPlugins + "b"}, {"a", coreDNSPlugins + "a"}}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Parse(strings.NewReader(tc.in))
			if err != nil {
				t.Fatalf("Parse(%q): %v", tc.in, err)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("Parse(%q) = %v, want %v", tc.in, got, tc.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	tests := []struct {
		name string
		in   string
		want string
	}{
		{"a line without a colon", "a:a\nb\n", "line 2: \"b\" is not NAME:PACKAGE"},
		{"a line without a name", ":a\n", "line 1: \":a\" is not NAME:PACKAGE"},
		{"a line without a package", "a:\n", "line 1: \"a:\" is not NAME:PACKAGE"},
		{"a line with three parts", "a:b:c\n", "line 1: \"a:b:c\" is not NAME:PACKAGE"},
		{"a comment behind a plugin", "a:a # b\n", "line 1: \"a:a # b\" is not NAME:PACKAGE"},
		{"a name that comes twice", "a:a\n#\na:b\n", "line 3: plugin \"a\" is listed twice: remove one of the two"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Parse(strings.NewReader(tc.in))
			if err == nil {
				t.Fatalf("Parse(%q) = %v, want an error", tc.in, got)
			}
			if err.Error() != tc.want {
				t.Errorf("Parse(%q): %q, want %q", tc.in, err, tc.want)
			}
		})
	}
}

func TestSource(t *testing.T) {
	const want = `// Code generated from plugin.cfg by go generate. DO NOT EDIT.

package main

import (
	_ "example.org/a"
	_ "github.com/coredns/coredns/plugin/z"
)

// Directives are the names of all plugins in the order in which a query meets them.
var Directives = []string{
	"z",
	"a",
	"b",
}
`
	plugins, err := Parse(strings.NewReader("z:z\na:example.org/a\nb:example.org/a\n"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := Source("main", plugins)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("Got\n%s\nwant\n%s", got, want)
	}
	if _, err := Source("not a name", plugins); err == nil {
		t.Error("Source took a package name with blanks")
	}
}
