package clusterset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/status"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/statuspage"
)

// pages answers requests to a status address.
type pages struct {
	// blocks returns the server blocks that tell here, the first of the Corefile first.
	blocks func() []*Clusterset
	// slots bounds how many documents there are at a time: each takes memory, and time that queries need.
	slots chan struct{}
}

const (
	// atOnce is how many documents are made and written at a time.
	atOnce = 2
	// patience is how long a request waits for its turn.
	patience = 2 * time.Second
)

func newPages(blocks func() []*Clusterset) *pages {
	return &pages{blocks, make(chan struct{}, atOnce)}
}

// document is an answer before it is written.
type document struct {
	code      int
	mediaType string
	body      bytes.Buffer
	// kept is true for files that never change under their name.
	kept bool
}

// failed is an error that a reader is told.
type failed struct {
	code int
	text string
}

func (f failed) Error() string { return f.text }

// ServeHTTP implements http.Handler. A document is made as a whole before the first octet is written, so that a slow reader
// holds nothing but it.
func (p *pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d := &document{code: http.StatusOK}
	if done, ok := p.turn(r); ok {
		defer done()
		p.answer(d, r)
	} else {
		w.Header().Set("Retry-After", "1")
		d.fail(failed{http.StatusServiceUnavailable, fmt.Sprintf("%d others are reading, and slowly: ask again in a second", atOnce)}, r)
	}
	h := w.Header()
	h.Set("Content-Type", d.mediaType)
	h.Set("Content-Length", strconv.Itoa(d.body.Len()))
	h.Set("Content-Security-Policy", statuspage.SecurityPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	switch {
	case d.code == http.StatusMethodNotAllowed:
		h.Set("Allow", "GET, HEAD")
	case d.kept:
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	w.WriteHeader(d.code)
	if r.Method != http.MethodHead {
		_, _ = w.Write(d.body.Bytes()) // the reader has gone, if this fails
	}
}

// turn waits until there is room for one more document. Files are small, and need none.
func (p *pages) turn(r *http.Request) (done func(), ok bool) {
	if strings.Contains(r.URL.Path, statuspage.PathAssets) {
		return func() {}, true
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case p.slots <- struct{}{}:
		return func() { <-p.slots }, true
	case <-r.Context().Done():
	case <-timer.C:
	}
	return nil, false
}

func (p *pages) answer(d *document, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		d.fail(failed{http.StatusMethodNotAllowed, "there is nothing to be changed here: use GET"}, r)
		return
	}
	if !meant(r) {
		d.fail(failed{http.StatusMisdirectedRequest, fmt.Sprintf("this is not %q: ask for localhost", r.Host)}, r)
		return
	}
	if err := p.route(d, r); err != nil {
		d.fail(err, r)
	}
}

// meant reports whether whoever asks knows whom. Through a forwarded port a browser reaches this address by localhost or an IP; under
// another name it does so for a site that has pointed its own name here, to read what is told.
func meant(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !from.Addr().Unmap().IsLoopback() {
		return true
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	_, err = netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || strings.EqualFold(host, "localhost")
}

// route finds who tells what is asked for.
func (p *pages) route(d *document, r *http.Request) error {
	blocks, path := p.blocks(), r.URL.Path
	if len(blocks) == 0 {
		return failed{http.StatusServiceUnavailable, "no server block tells anything now: the server is starting or stopping"}
	}
	if rest, ok := strings.CutPrefix(path, status.PathZones); ok {
		zone, below, _ := strings.Cut(rest, "/")
		at := slices.IndexFunc(blocks, func(c *Clusterset) bool { return slices.Contains(c.zones, dns.Fqdn(strings.ToLower(zone))) })
		if at < 0 {
			return failed{http.StatusNotFound, fmt.Sprintf("no server block that tells here has the zone %q", zone)}
		}
		return (&reading{blocks[at], blocks[at : at+1], blocks, d, r}).path("/" + below)
	}
	return (&reading{blocks[0], blocks, blocks, d, r}).path(path)
}

// reading is one request.
type reading struct {
	*Clusterset
	// explainers are the blocks among which names are looked for, all are those that tell here.
	explainers, all []*Clusterset
	d               *document
	r               *http.Request
}

func (p *reading) path(path string) error {
	switch path {
	case status.PathMembers:
		return p.d.json(p.members())
	case status.PathServices:
		return p.d.json(p.Services())
	case status.PathExplain:
		e, err := p.explain()
		if err != nil {
			return err
		}
		return p.d.json(e)
	case statuspage.PathOverview:
		return p.d.page(func(w io.Writer) error { return statuspage.Overview(w, p.members(), p.Services(), p.r.URL.Query()) })
	case statuspage.PathExplain:
		return p.explainPage()
	}
	if rest, ok := strings.CutPrefix(path, status.PathServices+"/"); ok {
		s, err := p.service(rest)
		if err != nil {
			return err
		}
		return p.d.json(s)
	}
	if rest, ok := strings.CutPrefix(path, statuspage.PathServices); ok {
		s, err := p.service(rest)
		if err != nil {
			return err
		}
		return p.d.page(func(w io.Writer) error { return statuspage.Service(w, p.members().Server, s) })
	}
	if name, ok := strings.CutPrefix(path, statuspage.PathAssets); ok {
		return p.d.asset(name)
	}
	return failed{http.StatusNotFound, "there is nothing under this path"}
}

// members is the document with what stands elsewhere.
func (p *reading) members() status.Members {
	out := p.Members()
	for _, other := range p.all {
		if other != p.Clusterset {
			out.Server.OtherZones = append(out.Server.OtherZones, other.zones...)
		}
	}
	return out
}

func (p *reading) service(rest string) (status.Service, error) {
	namespace, name, _ := strings.Cut(rest, "/")
	s, there := p.Service(strings.ToLower(namespace), strings.ToLower(name))
	if !there {
		return s, failed{http.StatusNotFound, fmt.Sprintf("no service %s/%s is known: %s lists those that are", namespace, name, status.PathServices)}
	}
	return s, nil
}

// explain explains the name by the block that answers it.
func (p *reading) explain() (*status.Explanation, error) {
	q, err := questionOf(p.r)
	if err != nil {
		return nil, err
	}
	best, depth := (*Clusterset)(nil), -1
	name := strings.ToLower(dns.Fqdn(q.Name))
	for _, c := range p.explainers {
		if zone := zoneOf(c.zones, name); zone >= 0 && len(c.zones[zone]) > depth {
			best, depth = c, len(c.zones[zone])
		}
	}
	if best == nil {
		best = p.Clusterset // which says why not
	}
	e, err := best.Explain(q)
	if err != nil {
		return nil, failed{http.StatusBadRequest, err.Error()}
	}
	return e, nil
}

// questionOf reads the question from the parameters: name, type (A), client (whoever makes the request), and tcp and size for
// what decides how much fits.
func questionOf(r *http.Request) (q Question, err error) {
	in := r.URL.Query()
	q.Name = strings.TrimSpace(in.Get("name"))
	if q.Name == "" {
		return q, failed{http.StatusBadRequest, "the parameter name is missing: ?name=NAME&type=A&client=ADDRESS"}
	}
	q.Type = dns.TypeA
	if text := strings.ToUpper(in.Get("type")); text != "" {
		var known bool
		if q.Type, known = dns.StringToType[text]; !known {
			return q, failed{http.StatusBadRequest, fmt.Sprintf("type %q is none: use one such as A, AAAA or SRV", text)}
		}
	}
	if q.Client, err = clientOf(strings.TrimSpace(in.Get("client")), r.RemoteAddr); err != nil {
		return q, err
	}
	if text := in.Get("size"); text != "" {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n < dns.MinMsgSize {
			return q, failed{http.StatusBadRequest, fmt.Sprintf("size %q is none: use a number of octets from %d to 65535", text, dns.MinMsgSize)}
		}
		q.Size = uint16(n)
	}
	if text := in.Get("tcp"); text != "" {
		if q.TCP, err = strconv.ParseBool(text); err != nil {
			return q, failed{http.StatusBadRequest, fmt.Sprintf("tcp %q: use true or false", text)}
		}
	}
	return q, nil
}

func clientOf(text, remote string) (netip.Addr, error) {
	if text == "" {
		at, err := netip.ParseAddrPort(remote)
		if err != nil {
			return netip.Addr{}, failed{http.StatusBadRequest, "the parameter client is missing: the address of who would ask"}
		}
		return at.Addr().Unmap().WithZone(""), nil
	}
	client, err := netip.ParseAddr(text)
	if err != nil || client.Zone() != "" {
		return netip.Addr{}, failed{http.StatusBadRequest, fmt.Sprintf("client %q is no address: use one such as 10.244.1.7", text)}
	}
	return client.Unmap(), nil
}

// explainPage writes the form, and what it asked for.
func (p *reading) explainPage() error {
	q, asked := statuspage.QuestionOf(p.r.URL.Query())
	var e *status.Explanation
	var wrong *status.Error
	if asked {
		var err error
		if e, err = p.explain(); err != nil {
			p.d.code = codeOf(err)
			wrong = &status.Error{Version: status.Version, Error: err.Error()}
		}
	}
	return p.d.page(func(w io.Writer) error { return statuspage.Explain(w, p.members().Server, q, e, wrong) })
}

func codeOf(err error) int {
	if f, ok := errors.AsType[failed](err); ok {
		return f.code
	}
	return http.StatusInternalServerError
}

func (d *document) json(v any) error {
	d.mediaType = "application/json; charset=utf-8"
	return json.NewEncoder(&d.body).Encode(v)
}

func (d *document) page(write func(io.Writer) error) error {
	d.mediaType = "text/html; charset=utf-8"
	return write(&d.body)
}

func (d *document) asset(name string) error {
	content, mediaType, ok := statuspage.Asset(name)
	if !ok {
		return failed{http.StatusNotFound, "there is nothing under this path"}
	}
	d.mediaType, d.kept = mediaType, true
	d.body.Write(content)
	return nil
}

// fail makes the document an error: for programs below /api/, else for people.
func (d *document) fail(err error, r *http.Request) {
	told := status.Error{Version: status.Version, Error: err.Error()}
	if d.code = codeOf(err); d.code == http.StatusInternalServerError {
		log.Errorf("Status: %s: %v", r.URL.Path, err)
		told.Error = "this document could not be made: the log says why"
	}
	d.body.Reset()
	if strings.Contains(r.URL.Path, "/api/") {
		_ = d.json(told) // two strings can always be written
		return
	}
	root := strings.Repeat("../", max(0, strings.Count(r.URL.Path, "/")-1))
	if d.page(func(w io.Writer) error { return statuspage.Error(w, status.Server{}, root, told) }) != nil {
		d.body.Reset()
		_ = d.json(told)
	}
}
