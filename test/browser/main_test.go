package browser

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/clusterset-dns/clusterset-dns/test/members"
	"github.com/clusterset-dns/clusterset-dns/test/server"
	"github.com/clusterset-dns/clusterset-dns/test/site"
	"github.com/clusterset-dns/clusterset-dns/test/suite"
)

// How large the world is that the pages show. Every service is in every cluster.
const (
	clustersShown = 20
	servicesShown = 1000
)

// big is the site that all tests look at, and chrome what they look with; nil where the browser is not installed.
var (
	big    *site.Site
	chrome *Browser
)

func TestMain(m *testing.M) { os.Exit(suite.Run(m, start)) }

func start(ctx context.Context) (stop func() error, err error) {
	if _, err := Installed(); err != nil {
		fmt.Fprintln(os.Stderr, "tests that need a browser are skipped:", err)
		return func() error { return nil }, nil
	}
	coredns, err := server.Build(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	big, err = site.Start(ctx, coredns, site.Plan{
		World:  members.World{Members: clustersShown, Services: servicesShown, Endpoints: 3, Same: true},
		Region: func(number int) string { return []string{"eu-central", "eu-north", "us-west", "ap-south"}[number%4] },
		Block:  "locality {\ncluster m0\ncidr 127.0.0.0/8 cluster=m0 region=eu-central zone=eu-a\n}\nclusterhealth {\ndrain m7\n}",
	}, server.Options{})
	if err != nil {
		return nil, err
	}
	if chrome, err = Start(); err != nil {
		return nil, errors.Join(err, big.Stop())
	}
	return func() error { return errors.Join(chrome.Close(), big.Stop()) }, nil
}

var must, within = suite.Must, suite.Within

// height is that of all pages, in pixels.
const height = 900

// tab opens a page for a test, or skips it where there is no browser.
func tab(t *testing.T, width int64) *Tab {
	t.Helper()
	if chrome == nil {
		_, err := Installed()
		t.Skip(err)
	}
	page, err := chrome.Tab(width, height)
	must(t, err)
	t.Cleanup(page.Close)
	return page
}

// quietly opens a page whose complaints fail the test.
func quietly(t *testing.T, width int64) *Tab {
	t.Helper()
	page := tab(t, width)
	t.Cleanup(func() {
		for _, c := range page.Complaints() {
			t.Errorf("the browser complains: %s", c)
		}
	})
	return page
}

// evaluate asks the page.
func evaluate[T any](t *testing.T, page *Tab, expression string) T {
	t.Helper()
	v, err := Evaluate[T](page, expression)
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// unless turns a finding into an error.
func unless(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}
