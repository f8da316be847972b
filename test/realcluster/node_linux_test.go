package realcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// node is a machine of a cluster: a place with a network of its own, on the bridge with the others.
type node struct {
	name    string
	zone    string
	address netip.Addr
	// unprivileged is whether containerd gives ports below 1024 to everybody.
	unprivileged bool
	// proxy is the mode of kube-proxy.
	proxy string

	cluster *cluster
	dir     string
	pid     int
	pods    netip.Prefix // what the cluster gives it
	ended   chan struct{}
}

// region is that of all nodes.
const region = "eu"

// containerd is its configuration: where it works, and how a node of kubeadm has it.
const containerdConfig = `version = 3
root = "%[1]s/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri"]
[plugins."io.containerd.snapshotter.v1.overlayfs"]
  mount_options = ["volatile"] # whoever unmounts the root of a container would wait for the disk of the whole machine
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "%[2]s"
[plugins."io.containerd.cri.v1.runtime"]
  enable_unprivileged_ports = %[3]t
  enable_unprivileged_icmp = %[3]t
  restrict_oom_score_adj = true # not every container may have a negative one
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["%[4]s"]
    conf_dir = "%[1]s/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      SystemdCgroup = false
`

// kubeletConfig is as far as possible what kubeadm writes. The rest has to do with several nodes on one machine, or says that a
// node is found dead, and a changed ConfigMap mounted, in seconds instead of a minute.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
clusterDomain: cluster.local
clusterDNS: [%[1]s]
resolvConf: %[2]s/resolv.conf
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
address: %[3]s
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupRoot: /%[4]s
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: [pods]
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 20Mi, nodefs.available: 1%%, nodefs.inodesFree: 1%%, imagefs.available: 1%%}
podLogsDir: %[2]s/pods
volumePluginDir: %[2]s/plugins
syncFrequency: 5s
nodeStatusUpdateFrequency: 2s
nodeLeaseDurationSeconds: 8
`

// proxyConfig leaves the settings of the whole machine alone.
const proxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: %s}
mode: %s
clusterCIDR: %s
detectLocalMode: ClusterCIDR
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`

// cniConfig gives each pod a route to its node, and no bridge in between: so what kube-proxy does to a connection is undone
// wherever the two ends are.
const cniConfig = `{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp", "ipMasq": false,
  "ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": "%s"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
`

func (n *node) group() string { return groupPrefix + n.name }

