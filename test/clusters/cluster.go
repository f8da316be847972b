// Package clusters builds, starts and stops real Kubernetes control planes without kubelets: for each named cluster an
// etcd, a kube-apiserver with RBAC and, on request, a kube-controller-manager, on loopback ports, with the CRDs of the
// Multi-Cluster Services API, the server's RBAC (of deploy) and a kubeconfig for the server. The demo, the tests and
// the benchmarks all stand on it. Whoever brings nodes along, as test/realcluster does, says so by Options.Nodes.
//
// API servers can be killed, restarted with their data, paused and resumed; data can be copied, restored and wiped. On Linux every program dies with the
// process that started it, even when that crashes.
package clusters

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	// startTimeout bounds every wait for a program or for the CRDs. An idle machine needs 3 s; a loaded one has time.
	startTimeout = 2 * time.Minute
	// accountNamespace has the ServiceAccounts, and memberAccount is the one of deploy/member, serverAccount that of
	// deploy/beside.
	accountNamespace = "clusterset-dns"
	memberAccount    = "clusterset-dns"
	serverAccount    = "clusterset-dns-server"
	// tokenValidity is longer than any demo stays up.
	tokenValidity = 30 * 24 * time.Hour
	// networks is how many default service networks there are: 10.96 to 10.255.
	networks = 160
)

// Options describe a cluster.
type Options struct {
	// Name is the name of the cluster, such as "east" or "east.eu": lower-case letters, digits, - and dots. It becomes
	// part of the folder's name and the name of the kubeconfig context.
	Name string
	// ServiceCIDR is the service network, dual stack as "IPv4,IPv6". Default: 10.96.0.0/16,fd00:10:96::/108; StartAll
	// counts up (97, 98, ...) by the position in its arguments, so that the networks of its clusters are disjoint.
	ServiceCIDR string
	// ControllerManager adds a kube-controller-manager that makes EndpointSlices from Pods, ends the deletion of
	// namespaces and collects garbage. Without it EndpointSlices are written by hand and namespaces stay terminating.
	ControllerManager bool
	// Controllers are further ones that kube-controller-manager runs, such as "deployment-controller".
	Controllers []string
	// CRDs says which versions of the MCS API are served from the start. ApplyCRDs changes it later.
	CRDs CRDMode
	// Remote gives the server's account only the rights that it needs in a cluster that is not its own.
	Remote bool
	// Bare leaves out all of deploy: there are no rights for the server, and no Kubeconfig.
	Bare bool
	// Nodes are for a cluster to which nodes will be added. Binaries.Scheduler must be there.
	Nodes *Nodes
	// Dir is the data folder. One that is given is kept by Stop, and a later cluster with the same folder has its
	// data; otherwise it is a temporary folder that Stop removes.
	Dir string
}

// Cluster is a running control plane. Its methods may be called from several goroutines; those that start or stop a
// program wait for each other.
type Cluster struct {
	name     string
	dir      string
	keepDir  bool
	options  Options
	binaries Binaries

	ports       []port // api, etcd, etcd's peers
	credentials credentials
	admin       *rest.Config
	discovery   *discovery.DiscoveryClient
	dynamic     *dynamic.DynamicClient
	clientset   *kubernetes.Clientset

	mu                       sync.Mutex // guards the processes and stopped
	etcd, api                *process
	controllerMgr, scheduler *process
	stopped                  bool
}

