// Command probe is what the pods of the tests with real clusters run: see package realcluster/probe. "probe pause" does nothing
// until it is ended, as the first container of every pod does.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/realcluster/probe"
)

// pause is the time between two lookups. A port that is used twice within half a minute is another connection to nobody but to
// connection tracking, so that asking more often only finds out more often what the README says about it.
const pause = 80 * time.Millisecond

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) == 2 && os.Args[1] == "pause" {
		<-ctx.Done()
		return
	}
	o := probe.Options{Name: os.Getenv("PROBE_NAME"), Names: strings.Fields(os.Getenv("PROBE_ASKS")), Pause: pause}
	if err := probe.Run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
