// Command sbom prints what a Go binary is made of, as a CycloneDX 1.6 document in JSON: the modules that the linker has
// written into it, with the version of Go. The same binary gives the same document.
package main

import (
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: sbom BINARY")
		os.Exit(2)
	}
	if err := run(os.Stdout, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(w io.Writer, path string) error {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read what %s is made of: %w", path, err)
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(describe(info))
}

// document is a bill of materials (https://cyclonedx.org/docs/1.6/json), as far as it is used here.
type document struct {
	Format     string      `json:"bomFormat"`
	Spec       string      `json:"specVersion"`
	Version    int         `json:"version"`
	Metadata   metadata    `json:"metadata"`
	Components []component `json:"components"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	Type    string `json:"type"`
	Ref     string `json:"bom-ref"`
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	PURL    string `json:"purl"`
}

// describe lists the modules in the order of the binary, which is that of their paths, and the standard library last. A
// module that another one replaces is not in the binary, so the other one is listed.
func describe(info *buildinfo.BuildInfo) document {
	d := document{Format: "CycloneDX", Spec: "1.6", Version: 1, Metadata: metadata{of("application", info.Main)}}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		d.Components = append(d.Components, of("library", *module))
	}
	goVersion, _, _ := strings.Cut(strings.TrimPrefix(info.GoVersion, "go"), " ")
	d.Components = append(d.Components, of("library", debug.Module{Path: "stdlib", Version: goVersion}))
	return d
}

// of names a module by its package URL, the way that databases of vulnerabilities do.
func of(kind string, m debug.Module) component {
	version := m.Version
	if version == "(devel)" {
		version = ""
	}
	purl := "pkg:golang/" + m.Path
	if version != "" {
		purl += "@" + strings.ReplaceAll(version, "+", "%2B")
	}
	return component{Type: kind, Ref: purl, Name: m.Path, Version: version, PURL: purl}
}
