package watch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
)

// access is the way to one API server, shared by all who use a Connection. Clients are made once and send everything
// through it, so that credentials can be exchanged below them while requests are under way.
type access struct {
	// name is for people, and holds nothing secret.
	name string
	// read reads the settings anew, nil where they never change; look is how often it is looked whether they have.
	read func() (settings, error)
	look time.Duration

	// current is nil while a plugin has not given credentials yet; failure tells why, if it has been tried.
	current, previous atomic.Pointer[route]
	failure           atomic.Pointer[error]
	// tried is closed when there is a route or a failure.
	tried    chan struct{}
	tryOnce  sync.Once
	rejected chan struct{} // holds one token after an answer 401

	mu sync.Mutex // guards what follows
	// settings are those in use, or the first ones.
	settings settings
	// base is the address with which clients are made. It is set by open, before there is a request, and stays.
	base  *url.URL
	users []*Watcher // nil for those who ask a few things only
	stop  func()
}

func newAccess(name string, first settings, read func() (settings, error)) *access {
	return &access{name: name, settings: first, read: read, look: lookEvery, tried: make(chan struct{}), rejected: make(chan struct{}, 1)}
}

// open returns the address to make clients with. The error is about the settings only.
func (a *access) open() (*url.URL, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.base != nil {
		return a.base, nil
	}
	base, err := addressOf(a.settings.config)
	if err != nil {
		return nil, err
	}
	if a.settings.plugin == nil {
		r, err := newRoute(a.settings, time.Time{})
		if err != nil {
			return nil, err
		}
		a.current.Store(r)
		a.decided()
	}
	a.base = base
	return base, nil
}

// latest returns the settings in use. Older ones are forgotten, and their secrets with them.
func (a *access) latest() settings {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.settings
}

func (a *access) use(s settings) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settings = s
}

func addressOf(config *rest.Config) (*url.URL, error) {
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, errors.New("the address of the server is no URL")
	}
	base.Path = cmp.Or(base.Path, "/")
	return base, nil
}

func (a *access) decided() { a.tryOnce.Do(func() { close(a.tried) }) }

// join adds a user. With the first one begins what keeps the credentials current, where they can change.
func (a *access) join(w *Watcher) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.users = append(a.users, w)
	if a.stop != nil || a.read == nil {
		return
	}
	ctx, cancel := context.WithCancel(quiet(context.Background()))
	var done sync.WaitGroup
	done.Go(func() { newRenewal(a).run(ctx) })
	a.stop = func() {
		cancel()
		done.Wait()
	}
}

// leave takes a user out again, if it is there. With the last one ends what join began.
func (a *access) leave(w *Watcher) {
	a.mu.Lock()
	if at := slices.Index(a.users, w); at >= 0 {
		a.users = slices.Delete(a.users, at, at+1)
	}
	var stop func()
	if len(a.users) == 0 {
		stop, a.stop = a.stop, nil
	}
	a.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// watchers are the users that stay.
func (a *access) watchers() []*Watcher {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(a.users), func(w *Watcher) bool { return w == nil })
}

// move lets everything go over another route from now on. Streams of the old one end as if the server had ended them, so
// they go on from where they were. Where the new route may lead to another server, everything is listed anew instead.
func (a *access) move(r *route) {
	old := a.current.Swap(r)
	a.failure.Store(nil)
	a.decided()
	anew := old != nil && old.server != r.server
	for _, w := range a.watchers() {
		w.moved(anew)
	}
	if old != nil {
		a.previous.Store(old)
		old.retire(!anew)
	}
}

// fail notes why there are no credentials at all.
func (a *access) fail(err error) {
	if a.current.Load() == nil {
		a.failure.Store(&err)
		a.decided()
	}
}

// expiry returns when the first of the credentials in use ends, the zero time when that is not known.
func (a *access) expiry() time.Time {
	if r := a.current.Load(); r != nil && r.expiry.Load() != 0 {
		return time.Unix(r.expiry.Load(), 0)
	}
	return time.Time{}
}

// hidden stands where a secret stood.
const hidden = "[hidden]"

// conceal takes secrets out of an error: a server may repeat what it was sent. A nil access has none.
func (a *access) conceal(err error) error {
	if err == nil || a == nil {
		return err
	}
	text := err.Error()
	for _, r := range []*route{a.current.Load(), a.previous.Load()} {
		if r == nil {
			continue
		}
		for _, secret := range r.secrets {
			text = strings.ReplaceAll(text, secret, hidden)
		}
	}
	if text == err.Error() {
		return err
	}
	return concealed{err, text}
}

// concealed is an error with another text.
type concealed struct {
	error
	text string
}

func (c concealed) Error() string { return c.text }
func (c concealed) Unwrap() error { return c.error }

// errCut says that a route was retired before a stream over it began.
var errCut = errors.New("the credentials have changed")

// errNoCredentials says that there is nothing to identify ourselves with.
var errNoCredentials = errors.New("no credentials")

// routeKey marks a context whose requests try a route that is not in use yet.
type routeKey struct{}

func over(ctx context.Context, r *route) context.Context {
	return context.WithValue(ctx, routeKey{}, r)
}

// RoundTrip implements http.RoundTripper.
func (a *access) RoundTrip(req *http.Request) (*http.Response, error) {
	if r, ok := req.Context().Value(routeKey{}).(*route); ok {
		return a.send(r, req)
	}
	select {
	case <-a.tried:
	case <-req.Context().Done():
		return nil, errors.Join(errNoCredentials, req.Context().Err())
	}
	r := a.current.Load()
	if r == nil {
		if err := a.failure.Load(); err != nil {
			return nil, *err
		}
		return nil, errNoCredentials
	}
	response, err := a.send(r, req)
	for errors.Is(err, errCut) && req.Context().Err() == nil {
		r = a.current.Load()
		response, err = a.send(r, req)
	}
	if err == nil && response.StatusCode == http.StatusUnauthorized && r == a.current.Load() {
		select {
		case a.rejected <- struct{}{}:
		default:
		}
	}
	return response, err
}

