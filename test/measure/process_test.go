//go:build linux

package measure

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAside looks where this process and two that it has started may run, while all but the last stand aside and afterwards.
func TestAside(t *testing.T) {
	usable, err := processors()
	if err != nil {
		t.Fatal(err)
	}
	child, other := started(t), started(t)
	before := affinity(t, other)
	err = Aside(func() error {
		for _, pid := range []int{os.Getpid(), child} {
			if set := affinity(t, pid); set.Count() != 1 || !set.IsSet(usable[min(1, len(usable)-1)]) {
				t.Errorf("meanwhile process %d may run on %d processors, or not on that of who asks", pid, set.Count())
			}
		}
		if affinity(t, other) != before {
			t.Error("meanwhile the one that was excepted may run elsewhere")
		}
		return errors.ErrUnsupported
	}, other)
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%v, want what was returned meanwhile", err)
	}
	for _, pid := range []int{os.Getpid(), child, other} {
		if affinity(t, pid) != before {
			t.Errorf("afterwards process %d may not run where it could before", pid)
		}
	}
}

// started returns the id of a process that waits until the test ends.
func started(t *testing.T) int {
	t.Helper()
	command := exec.CommandContext(t.Context(), "sleep", "60")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = command.Wait() }) // it was killed, which is an error
	return command.Process.Pid
}

// affinity returns where the first thread of a process may run.
func affinity(t *testing.T, pid int) (set unix.CPUSet) {
	t.Helper()
	if err := unix.SchedGetaffinity(pid, &set); err != nil {
		t.Fatal(err)
	}
	return set
}

func TestStolenOnlyGrows(t *testing.T) {
	before, err := stolen()
	if err != nil {
		t.Fatal(err)
	}
	after, err := stolen()
	if err != nil || after < before || before < 0 {
		t.Errorf("%s, then %s, %v", before, after, err)
	}
}

// TestKeepAwake runs as any user, in machines that cannot sleep too.
func TestKeepAwake(t *testing.T) {
	awake, err := KeepAwake()
	if err != nil {
		if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		return
	}
	if err := awake.Close(); err != nil {
		t.Error(err)
	}
}
