package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"github.com/coredns/caddy"
	"github.com/coredns/caddy/caddyfile"
	"github.com/coredns/coredns/core/dnsserver"

	"github.com/clusterset-dns/clusterset-dns/internal/plugins"
)

// serverType is what CoreDNS calls itself to the parser of Corefiles.
const serverType = "dns"

// assemble is a directive that no Corefile can have. It stands behind all others and makes the servers, without starting them:
// that is where CoreDNS finds out that two blocks serve the same.
const assemble = "clustersetctl-assemble"

var registerAssemble = sync.OnceFunc(func() {
	caddy.RegisterPlugin(assemble, caddy.Plugin{ServerType: serverType, Action: func(c *caddy.Controller) error {
		_, err := c.Context().MakeServers()
		return err
	}})
})

// mostErrors is how many errors of a Corefile are worth a report at once.
const mostErrors = 20

// finding is something about a Corefile.
type finding struct {
	// File and Line say where; Line is 0 where that is not known.
	File string `json:"file"`
	Line int    `json:"line,omitempty"`
	Text string `json:"text"`
}

func (f finding) String() string {
	if f.Line == 0 {
		return f.File + ": " + f.Text
	}
	return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Text)
}

// report is what checkCorefile says.
type report struct {
	Corefile string    `json:"corefile"`
	OK       bool      `json:"ok"`
	Errors   []finding `json:"errors,omitempty"`
	// Notes are about what only the server can look at.
	Notes []finding `json:"notes,omitempty"`
}

// checkCorefile lets every plugin of the server read its part of a Corefile, and starts none. It contacts nobody: what is
// only in the server's pod, such as the ServiceAccount or mounted kubeconfigs, is taken for granted and noted.
func checkCorefile(path string, text []byte) (report, error) {
	if err := dnsserver.SetDirectives(append(slices.Clone(plugins.Directives), assemble)); err != nil {
		return report{}, err
	}
	registerAssemble()
	caddy.Quiet = true
	log.SetOutput(io.Discard) // what plugins say while they read is meant for whoever runs them
	defer log.SetOutput(os.Stderr)
	scratch, err := os.MkdirTemp("", "clustersetctl-")
	if err != nil {
		return report{}, err
	}
	defer os.RemoveAll(scratch)
	r := report{Corefile: path}
	blocks, err := caddyfile.Parse(path, bytes.NewReader(text), plugins.Directives)
	if err != nil {
		r.Errors = append(r.Errors, place(path, err.Error(), nil))
		return r, nil
	}
	if len(blocks) == 0 {
		r.Errors = append(r.Errors, finding{File: path, Text: "it has no server block"})
		return r, nil
	}
	s, err := newSubstitutes(path, scratch)
	if err != nil {
		return report{}, err
	}
	var parts []block
	for _, b := range blocks {
		parts = append(parts, s.block(b))
	}
	r.Notes = s.notes
	r.Errors = append(neighbours(path, parts), setups(path, parts)...)
	for _, found := range [][]finding{r.Errors, r.Notes} {
		slices.SortStableFunc(found, func(a, b finding) int { return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line)) })
	}
	r.OK = len(r.Errors) == 0
	return r, nil
}

// block is a server block: its keys, and of each directive the lines that it has, as words.
type block struct {
	keys       []string
	directives map[string][][]caddyfile.Token
}

// setups runs the setup of all directives. One that fails is taken out, so that the others are looked at too.
func setups(path string, blocks []block) (out []finding) {
	for range mostErrors {
		text, lines := write(path, blocks)
		err := execute(text)
		if err == nil {
			return out
		}
		found := place(path, err.Error(), lines)
		at, directive := culprit(blocks, err, lines)
		if found.Line == 0 && directive != "" {
			found.File, found.Line = position(path, blocks[at].directives[directive][0][0])
		}
		out = append(out, found)
		if directive == "" {
			return out
		}
		delete(blocks[at].directives, directive)
	}
	return out
}

