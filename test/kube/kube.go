// Package kube writes into a cluster the objects that a service of the ClusterSet is made of: namespaces, Services,
// EndpointSlices, ServiceExports, ServiceImports. Tests and benchmarks use it where every write counts; worlds that are
// written down as YAML go through clusters.Cluster.Apply.
package kube

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
	mcsclient "sigs.k8s.io/mcs-api/pkg/client/clientset/versioned"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
)

// Client writes to one cluster, with every right and without a limit of its own.
type Client struct {
	Core kubernetes.Interface
	MCS  mcsclient.Interface
}

// New returns a client for a cluster. It stays good over restarts of the API server.
func New(c *clusters.Cluster) (Client, error) {
	core, err := kubernetes.NewForConfig(c.Admin())
	if err != nil {
		return Client{}, fmt.Errorf("client for cluster %s: %w", c.Name(), err)
	}
	mcs, err := mcsclient.NewForConfig(c.Admin())
	if err != nil {
		return Client{}, fmt.Errorf("client for cluster %s: %w", c.Name(), err)
	}
	return Client{Core: core, MCS: mcs}, nil
}

// Namespace makes a namespace. One that exists is fine.
func (c Client) Namespace(ctx context.Context, name string) error {
	object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	_, err := c.Core.CoreV1().Namespaces().Create(ctx, object, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create namespace %s: %w", name, err)
	}
	return nil
}

// Service makes a Service and returns it with the cluster IPs that the API server gave it.
func (c Client) Service(ctx context.Context, s *corev1.Service) (*corev1.Service, error) {
	made, err := c.Core.CoreV1().Services(s.Namespace).Create(ctx, s, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("create Service %s/%s: %w", s.Namespace, s.Name, err)
	}
	return made, nil
}

// Slice makes an EndpointSlice.
func (c Client) Slice(ctx context.Context, s *discoveryv1.EndpointSlice) error {
	if _, err := c.Core.DiscoveryV1().EndpointSlices(s.Namespace).Create(ctx, s, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create EndpointSlice %s/%s: %w", s.Namespace, s.Name, err)
	}
	return nil
}

// UpdateSlice replaces an EndpointSlice, whatever its version.
func (c Client) UpdateSlice(ctx context.Context, s *discoveryv1.EndpointSlice) error {
	if _, err := c.Core.DiscoveryV1().EndpointSlices(s.Namespace).Update(ctx, s, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("update EndpointSlice %s/%s: %w", s.Namespace, s.Name, err)
	}
	return nil
}

// Export exports a service.
func (c Client) Export(ctx context.Context, namespace, name string) error {
	object := &mcsv1beta1.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	_, err := c.MCS.MulticlusterV1beta1().ServiceExports(namespace).Create(ctx, object, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("export %s/%s: %w", namespace, name, err)
	}
	return nil
}

// Unexport takes an export back.
func (c Client) Unexport(ctx context.Context, namespace, name string) error {
	err := c.MCS.MulticlusterV1beta1().ServiceExports(namespace).Delete(ctx, name, metav1.DeleteOptions{})
	if err != nil {
		return fmt.Errorf("take back the export of %s/%s: %w", namespace, name, err)
	}
	return nil
}

// Remove takes the export of a service back, and removes the Service and the EndpointSlice of its name.
func (c Client) Remove(ctx context.Context, namespace, name string) error {
	err := errors.Join(
		c.Unexport(ctx, namespace, name),
		c.Core.CoreV1().Services(namespace).Delete(ctx, name, metav1.DeleteOptions{}),
		c.Core.DiscoveryV1().EndpointSlices(namespace).Delete(ctx, name, metav1.DeleteOptions{}))
	if err != nil {
		return fmt.Errorf("remove %s/%s: %w", namespace, name, err)
	}
	return nil
}

// Import makes a ServiceImport with its status, as an MCS controller would.
func (c Client) Import(ctx context.Context, i *mcsv1beta1.ServiceImport) error {
	imports := c.MCS.MulticlusterV1beta1().ServiceImports(i.Namespace)
	made, err := imports.Create(ctx, i, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create ServiceImport %s/%s: %w", i.Namespace, i.Name, err)
	}
	made.Status = i.Status
	if _, err := imports.UpdateStatus(ctx, made, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("write the status of ServiceImport %s/%s: %w", i.Namespace, i.Name, err)
	}
	return nil
}

// Simple is a service with one TCP port named http, 80 of the Service and 8080 of its endpoints.
type Simple struct {
	Namespace, Name string
	Headless        bool
	// Addresses are the IPv4 addresses of its endpoints, all in one EndpointSlice; those in NotReady are not ready.
	Addresses []string
	NotReady  map[string]bool
}

// Service returns the Service.
func (s Simple) Service() *corev1.Service {
	object := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
	}
	if s.Headless {
		object.Spec.ClusterIP = corev1.ClusterIPNone
	}
	return object
}

// Slice returns the EndpointSlice, which has the name of the service.
func (s Simple) Slice() *discoveryv1.EndpointSlice {
	port, name, protocol := int32(8080), "http", corev1.ProtocolTCP
	object := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Namespace, Name: s.Name,
			Labels: map[string]string{discoveryv1.LabelServiceName: s.Name},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &protocol}},
	}
	for _, address := range s.Addresses {
		ready := !s.NotReady[address]
		object.Endpoints = append(object.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{address},
			Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		})
	}
	return object
}

// Create makes the service and its EndpointSlice, without exporting it, and returns the Service with its cluster IPs.
func (c Client) Create(ctx context.Context, s Simple) (*corev1.Service, error) {
	if err := c.Slice(ctx, s.Slice()); err != nil {
		return nil, err
	}
	return c.Service(ctx, s.Service())
}
