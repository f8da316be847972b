package watch

import (
	"io"
	"net/http"

	"github.com/klauspost/compress/gzip"
	"k8s.io/client-go/rest"
)

// unpacking asks for compressed answers and unpacks them, in half of the time that net/http takes for it: of a start, that was a
// seventh.
type unpacking struct{ http.RoundTripper }

// unpacked lets a configuration that allows compressed answers unpack them so.
func unpacked(config *rest.Config) *rest.Config {
	if config.DisableCompression {
		return config
	}
	config = rest.CopyConfig(config)
	config.DisableCompression = true // of net/http's own
	config.Wrap(func(inner http.RoundTripper) http.RoundTripper { return unpacking{inner} })
	return config
}

// RoundTrip implements http.RoundTripper. Who asks for an encoding is given it.
func (u unpacking) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("Accept-Encoding") != "" {
		return u.RoundTripper.RoundTrip(r)
	}
	r = r.Clone(r.Context())
	r.Header.Set("Accept-Encoding", "gzip")
	response, err := u.RoundTripper.RoundTrip(r)
	if err != nil || response.Header.Get("Content-Encoding") != "gzip" {
		return response, err
	}
	response.Header.Del("Content-Encoding")
	response.Header.Del("Content-Length")
	response.ContentLength, response.Uncompressed = -1, true
	response.Body = &unpackedBody{packed: response.Body}
	return response, nil
}

// WrappedRoundTripper lets client-go find the transport whose connections it closes.
func (u unpacking) WrappedRoundTripper() http.RoundTripper { return u.RoundTripper }

// unpackedBody begins to unpack with the first Read.
type unpackedBody struct {
	packed io.ReadCloser
	reader *gzip.Reader
	err    error
}

// Read implements io.Reader.
func (b *unpackedBody) Read(p []byte) (int, error) {
	if b.reader == nil && b.err == nil {
		b.reader, b.err = gzip.NewReader(b.packed)
	}
	if b.err != nil {
		return 0, b.err
	}
	return b.reader.Read(p)
}

// Close implements io.Closer.
func (b *unpackedBody) Close() error { return b.packed.Close() }
