package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/suite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	// limit bounds each wait.
	limit = 60 * time.Second
	// buildTime bounds the build, most of which is linking where the server has been built before.
	buildTime = 15 * time.Minute
	name      = "localhost/clusterset-dns:test"
	version   = "v0.0.0-test"
)

// corefile needs no API server: west has never been reached, so that only the furniture of the zone is answered.
const corefile = `.:53 {
    errors
    health
    ready
    prometheus :9153
    clusterset {
        cluster west /etc/coredns/west.kubeconfig {
            address clusterip
        }
    }
    hosts {
        192.0.2.99 example.org
    }
}
`

// unreachable is the kubeconfig of a cluster that nobody listens for.
const unreachable = `{apiVersion: v1, kind: Config, current-context: west, contexts: [{name: west, context: {cluster: west, user: west}}],
  clusters: [{name: west, cluster: {server: "https://127.0.0.1:1"}}], users: [{name: west, user: {token: none}}]}
`

var must = suite.Must

// need skips the test where the machine cannot build or run an image.
func need(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("building and running an image needs root: run this test as root")
	}
	for _, program := range []string{"make", "buildah", "runc", "setcap"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed: install the packages buildah, runc and libcap2-bin", program)
		}
	}
}

func run(t *testing.T, timeout time.Duration, dir string, command ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), timeout) // also while the test cleans up
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = dir
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		t.Fatalf("%q: %v\n%s%s", command, err, out.String(), complaints.String())
	}
	return out.String()
}

func TestImageRunsAsKubeadmsCoreDNSDoes(t *testing.T) {
	need(t)
	root, err := clusters.Root()
	must(t, err)
	dir := t.TempDir()
	// A storage of its own, in plain folders, so that it goes with the test's.
	buildah := []string{"buildah", "--root", filepath.Join(dir, "images"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs"}
	run(t, buildTime, root, "make", "image", "BUILDER="+strings.Join(buildah, " "), "IMAGE="+name, "VERSION="+version)

	checkConfig(t, run(t, limit, dir, append(buildah, "inspect", "--type", "image", name)...))
	checkBillOfMaterials(t, filepath.Join(root, "bin", "sbom-"+runtime.GOARCH+".cdx.json"))
	working := strings.TrimSpace(run(t, limit, dir, append(buildah, "from", name)...))
	rootfs := strings.TrimSpace(run(t, limit, dir, append(buildah, "mount", working)...))
	checkFiles(t, rootfs)

	pod := kubeadms(t, root).Spec.Template.Spec
	c := start(t, dir, rootfs, pod.Containers[0])
	c.until(t, "it is ready", c.probe(pod.Containers[0], pod.Containers[0].ReadinessProbe))
	c.until(t, "it is alive", c.probe(pod.Containers[0], pod.Containers[0].LivenessProbe))
	for _, network := range []string{"udp", "tcp"} {
		c.until(t, "it answers over "+network, c.answers(network, "example.org.", dns.TypeA, "192.0.2.99"))
		c.until(t, "it answers over "+network, c.answers(network, "dns-version.clusterset.local.", dns.TypeTXT, `"1.0.0"`))
	}
	memory := pod.Containers[0].Resources.Limits.Memory().Value()
	c.until(t, "Go keeps to nine tenths of the limit", c.shows("go_gc_gomemlimit_bytes", float64(memory*9/10)))
	c.until(t, "it says its version", func() error { return contains(c.said(), "clusterset-dns-"+version) })
}

// kubeadms returns the Deployment that the image takes its place in.
func kubeadms(t *testing.T, root string) appsv1.Deployment {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "test", "deploy", "testdata", "kubeadm.yaml"))
	must(t, err)
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		var d appsv1.Deployment
		must(t, yaml.Unmarshal([]byte(document), &d))
		if d.Kind == "Deployment" {
			return d
		}
	}
	t.Fatal("kubeadm.yaml has no Deployment")
	return appsv1.Deployment{}
}

