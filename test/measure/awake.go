//go:build linux

package measure

import (
	"encoding/binary"
	"fmt"
	"os"
)

// latencyFile takes how many microseconds a processor may need to wake up, for as long as it is open (Linux,
// Documentation/power/pm_qos_interface.rst).
const latencyFile = "/dev/cpu_dma_latency"

// KeepAwake lets no processor sleep until it is closed. One of a virtual machine that sleeps is given to others, and comes back
// when they let go: what a server that waits for the next question needs then to answer it says more about them than about it.
// Only root may ask for that.
func KeepAwake() (*os.File, error) {
	f, err := os.OpenFile(latencyFile, os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("keep processors awake: %w", err)
	}
	if _, err := f.Write(binary.NativeEndian.AppendUint32(nil, 0)); err != nil {
		_ = f.Close() // nothing was written
		return nil, fmt.Errorf("keep processors awake: %w", err)
	}
	return f, nil
}
