// Command clusters builds control planes, and runs some of them for a person:
//
//	go run ./cmd/clusters build
//	go run ./cmd/clusters run [-controller-manager] NAME...
//
// run prints the kubeconfig paths of each cluster and stops everything on SIGINT or SIGTERM.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
)

const usage = `usage:
  clusters build                              build etcd, kube-apiserver, kube-controller-manager and kubectl
  clusters run [-controller-manager] NAME...  start clusters, e.g. run east west north, until Ctrl-C
`

// errUsage says that the command line was wrong.
var errUsage = errors.New("wrong command line")

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, os.Args[1:])
	cancel()
	switch {
	case errors.Is(err, errUsage), errors.Is(err, flag.ErrHelp):
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "clusters:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, w io.Writer, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	switch args[0] {
	case "build":
		return build(ctx, w)
	case "run":
		return runClusters(ctx, w, args[1:])
	}
	return errUsage
}

func build(ctx context.Context, w io.Writer) error {
	b, err := clusters.Build(ctx, w, clusters.Kubectl)
	if err != nil {
		return err
	}
	for _, path := range []string{b.Etcd, b.APIServer, b.ControllerManager, b.Kubectl} {
		fmt.Fprintln(w, path)
	}
	return nil
}

// runClusters keeps clusters running until ctx ends.
func runClusters(ctx context.Context, w io.Writer, args []string) (err error) {
	set := flag.NewFlagSet("run", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	controllers := set.Bool("controller-manager", false, "also run kube-controller-manager")
	if err := set.Parse(args); err != nil || set.NArg() == 0 {
		return errUsage
	}
	var options []clusters.Options
	for _, name := range set.Args() {
		options = append(options, clusters.Options{Name: name, ControllerManager: *controllers})
	}
	b, err := clusters.Build(ctx, w)
	if err != nil {
		return err
	}
	start := time.Now()
	started, err := clusters.StartAll(ctx, b, options...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, clusters.StopAll(started...)) }()
	fmt.Fprintf(w, "ready after %.1f s\n", time.Since(start).Seconds())
	for _, c := range started {
		fmt.Fprintf(w, "%s  %s\n  admin:      KUBECONFIG=%s\n  DNS server: KUBECONFIG=%s\n", c.Name(), c.URL(), c.AdminKubeconfig(), c.Kubeconfig())
	}
	fmt.Fprintln(w, "Ctrl-C stops them")
	<-ctx.Done()
	fmt.Fprintln(w, "stopping")
	return nil
}
