package clusterset

import (
	"bytes"
	"errors"
	golog "log"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clog "github.com/coredns/coredns/plugin/pkg/log"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/client-go/rest"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/lease"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

func TestClaims(t *testing.T) {
	c := &claims{}
	const id = "claims.west"
	for _, step := range []struct {
		name, claimed string
		want          float64
	}{
		{"it says nothing", "", 0},
		{"its id", id, 0},
		{"another id", "east", 1},
		{"nothing again", "", 0},
		{"no id at all", "not an id\n", 1},
	} {
		t.Run(step.name, func(t *testing.T) {
			c.set(id, step.claimed)
			if got := testutil.ToFloat64(idMismatch.WithLabelValues(id)); got != step.want {
				t.Errorf("The gauge is %v, want %v", got, step.want)
			}
		})
	}
	c.forget(id)
	forgetSource(id, false)
	if testutil.CollectAndCount(idMismatch) != 0 || len(c.known()) != 0 {
		t.Error("Something is left of a cluster that is gone")
	}
}

func TestClaimsAreLoggedOnce(t *testing.T) {
	c := &claims{}
	out := captureLog(t)
	for range 3 {
		c.set("claims.west", "east")
	}
	if got := out(); strings.Count(got, "calls itself") != 1 {
		t.Errorf("The log is %q, want one line", got)
	}
	forgetSource("claims.west", false)
}

// captureLog returns what is logged from now on.
func captureLog(t *testing.T) func() string {
	t.Helper()
	var out bytes.Buffer
	golog.SetOutput(&out)
	t.Cleanup(clog.Discard)
	return out.String
}

func TestInsecureClustersAreNamedAtEachStart(t *testing.T) {
	insecure, err := watch.NewConnection(&rest.Config{Host: "https://127.0.0.1:1", TLSClientConfig: rest.TLSClientConfig{Insecure: true}})
	if err != nil {
		t.Fatal(err)
	}
	c := configOf(t, "east", "west")
	c.members[1].connection, c.imports = insecure, &insecure
	out := captureLog(t)
	warnInsecure(c)
	got := out()
	if strings.Contains(got, "east") || !strings.Contains(got, "Cluster west: its kubeconfig has insecure-skip-tls-verify") || !strings.Contains(got, "serviceimports") {
		t.Errorf("The log is %q", got)
	}
}

func TestRenewedCredentialsAreLogged(t *testing.T) {
	for _, tc := range []struct {
		name     string
		insecure bool
		err      error
		want     []string
	}{
		{"new ones are used", false, nil, []string{"INFO", "new credentials are used"}},
		{"new ones do not work", false, errors.New("because"), []string{"WARNING", "because", "the old ones are used"}},
		{"they come with TLS that is not verified", true, nil, []string{"WARNING", "insecure-skip-tls-verify", "new credentials are used"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out := captureLog(t)
			observer{}.Renewed("west", tc.insecure, tc.err)
			for _, want := range tc.want {
				if !strings.Contains(out(), want) {
					t.Errorf("The log is %q, want %q in it", out(), want)
				}
			}
		})
	}
}

func TestReloadWithRotatedFilesKeepsTheWatchers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kubeconfig")
	load := func(token string) *config {
		text := `{"clusters": [{"name": "a", "cluster": {"server": "https://127.0.0.1:1"}}], "users": [{"name": "a", "user": {"token": "` + token +
			`"}}], "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}], "current-context": "a"}`
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		connection, err := watch.LoadKubeconfig(path, "")
		if err != nil {
			t.Fatal(err)
		}
		c := configOf(t, "east", "west")
		c.members[1].connection = connection
		return c
	}
	s := newTestStore(t)
	old, _ := s.mustAcquire(t, &lease.Tenant{}, load("old"))
	reloaded, _ := s.mustAcquire(t, &lease.Tenant{}, load("new"))
	if old != reloaded {
		t.Error("A reload begins anew because credentials have changed on disk")
	}
}
