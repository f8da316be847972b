//go:build linux

package measure

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

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

func TestStolen(t *testing.T) {
	proc := t.TempDir()
	text := "cpu  10 0 10 10 0 0 0 60 0 0\ncpu0 5 0 5 5 0 0 0 17 0 0\ncpu1 5 0 5 5 0 0 0 43 0 0\n"
	if err := os.WriteFile(filepath.Join(proc, "stat"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := stolenFrom(proc, 1); got != 430*time.Millisecond || err != nil {
		t.Errorf("of the second processor %s, %v, want 430ms", got, err)
	}
	if _, err := stolenFrom(t.TempDir(), 1); err == nil {
		t.Error("no error where nothing is told")
	}
	if _, err := stolen(); err != nil {
		t.Errorf("on this machine: %v", err)
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
	// Who reads there is told what holds for all.
	told, err := os.ReadFile(latencyFile)
	if len(told) < 4 {
		t.Errorf("what holds is %x, %v", told, err)
	} else if holds := binary.NativeEndian.Uint32(told); holds != 0 {
		t.Errorf("processors may need %d us to wake up, want 0", holds)
	}
	if err := awake.Close(); err != nil {
		t.Error(err)
	}
}
