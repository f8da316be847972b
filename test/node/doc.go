// Package node holds no code. Its module pins the programs of Kubernetes that nodes need, and the scheduler, as tools, so that they
// are built from source and are checked against go.sum. They are of the version that test/controlplane has. Package clusters
// (test/clusters) builds them.
package node
