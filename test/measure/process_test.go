//go:build linux

package measure

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAside looks where all threads of this process may run, while it stands aside and afterwards.
func TestAside(t *testing.T) {
	usable, err := processors()
	if err != nil {
		t.Fatal(err)
	}
	meanwhile := min(1, len(usable)-1)
	err = Aside(func() error {
		if set := affinity(t); set.Count() != 1 || !set.IsSet(usable[meanwhile]) {
			t.Errorf("meanwhile it runs on %d processors, or not on that of who asks", set.Count())
		}
		return errors.ErrUnsupported
	})
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%v, want what was returned meanwhile", err)
	}
	if set := affinity(t); set.Count() != len(usable) {
		t.Errorf("afterwards it may use %d processors, want %d", set.Count(), len(usable))
	}
}

// affinity returns where the first thread may run.
func affinity(t *testing.T) (set unix.CPUSet) {
	t.Helper()
	if err := unix.SchedGetaffinity(os.Getpid(), &set); err != nil {
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
