package clusterset

import (
	"errors"
	"io/fs"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/state"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

var _ watch.Sink = (*state.Keeper)(nil)

func (u *use) source() mcs.Source { return mcs.Source{Kind: u.Kind, Cluster: u.Cluster} }

// restored returns what the folder of the last known state has of a source, nil if that is nothing.
func (u *use) restored() *watch.Seed {
	if u.state == "" {
		return nil
	}
	r, err := state.Read(u.state, u.source())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		stateErrors.WithLabelValues(u.Name(), "read").Inc()
		log.Warningf("Cluster %s: the last known %s are not restored: %v", u.Name(), u.Kind, err)
		return nil
	}
	log.Infof("Cluster %s: %s are restored as they were known %s ago", u.Name(), u.Kind, time.Since(r.Written).Round(time.Second))
	return &watch.Seed{Facts: r.Facts, Proof: r.Proof}
}

// keep writes what a source says to the folder of the last known state, until it is stopped.
func (u *use) keep(w *watch.Watcher) (stop func()) {
	failing := false
	k := state.NewKeeper(u.state, u.source(), func() time.Time { return w.Status().LastProof }, func(err error) {
		if err != nil {
			stateErrors.WithLabelValues(u.Name(), "write").Inc()
			if !failing {
				log.Warningf("Cluster %s: the last known %s are not written, so they will be missing after a restart: %v", u.Name(), u.Kind, err)
			}
		} else if failing {
			log.Infof("Cluster %s: the last known %s can be written again", u.Name(), u.Kind)
		}
		failing = err != nil
	})
	w.Subscribe(k)
	return func() {
		w.Unsubscribe(k)
		k.Close()
	}
}

// both stops two things, one after the other.
func both(first, second func()) func() {
	return func() {
		first()
		second()
	}
}