// execute lets the plugins read a Corefile. One that panics has an error.
func execute(corefile []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a plugin panics while it reads this: %v", p)
		}
	}()
	return caddy.ValidateAndExecuteDirectives(caddy.CaddyfileInput{Contents: corefile, Filepath: rewritten, ServerTypeName: serverType}, nil, true)
}

// neighbours finds plugins of this project that stand in another block only than the *clusterset* that would need them. The
// server finds that out when it starts.
func neighbours(path string, blocks []block) (out []finding) {
	for _, name := range []string{"locality", "clusterhealth"} {
		has := func(b block) bool { return len(b.directives[name]) > 0 }
		if !slices.ContainsFunc(blocks, has) {
			continue
		}
		for _, b := range blocks {
			if lines := b.directives["clusterset"]; len(lines) > 0 && !has(b) {
				f := finding{Text: fmt.Sprintf("the plugin %s stands in another server block only and would have no effect here: write it in every block with clusterset, or in none", name)}
				f.File, f.Line = position(path, lines[0][0])
				out = append(out, f)
			}
		}
	}
	return out
}

// position is where a token stands.
func position(path string, t caddyfile.Token) (file string, line int) {
	if t.File != "" {
		return t.File, t.Line
	}
	return path, t.Line
}

// rewritten is the name under which plugins read the Corefile.
const rewritten = "rewritten-corefile"

var (
	// located is how the parser begins an error.
	located = regexp.MustCompile(regexp.QuoteMeta(rewritten) + `:(\d+)( - (?:Parse error|Error during parsing|Syntax error))?`)
	// inside is how errors refer to other lines.
	inside = regexp.MustCompile(`\b(in line) (\d+)`)
	// begun is how the parser begins an error about a file as it is.
	begun = regexp.MustCompile(`^(.*):(\d+) - (?:Parse error|Error during parsing|Syntax error): (.*)$`)
	// named is how plugins begin an error.
	named = regexp.MustCompile(`plugin/([a-z0-9_]+): `)
)

// place says where an error is in the files that the user has. lines are those of the rewritten Corefile; with none the error
// is about the files themselves.
func place(path, text string, lines []line) finding {
	f := finding{File: path, Text: text}
	if lines == nil {
		if m := begun.FindStringSubmatch(text); m != nil {
			f.File, f.Text = m[1], m[3]
			f.Line, _ = strconv.Atoi(m[2])
		}
		return f
	}
	if m := located.FindStringSubmatch(text); m != nil {
		at, _ := strconv.Atoi(m[1])
		if l, ok := lineAt(lines, at); ok {
			f.File, f.Line = l.file, l.number
		}
		f.Text = strings.ReplaceAll(text, m[0]+": ", "")
	}
	f.Text = inside.ReplaceAllStringFunc(f.Text, func(s string) string {
		at, _ := strconv.Atoi(inside.FindStringSubmatch(s)[2])
		if l, ok := lineAt(lines, at); ok {
			return fmt.Sprintf("in line %d", l.number)
		}
		return s
	})
	return f
}

func lineAt(lines []line, number int) (line, bool) {
	if number < 1 || number > len(lines) {
		return line{}, false
	}
	return lines[number-1], true
}

// culprit finds the directive that an error is about: by its line, or by the name of the plugin if it stands in one block only.
// directive is "" where it cannot be told.
func culprit(blocks []block, err error, lines []line) (at int, directive string) {
	if m := located.FindStringSubmatch(err.Error()); m != nil {
		number, _ := strconv.Atoi(m[1])
		if l, ok := lineAt(lines, number); ok && l.directive != "" {
			return l.block, l.directive
		}
	}
	m := named.FindStringSubmatch(err.Error())
	if m == nil {
		return 0, ""
	}
	for i, b := range blocks {
		if len(b.directives[m[1]]) == 0 {
			continue
		}
		if directive != "" {
			return 0, ""
		}
		at, directive = i, m[1]
	}
	return at, directive
}

// line is one of the rewritten Corefile: the one in the user's files that it was made of, and whose it is.
type line struct {
	file      string
	number    int
	block     int
	directive string
}

