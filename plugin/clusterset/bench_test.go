package clusterset

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// BenchmarkManyNames asks for 10,000 names in no order, so that each query waits for memory as it does in a large cluster.
func BenchmarkManyNames(b *testing.B) {
	const names = 10_000
	w := newTestWorld(shopScope, func(w *world) {
		w.ApplyNamespace("shop", true)
		for i := range names {
			name := fmt.Sprintf("web-%d", i)
			if i%2 == 0 {
				w.shard("east", "shop", name, clusterIPShard(fmt.Sprintf("10.0.%d.%d", i>>8, i&255)))
				continue
			}
			s := sliceOf([]mcs.Port{http80})
			for e := range 5 {
				one := host(fmt.Sprintf("10.%d.%d.%d", 8+e, i>>8, i&255), "")
				s.Endpoints.Add(&one)
			}
			w.shard("east", "shop", name, headlessShard(s))
		}
		w.allSynced()
	})
	c := handlerOf(w)
	questions := make([]*dns.Msg, names)
	for i, at := range rand.Perm(names) {
		questions[i] = new(dns.Msg).SetQuestion(fmt.Sprintf("web-%d.shop.svc.clusterset.local.", at), dns.TypeA)
	}
	client := &lastReply{}
	ask := func(i int) {
		m := questions[i%names]
		if _, err := c.ServeDNS(context.Background(), client, m); err != nil {
			b.Fatal(err)
		}
	}
	for i := range names {
		ask(i)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		ask(i)
	}
}
