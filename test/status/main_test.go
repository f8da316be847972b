// Package status runs the command line against the real server, and as a plugin of the real kubectl.
package status

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/members"
	"github.com/clusterset-dns/clusterset-dns/test/server"
	"github.com/clusterset-dns/clusterset-dns/test/site"
	"github.com/clusterset-dns/clusterset-dns/test/suite"
)

// limit bounds every wait of a test.
const limit = 30 * time.Second

// world is what the members have: six services, each in all of them.
var world = members.World{Members: 3, Services: 6, Endpoints: 2, Same: true}

var (
	here *site.Site
	// control and kubectl are programs; plugins is a folder in which the first is called kubectl-clusterset.
	control, kubectl, plugins string
	// corefile is that of the server.
	corefile string
)

var must, within = suite.Must, suite.Within

func TestMain(m *testing.M) { os.Exit(suite.Run(m, start)) }

func start(ctx context.Context) (stop func() error, err error) {
	coredns, err := server.BuildRace(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	if control, err = server.BuildControl(ctx, os.Stderr); err != nil {
		return nil, err
	}
	built, err := clusters.Build(ctx, os.Stderr, clusters.Kubectl)
	if err != nil {
		return nil, err
	}
	kubectl = built.Kubectl
	dir, err := os.MkdirTemp("", "clusterset-dns-status-")
	if err != nil {
		return nil, err
	}
	plugins, corefile = filepath.Join(dir, "plugins"), filepath.Join(dir, "Corefile")
	remove := func() error { return os.RemoveAll(dir) }
	if err := errors.Join(os.Mkdir(plugins, 0o755), os.Symlink(control, filepath.Join(plugins, "kubectl-clusterset"))); err != nil {
		return nil, errors.Join(err, remove())
	}
	here, err = site.Start(ctx, coredns, site.Plan{
		World: world, Names: []string{"east", "west", "north"},
		Region: func(number int) string { return []string{"eu", "us", "eu"}[number] },
		Block:  "locality {\ncluster east\ncidr 127.0.0.0/8 cluster=east region=eu\ncidr 10.2.0.0/16 cluster=west region=us\n}",
	}, server.Options{Dir: dir})
	if err != nil {
		return nil, errors.Join(err, remove())
	}
	return func() error { return errors.Join(here.Stop(), remove()) }, nil
}

// said is what a program has printed and how it ended.
type said struct {
	out, failed string
	code        int
}

// run runs a program in a nearly empty environment.
func run(ctx context.Context, program string, env []string, args ...string) (said, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var out, failed bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr, cmd.Env = &out, &failed, append([]string{"HOME=/nonexistent", "TERM=xterm-256color", "PATH=" + plugins + string(filepath.ListSeparator) + os.Getenv("PATH")}, env...)
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		return said{}, err
	}
	return said{out.String(), failed.String(), cmd.ProcessState.ExitCode()}, nil
}

// ctl runs clustersetctl with the status address of the server in its environment.
func ctl(ctx context.Context, args ...string) (said, error) {
	return run(ctx, control, []string{"CLUSTERSET_SERVER=" + here.URL}, args...)
}

// wants checks that a text has these pieces.
func wants(text string, pieces ...string) error {
	for _, p := range pieces {
		if !strings.Contains(text, p) {
			return fmt.Errorf("%q is not in\n%s", p, text)
		}
	}
	return nil
}
