package main

import (
	"bytes"
	"encoding/json"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
)

func TestOfItsOwnBinary(t *testing.T) {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var first, second bytes.Buffer
	for _, out := range []*bytes.Buffer{&first, &second} {
		if err := run(out, path); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("The same binary gives two documents")
	}
	var d document
	if err := json.Unmarshal(first.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	if d.Format != "CycloneDX" || d.Spec != "1.6" || d.Version != 1 {
		t.Errorf("It calls itself %s %s, version %d", d.Format, d.Spec, d.Version)
	}
	if !slices.ContainsFunc(d.Components, func(c component) bool { return strings.HasPrefix(c.PURL, "pkg:golang/stdlib@1.") }) {
		t.Errorf("There is no standard library in %v", d.Components)
	}
}

func TestModules(t *testing.T) {
	info := &debug.BuildInfo{
		GoVersion: "go1.26.8 X:rangefunc",
		Main:      debug.Module{Path: "example.org/server", Version: "(devel)"},
		Deps: []*debug.Module{
			{Path: "example.org/a", Version: "v1.2.3"},
			{Path: "example.org/b", Version: "v2.0.0+incompatible"},
			{Path: "example.org/c", Version: "v0.1.0", Replace: &debug.Module{Path: "example.org/fork", Version: "v0.2.0"}},
		},
	}
	d := describe(info)
	if got := d.Metadata.Component; got.PURL != "pkg:golang/example.org/server" || got.Type != "application" {
		t.Errorf("It is of %+v", got)
	}
	var got []string
	for _, c := range d.Components {
		if c.Ref != c.PURL || c.Type != "library" {
			t.Errorf("%+v is no library that its package URL refers to", c)
		}
		got = append(got, c.PURL)
	}
	want := []string{
		"pkg:golang/example.org/a@v1.2.3", "pkg:golang/example.org/b@v2.0.0%2Bincompatible", "pkg:golang/example.org/fork@v0.2.0",
		"pkg:golang/stdlib@1.26.8",
	}
	if !slices.Equal(got, want) {
		t.Errorf("Components are %q, want %q", got, want)
	}
}

func TestWhatIsNoBinary(t *testing.T) {
	if err := run(new(bytes.Buffer), t.TempDir()); err == nil {
		t.Error("A folder is described")
	}
}
