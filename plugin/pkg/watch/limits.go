package watch

import (
	"errors"
	"fmt"
	"io"
	"net/http"
)

// limits are what a feed keeps at most, and how long a label selector may become, in bytes.
type limits struct{ services, endpoints, selector, standby int }

// Limits of what one source may make us keep or read. They are far above what Kubernetes itself can do (150,000 pods and
// 10,000 Services in a cluster), and below what would take the memory of a DNS server.
const (
	maxServices  = 50_000
	maxEndpoints = 500_000
	// standbyAtMost is how many services are kept that nobody exports, where a fourth of those that are exported is less.
	standbyAtMost = 250
	// maxObjects are those of one full list, exported or not.
	maxObjects = 500_000
	// maxBody is the size of one answer, in octets. What is read piece by piece, lists and watches, is bounded by pieces: maxObject.
	maxBody = 128 << 20
)

// errTooLarge says that a source sends more than it may.
var errTooLarge = errors.New("the API server sends more than a cluster can have")

// limited bounds the size of each answer.
type limited struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (l limited) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := l.RoundTripper.RoundTrip(r)
	if err != nil || r.URL.Query().Has("watch") || r.Context().Value(piecewise{}) != nil || response.Body == nil {
		return response, err
	}
	response.Body = &limitedBody{response.Body, maxBody}
	return response, nil
}

// WrappedRoundTripper lets client-go find the transport whose connections it closes.
func (l limited) WrappedRoundTripper() http.RoundTripper { return l.RoundTripper }

type limitedBody struct {
	io.ReadCloser
	rest int64
}

// Read implements io.Reader.
func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.rest -= int64(n); b.rest < 0 {
		return 0, fmt.Errorf("%w: an answer of more than %d MiB", errTooLarge, maxBody>>20)
	}
	return n, err
}
