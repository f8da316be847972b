package cases

import (
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testWriter shows the progress of a run in the test's log.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// mustFail are the queries of testdata/fail, with something that the runner says about each.
var mustFail = map[string]string{
	"address":     "missing web.z01.svc.clusterset.local. A 10.96.211.11",
	"rcode":       "rcode NXDOMAIN, want NOERROR",
	"handled":     "handled the query: true, want false",
	"unhandled":   "handled the query: false, want true",
	"expectation": "does not know these expectations: mood",
	"step":        `unknown key "teleport": {"id":"leap"`,
	"later-step":  "step leap",
	"no-step":     `no step "nosuch"`,
	"given":       `does not know given {"weather":"rain"}`,
	"option":      "nosuchproperty",
	"type":        `unknown type "NOSUCH"`,
	"refused":     "write Service z02/web in cluster east",
}

func TestCases(t *testing.T) {
	worlds, err := Load("testdata", "testdata/extra", "testdata/fail")
	if err != nil {
		t.Fatal(err)
	}
	report, err := Run(t.Context(), testWriter{t}, worlds)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Warnings) > 0 {
		t.Errorf("warnings: %q", report.Warnings)
	}
	if len(report.Refused) != 1 { // by testdata/fail
		t.Errorf("refused objects: %v, want one", report.Refused)
	}
	perFile := map[string]int{}
	for _, result := range report.Results {
		perFile[result.File]++
		t.Run(result.File+"/"+result.Query, func(t *testing.T) { check(t, result) })
	}
	for file, want := range map[string]int{"cases.yaml": 163, "forms.yaml": 42, "again.yaml": 2, "fail.yaml": len(mustFail)} {
		if perFile[file] != want {
			t.Errorf("%d queries of %s ran, want %d", perFile[file], file, want)
		}
	}
}

func check(t *testing.T, result Result) {
	t.Helper()
	if result.File != "fail.yaml" {
		if len(result.Wrong) > 0 {
			t.Error(result)
		}
		return
	}
	if want := mustFail[result.Query]; want == "" || !strings.Contains(strings.Join(result.Wrong, "\n"), want) {
		t.Errorf("it was found wrong that %q, want something with %q", result.Wrong, want)
	}
}

func TestPrintEndsWithTheCounts(t *testing.T) {
	tests := []struct {
		name    string
		results []Result
		want    string
	}{
		{"nothing ran", nil, "0 passed, 0 failed\n"},
		{"all passed", []Result{{Query: "a"}, {Query: "b"}}, "2 passed, 0 failed\n"},
		{
			"a failure comes with what was expected and got",
			[]Result{{Query: "a"}, {Query: "b", Question: "example.org. A", Wrong: []string{"rcode"}, Expected: "NOERROR", Got: "NXDOMAIN\nanswer: x"}},
			"FAIL b: example.org. A\n  wrong:\n    rcode\n  expected:\n    NOERROR\n  got:\n    NXDOMAIN\n    answer: x\n1 passed, 1 failed\n",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var b strings.Builder
			Report{Results: test.results}.Print(&b)
			if b.String() != test.want {
				t.Errorf("printed\n%s\nwant\n%s", b.String(), test.want)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	tests := []struct {
		name, text string
		wantIDs    string
		wantErr    string
	}{
		{"a mapping with worlds", "worlds: [{id: a}, {id: b}]", "a b", ""},
		{"a list of worlds", "[{id: a}, {id: b}]", "a b", ""},
		{"one world", "{id: a, queries: []}", "a", ""},
		{"a world without an id gets one", "worlds: [{title: x}]", "file#1", ""},
		{"no worlds", "meta: {}", "", "no worlds"},
		{"no YAML", "a: [", "", "yaml"},
		{"a query that is none", "worlds: [{id: a, queries: [x]}]", "", "cannot unmarshal"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(dir+"/file.yaml", []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(dir+"/notes.txt", []byte("a: ["), 0o600); err != nil {
				t.Fatal(err)
			}
			worlds, err := Load(dir)
			if (err == nil) != (test.wantErr == "") || err != nil && !strings.Contains(err.Error(), test.wantErr) {
				t.Fatalf("error %v, want one with %q", err, test.wantErr)
			}
			var ids []string
			for _, w := range worlds {
				ids = append(ids, w.ID)
			}
			if got := strings.Join(ids, " "); got != test.wantIDs {
				t.Errorf("worlds %q, want %q", got, test.wantIDs)
			}
		})
	}
}
