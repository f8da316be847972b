package watch

import (
	"bytes"
	"compress/gzip"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

func packed(t *testing.T, text string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// certificateOf is the certificate of a server in PEM.
func certificateOf(server *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
}

// TestAnswersAreUnpacked lists services that a server sends as it was asked to, or as it likes.
func TestAnswersAreUnpacked(t *testing.T) {
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprint("web-", i, "-", rand.Uint64()) // so that it is long when it is packed
	}
	list := protobufOf(t, services(names...))
	whole := packed(t, list)
	for _, tc := range []struct {
		name    string
		never   bool // disable-compression
		body    []byte
		encoded string
		asked   string
		objects int
		is      error
	}{
		{"a packed answer", false, whole, "gzip", "gzip", len(names), nil},
		{"one that is not packed", false, []byte(list), "", "gzip", len(names), nil},
		{"disable-compression", true, []byte(list), "", "", len(names), nil},
		{"one that ends early", false, whole[:len(whole)/2], "gzip", "gzip", 0, io.ErrUnexpectedEOF},
		{"one that is not packed, but says so", false, []byte(list), "gzip", "gzip", 0, gzip.ErrHeader},
		{"one that is broken at its end", false, append(bytes.Clone(whole[:len(whole)-8]), 1, 2, 3, 4, 5, 6, 7, 8), "gzip", "gzip", len(names), gzip.ErrChecksum},
		{"a small answer with an endless field in it", false, packed(t, "k8s\x00\x12\xff\xff\xff\xff\x7f\x12\xff\xff\xff\xff\x0f"+strings.Repeat("x", 2*maxObject)), "gzip", "gzip", 0, errTooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var mu sync.Mutex
			asked := "nothing"
			server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				asked = r.Header.Get("Accept-Encoding")
				mu.Unlock()
				if tc.encoded != "" {
					w.Header().Set("Content-Encoding", tc.encoded)
				}
				w.Header().Set("Content-Type", "application/vnd.kubernetes.protobuf")
				_, _ = w.Write(tc.body) // who has enough does not wait for the rest
			}))
			defer server.Close()
			connection, err := NewConnection(&rest.Config{Host: server.URL, DisableCompression: tc.never, TLSClientConfig: rest.TLSClientConfig{CAData: certificateOf(server)}})
			if err != nil {
				t.Fatal(err)
			}
			c, err := connection.clients()
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			_, err = c.services().all(t.Context(), metav1.ListOptions{}, func(any) error { n++; return nil })
			if !errors.Is(err, tc.is) || tc.is == nil && err != nil || tc.is == nil && n != tc.objects {
				t.Errorf("Got %d objects and %v, want %d and %v", n, err, tc.objects, tc.is)
			}
			mu.Lock()
			defer mu.Unlock()
			if asked != tc.asked {
				t.Errorf("Asked for %q, want %q", asked, tc.asked)
			}
			c.http.CloseIdleConnections()
		})
	}
}

func TestWhoAsksForAnEncodingIsGivenIt(t *testing.T) {
	whole := packed(t, "text")
	inner := roundTrip(func(r *http.Request) (*http.Response, error) {
		return &http.Response{Header: http.Header{"Content-Encoding": r.Header["Accept-Encoding"]}, Body: io.NopCloser(bytes.NewReader(whole))}, nil
	})
	for _, asked := range []string{"identity", "gzip"} {
		r := httptest.NewRequest(http.MethodGet, "http://east/", http.NoBody)
		r.Header.Set("Accept-Encoding", asked)
		response, err := unpacking{inner}.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(response.Body)
		if err := errors.Join(err, response.Body.Close()); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, whole) || response.Header.Get("Content-Encoding") != asked || r.Header.Get("Accept-Encoding") != asked {
			t.Errorf("Who asks for %s gets %d octets of %s", asked, len(got), response.Header.Get("Content-Encoding"))
		}
	}
}
