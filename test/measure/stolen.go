//go:build linux

package measure

import (
	"fmt"
	"time"

	"github.com/prometheus/procfs"
)

// stolen returns for how long the host of a virtual machine has run others on the processor of servers while that had something to
// do, so far, in steps of 10 ms. On a machine of its own that is 0.
func stolen() (time.Duration, error) {
	usable, err := processors()
	if err != nil {
		return 0, err
	}
	return stolenFrom(procfs.DefaultMountPoint, usable[ServerProcessor])
}

// stolenFrom takes it from a folder like /proc, for a processor by the number that it has there.
func stolenFrom(proc string, processor int) (time.Duration, error) {
	fs, err := procfs.NewFS(proc)
	if err != nil {
		return 0, fmt.Errorf("read what the host has taken: %w", err)
	}
	stat, err := fs.Stat()
	if err != nil {
		return 0, fmt.Errorf("read what the host has taken: %w", err)
	}
	// The library has seconds.
	return time.Duration(stat.CPU[int64(processor)].Steal * float64(time.Second)).Round(time.Millisecond), nil
}