// CloseIdleConnections is called when a user ends.
func (a *access) CloseIdleConnections() {
	if r := a.current.Load(); r != nil {
		utilnet.CloseIdleConnectionsFor(r.transport)
	}
}

// errEnded stands for the errors upon which client-go asks again every second, ten times over: an API server, or what stands
// before it, that closes connections has no need of so many. Who asked waits longer each time, by its own rules.
var errEnded = errors.New("the API server ended the connection before it answered")

// send sends a request to where a route leads.
func (a *access) send(r *route, req *http.Request) (*http.Response, error) {
	streams := req.URL.Query().Get("watch")
	ctx, cancel := context.WithCancel(req.Context())
	trip := &trip{route: r, cancel: cancel, streams: streams == "true" || streams == "1"}
	req = req.Clone(ctx)
	elsewhere := *a.base != *r.base
	if elsewhere {
		below := strings.TrimPrefix(req.URL.EscapedPath(), strings.TrimSuffix(a.base.EscapedPath(), "/"))
		moved := r.base.JoinPath(below)
		moved.RawQuery = req.URL.RawQuery
		req.URL, req.Host = moved, ""
	}
	r.begin(trip)
	response, err := r.transport.RoundTrip(req)
	if err != nil {
		trip.end()
		switch {
		case trip.isCut.Load():
			return nil, errCut
		case utilnet.IsProbableEOF(err) || utilnet.IsConnectionReset(err) || utilnet.IsHTTP2ConnectionLost(err):
			err = errEnded
		}
		if elsewhere {
			err = fmt.Errorf("the address is now %s: %w", r.base.Host, err)
		}
		return nil, err
	}
	trip.ReadCloser, response.Body = response.Body, trip
	return response, nil
}

// route is one address with one set of credentials.
type route struct {
	base      *url.URL
	transport http.RoundTripper
	server    digest // which server it leads to
	identity  digest // everything
	insecure  bool
	// expiry is when the first of the credentials ends, in seconds since 1970; 0 when that is not known.
	expiry atomic.Int64
	// secrets are what must not be shown.
	secrets []string

	mu      sync.Mutex // guards what follows
	trips   map[*trip]struct{}
	retired bool
	cutting bool // streams end
}

// newRoute makes the transport. It asks nobody. expiry is when a plugin wants to be asked again.
func newRoute(s settings, expiry time.Time) (*route, error) {
	server, err := s.server()
	if err != nil {
		return nil, err
	}
	identity, err := s.identity()
	if err != nil {
		return nil, err
	}
	base, err := addressOf(s.config)
	if err != nil {
		return nil, err
	}
	transport, err := rest.TransportFor(s.config)
	if err != nil {
		return nil, err
	}
	r := &route{
		base: base, transport: transport, server: server, identity: identity, insecure: s.config.Insecure, trips: map[*trip]struct{}{},
	}
	r.setExpiry(s, expiry)
	r.secrets = slices.DeleteFunc([]string{s.config.BearerToken, s.config.Password, passwordOf(s.proxy)},
		func(secret string) bool { return secret == "" })
	// The longest first: one may be a part of another.
	slices.SortFunc(r.secrets, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	return r, nil
}

// setExpiry finds when the first of the credentials ends. A plugin may prolong the same ones.
func (r *route) setExpiry(s settings, plugin time.Time) {
	if first := earliest(certificateExpiry(s.config.CertData), tokenExpiry(s.config.BearerToken), plugin); !first.IsZero() {
		r.expiry.Store(first.Unix())
	}
}

// isInsecure reports whether the server's certificate is not verified; a nil route leads nowhere.
func (r *route) isInsecure() bool { return r != nil && r.insecure }

func passwordOf(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.User == nil {
		return ""
	}
	password, _ := u.User.Password()
	return password
}

func (r *route) begin(t *trip) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trips[t] = struct{}{}
	if r.cutting {
		t.cut()
	}
}

// retire ends the use of a route: its connections are closed when nothing is under way on them any more.
func (r *route) retire(cut bool) {
	r.mu.Lock()
	r.retired, r.cutting = true, cut
	if cut {
		for t := range r.trips {
			t.cut()
		}
	}
	idle := len(r.trips) == 0
	r.mu.Unlock()
	if idle {
		utilnet.CloseIdleConnectionsFor(r.transport)
	}
}

// trip is one request under way, and the body of its answer.
type trip struct {
	io.ReadCloser
	route   *route
	cancel  context.CancelFunc
	streams bool
	isCut   atomic.Bool
}

// cut ends a stream; anything else is short and may finish.
func (t *trip) cut() {
	if t.streams {
		t.isCut.Store(true)
		t.cancel()
	}
}

// Read reports the end of a stream that was cut as its ordinary end, after which clients go on where they were.
func (t *trip) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if err != nil && t.isCut.Load() {
		err = io.EOF
	}
	return n, err
}

// Close ends the trip.
func (t *trip) Close() error {
	err := t.ReadCloser.Close()
	t.end()
	return err
}

func (t *trip) end() {
	t.cancel()
	r := t.route
	r.mu.Lock()
	_, there := r.trips[t]
	delete(r.trips, t)
	last := there && r.retired && len(r.trips) == 0
	r.mu.Unlock()
	if last {
		utilnet.CloseIdleConnectionsFor(r.transport)
	}
}
