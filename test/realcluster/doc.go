// Package realcluster holds tests with two real clusters on one machine: kubelet, containerd, CNI and kube-proxy run the pods, and
// the image takes the place of kubeadm's CoreDNS by the commands of deploy/README.md. `make cluster-test` runs them; README.md says
// how it went, and how to read that.
//
// The test binary calls itself twice. Once to be alone: with a network, mounts and processes of its own, where the bridge between
// the nodes, the control planes and the resolver above them are; and, there, once for each node, which again has all that for
// itself. When the first process of such a place ends, the kernel ends all others and takes networks and mounts away, so that
// nothing is left of a test however it ends; only control groups and a folder are removed by hand.
package realcluster
