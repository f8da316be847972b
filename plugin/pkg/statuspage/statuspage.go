// Package statuspage writes the pages of the status address: an overview of members and services, a page for each service, and
// one that explains an answer.
//
// It owns how the documents of package status look to a person, and refuses to know where they come from or how they are
// served: it writes HTML to an io.Writer. Everything can be read, filtered and sorted without JavaScript, by links and forms;
// with it the same happens in the browser at once. Links are relative, so that the pages also work behind a proxy that puts
// a prefix before their paths.
//
// Whoever serves the pages sends the headers SecurityPolicy describes, and the files that Asset returns below PathAssets.
package statuspage

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"io"
	"net/url"
	"path"
	"strings"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/status"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/verdict"
)

// Paths of the pages, below the status address.
const (
	PathOverview = "/"
	PathServices = "/services/" // + NAMESPACE/NAME
	PathExplain  = "/explain"   // ?name=NAME&type=TYPE&client=ADDRESS
	PathAssets   = "/assets/"   // + a name that Asset knows
)

// SecurityPolicy is the header Content-Security-Policy that the pages are made for: nothing but their own files, no inline
// script or style, and no frame around them.
const SecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

//go:embed assets
var files embed.FS

// assets are the files beside the pages, by name, each with its media type.
var assets = map[string]string{
	"style.css": "text/css; charset=utf-8",
	"script.js": "text/javascript; charset=utf-8",
	"icon.svg":  "image/svg+xml",
}

// Asset returns a file that the pages refer to, below PathAssets. A page names it with the hash of its content as a query, so it
// may be kept for ever.
func Asset(name string) (content []byte, mediaType string, ok bool) {
	mediaType, ok = assets[name]
	if !ok {
		return nil, "", false
	}
	content, err := files.ReadFile(path.Join("assets", name))
	return content, mediaType, err == nil
}

// versions are the hashes of the assets.
var versions = func() map[string]string {
	out := map[string]string{}
	for name := range assets {
		content, _, _ := Asset(name)
		sum := sha256.Sum256(content)
		out[name] = hex.EncodeToString(sum[:6])
	}
	return out
}()

var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"asset":   func(root, name string) string { return root + "assets/" + name + "?v=" + versions[name] },
	"number":  verdict.Number,
	"decimal": verdict.Decimal,
	"percent": verdict.Percent,
	"hundred": func(share float64) float64 { return share * 100 },
	"join":    strings.Join,
}).ParseFS(files, "assets/*.tmpl"))

// frame is what every page has around it.
type frame struct {
	Title string
	Here  string // overview, explain or ""
	// Root leads from the page to the overview: "" or "../../".
	Root   string
	Server status.Server
	Page   any
}

// write renders a page as a whole before the first byte of it goes out.
func write(w io.Writer, name string, f frame) error {
	var out bytes.Buffer
	if err := pages.ExecuteTemplate(&out, name, f); err != nil {
		return err
	}
	_, err := w.Write(out.Bytes())
	return err
}

// Overview writes the page at PathOverview. query holds the filters and the order that the reader has chosen; what it does not
// understand of them it leaves out.
func Overview(w io.Writer, members status.Members, services status.Services, query url.Values) error {
	return write(w, "overview", frame{
		Title: "Overview", Here: "overview", Server: members.Server, Page: newOverview(members, services, query),
	})
}

// Service writes the page of a service, at PathServices + NAMESPACE/NAME.
func Service(w io.Writer, server status.Server, service status.Service) error {
	return write(w, "service", frame{
		Title: service.Namespace + "/" + service.Name, Root: "../../", Server: server, Page: newService(service),
	})
}

// Explain writes the page at PathExplain: the form, filled with what was asked, and below it the explanation, or the error, or
// neither when nothing was asked yet.
func Explain(w io.Writer, server status.Server, question Question, explanation *status.Explanation, failed *status.Error) error {
	return write(w, "explain", frame{
		Title: "Explain", Here: "explain", Server: server, Page: newExplain(question, explanation, failed),
	})
}

// Question is what the form of the page at PathExplain asks.
type Question struct{ Name, Type, Client string }

// QuestionOf reads it from a query. Asked is false where there is no name.
func QuestionOf(query url.Values) (q Question, asked bool) {
	q = Question{strings.TrimSpace(query.Get("name")), query.Get("type"), strings.TrimSpace(query.Get("client"))}
	return q, q.Name != ""
}

// Error writes a page that says what is wrong. root leads from the page to the overview: "" for pages in the same folder, else
// such as "../../".
func Error(w io.Writer, server status.Server, root string, failed status.Error) error {
	return write(w, "error", frame{Title: "Error", Root: root, Server: server, Page: failed})
}