// write writes a Corefile of blocks, and says of every line where it comes from. The parser has replaced imports, snippets and
// environment variables in it.
func write(path string, blocks []block) ([]byte, []line) {
	var text strings.Builder
	var lines []line
	add := func(s string, from line) {
		for range 1 + strings.Count(s, "\n") {
			lines = append(lines, from)
		}
		text.WriteString(s + "\n")
	}
	for i, b := range blocks {
		add(joinKeys(b.keys)+" {", line{file: path, block: i})
		for _, directive := range slices.Sorted(maps.Keys(b.directives)) {
			for _, words := range b.directives[directive] {
				file, number := position(path, words[0])
				add(join(words), line{file, number, i, directive})
			}
		}
		if i == len(blocks)-1 {
			add(assemble, line{file: path, block: i})
		}
		add("}", line{file: path, block: i})
	}
	return []byte(text.String()), lines
}

// split cuts tokens where lines end, as the parser does.
func split(tokens []caddyfile.Token) (out [][]caddyfile.Token) {
	for i, t := range tokens {
		if i > 0 {
			last := tokens[i-1]
			if last.File == t.File && last.Line+strings.Count(last.Text, "\n") >= t.Line {
				out[len(out)-1] = append(out[len(out)-1], t)
				continue
			}
		}
		out = append(out, []caddyfile.Token{t})
	}
	return out
}

func join(words []caddyfile.Token) string {
	var out []string
	for _, w := range words {
		out = append(out, quoted(w.Text))
	}
	return strings.Join(out, " ")
}

func joinKeys(keys []string) string {
	var out []string
	for _, k := range keys {
		out = append(out, quoted(k))
	}
	return strings.Join(out, " ")
}

// quoted writes a word so that the parser reads it as it is.
func quoted(word string) string {
	if word != "" && !strings.ContainsFunc(word, func(r rune) bool { return unicode.IsSpace(r) || r == '#' }) && !strings.HasPrefix(word, `"`) {
		return word
	}
	return `"` + strings.ReplaceAll(word, `"`, `\"`) + `"`
}

// substitutes puts something that can be read in the places of what only the server's pod has.
type substitutes struct {
	path string
	// kubeconfig and folder are what stands in for those that are not here.
	kubeconfig, folder string
	notes              []finding
}

// nowhere is an API server that nobody contacts: 192.0.2.0/24 is for documentation (RFC 5737).
const nowhere = "https://192.0.2.1"

func newSubstitutes(path, scratch string) (*substitutes, error) {
	s := &substitutes{path: path, kubeconfig: filepath.Join(scratch, "kubeconfig"), folder: scratch}
	text := `{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: c}}],
users: [{name: c, user: {token: none}}], clusters: [{name: c, cluster: {server: "` + nowhere + `"}}]}`
	return s, os.WriteFile(s.kubeconfig, []byte(text), 0o600)
}

// contacting are plugins whose setup talks to what they read from.
var contacting = []string{"azure", "clouddns", "etcd", "nomad", "route53"}

// block makes one that can be read here.
func (s *substitutes) block(b caddyfile.ServerBlock) block {
	out := block{keys: b.Keys, directives: map[string][][]caddyfile.Token{}}
	for name, tokens := range b.Tokens {
		out.directives[name] = split(tokens)
	}
	root := ""
	if words := b.Tokens["root"]; len(words) == 2 {
		root = words[1].Text
	}
	for name, lines := range out.directives {
		switch {
		case slices.Contains(contacting, name):
			s.note(lines[0][0], "%s is not looked at: its setup contacts what it reads from", name)
			delete(out.directives, name)
		case name == "clusterset":
			out.directives[name] = s.clusterset(lines, root)
		case name == "locality":
			out.directives[name] = s.locality(lines, root)
		case name == "clusterhealth":
			out.directives[name] = s.clusterhealth(lines, root)
		case name == "kubernetes":
			out.directives[name] = s.kubernetes(lines, root)
		}
	}
	return out
}

