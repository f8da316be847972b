package clusters

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// errRunning says that a thread of a process that was sent SIGSTOP still runs.
var errRunning = errors.New("not stopped yet")

// stopped returns nil once every thread of the process is stopped. On a busy machine that is well after kill returned,
// and until then the other threads go on answering.
func stopped(pid int) error {
	stats, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*", "stat"))
	if err != nil {
		return err
	}
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // the thread has ended
		}
		if err != nil {
			return err
		}
		// pid (name) state ...; the name may hold anything, brackets too.
		rest := bytes.TrimSpace(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(rest) == 0 {
			return fmt.Errorf("read %s: no state in %q", path, stat)
		}
		if state := rest[0]; state != 'T' && state != 'Z' && state != 'X' {
			return errRunning
		}
	}
	return nil
}
