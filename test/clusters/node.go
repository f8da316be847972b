package clusters

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
)

// The programs that BuildNode knows.
const (
	Kubelet    Program = "kubelet"
	KubeProxy  Program = "kube-proxy"
	Scheduler  Program = "kube-scheduler"
	Containerd Program = "containerd"
	Ctr        Program = "ctr"
	Shim       Program = "containerd-shim-runc-v2"
)

// NodeBinaries are the paths of the programs that a node needs beside runc, and that of the scheduler. Containerd finds its shim
// by the search path, so that both stand in one folder.
type NodeBinaries struct{ Kubelet, KubeProxy, Scheduler, Containerd, Ctr string }

// BuildNode makes the programs of nodes as Build makes those of the control plane, in the folders bin of test/node and
// test/containerd.
func BuildNode(ctx context.Context, w io.Writer) (NodeBinaries, error) {
	root, err := Root()
	if err != nil {
		return NodeBinaries{}, err
	}
	kubernetes := builder{
		module:  filepath.Join(root, "test", "node"),
		version: "k8s.io/kubernetes",
		sources: map[Program]source{
			Kubelet:   {"k8s.io/kubernetes/cmd/kubelet", "1 to 4 minutes"},
			KubeProxy: {"k8s.io/kubernetes/cmd/kube-proxy", "20 seconds"},
			Scheduler: {"k8s.io/kubernetes/cmd/kube-scheduler", "20 seconds"},
		},
	}
	runtime := builder{
		module: filepath.Join(root, "test", "containerd"),
		tags:   "no_btrfs,no_zfs,no_devmapper",
		sources: map[Program]source{
			Containerd: {"github.com/containerd/containerd/v2/cmd/containerd", "1 minute"},
			Ctr:        {"github.com/containerd/containerd/v2/cmd/ctr", "10 seconds"},
			Shim:       {"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", "10 seconds"},
		},
	}
	if err := kubernetes.build(ctx, w, []Program{Kubelet, KubeProxy, Scheduler}); err != nil {
		return NodeBinaries{}, fmt.Errorf("build the programs of nodes: %w", err)
	}
	if err := runtime.build(ctx, w, []Program{Containerd, Ctr, Shim}); err != nil {
		return NodeBinaries{}, fmt.Errorf("build the container runtime: %w", err)
	}
	return NodeBinaries{
		Kubelet: kubernetes.path(Kubelet), KubeProxy: kubernetes.path(KubeProxy), Scheduler: kubernetes.path(Scheduler),
		Containerd: runtime.path(Containerd), Ctr: runtime.path(Ctr),
	}, nil
}

// Nodes make a cluster one for real nodes: pods are admitted with their service accounts, every controller runs, and so does
// the scheduler.
type Nodes struct {
	// Address is where the API server listens and is reached, also by nodes and pods: one of this machine.
	Address netip.Addr
	// Pods is the network of the cluster's pods, IPv4. Each node gets a /24 of it.
	Pods netip.Prefix
	// Grace is how long a node can be silent before it is not ready any more.
	Grace string
}
