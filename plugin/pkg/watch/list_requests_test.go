package watch

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// lists notes the resourceVersions with which full lists are asked for.
type lists struct {
	http.RoundTripper
	mu    sync.Mutex
	asked map[string][]string // by resource
	// watches and checks are how many watches were begun, and how often it was asked whether one may go on where it was.
	watches, checks int
}

func (l *lists) RoundTrip(r *http.Request) (*http.Response, error) {
	query, resource := r.URL.Query(), r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	if _, known := apiKinds[resource]; known && !query.Has("watch") && query.Get("limit") != "1" {
		l.mu.Lock()
		l.asked[resource] = append(l.asked[resource], query.Get("resourceVersion"))
		l.mu.Unlock()
	}
	l.mu.Lock()
	switch {
	case query.Has("watch"):
		l.watches++
	case query.Get("limit") == "1":
		l.checks++
	}
	l.mu.Unlock()
	return l.RoundTripper.RoundTrip(r)
}

// were waits for so many lists of each resource, and returns the versions of the last ones.
func (l *lists) were(t *testing.T, each int) (versions []string) {
	t.Helper()
	eventually(t, "all is listed", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		versions = nil
		for _, resource := range []string{"serviceexports", "services", "endpointslices"} {
			if len(l.asked[resource]) < each {
				return false
			}
			versions = append(versions, l.asked[resource][each-1])
		}
		return true
	})
	return versions
}

// TestOnlyTheFirstListMayBeOld: what has been told must not be taken back by an older list.
func TestOnlyTheFirstListMayBeOld(t *testing.T) {
	cached, newest := []string{"0", "0", "0"}, []string{"", "", ""}
	for _, tc := range []struct {
		name          string
		seed          *Seed
		first, second []string
	}{
		{"of what is not known yet", nil, cached, newest},
		{"of what is restored", &Seed{}, newest, newest},
		{"of what is restored wholly", &Seed{Synced: true}, newest, newest},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server := newAPIServer(t)
			transport := &http.Transport{}
			seen := &lists{RoundTripper: transport, asked: map[string][]string{}}
			connection, err := NewConnection(&rest.Config{Host: server.http.URL, Transport: seen})
			if err != nil {
				t.Fatal(err)
			}
			w, err := Start(Spec{Kind: mcs.Exports, Cluster: "east", Connection: connection, Observer: newTold(), Seed: tc.seed})
			if err != nil {
				t.Fatal(err)
			}
			defer transport.CloseIdleConnections()
			defer w.Close()
			if got := seen.were(t, 1); !slices.Equal(got, tc.first) {
				t.Errorf("The first lists were of versions %q, want %q", got, tc.first)
			}
			eventually(t, "the state is synced", func() bool { return w.Status().State == Synced })
			eventually(t, "all is watched", func() bool {
				seen.mu.Lock()
				defer seen.mu.Unlock()
				return seen.watches == 3
			})
			if seen.mu.Lock(); seen.checks != 0 {
				t.Errorf("It was asked %d times whether a watch may begin where a list has ended", seen.checks)
			}
			seen.mu.Unlock()
			w.anew()
			if got := seen.were(t, 2); !slices.Equal(got, tc.second) {
				t.Errorf("The second lists were of versions %q, want %q", got, tc.second)
			}
		})
	}
}

// stuck answers lists of ServiceExports with a body that is read from only when it is released, whatever becomes of the request.
type stuck struct {
	http.RoundTripper
	reads, ended, release chan struct{}
}

func (s *stuck) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.HasSuffix(r.URL.Path, "/serviceexports") || r.URL.Query().Get("limit") == "1" {
		return s.RoundTripper.RoundTrip(r)
	}
	context.AfterFunc(r.Context(), func() { close(s.ended) })
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(s)}, nil
}

func (s *stuck) Read([]byte) (int, error) {
	close(s.reads)
	<-s.release
	return 0, io.ErrUnexpectedEOF
}

