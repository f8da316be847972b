package realcluster

import (
	"context"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/readme"
	"github.com/clusterset-dns/clusterset-dns/test/suite"
)

func TestRealClusters(t *testing.T) {
	if skipped != "" {
		t.Skip(skipped)
	}
	w := newWorld()
	begin := time.Now()
	w.start(t)
	w.table.add("Two clusters with three nodes start", seconds(time.Since(begin)))
	w.each(t, func(t *testing.T, c *cluster, _ readme.Operator) {
		w.install(t, c)
		w.fill(t, c)
		suite.Within(t, startLimit, "the DNS of "+c.name+" is ready", func(ctx context.Context) error {
			return c.settled(ctx, "kube-system", "k8s-app=kube-dns", 2)
		})
		suite.Within(t, startLimit, "the pods of "+c.name+" are ready", func(ctx context.Context) error {
			return c.settled(ctx, "shop", "", len(c.nodes)+3)
		})
	})
	w.table.add("kubeadm's CoreDNS and all other pods are ready", seconds(time.Since(begin)))
	w.under(t, "Nothing, before the swap", w.nodes(), []string{localName}, func() string {
		time.Sleep(3 * time.Second)
		return ""
	})
	t.Log("\n" + w.table.String())
}
