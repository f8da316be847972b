package clusters

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestProgramDiesWithACrashedTest(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashEnv+"="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, readErr := bufio.NewReader(out).ReadString('\n')
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	before := err == nil && processExists(pid)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("The test binary ended by itself")
	}
	if !before {
		t.Fatalf("Program did not start: %q, %v", line, readErr)
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	if err := poll(ctx, func(context.Context) error {
		if processExists(pid) && !zombie(pid) {
			return fmt.Errorf("process %d is still there", pid)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// zombie tells whether a process has ended and its new parent has not noticed yet.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func TestProgramOutlivesTheThreadThatAskedForIt(t *testing.T) {
	dir := t.TempDir()
	type result struct {
		p   *process
		err error
	}
	started := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		p, err := startProcess(dir, "/bin/sleep", []string{"300"})
		started <- result{p, err}
	}()
	got := <-started
	if got.err != nil {
		t.Fatal(got.err)
	}
	select {
	case <-got.p.done:
		t.Errorf("Program ended with the thread: %v", got.p.how)
	case <-time.After(200 * time.Millisecond):
	}
	if err := got.p.kill(); err != nil {
		t.Error(err)
	}
	if got.p.running() {
		t.Error("Program runs after kill")
	}
}
