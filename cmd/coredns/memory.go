package main

import (
	"errors"

	"github.com/KimMachineGun/automemlimit/memlimit"
	clog "github.com/coredns/coredns/plugin/pkg/log"
)

// followMemoryLimit tells Go how much memory the container may use, so that it collects garbage sooner instead of being killed. A
// tenth is left for what Go does not count. GOMEMLIMIT in the environment has the last word, as in every Go program.
func followMemoryLimit() {
	_, err := memlimit.Set(memlimit.WithRatio(0.9))
	if err != nil && !errors.Is(err, memlimit.ErrNoCgroup) && !errors.Is(err, memlimit.ErrCgroupsNotSupported) {
		clog.Warningf("The memory limit of the container is not known: %v; set GOMEMLIMIT to 90 %% of it", err)
	}
}
