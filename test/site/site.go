// Package site runs a server that watches simulated API servers and tells about them at its status address.
package site

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/status"
	"github.com/clusterset-dns/clusterset-dns/test/members"
	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// patience bounds the wait for all members.
const patience = 60 * time.Second

// Site is a running server that watches simulated API servers, with its status address.
type Site struct {
	*server.Server
	Members *members.Server
	// URL is the status address, without a slash at the end.
	URL string
	dir string
}

// Plan says what a site is made of.
type Plan struct {
	World members.World
	// Names are the ids of the clusters, the first is the local one; those of the world where there are too few.
	Names []string
	// Region of each cluster, by its number; "" leaves it to the Nodes.
	Region func(number int) string
	// Stanza are further lines for the stanza of *clusterset*, Block for the server block.
	Stanza, Block string
}

// name is the id of a cluster.
func (p *Plan) name(number int) string {
	if number < len(p.Names) {
		return p.Names[number]
	}
	return p.World.Cluster(number)
}

// Corefile is a template for server.Start with all members.
func (p *Plan) Corefile(kubeconfigs []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".:{{.DNS}} {\nbind 127.0.0.1\nerrors\nready {{.Ready}}\nprometheus {{.Metrics}}\n%s\nclusterset {\nlocal %s\nstatus 127.0.0.1:{{.Port \"Status\"}}\n%s\n", p.Block, p.name(0), p.Stanza)
	for i, k := range kubeconfigs {
		fmt.Fprintf(&b, "cluster %s %s {\n", p.name(i), k)
		if i > 0 {
			b.WriteString("address clusterip\n")
		}
		if p.Region != nil && p.Region(i) != "" {
			fmt.Fprintf(&b, "region %s\n", p.Region(i))
		}
		b.WriteString("}\n")
	}
	return b.String() + "}\n}\n"
}

// Start starts a site, and waits until the server knows all members. o is for the server.
func Start(ctx context.Context, coredns string, p Plan, o server.Options) (*Site, error) {
	s := &Site{}
	if err := s.start(ctx, coredns, p, o); err != nil {
		return nil, errors.Join(fmt.Errorf("start a site: %w", err), s.Stop())
	}
	return s, nil
}

func (s *Site) start(ctx context.Context, coredns string, p Plan, o server.Options) (err error) {
	if s.dir, err = os.MkdirTemp("", "clusterset-dns-site-"); err != nil {
		return err
	}
	if s.Members, err = members.Start(p.World); err != nil {
		return err
	}
	kubeconfigs, err := s.Members.Kubeconfigs(s.dir)
	if err != nil {
		return err
	}
	if s.Server, err = server.Start(ctx, coredns, p.Corefile(kubeconfigs), o); err != nil {
		return err
	}
	s.URL = fmt.Sprintf("http://127.0.0.1:%d", s.Port("Status"))
	if err = s.untilKnown(ctx, p.World.Members); err != nil {
		return err
	}
	return s.WaitReady(ctx) // what they have told is published
}

// untilKnown waits until all members have told all they have.
func (s *Site) untilKnown(ctx context.Context, members int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		var m status.Members
		err := s.Get(ctx, status.PathMembers, &m)
		synced := 0
		for _, one := range m.Members {
			if len(one.Sources) > 0 && one.Sources[0].State == "synced" {
				synced++
			}
		}
		if err == nil && synced == members {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d members are synced: %w, last: %w", synced, members, ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Get reads a document from the status address.
func (s *Site) Get(ctx context.Context, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+path, http.NoBody)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: status %d: %w", path, response.StatusCode, err)
	}
	return json.Unmarshal(text, into)
}

// Stop stops what was started.
func (s *Site) Stop() error {
	var errs []error
	if s.Server != nil {
		errs = append(errs, s.Server.Stop())
	}
	if s.Members != nil {
		errs = append(errs, s.Members.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}
