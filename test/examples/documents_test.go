package examples_test

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
)

// document is a text in Markdown that operators and contributors read.
type document struct {
	name string // its path in the repository, with slashes
	text string
}

// documents returns all of them.
func documents(t *testing.T) []document {
	t.Helper()
	root, err := clusters.Root()
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, pattern := range []string{"*.md", "docs/*.md", "deploy/README.md", "plugin/*/README.md", "test/chaos/README.md"} {
		found, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(found), err)
		}
		files = append(files, found...)
	}
	var all []document
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, document{filepath.ToSlash(name), string(text)})
	}
	return all
}

// beginning is a line that only a Corefile has.
var beginning = regexp.MustCompile(`(?m)^ *(?:clusterset|locality|clusterhealth|kubernetes|[a-z.]*:53)(?: [^\n\[]*)?\{$`)

func TestEveryCorefileOfTheDocumentsIsMarkedAsOne(t *testing.T) {
	for _, d := range documents(t) {
		if strings.HasPrefix(d.name, "plugin/") {
			continue // they show the syntax too
		}
		if rest := beginning.FindString(fenced.ReplaceAllString(d.text, "")); rest != "" {
			t.Errorf("%s: %q stands in no block that begins with ```corefile, so nothing starts it", d.name, rest)
		}
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile("(?m)^#+ (.*)$")
	code    = regexp.MustCompile("(?ms)^(?:```|~~~).*?^(?:```|~~~)$")
)

func TestLinksOfTheDocumentsLeadSomewhere(t *testing.T) {
	root, err := clusters.Root()
	if err != nil {
		t.Fatal(err)
	}
	all := documents(t)
	for _, d := range all {
		for _, match := range link.FindAllStringSubmatch(code.ReplaceAllString(d.text, ""), -1) {
			if err := lookUp(root, d, match[1], all); err != nil {
				t.Errorf("%s: link to %s: %v", d.name, match[1], err)
			}
		}
	}
}

// lookUp finds what a link within the repository leads to: a file or folder, and a heading of it.
func lookUp(root string, from document, to string, all []document) error {
	if strings.Contains(to, "://") {
		return nil
	}
	file, anchor, anchored := strings.Cut(to, "#")
	name := from.name
	if file != "" {
		name = path.Join(path.Dir(from.name), file)
	}
	if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(name))); err != nil {
		return err
	}
	if !anchored {
		return nil
	}
	at := slices.IndexFunc(all, func(d document) bool { return d.name == name })
	if at < 0 {
		return fmt.Errorf("%s has no headings that are known here", name)
	}
	for _, match := range heading.FindAllStringSubmatch(code.ReplaceAllString(all[at].text, ""), -1) {
		if anchorOf(match[1]) == anchor {
			return nil
		}
	}
	return fmt.Errorf("%s has no heading #%s", name, anchor)
}

// anchorOf is what GitHub makes of a heading: small letters, digits, hyphens and underscores, and a hyphen for each blank.
func anchorOf(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		case r == ' ':
			return '-'
		default:
			return -1
		}
	}, heading)
}

var (
	metric = regexp.MustCompile(`coredns_(?:clusterset|locality|clusterhealth)_[a-z_]*[a-z]`)
	alert  = regexp.MustCompile(`(?m)^ +- alert: (\w+)$`)
	title  = regexp.MustCompile(`"title": "([^"]+)"`)
)

// TestWhatTheGuideNamesExists looks up the metrics of all documents in the READMEs of the plugins, and the alerts and panels that
// docs/operations.md explains in deploy: it must have all of them.
func TestWhatTheGuideNamesExists(t *testing.T) {
	var plugins, guide string
	for _, d := range documents(t) {
		if strings.HasPrefix(d.name, "plugin/") {
			plugins += d.text
		}
		if d.name == "docs/operations.md" {
			guide = d.text
		}
	}
	for _, d := range documents(t) {
		for _, name := range metric.FindAllString(d.text, -1) {
			if !strings.Contains(plugins, name) {
				t.Errorf("%s names the metric %s, which no plugin has", d.name, name)
			}
		}
	}
	for file, names := range map[string]*regexp.Regexp{"deploy/alerts/rules.yaml": alert, "deploy/dashboard.json": title} {
		found := names.FindAllStringSubmatch(read(t, file), -1)
		if len(found) < 10 {
			t.Errorf("%s: only %d names", file, len(found))
		}
		for _, match := range found {
			if !strings.Contains(guide, match[1]) {
				t.Errorf("docs/operations.md does not explain %q of %s", match[1], file)
			}
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	root, err := clusters.Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestLinksAndCorefilesAreFound(t *testing.T) {
	all := []document{{"docs/a.md", "# A heading, `with` signs_1\n"}, {"README.md", ""}}
	root := t.TempDir()
	for _, d := range all {
		if err := os.MkdirAll(filepath.Join(root, path.Dir(d.name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, d.name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for to, good := range map[string]bool{
		"https://example.org/x": true, "docs/a.md": true, "docs": true, "docs/a.md#a-heading-with-signs_1": true,
		"docs/b.md": false, "docs/a.md#other": false, "#nothing": false,
	} {
		if err := lookUp(root, all[1], to, all); (err == nil) != good {
			t.Errorf("Link to %s: %v", to, err)
		}
	}
	for text, want := range map[string]bool{
		"    clusterset {\n": true, ".:53 {\n": true, "clusterset.local:53 {\n": true, "locality {\n": true,
		"clusterset [ZONES...] {\n": false, "the clusterset plugin\n": false,
	} {
		if got := beginning.MatchString(text); got != want {
			t.Errorf("%q looks like a Corefile: %t, want %t", text, got, want)
		}
	}
}
