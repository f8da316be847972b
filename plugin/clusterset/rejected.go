package clusterset

import (
	"sync"
	"sync/atomic"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

// rejected counts by cluster and reason what was left out since the start, as the metric does, which cannot be read back. Its
// zero value is empty.
type rejected struct {
	counts sync.Map // rejection to *atomic.Uint64
}

type rejection struct {
	cluster string
	reason  watch.Rejection
}

func (r *rejected) count(cluster string, reason watch.Rejection) {
	n, known := r.counts.Load(rejection{cluster, reason})
	if !known {
		n, _ = r.counts.LoadOrStore(rejection{cluster, reason}, new(atomic.Uint64))
	}
	n.(*atomic.Uint64).Add(1)
}

// of returns what was left out of a cluster, nil for nothing.
func (r *rejected) of(cluster string) (out map[string]uint64) {
	for _, reason := range watch.Rejections() {
		if n, known := r.counts.Load(rejection{cluster, reason}); known {
			if out == nil {
				out = map[string]uint64{}
			}
			out[string(reason)] = n.(*atomic.Uint64).Load()
		}
	}
	return out
}

func (r *rejected) forget(cluster string) {
	for _, reason := range watch.Rejections() {
		r.counts.Delete(rejection{cluster, reason})
	}
}