func checkConfig(t *testing.T, inspected string) {
	t.Helper()
	var image struct {
		OCIv1 struct {
			Architecture string
			Config       struct {
				User       string
				Entrypoint []string
				Labels     map[string]string
			}
		}
	}
	must(t, json.Unmarshal([]byte(inspected), &image))
	if got := image.OCIv1.Architecture; got != runtime.GOARCH {
		t.Errorf("It is for %s, want %s", got, runtime.GOARCH)
	}
	config := image.OCIv1.Config
	if config.User != "65532:65532" || !slices.Equal(config.Entrypoint, []string{"/coredns"}) {
		t.Errorf("It runs %q as %q", config.Entrypoint, config.User)
	}
	if got := config.Labels["org.opencontainers.image.version"]; got != version {
		t.Errorf("Its version is %q, want %q", got, version)
	}
}

func checkBillOfMaterials(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	for _, want := range []string{`"pkg:golang/github.com/coredns/coredns@v`, `"pkg:golang/k8s.io/client-go@v`, `"pkg:golang/stdlib@`} {
		must(t, contains(string(text), want))
	}
}

// checkFiles looks for what the image must have and for what it must not.
func checkFiles(t *testing.T, rootfs string) {
	t.Helper()
	var files []string
	must(t, filepath.WalkDir(rootfs, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			files = append(files, strings.TrimPrefix(path, rootfs))
		}
		return err
	}))
	if want := []string{"/coredns", "/etc/ssl/certs/ca-certificates.crt"}; !slices.Equal(files, want) {
		t.Errorf("It has the files %q, want %q", files, want)
	}
}

func contains(text, want string) error {
	if !strings.Contains(text, want) {
		return fmt.Errorf("there is no %q in %q", want, text)
	}
	return nil
}

// container is a running container.
type container struct {
	pid   int           // of its first process
	log   string        // path of what it has printed
	ended chan struct{} // closed when it has ended
}

// spec is a configuration of the OCI runtime (config.json), as far as it is changed here.
type spec map[string]any

func (s spec) of(name string) spec { return s[name].(map[string]any) }

// start runs a container of a root file system as a kubelet would: with the security context, the arguments and the memory
// limit of the manifest, as the user of the image, with the Corefile mounted, on a network with nothing but loopback, on which
// ports below 1024 are not for everybody.
func start(t *testing.T, dir, rootfs string, manifest corev1.Container) *container {
	t.Helper()
	bundle, config := filepath.Join(dir, "bundle"), filepath.Join(dir, "config")
	must(t, errors.Join(os.Mkdir(bundle, 0o755), os.Mkdir(config, 0o755)))
	must(t, os.WriteFile(filepath.Join(config, "Corefile"), []byte(corefile), 0o644))
	must(t, os.WriteFile(filepath.Join(config, "west.kubeconfig"), []byte(unreachable), 0o644))
	runc := []string{"runc", "--root", filepath.Join(dir, "containers")}
	run(t, limit, bundle, append(slices.Clone(runc), "spec")...)

	path := filepath.Join(bundle, "config.json")
	text, err := os.ReadFile(path)
	must(t, err)
	var s spec
	must(t, json.Unmarshal(text, &s))
	security := manifest.SecurityContext
	s["root"] = map[string]any{"path": rootfs, "readonly": *security.ReadOnlyRootFilesystem}
	process := s.of("process")
	process["terminal"] = false
	process["user"] = map[string]any{"uid": 65532, "gid": 65532}
	process["args"] = append([]string{"/coredns"}, manifest.Args...)
	process["env"] = []string{}
	process["noNewPrivileges"] = !*security.AllowPrivilegeEscalation
	delete(process, "rlimits")
	capabilities := []string{}
	for _, c := range security.Capabilities.Add {
		capabilities = append(capabilities, "CAP_"+string(c))
	}
	process["capabilities"] = map[string]any{"bounding": capabilities, "effective": capabilities, "permitted": capabilities}
	s["mounts"] = append(s["mounts"].([]any), map[string]any{
		"destination": "/etc/coredns", "type": "bind", "source": config, "options": []string{"rbind", "ro"},
	})
	s.of("linux").of("resources")["memory"] = map[string]any{"limit": manifest.Resources.Limits.Memory().Value()}
	s.of("linux")["sysctl"] = map[string]string{"net.ipv4.ip_unprivileged_port_start": "1024"}
	text, err = json.Marshal(s)
	must(t, err)
	must(t, os.WriteFile(path, text, 0o644))

	id := "clusterset-dns-test-" + strconv.Itoa(os.Getpid())
	c := &container{log: filepath.Join(dir, "log"), ended: make(chan struct{})}
	out, err := os.Create(c.log)
	must(t, err)
	defer out.Close()
	pidFile := filepath.Join(dir, "pid")
	command := append(slices.Clone(runc), "run", "--bundle", bundle, "--pid-file", pidFile, id)
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	must(t, cmd.Start())
	go func() {
		defer close(c.ended)
		if err := cmd.Wait(); err != nil {
			t.Errorf("The container ended with %v and said:\n%s", err, c.said())
		}
	}()
	t.Cleanup(func() {
		for _, end := range [][]string{{"kill", id, "TERM"}, {"delete", "--force", id}} {
			if c.running() {
				run(t, limit, dir, append(slices.Clone(runc), end...)...)
			}
			select {
			case <-c.ended:
				return
			case <-time.After(limit):
				t.Errorf("The container does not end by runc %q", end)
			}
		}
	})
	c.until(t, "it runs", func() error {
		text, err := os.ReadFile(pidFile)
		if err == nil {
			c.pid, err = strconv.Atoi(string(text))
		}
		return err
	})
	return c
}

