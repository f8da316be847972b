package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

// audit is a place in the audit log of an API server. What comes after it is what the test causes.
type audit struct {
	path string
	from int64
}

// event is a line of the audit log (audit.k8s.io/v1), as far as the tests look.
type event struct {
	ID         string `json:"auditID"`
	Stage      string `json:"stage"`
	RequestURI string `json:"requestURI"`
	Verb       string `json:"verb"`
	UserAgent  string `json:"userAgent"`
	User       struct {
		Username string `json:"username"`
	} `json:"user"`
	Object struct {
		Resource string `json:"resource"`
		Name     string `json:"name"`
	} `json:"objectRef"`
}

// mark notes how far the log of a cluster is.
func mark(t *testing.T, c cluster) audit {
	t.Helper()
	info, err := os.Stat(c.AuditLog())
	must(t, err)
	return audit{c.AuditLog(), info.Size()}
}

// ours returns the requests of our user agent since the mark.
func (a audit) ours(t *testing.T) []event {
	t.Helper()
	f, err := os.Open(a.path)
	must(t, err)
	defer f.Close()
	_, err = f.Seek(a.from, io.SeekStart)
	must(t, err)
	var events []event
	lines := bufio.NewReader(f)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return events // without a line that is being written
		}
		must(t, err)
		var e event
		must(t, json.Unmarshal(line, &e))
		if strings.HasPrefix(e.UserAgent, "clusterset-dns") {
			events = append(events, e)
		}
	}
}

// reads counts what is listed and watched since the mark, as "verb resource". The requests that only prove that the
// server is alive, which match nothing, are left out.
func (a audit) reads(t *testing.T) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for _, e := range a.ours(t) {
		begins := e.Stage == "ResponseStarted" || e.Stage == "ResponseComplete" && e.Verb != "watch"
		if begins && e.Object.Resource != "" && !strings.Contains(e.RequestURI, "metadata.name%3D-") {
			counts[e.Verb+" "+e.Object.Resource]++
		}
	}
	return counts
}

// asked counts the requests for a resource since the mark, also those that were refused.
func (a audit) asked(t *testing.T, resource string) int {
	t.Helper()
	n := 0
	for _, e := range a.ours(t) {
		if e.Stage == "ResponseComplete" && e.Object.Resource == resource {
			n++
		}
	}
	return n
}

// watching counts the watches that are open, of those that began after the mark.
func (a audit) watching(t *testing.T) int {
	t.Helper()
	open := map[string]bool{}
	for _, e := range a.ours(t) {
		switch {
		case e.Verb == "watch" && e.Stage == "ResponseStarted":
			open[e.ID] = true
		case e.Verb == "watch":
			delete(open, e.ID)
		}
	}
	return len(open)
}

// watchedBy counts, by resource, the watches that a user has begun since the mark.
func (a audit) watchedBy(t *testing.T, user string) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for _, e := range a.ours(t) {
		if e.User.Username == user && e.Verb == "watch" && e.Stage == "ResponseStarted" {
			counts[e.Object.Resource]++
		}
	}
	return counts
}