// TestTheEndWaitsForAList closes a Watcher while a list is read.
func TestTheEndWaitsForAList(t *testing.T) {
	server := newAPIServer(t)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	s := &stuck{transport, make(chan struct{}), make(chan struct{}), make(chan struct{})}
	connection, err := NewConnection(&rest.Config{Host: server.http.URL, Transport: s})
	if err != nil {
		t.Fatal(err)
	}
	w, _ := startWatcher(t, mcs.Exports, connection)
	<-s.reads
	closed := make(chan struct{})
	go func() {
		w.Close()
		close(closed)
	}()
	<-s.ended
	select {
	case <-closed:
		t.Error("It is closed while a list is still read")
	case <-time.After(100 * time.Millisecond): // a fault shows within this time or not; nothing else hangs on it
	}
	close(s.release)
	<-closed
}

// many is an API server that lists so many Services.
type many int

func (n many) RoundTrip(*http.Request) (*http.Response, error) {
	list := "k8s\x00" + string(protowire.AppendBytes(protowire.AppendTag(nil, unknownRaw, protowire.BytesType), []byte(strings.Repeat(field(listItem, ""), int(n)))))
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(list))}, nil
}

func (many) CloseIdleConnections() {}

// TestAListIsLeftWhereItIsTooLong: what is too much is not even kept until the end of the list.
func TestAListIsLeftWhereItIsTooLong(t *testing.T) {
	for _, tc := range []struct {
		name string
		has  int
		want error
	}{
		{"as many as there may be are taken", maxObjects, nil},
		{"of twice as many no more are read than that", 2 * maxObjects, errTooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			connection, err := NewConnection(&rest.Config{Host: "http://east.invalid", Transport: many(tc.has)})
			if err != nil {
				t.Fatal(err)
			}
			c, done, err := connection.once()
			if err != nil {
				t.Fatal(err)
			}
			defer done()
			w := testWatcher(t, mcs.Exports, newTold(), c)
			taken := 0
			s := storesOf(w.feed.(*exportFeed))["services"]
			s.compact = func(any) any {
				taken++
				return nobody
			}
			if _, err := w.list(t.Context(), c.services().resource(s), metav1.ListOptions{}); !errors.Is(err, tc.want) || taken > maxObjects+1 {
				t.Errorf("%d are taken, %v", taken, err)
			}
		})
	}
}

// TestANewRoundForgetsHowFarTheWatchesWere: its API server may have been restored from a backup.
func TestANewRoundForgetsHowFarTheWatchesWere(t *testing.T) {
	c, done, err := newAPIServer(t).connection().once()
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	f := testWatcher(t, mcs.Exports, newTold(), c).feed.(*exportFeed)
	f.servicesReached.Store(7)
	f.slicesReached.Store(8)
	if _, err := f.connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if services, endpointSlices := f.servicesReached.Load(), f.slicesReached.Load(); services != 0 || endpointSlices != 0 {
		t.Errorf("The watches were at %d and %d", services, endpointSlices)
	}
}

// endless is an API server that does not end.
type endless struct{}

func (endless) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(zeros{})}, nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestAnAnswerIsBoundedThatIsReadAsAWhole(t *testing.T) {
	for _, tc := range []struct {
		name, url           string
		inPieces, unlimited bool
	}{
		{"an object", "https://east.invalid/api/v1/services/web", false, false},
		{"a watch", "https://east.invalid/api/v1/services?watch=true", false, true},
		{"a list that is read in pieces", "https://east.invalid/api/v1/services", true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx := t.Context()
			if tc.inPieces {
				ctx = context.WithValue(ctx, piecewise{}, true)
			}
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, tc.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := limited{endless{}}.RoundTrip(request)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			n, err := io.CopyN(io.Discard, response.Body, maxBody+1)
			if errors.Is(err, errTooLarge) == tc.unlimited || tc.unlimited && err != nil {
				t.Errorf("After %d octets: %v", n, err)
			}
		})
	}
}
