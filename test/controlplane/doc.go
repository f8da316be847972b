// Package controlplane holds no code. Its module pins the programs of a Kubernetes control plane as tools, so that they
// are built from source, are checked against go.sum, and stay out of the requirements of the server and of its tests.
// Package clusters (test/clusters) builds and runs them.
package controlplane
