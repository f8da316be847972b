package chaos

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
)

// liar is what an API server becomes that somebody has taken over: it has the certificate, the objects and the tokens of
// the real one, and answers something else.
type liar struct {
	*httptest.Server
	// hostile makes it answer what can be read, and must not be believed; otherwise it is garbage, each time another.
	hostile atomic.Bool
	answers atomic.Int64
}

// startLiar starts one in front of a cluster.
func startLiar(t *testing.T, c *cluster) *liar {
	t.Helper()
	pair, err := c.ServingPair()
	must(t, err)
	to, err := url.Parse(c.URL())
	must(t, err)
	l := &liar{}
	trusting := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableCompression: true, ForceAttemptHTTP2: true}
	l.Server = httptest.NewUnstartedServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Header.Set("Accept", "application/json") // what everybody can read can be forged
			r.Out.Header.Del("Accept-Encoding")
		},
		Transport:      trusting,
		FlushInterval:  -1,
		ModifyResponse: l.change,
		ErrorLog:       log.New(io.Discard, "", 0),
	})
	l.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	l.EnableHTTP2 = true
	l.Config.ErrorLog = log.New(io.Discard, "", 0)
	l.StartTLS()
	t.Cleanup(func() {
		l.CloseClientConnections()
		l.Close()
		trusting.CloseIdleConnections()
	})
	return l
}

func (l *liar) host() string { return strings.TrimPrefix(l.URL, "https://") }

// change changes an answer on its way.
func (l *liar) change(r *http.Response) error {
	n := l.answers.Add(1)
	r.Header.Del("Content-Length")
	r.ContentLength = -1
	if l.hostile.Load() {
		r.Body = rewritten{r.Body, bufio.NewReader(r.Body), &bytes.Buffer{}, hostile}
		return nil
	}
	return garbage[int(n)%len(garbage)](r)
}

// garbage are ways to spoil an answer.
var garbage = []func(*http.Response) error{
	each(func(line []byte) []byte { return line[:len(line)/2] }),
	each(func(line []byte) []byte {
		return regexp.MustCompile(`"kind":"[A-Za-z]+"`).ReplaceAll(line, []byte(`"kind":"PodList"`))
	}),
	each(func(line []byte) []byte {
		return bytes.ReplaceAll(line, []byte(`"name":"`), append([]byte(`"name":"`), bytes.Repeat([]byte("a"), 1<<20)...))
	}),
	each(func(line []byte) []byte {
		return regexp.MustCompile(`"type":"[A-Z]+"`).ReplaceAll(line, []byte(`"type":"SURPRISE"`))
	}),
	each(func(line []byte) []byte {
		return regexp.MustCompile(`"resourceVersion":"[0-9]+"`).ReplaceAll(line, []byte(`"resourceVersion":[{}]`))
	}),
	each(func(line []byte) []byte { return bytes.ReplaceAll(line, []byte(`{`), []byte(`[`)) }),
	func(r *http.Response) error {
		r.Header.Set("Content-Type", "application/vnd.kubernetes.protobuf") // it is not
		return nil
	},
	func(r *http.Response) error {
		r.Body.Close()
		r.Header.Set("Content-Type", "text/html")
		r.Body = io.NopCloser(strings.NewReader("<html><body>Please log in</body></html>"))
		return nil
	},
	func(r *http.Response) error {
		r.StatusCode = http.StatusInternalServerError
		return nil
	},
	func(*http.Response) error { return errors.New("bad gateway") },
}

// each changes an answer line by line: a list is one, a watch is one per event.
func each(change func([]byte) []byte) func(*http.Response) error {
	return func(r *http.Response) error {
		r.Body = rewritten{r.Body, bufio.NewReader(r.Body), &bytes.Buffer{}, change}
		return nil
	}
}

// hostile puts addresses into what north exports that are something else on every host, or nothing, and the address of a
// Service of east in place of a cluster IP.
func hostile(line []byte) []byte {
	bad := []string{"127.0.0.1", "127.8.8.8", "169.254.169.254", "0.0.0.0", "224.0.0.251", "255.255.255.255", "::1", "::ffff:10.1.0.1", "10.3.0", "../../etc/passwd"}
	i := 0
	// See cluster.address.
	line = regexp.MustCompile(`"10\.(4[89]|5[0-9]|6[0-3])\.[0-9]+\.[0-9]+"`).ReplaceAllFunc(line, func([]byte) []byte {
		i++
		return fmt.Appendf(nil, "%q", bad[i%len(bad)])
	})
	for _, service := range north.balanced() {
		line = bytes.ReplaceAll(line, []byte(north.clusterIP(service)), []byte(east.clusterIP(near)))
	}
	return line
}

// rewritten is a body that is changed while it is read, a line at a time.
type rewritten struct {
	io.Closer
	from   *bufio.Reader
	next   *bytes.Buffer
	change func([]byte) []byte
}

func (r rewritten) Read(p []byte) (int, error) {
	if r.next.Len() == 0 {
		line, err := r.from.ReadBytes('\n')
		if len(line) == 0 {
			return 0, err
		}
		r.next.Write(r.change(line))
		if r.next.Len() == 0 {
			return 0, err
		}
	}
	return r.next.Read(p)
}
