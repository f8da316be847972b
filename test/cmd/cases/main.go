// Command cases runs every case file of a folder against the real binary and real API servers:
//
//	go run ./cmd/cases
//	CLUSTERSET_CASES=DIR go run ./cmd/cases
//
// Without CLUSTERSET_CASES it takes the case files of this repository. A relative DIR is one of the repository, or else
// of the working directory. It prints each failing query with what was expected and got, and as its last line
// "N passed, N failed". The exit status is 0 only when queries ran and all passed.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/clusterset-dns/clusterset-dns/test/cases"
	"github.com/clusterset-dns/clusterset-dns/test/clusters"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout)
	cancel()
	if err != nil {
		if !errors.Is(err, errFailed) {
			fmt.Fprintln(os.Stderr, "cases:", err)
		}
		os.Exit(1)
	}
}

// errFailed says that queries failed, about which everything has been said.
var errFailed = errors.New("queries failed")

func run(ctx context.Context, w io.Writer) error {
	dir, err := folder(os.Getenv("CLUSTERSET_CASES"))
	if err != nil {
		return err
	}
	worlds, err := cases.Load(dir)
	if err != nil {
		return err
	}
	queries := 0
	for _, world := range worlds {
		queries += len(world.Queries)
	}
	fmt.Fprintf(w, "read %d worlds with %d queries from %s\n", len(worlds), queries, dir)
	var report cases.Report
	if queries > 0 {
		if report, err = cases.Run(ctx, w, worlds); err != nil {
			return err
		}
	}
	report.Print(w)
	switch {
	case queries == 0:
		return fmt.Errorf("no query in %s", dir)
	case report.Failed() > 0:
		return errFailed
	}
	return nil
}

// folder finds the folder of case files. make changes into the folder test, so that a relative path means the
// repository's.
func folder(dir string) (string, error) {
	root, err := clusters.Root()
	if err != nil {
		return "", err
	}
	if dir == "" {
		return filepath.Join(root, "test", "cases", "testdata"), nil
	}
	if in := filepath.Join(root, dir); !filepath.IsAbs(dir) {
		if _, err := os.Stat(in); err == nil {
			return in, nil
		}
	}
	return filepath.Abs(dir)
}
