//go:build linux

// Package measure asks DNS servers as fast as they answer or at a fixed rate, reads what processes use of a machine, and
// prints tables: what all comparisons and measurements of the server share.
package measure

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// pin lets a thread run on one processor only, 0 being the calling thread. The processor is counted among those that this
// process may use; if that is one, nothing is pinned.
func pin(thread, processor int) error {
	usable, err := processors()
	if err != nil || len(usable) < 2 {
		return err
	}
	var set unix.CPUSet
	set.Set(usable[processor])
	if err := unix.SchedSetaffinity(thread, &set); err != nil {
		return fmt.Errorf("pin thread %d to processor %d: %w", thread, usable[processor], err)
	}
	return nil
}

// processors returns those that this process may use.
var processors = sync.OnceValues(func() (usable []int, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(os.Getpid(), &set); err != nil {
		return nil, fmt.Errorf("look for processors: %w", err)
	}
	for i := 0; len(usable) < set.Count(); i++ {
		if set.IsSet(i) {
			usable = append(usable, i)
		}
	}
	return usable, nil
})

// PinProcess pins all threads of a process to a processor, counted among those that this one may use.
func PinProcess(pid, processor int) error {
	return eachThread(pid, func(thread int) error { return pin(thread, processor) })
}

// eachThread calls do with all threads of a process. New threads are where those that make them are, so it looks until it finds no
// more. What ends meanwhile is no error.
func eachThread(pid int, do func(thread int) error) error {
	done := map[int]bool{}
	for {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return err
		}
		before := len(done)
		for _, entry := range entries {
			thread, err := strconv.Atoi(entry.Name())
			if err != nil || done[thread] {
				continue
			}
			if err := do(thread); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
			done[thread] = true
		}
		if len(done) == before {
			return nil
		}
	}
}

// Aside calls do while this process and all that it has started, but for those whose ids are given, are on the processor of who asks.
// What they do takes nothing from a server on the other meanwhile. Afterwards they are where they were.
func Aside(do func() error, but ...int) error {
	var back []func() error
	put := func(pid int) error {
		var was unix.CPUSet
		if err := unix.SchedGetaffinity(pid, &was); err != nil {
			return fmt.Errorf("look where process %d may run: %w", pid, err)
		}
		back = append(back, func() error {
			return eachThread(pid, func(thread int) error { return unix.SchedSetaffinity(thread, &was) })
		})
		return PinProcess(pid, askerProcessor)
	}
	var errs []error
	for _, pid := range Family(os.Getpid()) {
		if !slices.Contains(but, pid) {
			errs = append(errs, put(pid))
		}
	}
	err := errors.Join(errs...)
	if err == nil {
		err = do()
	}
	for _, one := range back {
		err = errors.Join(err, one())
	}
	return err
}

// CPUTime returns how long the processors have worked for a process so far, user and system.
func CPUTime(pid int) (time.Duration, error) {
	// The clock of another process; see clock_getcpuclockid(3). It counts in nanoseconds what /proc/PID/stat counts in
	// hundredths of a second.
	const cpuClock = 2
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|cpuClock), &t); err != nil {
		return 0, fmt.Errorf("read the processor time of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// Waited returns how long the threads of a process have been ready to run so far while others had the processors; those of
// the process itself are others too. It is 0 where the kernel does not count that.
func Waited(pid int) (sum time.Duration, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	for _, file := range threads {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		var ran, waited int64
		if _, err := fmt.Sscan(string(text), &ran, &waited); err != nil {
			return 0, fmt.Errorf("read %s: %w", file, err)
		}
		sum += time.Duration(waited)
	}
	return sum, nil
}

// Family returns a process and all that it has started.
func Family(pid int) []int {
	all := []int{pid}
	children, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return all
	}
	for _, file := range children {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for word := range strings.FieldsSeq(string(text)) {
			if child, err := strconv.Atoi(word); err == nil {
				all = append(all, Family(child)...)
			}
		}
	}
	return all
}

// Memory is what a process holds, in octets.
type Memory struct{ Resident, Peak int64 }

// MemoryOf reads what a process holds, and the most that it has held since the start or ResetPeak.
func MemoryOf(pid int) (Memory, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Memory{}, err
	}
	values, err := numbers(string(text), ":", "VmRSS", "VmHWM")
	if err != nil {
		return Memory{}, fmt.Errorf("read the memory of process %d: %w", pid, err)
	}
	const kB = 1 << 10
	return Memory{values[0] * kB, values[1] * kB}, nil
}

// ResetPeak makes the kernel forget the most that a process has held; see proc_pid_clear_refs(5).
func ResetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0o200)
}

// Heap is what the Go runtime of a server says.
type Heap struct{ Live, Allocations, Allocated int64 }

// HeapOf asks the *pprof* plugin at an address. With collect, garbage is collected first, so that what is live is what is
// needed.
func HeapOf(ctx context.Context, address string, collect bool) (Heap, error) {
	query := "debug=1"
	if collect {
		query += "&gc=1"
	}
	text, err := askPprof(ctx, address, query)
	if err != nil {
		return Heap{}, err
	}
	values, err := numbers(string(text), " = ", "# HeapAlloc", "# Mallocs", "# TotalAlloc")
	if err != nil {
		return Heap{}, fmt.Errorf("read the heap from %s: %w", address, err)
	}
	return Heap{Live: values[0], Allocations: values[1], Allocated: values[2]}, nil
}

// HeapProfile asks the *pprof* plugin at an address for a profile of what is live after a garbage collection, as
// `go tool pprof` reads it.
func HeapProfile(ctx context.Context, address string) ([]byte, error) {
	return askPprof(ctx, address, "gc=1")
}

func askPprof(ctx context.Context, address, query string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/debug/pprof/heap?"+query, http.NoBody)
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return io.ReadAll(response.Body)
}

// Sleep waits so long, or until ctx ends, whose error it returns then.
func Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// numbers finds the numbers that stand behind keys, at the beginning of lines.
func numbers(text, between string, keys ...string) ([]int64, error) {
	found := map[string]int64{}
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), between)
		if !ok {
			continue
		}
		fields := strings.Fields(value)
		if len(fields) == 0 {
			continue
		}
		if n, err := strconv.ParseInt(fields[0], 10, 64); err == nil {
			found[key] = n
		}
	}
	out := make([]int64, len(keys))
	for i, key := range keys {
		n, ok := found[key]
		if !ok {
			return nil, fmt.Errorf("no %q", key)
		}
		out[i] = n
	}
	return out, lines.Err()
}
