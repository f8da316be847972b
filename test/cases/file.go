// Package cases runs case files: independent worlds of Kubernetes objects in several clusters, with DNS queries and the
// exact answers they must get. It applies the objects to real API servers, asks the real binary and compares.
//
// The head of testdata/cases.yaml says what a case file means. The reader is liberal, for case files come from several
// hands: a form that it does not know fails the queries that depend on it, with the form in the message, and nothing
// else.
package cases

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"
)

// Object is a Kubernetes object or any other mapping. Whole numbers in it are int64, as client-go wants them.
type Object map[string]any

// UnmarshalJSON keeps whole numbers whole.
func (o *Object) UnmarshalJSON(text []byte) error {
	return utiljson.Unmarshal(text, (*map[string]any)(o))
}

// World is one scene: objects of some clusters, the cluster that the server belongs to, and queries.
type World struct {
	ID          string
	Title       string
	Mode        string // "direct", "import" or "both"
	Local       *string
	Namespaces  []string
	Clusters    map[string]Contents
	ClusterIDs  map[string]string `json:"cluster_ids"`
	ExportOrder []any             `json:"export_order"`
	// Imports are objects of the local cluster.
	Imports       []Object
	StatusPatches []Object `json:"status_patches"`
	Steps         []Object
	Queries       []Query
	// Config and Given hold for every query; those of the query win.
	Config Object
	Given  Object

	file string
	// unread are keys that nothing here reads.
	unread []string
}

// Contents are the objects of one cluster.
type Contents struct{ Objects []Object }

// UnmarshalJSON reads a mapping with objects, or just the list of objects.
func (c *Contents) UnmarshalJSON(text []byte) error {
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("[")) {
		return json.Unmarshal(text, &c.Objects)
	}
	var long struct{ Objects []Object }
	err := json.Unmarshal(text, &long)
	c.Objects = long.Objects
	return err
}

// Query is a question, the state in which it is asked, and the answer it must get.
type Query struct {
	ID          string
	Name        string
	Type        string
	Class       string
	Transport   string // "udp" or "tcp"; without it a truncated answer is asked again over TCP
	EDNSBufsize uint16 `json:"edns_bufsize"`
	// After names steps that are done first, with all before them.
	After  List
	Given  Object
	Config Object
	Expect Expect
	// Why is for people.
	Why string

	// unread are keys that nothing here reads.
	unread []string
}

// UnmarshalJSON also notes the keys that nothing here reads.
func (q *Query) UnmarshalJSON(text []byte) error {
	type plain Query
	if err := json.Unmarshal(text, (*plain)(q)); err != nil {
		return err
	}
	unread, err := otherKeys(text, "id", "name", "type", "class", "transport", "edns_bufsize", "after", "given", "config", "expect", "why",
		// For people:
		"title", "note", "notes", "source", "status", "alternatives", "depends_on", "requires", "merged", "measured_k8sp")
	q.unread = unread
	return err
}

// List is a list of strings that may also be written as one string.
type List []string

// UnmarshalJSON reads a string or a list.
func (l *List) UnmarshalJSON(text []byte) error {
	var one Text
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("[")) {
		err := json.Unmarshal(text, &one)
		if *l = nil; one != "" {
			*l = List{string(one)}
		}
		return err
	}
	var many []Text
	err := json.Unmarshal(text, &many)
	*l = nil
	for _, t := range many {
		*l = append(*l, string(t))
	}
	return err
}

// Text is a string that may also be written as a number or another scalar.
type Text string

// UnmarshalJSON reads any scalar.
func (t *Text) UnmarshalJSON(text []byte) error {
	if bytes.Equal(text, []byte("null")) {
		*t = ""
		return nil
	}
	if bytes.HasPrefix(text, []byte(`"`)) {
		return json.Unmarshal(text, (*string)(t))
	}
	*t = Text(text)
	return nil
}

// Expect is the answer that a query must get. What is absent is not compared.
type Expect struct {
	Handled        *bool
	Rcode          List // one of these
	AA, TC         *bool
	Answer         *[]Record
	AnswerSubsetOK bool    `json:"answer_subset_ok"`
	TTL            *uint32 // of every record in the answer
	AuthoritySOA   *bool   `json:"authority_soa"`
	Authority      *[]Record
	Additional     *[]Record

	unread []string
}

// Record is an expected resource record.
type Record struct {
	Owner string
	Type  string
	Rdata Text
	TTL   *uint32
}