func (c *container) running() bool {
	select {
	case <-c.ended:
		return false
	default:
		return true
	}
}

func (c *container) said() string {
	text, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (c *container) until(t *testing.T, what string, check func() error) {
	t.Helper()
	err := check()
	for deadline := time.Now().Add(limit); err != nil; err = check() {
		if !c.running() || time.Now().After(deadline) {
			t.Fatalf("Not within %s: %s: %v", limit, what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// dial connects to an address on the network of the container. A socket belongs to the network in which it was made, so the
// thread goes there for as long as that takes. One that does not come back is not used again.
func (c *container) dial(ctx context.Context, network, address string) (net.Conn, error) {
	runtime.LockOSThread()
	here, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer here.Close()
	there, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", c.pid))
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("enter the network of the container: %w", err)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if back := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); back != nil {
		return nil, errors.Join(err, fmt.Errorf("leave the network of the container: %w", back))
	}
	runtime.UnlockOSThread()
	return conn, err
}

// get fetches a page of a port.
func (c *container) get(port int32, path string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", port, path), http.NoBody)
	if err != nil {
		return "", err
	}
	client := http.Client{Transport: &http.Transport{DialContext: c.dial, DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", response.StatusCode, body)
	}
	return string(body), err
}

// probe does what the kubelet would do.
func (c *container) probe(manifest corev1.Container, probe *corev1.Probe) func() error {
	port := probe.HTTPGet.Port.IntVal
	for _, p := range manifest.Ports {
		if p.Name == probe.HTTPGet.Port.StrVal {
			port = p.ContainerPort
		}
	}
	return func() error {
		_, err := c.get(port, probe.HTTPGet.Path)
		return err
	}
}

// answers asks port 53.
func (c *container) answers(network, name string, qtype uint16, want string) func() error {
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		conn, err := c.dial(ctx, network, "127.0.0.1:53")
		if err != nil {
			return err
		}
		defer conn.Close()
		client := dns.Client{Net: network, Timeout: 5 * time.Second}
		reply, _, err := client.ExchangeWithConnContext(ctx, new(dns.Msg).SetQuestion(name, qtype), &dns.Conn{Conn: conn})
		if err != nil {
			return err
		}
		if len(reply.Answer) != 1 || !strings.HasSuffix(reply.Answer[0].String(), want) {
			return fmt.Errorf("%s: %s %v, want %s", name, dns.RcodeToString[reply.Rcode], reply.Answer, want)
		}
		return nil
	}
}

// shows reads the value of a metric that has no labels.
func (c *container) shows(metric string, want float64) func() error {
	return func() error {
		page, err := c.get(9153, "/metrics")
		if err != nil {
			return err
		}
		for line := range strings.Lines(page) {
			if value, ok := strings.CutPrefix(line, metric+" "); ok {
				if got, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err != nil || got != want {
					return fmt.Errorf("%s is %s, want %v", metric, strings.TrimSpace(value), want)
				}
				return nil
			}
		}
		return fmt.Errorf("there is no %s", metric)
	}
}
