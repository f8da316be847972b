package watch

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Region reads the region of a cluster from the labels of its Nodes: the one most of the first hundred have, "" when
// none has any. Only the Nodes' metadata is asked for.
func (c Connection) Region(ctx context.Context) (string, error) {
	clients, done, err := c.once()
	if err != nil {
		return "", err
	}
	defer done()
	ctx, cancel := context.WithTimeout(quiet(ctx), askTimeout)
	defer cancel()
	nodes, err := clients.metadata.Resource(corev1.SchemeGroupVersion.WithResource("nodes")).
		List(ctx, metav1.ListOptions{ResourceVersion: "0", Limit: 100})
	if err != nil {
		return "", c.access.conceal(fmt.Errorf("region from the labels of the nodes: %w", err))
	}
	count := map[string]int{}
	region := ""
	for i := range nodes.Items {
		r := nodes.Items[i].Labels[corev1.LabelTopologyRegion]
		if r == "" {
			continue
		}
		count[r]++
		if count[r] > count[region] || count[r] == count[region] && r < region {
			region = r
		}
	}
	return region, nil
}
