package observe

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/suite"
)

// limit bounds every wait of a test.
const limit = 45 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inRepository returns the path of a file of the repository.
func inRepository(t *testing.T, path string) string {
	t.Helper()
	root, err := clusters.Root()
	must(t, err)
	return filepath.Join(root, filepath.FromSlash(path))
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(inRepository(t, path))
	must(t, err)
	return text
}

// needs skips a test where a program of Prometheus is not installed.
func needs(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not installed: install the package prometheus", program)
	}
}

var must = suite.Must

// within waits until check returns nil, for as long as limit.
func within(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	suite.Within(t, limit, what, check)
}

// unless turns a finding into an error for within.
func unless(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}
