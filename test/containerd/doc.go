// Package containerd holds no code. Its module pins the programs of containerd as tools, so that they are built from source, are
// checked against go.sum, and stay out of the requirements of everything else. Package clusters (test/clusters) builds them.
package containerd
