//go:build linux

package compare

import (
	"context"
	"errors"
	"fmt"

	"github.com/clusterset-dns/clusterset-dns/test/measure"
)

// What kubeadm's chain is measured with, and without. The clusters export a hundred services each.
var (
	aloneFew = subject{name: "kubeadm's chain, 10,000 services: kubernetes", zone: clusterZone, program: stockProgram, corefile: watching(few, kubeadmAlone)}
	withFew  = subject{name: "kubeadm's chain, 10,000 services: with three members", zone: clusterZone,
		corefile: watching(few, func(kubeconfig string) string { return kubeadm(kubeconfig, stanza(three(kubeconfig)...)) })}
	// withUsual has a local cluster of the size that kubeadm's limit of 170 MiB is meant for.
	withUsual = subject{name: "kubeadm's chain, usual size: with three members", zone: clusterZone,
		corefile: func(p planes, _ int) string {
			own := p[usual.name].Kubeconfig()
			members := three(p[few.name].Kubeconfig())
			members[0].kubeconfig = own
			return kubeadm(own, stanza(members...))
		}}
)

// kubeadm measures the most memory that a server holds at the start and during a reload.
func (c *comparison) kubeadm(ctx context.Context, round Round) error {
	for _, s := range []subject{aloneFew, withFew, withUsual} {
		if err := c.peaks(ctx, s, round); err != nil {
			return err
		}
	}
	return nil
}

func (c *comparison) peaks(ctx context.Context, s subject, round Round) (err error) {
	r, err := s.start(ctx, c.programs, c.planes, c.Services)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	if err := c.ready(ctx, r); err != nil {
		return err
	}
	started, err := measure.MemoryOf(r.pid)
	if err != nil {
		return err
	}
	if err := measure.ResetPeak(r.pid); err != nil {
		return err
	}
	if err := r.server.Reload(ctx, block(s.corefile(c.planes, c.Services))); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	if err := c.ready(ctx, r); err != nil {
		return err
	}
	reloaded, err := measure.MemoryOf(r.pid)
	if err != nil {
		return err
	}
	round.set(s.name, residentPeak, float64(started.Peak)/1e6)
	round.set(s.name, reloadPeak, float64(reloaded.Peak)/1e6)
	return nil
}

// ready waits until a server is ready, which is when everything is loaded, and for a while longer.
func (c *comparison) ready(ctx context.Context, r *running) error {
	if err := r.server.WaitReady(ctx); err != nil {
		return fmt.Errorf("%s: %w", r.name, err)
	}
	return measure.Sleep(ctx, c.settle())
}