func (s *substitutes) note(at caddyfile.Token, format string, args ...any) {
	f := finding{Text: fmt.Sprintf(format, args...)}
	f.File, f.Line = position(s.path, at)
	s.notes = append(s.notes, f)
}

// missing tells whether a file or folder is not on this machine, and notes it.
func (s *substitutes) missing(at caddyfile.Token, root string) bool {
	path := at.Text
	if !filepath.IsAbs(path) {
		path = filepath.Join(root, path)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return false
	}
	s.note(at, "%s is not on this machine, so it is not looked into", at.Text)
	return true
}

// word makes a token at the place of another.
func word(at caddyfile.Token, text string) caddyfile.Token {
	at.Text = text
	return at
}

// connection fills in KUBECONFIG [CONTEXT], which stands in a line from a place on, or is missing there.
func (s *substitutes) connection(words []caddyfile.Token, at int, root string) []caddyfile.Token {
	if len(words) <= at || words[at].Text == "{" {
		return slices.Insert(words, at, word(words[0], s.kubeconfig))
	}
	if !s.missing(words[at], root) {
		return words
	}
	rest := words[at+1:]
	if len(rest) > 0 && rest[0].Text != "{" {
		rest = rest[1:] // the name of a context that nobody here knows
	}
	return slices.Concat(words[:at], []caddyfile.Token{word(words[at], s.kubeconfig)}, rest)
}

// clusterset fills in a stanza of the plugin. Where it means the cluster that the pod runs in without naming it, that is added.
func (s *substitutes) clusterset(lines [][]caddyfile.Token, root string) [][]caddyfile.Token {
	local, here := false, false
	for i, words := range lines {
		switch {
		case words[0].Text == "local":
			local = true
		case words[0].Text == "cluster" && len(words) > 1:
			lines[i] = s.connection(words, 2, root)
		case words[0].Text == "serviceimports" && len(words) > 1:
			lines[i] = s.connection(words, 1, root)
		case words[0].Text == "serviceimports", words[0].Text == "clusters" && len(words) > 1 && words[1].Text == "secrets":
			here = true
		case words[0].Text == "clusters" && len(words) == 3 && s.missing(words[2], root):
			words[2].Text = s.folder
		case words[0].Text == "state" && len(words) == 2 && s.missing(words[1], root):
			words[1].Text = s.folder
		}
	}
	if last := len(lines) - 1; here && !local && last > 0 && lines[last][0].Text == "}" {
		at := lines[last][0]
		lines = slices.Insert(lines, last, []caddyfile.Token{word(at, "local"), word(at, "in-cluster")},
			[]caddyfile.Token{word(at, "cluster"), word(at, "in-cluster"), word(at, s.kubeconfig)})
	}
	return lines
}

func (s *substitutes) locality(lines [][]caddyfile.Token, root string) [][]caddyfile.Token {
	for i, words := range lines {
		if words[0].Text == "nodes" {
			lines[i] = s.connection(words, 1, root)
		}
	}
	return lines
}

func (s *substitutes) clusterhealth(lines [][]caddyfile.Token, root string) [][]caddyfile.Token {
	return slices.DeleteFunc(lines, func(words []caddyfile.Token) bool {
		return words[0].Text == "tls" && len(words) == 2 && s.missing(words[1], root)
	})
}

// kubernetes names an API server where the plugin would take that of the pod.
func (s *substitutes) kubernetes(lines [][]caddyfile.Token, root string) [][]caddyfile.Token {
	for i, words := range lines {
		switch words[0].Text {
		case "endpoint":
			return lines
		case "kubeconfig":
			if len(words) > 1 {
				lines[i] = s.connection(words, 1, root)
			}
			return lines
		}
	}
	first := lines[0]
	at := first[len(first)-1]
	endpoint := []caddyfile.Token{word(at, "endpoint"), word(at, nowhere)}
	if at.Text == "{" {
		return slices.Insert(lines, 1, endpoint)
	}
	return append([][]caddyfile.Token{append(first, word(at, "{")), endpoint, {word(at, "}")}}, lines[1:]...)
}