// start starts the node, and returns when it has what its first process needs.
func (n *node) start(ctx context.Context) error {
	n.dir = filepath.Join(built.Dir, n.name)
	for _, dir := range []string{"cni", "plugins", "pods"} {
		if err := os.MkdirAll(filepath.Join(n.dir, dir), 0o755); err != nil {
			return err
		}
	}
	c := n.cluster
	for name, content := range map[string]string{
		"resolv.conf":     "nameserver " + upstream.String() + "\n",
		"containerd.toml": fmt.Sprintf(containerdConfig, n.dir, pauseImage, n.unprivileged, plugins),
		"kubelet.yaml":    fmt.Sprintf(kubeletConfig, c.dns, n.dir, n.address, n.group()),
		"kube-proxy.yaml": fmt.Sprintf(proxyConfig, c.AdminKubeconfig(), n.proxy, c.pods),
	} {
		if err := os.WriteFile(filepath.Join(n.dir, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	if err := makeGroup(n.group()); err != nil {
		return err
	}
	input, err := n.startFirst(ctx)
	if err != nil {
		return err
	}
	return errors.Join(n.connect(), input.Close())
}

// startFirst starts the first process of the node, which waits until its input ends.
func (n *node) startFirst(ctx context.Context) (input *os.File, err error) {
	text, err := json.Marshal(n.spec())
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	log, err := os.Create(filepath.Join(n.dir, "node.log"))
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), nodeEnv+"="+string(text))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = read, log, log
	cmd.SysProcAttr = alone()
	started := make(chan error)
	n.ended = make(chan struct{})
	go func() {
		runtime.LockOSThread() // it dies with this thread
		defer runtime.UnlockOSThread()
		defer log.Close()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it never ends well
			close(n.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, errors.Join(err, write.Close())
	}
	n.pid = cmd.Process.Pid
	return write, nil
}

func (n *node) spec() spec {
	p, file := built.Node, func(name string) string { return filepath.Join(n.dir, name) }
	s := spec{
		Name: n.name, Dir: n.dir,
		Path: strings.Join([]string{filepath.Dir(p.Containerd), "/usr/sbin", "/usr/bin", "/sbin", "/bin"}, ":"),
		Kernel: map[string]string{
			"vm.overcommit_memory": "1", "vm.panic_on_oom": "0", "kernel.panic": "10", "kernel.panic_on_oops": "1",
			"kernel.keys.root_maxkeys": "1000000", "kernel.keys.root_maxbytes": "25000000",
		},
		Runtime: []string{p.Containerd, "--config", file("containerd.toml")},
		Socket:  "/run/containerd/containerd.sock",
		Programs: [][]string{
			{p.KubeProxy, "--config=" + file("kube-proxy.yaml"), "--hostname-override=" + n.name},
			{
				p.Kubelet, "--config=" + file("kubelet.yaml"), "--kubeconfig=" + n.cluster.AdminKubeconfig(),
				"--hostname-override=" + n.name, "--node-ip=" + n.address.String(),
				"--node-labels=" + corev1.LabelTopologyZone + "=" + n.zone + "," + corev1.LabelTopologyRegion + "=" + region,
				"--root-dir=" + file("kubelet"), "--cert-dir=" + file("pki"),
			},
		},
	}
	for _, image := range built.Images {
		s.Imports = append(s.Imports, []string{p.Ctr, "--namespace", "k8s.io", "images", "import", "--local", image})
	}
	return s
}

// cable is the name of the node's end of the bridge; "eth0" is the other.
func (n *node) cable() string { return n.name }

// connect plugs the node into the bridge.
func (n *node) connect() error {
	return errors.Join(
		ip(fmt.Sprintf("link add %s type veth peer name eth0 netns %d", n.cable(), n.pid)),
		ip(fmt.Sprintf("link set %s master %s up", n.cable(), bridge)),
		n.ip("link set lo up"),
		n.ip(fmt.Sprintf("address add %s/%d dev eth0", n.address, network.Bits())),
		n.ip("link set eth0 up"),
		// Whatever begins on the node itself needs a way before kube-proxy can change its destination.
		n.ip(fmt.Sprintf("route add %s dev eth0", n.cluster.services)),
	)
}

// ip runs the program ip in the network of the node.
func (n *node) ip(args string) error {
	return command("nsenter", append([]string{fmt.Sprintf("--net=/proc/%d/ns/net", n.pid), "ip"}, strings.Fields(args)...)...)
}

// allocated waits for the range of the pods, which the cluster decides about when the kubelet has made the Node.
func (n *node) allocated(ctx context.Context) error {
	object, err := n.cluster.client.CoreV1().Nodes().Get(ctx, n.name, metav1.GetOptions{})
	if err == nil {
		n.pods, err = netip.ParsePrefix(object.Spec.PodCIDR)
	}
	return err
}

// ready tells whether the Node is.
func (n *node) ready(ctx context.Context) error {
	object, err := n.cluster.client.CoreV1().Nodes().Get(ctx, n.name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, c := range object.Status.Conditions {
		if c.Type == corev1.NodeReady {
			if c.Status == corev1.ConditionTrue {
				return nil
			}
			return fmt.Errorf("node %s is not ready: %s", n.name, c.Message)
		}
	}
	return fmt.Errorf("node %s has not said whether it is ready", n.name)
}

// configure lets pods have addresses.
func (n *node) configure() error {
	return os.WriteFile(filepath.Join(n.dir, "cni", "10-pods.conflist"), fmt.Appendf(nil, cniConfig, n.pods), 0o600)
}

// stop kills everything that runs on the node.
func (n *node) stop() error {
	if n.pid == 0 {
		return nil
	}
	err := syscall.Kill(n.pid, syscall.SIGKILL)
	<-n.ended
	if errors.Is(err, syscall.ESRCH) {
		return nil // it was dead
	}
	return err
}

// firstPort returns the first port that everybody may bind in the network of a process.
func firstPort(t *testing.T, pid int) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", pid),
		"cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start").Output()
	must(t, err)
	return strings.TrimSpace(string(out))
}
