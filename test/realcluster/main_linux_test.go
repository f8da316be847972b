package realcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// The environment variables that say what this process is.
const (
	// asked is set by those who want clusters: plain "go test" has none.
	asked = "CLUSTER_TEST"
	// insideEnv has what was built, as JSON, for the process that is alone and runs the tests.
	insideEnv = "CLUSTER_TEST_INSIDE"
	// nodeEnv has what the first process of a node does, as JSON.
	nodeEnv = "CLUSTER_TEST_NODE"
	// writeEnv has the table written into the README.
	writeEnv = "CLUSTER_TEST_WRITE"
)

// skipped is why there are no clusters.
var skipped string

// built is what the test is made of.
var built parts

func TestMain(m *testing.M) {
	if text := os.Getenv(nodeEnv); text != "" {
		os.Exit(beNode(text))
	}
	if text := os.Getenv(insideEnv); text != "" {
		if err := errors.Join(json.Unmarshal([]byte(text), &built), beAlone()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	if os.Getenv(asked) == "" {
		skipped = `real clusters need root on Linux and some minutes: "make cluster-test" runs them`
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := outside(ctx, m)
	stop()
	os.Exit(code)
}

// outside builds everything, has the tests run by a process that is alone, and removes what that leaves.
func outside(ctx context.Context, m *testing.M) int {
	if skipped = missing(ctx); skipped != "" {
		return m.Run()
	}
	unlock, err := lock(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer unlock()
	// What an earlier test has left that was killed.
	err = sweep()
	if err == nil {
		err = build(ctx)
	}
	var code int
	if err == nil {
		code, err = runAlone(ctx)
	}
	if err := errors.Join(err, sweep()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

// runAlone calls this program again, alone, and returns its exit code. That one dies with this.
func runAlone(ctx context.Context) (int, error) {
	runtime.LockOSThread() // the kernel asks for the thread that has started it
	defer runtime.UnlockOSThread()
	what, err := json.Marshal(built)
	if err != nil {
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"="+string(what), "TMPDIR="+built.Dir) // which goes, whatever happens
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = alone()
	// A control-C reaches that one too, which then cleans up by itself; no longer than this.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}
