package demo

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/server"
)

func TestMain(m *testing.M) {
	// Outside of any test, so that a first build does not count against the time limit of the tests.
	if _, err := clusters.Build(context.Background(), os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if _, err := server.Build(context.Background(), os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// interrupted ends a context when a text is written, as a person with Ctrl-C would.
type interrupted struct {
	strings.Builder
	text   string
	cancel context.CancelFunc
}

func (w *interrupted) Write(p []byte) (int, error) {
	n, err := w.Builder.Write(p)
	if w.text != "" && strings.Contains(w.String(), w.text) {
		w.cancel()
	}
	return n, err
}

func TestTheDemo(t *testing.T) {
	for _, tc := range []struct {
		name      string
		interrupt string // the text at which a person presses Ctrl-C
		once      bool
		wantError string
		want      []string // in the output
	}{
		{
			name: "ends by itself when told to run once, all answers as expected", once: true,
			want: []string{
				"\n 1 web.shop.svc.clusterset.local A from east\n    10.96.0.80\n",
				"\n 2 web.shop.svc.clusterset.local A from north\n    10.98.0.80\n",
				"of 200 clients in east", "\nA failure  ", "\n13 web.shop", "\nDone  after", "\nStopping  ",
			},
		},
		{
			name: "otherwise stays up until it is interrupted, which is no error", interrupt: "Your turn",
			want: []string{"dig @127.0.0.1 -p ", "/metrics | grep ^coredns_clusterset", "\nStopping  "},
		},
		{
			name: "stops what it has started when it is interrupted in between", interrupt: "Sample application",
			wantError: "interrupted", want: []string{"\nStopping  "},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w := &interrupted{text: tc.interrupt, cancel: cancel}
			err := Run(ctx, w, Options{Once: tc.once})
			if got := fmt.Sprint(err); got != tc.wantError && (err != nil || tc.wantError != "") {
				t.Errorf("Error is %v, want %q", err, tc.wantError)
			}
			for _, want := range tc.want {
				if !strings.Contains(w.String(), want) {
					t.Errorf("Output has no %q", want)
				}
			}
			if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) != 0 {
				t.Errorf("Left behind: %v, %v", left, err)
			}
			if t.Failed() {
				t.Logf("Output:\n%s", w.String())
			}
		})
	}
}

// A demo that is content with anything would prove nothing.
func TestAnAnswerIsRightOnlyWhenItIsTheExpectedOne(t *testing.T) {
	q := question{want: []string{"10.0.0.1", "10.0.0.2"}}
	for name, got := range map[string][]string{
		"less":    {"10.0.0.1"},
		"more":    {"10.0.0.1", "10.0.0.2", "10.0.0.3"},
		"other":   {"10.0.0.1", "10.0.0.3"},
		"nothing": {"NODATA"},
		"denied":  {"NXDOMAIN"},
		"failure": {"SERVFAIL"},
	} {
		if q.answeredBy(got) {
			t.Errorf("%s: %v passes for %v", name, got, q.want)
		}
	}
	if !q.answeredBy([]string{"10.0.0.1", "10.0.0.2"}) {
		t.Error("The expected answer does not pass")
	}
	out := &strings.Builder{}
	(&screen{w: out}).question(1, q, []string{"NXDOMAIN"})
	if !strings.Contains(out.String(), "WRONG, expected: 10.0.0.1, 10.0.0.2") {
		t.Errorf("A wrong answer is not shown as such: %q", out)
	}
}
