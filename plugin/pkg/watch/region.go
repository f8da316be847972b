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
	var regions []string
	for i := range nodes.Items {
		regions = append(regions, nodes.Items[i].Labels[corev1.LabelTopologyRegion])
	}
	return mostFrequent(regions), nil
}

// mostFrequent returns the word that stands there most often, of several the first by name; "" does not count.
func mostFrequent(words []string) string {
	count := map[string]int{}
	most := ""
	for _, word := range words {
		if word == "" {
			continue
		}
		count[word]++
		if count[word] > count[most] || count[word] == count[most] && word < most {
			most = word
		}
	}
	return most
}