// UnmarshalJSON also notes the keys that nothing here reads: an expectation that is not checked must not pass.
func (e *Expect) UnmarshalJSON(text []byte) error {
	type plain Expect
	if err := json.Unmarshal(text, (*plain)(e)); err != nil {
		return err
	}
	unread, err := otherKeys(text, "handled", "rcode", "aa", "tc", "answer", "answer_subset_ok", "ttl", "authority_soa",
		"authority", "additional", "note", "why")
	e.unread = unread
	return err
}

// UnmarshalJSON also notes the keys that nothing here reads.
func (w *World) UnmarshalJSON(text []byte) error {
	type plain World
	if err := json.Unmarshal(text, (*plain)(w)); err != nil {
		return err
	}
	unread, err := otherKeys(text, "id", "title", "mode", "local", "namespaces", "clusters", "cluster_ids", "export_order",
		"imports", "status_patches", "steps", "queries", "config", "given",
		// For people, or for those who merge conditions:
		"merged", "requires", "note", "notes", "why", "source", "status", "depends_on", "about")
	w.unread = unread
	return err
}

// otherKeys returns the keys of the mapping that are not among those known, sorted.
func otherKeys(text []byte, known ...string) ([]string, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	maps.DeleteFunc(all, func(key string, _ json.RawMessage) bool { return slices.Contains(known, key) })
	return slices.Sorted(maps.Keys(all)), nil
}

// Load reads every *.yaml and *.yml file of the folders, in the order of their names.
func Load(dirs ...string) ([]World, error) {
	var worlds []World
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("read case files: %w", err)
		}
		for _, entry := range entries {
			if ext := filepath.Ext(entry.Name()); entry.IsDir() || ext != ".yaml" && ext != ".yml" {
				continue
			}
			path := filepath.Join(dir, entry.Name())
			text, err := os.ReadFile(path)
			if err != nil {
				return nil, fmt.Errorf("read case files: %w", err)
			}
			read, err := parse(entry.Name(), text)
			if err != nil {
				return nil, fmt.Errorf("read case file %s: %w", path, err)
			}
			worlds = append(worlds, read...)
		}
	}
	return worlds, nil
}

// parse reads one file: a mapping with `worlds`, a list of worlds, or a single world.
func parse(name string, text []byte) ([]World, error) {
	asJSON, err := yaml.YAMLToJSON(text)
	if err != nil {
		return nil, err
	}
	var worlds []World
	if bytes.HasPrefix(asJSON, []byte("[")) {
		err = json.Unmarshal(asJSON, &worlds)
	} else {
		worlds, err = parseMapping(asJSON)
	}
	if err != nil {
		return nil, err
	}
	for i := range worlds {
		worlds[i].file = name
		if worlds[i].ID == "" {
			worlds[i].ID = fmt.Sprintf("%s#%d", strings.TrimSuffix(name, filepath.Ext(name)), i+1)
		}
	}
	return worlds, nil
}

func parseMapping(asJSON []byte) ([]World, error) {
	var file struct {
		Worlds  []World
		Queries []json.RawMessage
	}
	err := json.Unmarshal(asJSON, &file)
	switch {
	case errors.Is(err, io.EOF) || err == nil && file.Worlds == nil && file.Queries == nil:
		return nil, errors.New("it holds no worlds")
	case err != nil:
		return nil, err
	case file.Worlds != nil:
		return file.Worlds, nil
	}
	var one World
	err = json.Unmarshal(asJSON, &one)
	return []World{one}, err
}

// kind and the like read fields that may be missing.
func (o Object) kind() string      { return text(o["kind"]) }
func (o Object) name() string      { return text(o.metadata()["name"]) }
func (o Object) namespace() string { return text(o.metadata()["namespace"]) }
func (o Object) created() string   { return text(o.metadata()["creationTimestamp"]) }

func (o Object) metadata() map[string]any {
	m, _ := o["metadata"].(map[string]any)
	return m
}

// isObject tells whether this is a whole object, or at least its head.
func (o Object) isObject() bool { return o.kind() != "" && o.name() != "" }

func (o Object) String() string {
	return strings.TrimSpace(o.kind() + " " + strings.Trim(o.namespace()+"/"+o.name(), "/"))
}

// text returns a scalar as text, and "" for anything else.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case int64, float64, bool:
		return fmt.Sprint(v)
	}
	return ""
}

// show prints a value of a case file in one line.
func show(v any) string {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(line)
}
