package demo

import (
	"bufio"
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
	mcsclient "sigs.k8s.io/mcs-api/pkg/client/clientset/versioned"
	"sigs.k8s.io/yaml"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
)

//go:embed manifests/*.yaml
var manifests embed.FS

// Deploy applies the part of the sample application that is meant for a cluster of this name (east, west or north, with
// a controller manager), writes the status of its Pods as a kubelet would, and waits until the EndpointSlices show as
// many ready endpoints as there are ready Pods. It returns their number.
func Deploy(ctx context.Context, c *clusters.Cluster) (ready int, err error) {
	text, err := manifests.ReadFile("manifests/" + c.Name() + ".yaml")
	if err != nil {
		return 0, err
	}
	if err := c.Apply(ctx, text); err != nil {
		return 0, err
	}
	client, err := kubernetes.NewForConfig(c.Admin())
	if err != nil {
		return 0, err
	}
	pods, err := podsIn(text)
	if err != nil {
		return 0, fmt.Errorf("manifests of cluster %s: %w", c.Name(), err)
	}
	for _, pod := range pods {
		if _, err := client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{}); err != nil {
			return 0, fmt.Errorf("status of Pod %s in cluster %s: %w", pod.Name, c.Name(), err)
		}
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
				ready++
			}
		}
	}
	return ready, untilReady(ctx, c, client, ready)
}

// podsIn returns the Pods of a YAML stream.
func podsIn(manifests []byte) ([]*corev1.Pod, error) {
	var pods []*corev1.Pod
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(manifests)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return pods, nil
		}
		if err != nil {
			return nil, err
		}
		pod := &corev1.Pod{}
		if err := yaml.Unmarshal(document, pod); err != nil {
			return nil, err
		}
		if pod.Kind == "Pod" {
			pods = append(pods, pod)
		}
	}
}

// untilReady waits until the EndpointSlices of a cluster hold that many ready endpoints.
func untilReady(ctx context.Context, c *clusters.Cluster, client *kubernetes.Clientset, want int) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for {
		slices, err := client.DiscoveryV1().EndpointSlices("").List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName})
		if err != nil {
			return fmt.Errorf("EndpointSlices of cluster %s: %w", c.Name(), err)
		}
		got := 0
		for i := range slices.Items {
			for _, e := range slices.Items[i].Endpoints {
				if e.Conditions.Ready != nil && *e.Conditions.Ready {
					got++
				}
			}
		}
		if got == want {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("EndpointSlices of cluster %s: %d ready endpoints, want %d: %w", c.Name(), got, want, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// setReady writes the Ready condition of a Pod, as its kubelet would.
func setReady(ctx context.Context, c *clusters.Cluster, namespace, name string, ready corev1.ConditionStatus) error {
	client, err := kubernetes.NewForConfig(c.Admin())
	if err != nil {
		return err
	}
	pod, err := client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("get Pod %s/%s in cluster %s: %w", namespace, name, c.Name(), err)
	}
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == corev1.PodReady {
			pod.Status.Conditions[i].Status = ready
		}
	}
	if _, err := client.CoreV1().Pods(namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("status of Pod %s/%s in cluster %s: %w", namespace, name, c.Name(), err)
	}
	return nil
}

func unexport(ctx context.Context, c *clusters.Cluster, namespace, name string) error {
	client, err := mcsclient.NewForConfig(c.Admin())
	if err != nil {
		return err
	}
	err = client.MulticlusterV1beta1().ServiceExports(namespace).Delete(ctx, name, metav1.DeleteOptions{})
	if err != nil {
		return fmt.Errorf("delete ServiceExport %s/%s in cluster %s: %w", namespace, name, c.Name(), err)
	}
	return nil
}

func export(ctx context.Context, c *clusters.Cluster, namespace, name string) error {
	client, err := mcsclient.NewForConfig(c.Admin())
	if err != nil {
		return err
	}
	object := &mcsv1beta1.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	_, err = client.MulticlusterV1beta1().ServiceExports(namespace).Create(ctx, object, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create ServiceExport %s/%s in cluster %s: %w", namespace, name, c.Name(), err)
	}
	return nil
}
