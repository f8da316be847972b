// Command screenshots takes the pictures of the status page that the README shows: `make screenshots`. It starts a server that
// watches six simulated clusters, of which one is in trouble and one drained, and looks with chromium.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/status"
	"github.com/clusterset-dns/clusterset-dns/test/browser"
	"github.com/clusterset-dns/clusterset-dns/test/members"
	"github.com/clusterset-dns/clusterset-dns/test/server"
	"github.com/clusterset-dns/clusterset-dns/test/site"
)

// patience bounds everything.
const patience = 5 * time.Minute

// plan is what the pictures show: clusters in three regions, with probes that succeed at the server's own port for DNS and fail
// at a port where nobody listens.
var plan = site.Plan{
	World:  members.World{Members: 6, Services: 40, Endpoints: 5, Same: true},
	Names:  []string{"east", "west", "north", "paris", "tokyo", "osaka"},
	Region: func(number int) string { return []string{"us", "us", "eu", "eu", "asia", "asia"}[number] },
	Block: `locality {
cluster east us
cidr 10.0.0.0/8 cluster=east region=us zone=us-1
}
clusterhealth {
probe north tcp 127.0.0.1:{{.DNS}}
probe paris tcp 127.0.0.1:{{.DNS}}
probe west tcp 127.0.0.1:1
interval 1s
timeout 1s
drain osaka
}`,
}

// picture is one to take: a page in a size and a scheme.
type picture struct {
	name, path    string
	width, height int64
	dark          bool
}

var pictures = []picture{
	{"status-overview.png", "/", 1280, 1060, false},
	{"status-overview-dark.png", "/", 1280, 1060, true},
	{"status-explain.png", "/explain?name=svc-1.team1.svc.clusterset.local&type=A&client=10.1.2.3", 1280, 980, false},
}

func main() {
	into := flag.String("into", filepath.Join("..", "docs", "images"), "the `folder` for the pictures")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	if err := run(ctx, *into); err != nil {
		fmt.Fprintln(os.Stderr, "screenshots:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, into string) (err error) {
	if _, err := browser.Installed(); err != nil {
		return err
	}
	coredns, err := server.Build(ctx, os.Stderr)
	if err != nil {
		return err
	}
	s, err := site.Start(ctx, coredns, plan, server.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	if err := untilProbed(ctx, s); err != nil {
		return err
	}
	chrome, err := browser.Start()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, chrome.Close()) }()
	for _, p := range pictures {
		if err := take(chrome, s.URL, p, into); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// untilProbed waits until the cluster whose probes fail is known to be unhealthy, and those whose probes succeed to be well.
func untilProbed(ctx context.Context, s *site.Site) error {
	want := map[string]string{"west": "unhealthy", "north": "healthy", "paris": "healthy", "osaka": "excluded"}
	for {
		var m status.Members
		if err := s.Get(ctx, status.PathMembers, &m); err != nil {
			return err
		}
		done := 0
		for i := range m.Members {
			if want[m.Members[i].ID] == m.Members[i].Health.State {
				done++
			}
		}
		if done == len(want) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d members are as they are to be: %w", done, len(want), ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func take(chrome *browser.Browser, site string, p picture, into string) error {
	tab, err := chrome.Tab(p.width, p.height)
	if err != nil {
		return err
	}
	defer tab.Close()
	if err := errors.Join(tab.Dark(p.dark), tab.Open(site+p.path)); err != nil {
		return err
	}
	png, err := tab.Picture(float64(p.width), float64(p.height))
	if err != nil {
		return err
	}
	path := filepath.Join(into, p.name)
	fmt.Println(path)
	return os.WriteFile(path, png, 0o644)
}
