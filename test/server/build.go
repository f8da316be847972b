package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
)

// Build makes bin/coredns in the repository, static and stripped, and returns its path. What the go command has in its
// cache is not compiled again, so that calling it before every test is cheap. Processes that call it at the same time
// wait for each other.
func Build(ctx context.Context, w io.Writer) (path string, err error) {
	return build(ctx, w, target{"coredns", ".", "./cmd/coredns"}, "CGO_ENABLED=0", "-ldflags", "-s -w")
}

// BuildRace makes bin/coredns-race, which has the race detector in it and needs a C compiler, and returns its path.
func BuildRace(ctx context.Context, w io.Writer) (path string, err error) {
	return build(ctx, w, target{"coredns-race", ".", "./cmd/coredns"}, "CGO_ENABLED=1", "-race")
}

// BuildControl makes bin/clustersetctl, the command line, and returns its path.
func BuildControl(ctx context.Context, w io.Writer) (path string, err error) {
	return build(ctx, w, target{"clustersetctl", ".", "./cmd/clustersetctl"}, "CGO_ENABLED=0", "-ldflags", "-s -w")
}

// BuildFloor makes bin/floor, the server of test/compare/floor, and returns its path.
func BuildFloor(ctx context.Context, w io.Writer) (path string, err error) {
	return build(ctx, w, target{"floor", "test", "./cmd/floor"}, "CGO_ENABLED=0", "-ldflags", "-s -w")
}

// BuildStock makes bin/coredns-stock, which is CoreDNS as its own project builds it, in the version that the server is made
// of, and returns its path.
func BuildStock(ctx context.Context, w io.Writer) (path string, err error) {
	return build(ctx, w, target{"coredns-stock", ".", "github.com/coredns/coredns"}, "CGO_ENABLED=0", "-ldflags", "-s -w")
}

// BuildProbe makes bin/probe, the program in the pods of test/realcluster, and returns its path.
func BuildProbe(ctx context.Context, w io.Writer) (path string, err error) {
	return build(ctx, w, target{"probe", "test", "./cmd/probe"}, "CGO_ENABLED=0", "-ldflags", "-s -w")
}

// target is what build makes: a file in the folder bin, from a main package that a module of the repository has or needs.
type target struct{ name, module, pkg string }

func build(ctx context.Context, w io.Writer, what target, env string, flags ...string) (string, error) {
	root, err := clusters.Root()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(root, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(ctx, filepath.Join(bin, ".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()

	path := filepath.Join(bin, what.name)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		fmt.Fprintf(w, "building bin/%s (the first time: some minutes, for the dependencies)\n", what.name)
	}
	start := time.Now()
	args := append([]string{"build", "-trimpath", "-o", path}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, what.pkg)...)
	cmd.Dir = filepath.Join(root, what.module)
	cmd.Env = append(os.Environ(), "GOWORK=off", env)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // go stops its compilers and cleans up
	cmd.WaitDelay = 10 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", what.name, err, out)
	}
	if took := time.Since(start); took > 5*time.Second {
		fmt.Fprintf(w, "built bin/%s in %s\n", what.name, took.Round(time.Second))
	}
	return path, nil
}

// lock takes the lock file for this process, waiting for others as long as ctx allows.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		// A blocking flock could not be cancelled.
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
