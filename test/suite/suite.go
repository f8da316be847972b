// Package suite is what the packages of end-to-end tests share: how one begins and ends, and how a test waits.
package suite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Run starts what the tests of a package need, runs them, stops it, and looks for goroutines that are left. It returns the exit
// code for os.Exit: not 0 too when something could not be started or stopped, or is left.
func Run(m *testing.M, start func(context.Context) (stop func() error, err error), options ...goleak.Option) int {
	stop, err := start(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := errors.Join(stop(), goleak.Find(options...)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	return code
}

// Must fails the test on an error.
func Must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The pause between two looks at a condition. What takes long need not be known so exactly.
const (
	pause     = 2 * time.Millisecond
	longPause = 20 * time.Millisecond
	long      = time.Second
)

// Within waits until check returns nil, also while a test cleans up, and returns how long that took. The test fails when it takes
// longer than limit.
func Within(t *testing.T, limit time.Duration, what string, check func(context.Context) error) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit)
	defer cancel()
	for begin, wait := time.Now(), pause; ; {
		err := check(ctx)
		took := time.Since(begin)
		if err == nil {
			return took
		}
		if took > long {
			wait = longPause
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not within %s: %s: %v", limit, what, err)
		case <-time.After(wait):
		}
	}
}