var validName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$`)

// Start starts a cluster and returns when its API server is ready, the CRDs are served, the RBAC is in place and, if
// asked for, the controllers work. After an error nothing is left running.
func Start(ctx context.Context, b Binaries, o Options) (*Cluster, error) {
	c, err := start(ctx, b, o)
	if err != nil {
		if c != nil {
			err = errors.Join(err, c.Stop())
		}
		return nil, fmt.Errorf("start cluster %q: %w", o.Name, err)
	}
	return c, nil
}

// StartAll starts the clusters in parallel and returns them in the order of the options. When one fails, those that
// have started are stopped.
func StartAll(ctx context.Context, b Binaries, opts ...Options) ([]*Cluster, error) {
	names := map[string]bool{}
	for _, o := range opts {
		if names[o.Name] {
			return nil, fmt.Errorf("start clusters: two are named %q", o.Name)
		}
		names[o.Name] = true
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	started := make([]*Cluster, len(opts))
	errs := make([]error, len(opts))
	var group sync.WaitGroup
	for i, o := range opts {
		if o.ServiceCIDR == "" {
			o.ServiceCIDR = serviceCIDR(i)
		}
		group.Go(func() {
			if started[i], errs[i] = Start(ctx, b, o); errs[i] != nil {
				cancel()
			}
		})
	}
	group.Wait()
	err := errors.Join(errs...)
	if err == nil {
		return started, nil
	}
	return nil, errors.Join(err, StopAll(started...))
}

// StopAll stops the clusters; nil ones are skipped.
func StopAll(clusters ...*Cluster) error {
	var errs []error
	for _, c := range clusters {
		if c != nil {
			errs = append(errs, c.Stop())
		}
	}
	return errors.Join(errs...)
}

// serviceCIDR returns the default service networks of the i-th cluster, counted from 0.
func serviceCIDR(i int) string {
	n := 96 + i%networks
	return fmt.Sprintf("10.%d.0.0/16,fd00:10:%d::/108", n, n)
}

// start does the work of Start. With an error, the cluster holds what has been started so far, if anything.
func start(ctx context.Context, b Binaries, o Options) (*Cluster, error) {
	if !validName.MatchString(o.Name) {
		return nil, errors.New("the name must be lower-case letters, digits, - and dots, at most 63")
	}
	if o.ServiceCIDR == "" {
		o.ServiceCIDR = serviceCIDR(0)
	}
	c := &Cluster{name: o.Name, options: o, binaries: b}
	for _, step := range []func(context.Context) error{
		c.prepare, c.startEtcd, c.startAPIServer, c.untilUsable, c.startControllerManager, c.startScheduler, c.install,
	} {
		if err := step(ctx); err != nil {
			return c, err
		}
	}
	return c, nil
}

// prepare makes the folder, the credentials, the ports and the clients.
func (c *Cluster) prepare(context.Context) error {
	if err := c.makeDir(); err != nil {
		return err
	}
	for range 3 {
		p, err := reservePort()
		if err != nil {
			return err
		}
		c.ports = append(c.ports, p)
	}
	var err error
	if c.credentials, err = writeCredentials(c.dir, c.names()); err != nil {
		return err
	}
	c.admin = c.credentials.config(c.URL(), c.credentials.adminToken)
	if c.discovery, err = discovery.NewDiscoveryClientForConfig(c.admin); err != nil {
		return err
	}
	if c.dynamic, err = dynamic.NewForConfig(c.admin); err != nil {
		return err
	}
	if c.clientset, err = kubernetes.NewForConfig(c.admin); err != nil {
		return err
	}
	return c.credentials.writeKubeconfig(c.AdminKubeconfig(), c.name+"-admin", "", c.URL(), c.credentials.adminToken)
}

func (c *Cluster) makeDir() error {
	if c.options.Dir == "" {
		dir, err := os.MkdirTemp("", "clusterset-dns-"+c.name+"-")
		c.dir = dir
		return err
	}
	dir, err := filepath.Abs(c.options.Dir)
	if err != nil {
		return err
	}
	c.dir, c.keepDir = dir, true
	return os.MkdirAll(dir, 0o700)
}

func (c *Cluster) startEtcd(ctx context.Context) error {
	client, peer := c.ports[1].url("http"), c.ports[2].url("http")
	etcd, err := startProcess(c.dir, c.binaries.Etcd, []string{
		"--name=" + c.name,
		"--data-dir=" + c.etcdDir(),
		"--listen-client-urls=" + client,
		"--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer,
		"--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=" + c.name + "=" + peer,
		"--socket-reuse-port",
		"--unsafe-no-fsync",
		"--log-level=warn",
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.etcd = etcd
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return etcd.until(ctx, func(ctx context.Context) error { return etcdHealthy(ctx, client) })
}

// startAPIServer starts the API server and waits until it says that it is ready. After an error it does not run.
func (c *Cluster) startAPIServer(ctx context.Context) error {
	file := func(name string) string { return filepath.Join(c.dir, name) }
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return errors.New("the cluster is stopped")
	}
	if c.api.running() {
		return errors.New("kube-apiserver is already running")
	}
	api, err := startProcess(c.dir, c.binaries.APIServer, slices.Concat([]string{
		"--etcd-servers=" + c.ports[1].url("http"),
		fmt.Sprintf("--secure-port=%d", c.ports[0].number),
		"--permit-port-sharing",
		"--tls-cert-file=" + file(servingCertFile),
		"--tls-private-key-file=" + file(servingKeyFile),
		"--token-auth-file=" + file(tokenFile),
		"--client-ca-file=" + file(clientCAFile),
		"--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-signing-key-file=" + file(accountKeyFile),
		"--service-account-key-file=" + file(accountKeyFile),
		"--service-cluster-ip-range=" + c.options.ServiceCIDR,
		"--audit-policy-file=" + file(auditPolicyFile),
		"--audit-log-path=" + file(auditLogFile),
		"--audit-log-maxsize=0", // one file, never rotated
	}, c.places()))
	if err != nil {
		return err
	}
	c.api = api
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := api.until(ctx, c.ready); err != nil {
		return errors.Join(err, api.kill())
	}
	return nil
}

// places returns the flags that say where the API server is and who else there is.
func (c *Cluster) places() []string {
	if c.options.Nodes == nil {
		return []string{
			"--bind-address=127.0.0.1",
			"--advertise-address=127.0.0.1",
			"--endpoint-reconciler-type=none",            // no Endpoints of itself; it would refuse loopback addresses
			"--disable-admission-plugins=ServiceAccount", // Pods can be created where nothing makes service accounts
		}
	}
	address := c.options.Nodes.Address.String()
	return []string{"--bind-address=" + address, "--advertise-address=" + address, "--kubelet-preferred-address-types=InternalIP"}
}

// ready asks the API server whether it is ready.
func (c *Cluster) ready(ctx context.Context) error {
	_, err := c.discovery.RESTClient().Get().AbsPath("readyz").Timeout(5 * time.Second).DoRaw(ctx)
	return err
}

// untilUsable waits for what a new API server makes right after it is ready: the namespace default and the Service
// kubernetes in it, whose existence also proves that cluster IPs are handed out.
func (c *Cluster) untilUsable(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return c.api.until(ctx, func(ctx context.Context) error {
		_, err := c.clientset.CoreV1().Services(metav1.NamespaceDefault).Get(ctx, "kubernetes", metav1.GetOptions{})
		return err
	})
}

// startControllerManager starts the controllers that work without kubelets; with nodes, all of them. The node lifecycle is
// not among the former: it would find every node dead and evict its Pods.
func (c *Cluster) startControllerManager(context.Context) error {
	if !c.options.ControllerManager && c.options.Nodes == nil {
		return nil
	}
	flags := []string{
		"--controllers=" + strings.Join(append([]string{
			"endpointslice-controller", "endpointslice-mirroring-controller", "namespace-controller",
			"serviceaccount-controller", "garbage-collector-controller",
		}, c.options.Controllers...), ","),
	}
	if n := c.options.Nodes; n != nil {
		flags = []string{"--allocate-node-cidrs", "--cluster-cidr=" + n.Pods.String(), "--node-monitor-grace-period=" + n.Grace}
	}
	p, err := startProcess(c.dir, c.binaries.ControllerManager, append([]string{
		"--kubeconfig=" + c.AdminKubeconfig(),
		"--service-account-private-key-file=" + filepath.Join(c.dir, accountKeyFile),
		"--root-ca-file=" + filepath.Join(c.dir, servingCertFile),
		"--leader-elect=false", // it would give up when the API server is away
		"--secure-port=0",
		"--kube-api-qps=1000",
		"--kube-api-burst=2000",
		"--concurrent-namespace-syncs=50",
	}, flags...))
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.controllerMgr = p
	c.mu.Unlock()
	return nil
}

// startScheduler starts the scheduler of a cluster that has nodes.
func (c *Cluster) startScheduler(context.Context) error {
	if c.options.Nodes == nil {
		return nil
	}
	p, err := startProcess(c.dir, c.binaries.Scheduler, []string{
		"--kubeconfig=" + c.AdminKubeconfig(),
		"--leader-elect=false",
		"--secure-port=0",
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.scheduler = p
	c.mu.Unlock()
	return nil
}

// install applies CRDs and RBAC, makes the server's kubeconfig, and waits for the controllers.
func (c *Cluster) install(ctx context.Context) error {
	if err := c.ApplyCRDs(ctx, c.options.CRDs); err != nil {
		return err
	}
	if !c.options.Bare {
		if err := c.installRights(ctx); err != nil {
			return err
		}
	}
	return c.untilControlled(ctx)
}

// installRights applies the RBAC of deploy and makes the server's kubeconfig.
func (c *Cluster) installRights(ctx context.Context) error {
	root, err := Root()
	if err != nil {
		return err
	}
	names, account := []string{"member/rbac.yaml"}, memberAccount
	if !c.options.Remote {
		names, account = append(names, "base/local.yaml", "base/secrets.yaml", "beside/rbac.yaml"), serverAccount
	}
	for _, name := range names {
		manifests, err := os.ReadFile(filepath.Join(root, "deploy", filepath.FromSlash(name)))
		if err != nil {
			return err
		}
		if err := c.Apply(ctx, manifests); err != nil {
			return err
		}
	}
	return c.WriteKubeconfig(ctx, accountNamespace, account, c.Kubeconfig())
}

// WriteKubeconfig asks for a token of a ServiceAccount and writes a kubeconfig with it to a path. Its only context has the
// name of the cluster.
func (c *Cluster) WriteKubeconfig(ctx context.Context, namespace, account, path string) error {
	seconds := int64(tokenValidity / time.Second)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	token, err := c.clientset.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("request a token of %s/%s: %w", namespace, account, err)
	}
	return c.credentials.writeKubeconfig(path, c.name, namespace, c.URL(), token.Status.Token)
}

// untilControlled waits for the first thing that a working controller manager makes.
func (c *Cluster) untilControlled(ctx context.Context) error {
	if c.controllerMgr == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return c.controllerMgr.until(ctx, func(ctx context.Context) error {
		_, err := c.clientset.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

// Name returns the name of the cluster.
func (c *Cluster) Name() string { return c.name }

// Dir returns the cluster's folder, with the data and the log of each program (kube-apiserver.log and so on).
func (c *Cluster) Dir() string { return c.dir }

// URL returns the address of the API server. It stays the same over restarts.
func (c *Cluster) URL() string {
	if n := c.options.Nodes; n != nil {
		return "https://" + netip.AddrPortFrom(n.Address, uint16(c.ports[0].number)).String()
	}
	return c.ports[0].url("https")
}

// names returns the further addresses of the API server in a cluster with nodes: its own, and the first of the service network,
// which is that of the Service kubernetes.
func (c *Cluster) names() []netip.Addr {
	if c.options.Nodes == nil {
		return nil
	}
	services, _, _ := strings.Cut(c.options.ServiceCIDR, ",")
	network, err := netip.ParsePrefix(services)
	if err != nil {
		return nil // the API server will say so
	}
	return []netip.Addr{c.options.Nodes.Address, network.Masked().Addr().Next()}
}

// Admin returns a client configuration that may do everything and is not throttled on the client's side.
func (c *Cluster) Admin() *rest.Config { return rest.CopyConfig(c.admin) }

// AdminKubeconfig returns the path of a kubeconfig that may do everything.
func (c *Cluster) AdminKubeconfig() string { return filepath.Join(c.dir, adminKubeconfigFile) }

// Kubeconfig returns the path of the DNS server's kubeconfig: a token of the ServiceAccount of deploy/beside with exactly the
// roles that it has there, or, in a Remote cluster, of that of deploy/member. Its only context has the name of the cluster.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.dir, dnsKubeconfigFile) }

// ClientCertificate returns a new client certificate for a user, valid until the given time, and its key, both PEM.
func (c *Cluster) ClientCertificate(user string, end time.Time) (certPEM, keyPEM []byte, err error) {
	return c.credentials.clientPair(user, end)
}

// ServingPair returns the certificate of the API server and its key. Whoever has them can pretend to be it: kubeconfigs
// of the cluster trust this certificate and no other.
func (c *Cluster) ServingPair() (tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(c.dir, servingCertFile), filepath.Join(c.dir, servingKeyFile))
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("serving certificate of cluster %s: %w", c.name, err)
	}
	return pair, nil
}

// AuditLog returns the path of the API server's audit log: one JSON event (audit.k8s.io/v1, level Metadata) per line
// and request, written before the client gets the answer. Lists have the stage ResponseComplete, watches
// ResponseStarted and, when they end, ResponseComplete.
func (c *Cluster) AuditLog() string { return filepath.Join(c.dir, auditLogFile) }

// KillAPIServer ends the API server as a crash would, and waits until it is gone. Clients are then refused.
func (c *Cluster) KillAPIServer() error {
	return c.withAPIServer("kill", (*process).kill)
}

// StartAPIServer starts the API server again, on the same port and with the same data, and waits until it is ready.
// After an error it does not run.
func (c *Cluster) StartAPIServer(ctx context.Context) error {
	if err := c.startAPIServer(ctx); err != nil {
		return fmt.Errorf("start the API server of cluster %s: %w", c.name, err)
	}
	return nil
}

// PauseAPIServer stops the API server where it stands: connections are accepted and stay open, nothing is answered.
func (c *Cluster) PauseAPIServer() error {
	return c.withAPIServer("pause", func(p *process) error { return p.pause(context.Background()) })
}

// ResumeAPIServer lets a paused API server go on.
func (c *Cluster) ResumeAPIServer() error {
	return c.withAPIServer("resume", func(p *process) error { return p.signal(syscall.SIGCONT) })
}

// withAPIServer does something to the running API server.
func (c *Cluster) withAPIServer(what string, do func(*process) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := errors.New("it is not running")
	if c.api.running() {
		err = do(c.api)
	}
	if err != nil {
		return fmt.Errorf("%s the API server of cluster %s: %w", what, c.name, err)
	}
	return nil
}

// Stop ends every program of the cluster, waits for them, gives back the ports and removes the folder unless
// Options.Dir named it. It works at any stage of a start, on paused programs, and more than once.
func (c *Cluster) Stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return nil
	}
	c.stopped = true
	// Nothing here needs an orderly end: a killed API server is one of the cases that etcd is made for, and the data
	// of etcd itself are with the kernel.
	errs := []error{c.scheduler.kill(), c.controllerMgr.kill(), c.api.kill(), c.etcd.kill()}
	for _, p := range c.ports {
		p.release()
	}
	if c.dir != "" && !c.keepDir {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stop cluster %s: %w", c.name, err)
	}
	return nil
}
