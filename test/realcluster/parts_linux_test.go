package realcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// The names of images: as in deploy, as kubeadm and containerd know them, and that of the probe.
const (
	ourImage   = "registry.example.org/clusterset-dns:v0.1.0"
	stockImage = "registry.k8s.io/coredns/coredns:v1.14.2"
	pauseImage = "registry.k8s.io/pause:3.10.1"
	probeImage = "registry.example.org/probe:v1"
)

// parts are what the clusters are made of.
type parts struct {
	Binaries clusters.Binaries
	Node     clusters.NodeBinaries
	Control  string // clustersetctl
	// Dir is where all of a run is, Images are the archives of images.
	Dir    string
	Images []string
}

// needed are the programs that a node needs from elsewhere, with their Debian packages.
var needed = []struct{ program, pkg string }{
	{"make", "make"},
	{"buildah", "buildah"},
	{"runc", "runc"},
	{"ip", "iproute2"},
	{"nft", "nftables"},
	{"iptables", "iptables"},
	{"conntrack", "conntrack"},
	{"setcap", "libcap2-bin"},
	{"nsenter", "util-linux"},
	{filepath.Join(plugins, "ptp"), "containernetworking-plugins"},
}

// installTime bounds the installation of packages.
const installTime = 5 * time.Minute

// plugins is where Debian has the plugins of CNI.
const plugins = "/usr/lib/cni"

// missing says why this machine cannot have clusters, and installs what it can. It is empty where nothing is missing.
func missing(ctx context.Context) string {
	if os.Geteuid() != 0 {
		return "real clusters need root: run this as root"
	}
	if why := uninstalled(ctx); why != "" {
		return why
	}
	if err := makeGroup(groupPrefix + "try"); err != nil {
		return "no control groups can be made here: " + err.Error()
	}
	if err := removeGroups(); err != nil {
		return "control groups cannot be removed here: " + err.Error()
	}
	cmd := exec.CommandContext(ctx, "true")
	cmd.SysProcAttr = alone()
	if err := cmd.Run(); err != nil {
		return "no process can have a network and mounts of its own here: " + err.Error()
	}
	return ""
}

// uninstalled installs what is missing, and says why that cannot be.
func uninstalled(ctx context.Context) string {
	absent := absentPackages()
	if len(absent) == 0 {
		return ""
	}
	list := strings.Join(absent, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return "there is no apt-get to install it with: " + list
	}
	fmt.Fprintln(os.Stderr, "installing the packages", list)
	ctx, cancel := context.WithTimeout(ctx, installTime)
	defer cancel()
	var out bytes.Buffer
	for _, args := range [][]string{{"update"}, append([]string{"install", "--yes", "--no-install-recommends"}, absent...)} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			return fmt.Sprintf("install the packages %s: apt-get %s: %v\n%s", list, args[0], err, out.String())
		}
	}
	if absent = absentPackages(); len(absent) > 0 {
		return "these packages are installed, but not their programs: " + strings.Join(absent, " ")
	}
	return ""
}

func absentPackages() []string {
	var absent []string
	for _, n := range needed {
		if _, err := exec.LookPath(n.program); err != nil {
			absent = append(absent, n.pkg)
		}
	}
	return absent
}

// lockFile is one for the machine: two tests would have the same control groups.
func lockFile() string { return filepath.Join(os.TempDir(), "clusterset-dns-realcluster.lock") }

// lock waits until no other test of this kind runs.
func lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(lockFile(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for waited := false; ; waited = true {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !waited {
			fmt.Fprintln(os.Stderr, "waiting for another test with real clusters")
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, errors.Join(ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// runDir is the folder of a run. It is short, since sockets have paths of at most 107 octets.
func runDir() (string, error) {
	root, err := clusters.Root()
	return filepath.Join(root, "bin", "realcluster"), err
}

// sweep removes what a run has left. Nothing of it runs any more.
func sweep() error {
	dir, err := runDir()
	if err != nil {
		return err
	}
	return errors.Join(removeGroups(), os.RemoveAll(dir))
}

// build makes everything that is needed inside.
func build(ctx context.Context) (err error) {
	if built.Binaries, err = clusters.Build(ctx, os.Stderr, clusters.Kubectl); err != nil {
		return err
	}
	if built.Node, err = clusters.BuildNode(ctx, os.Stderr); err != nil {
		return err
	}
	built.Binaries.Scheduler = built.Node.Scheduler
	if built.Control, err = server.BuildControl(ctx, os.Stderr); err != nil {
		return err
	}
	stock, err := server.BuildStock(ctx, os.Stderr)
	if err != nil {
		return err
	}
	prober, err := server.BuildProbe(ctx, os.Stderr)
	if err != nil {
		return err
	}
	if built.Dir, err = runDir(); err != nil {
		return err
	}
	begin := time.Now()
	p := packer{dir: filepath.Join(built.Dir, "images")}
	if err := errors.Join(
		p.ours(ctx),
		p.pack(ctx, stockImage, stock, "cap_net_bind_service=+ep"),
		p.pack(ctx, probeImage, prober, ""),
		p.pack(ctx, pauseImage, prober, "", "pause"),
	); err != nil {
		return fmt.Errorf("make the images: %w", err)
	}
	fmt.Fprintf(os.Stderr, "packed the images in %s\n", time.Since(begin).Round(time.Second))
	return os.RemoveAll(p.storage())
}

// packer makes archives of images in a folder.
type packer struct{ dir string }

// storage is where buildah keeps what it works on.
func (p packer) storage() string { return filepath.Join(p.dir, "storage") }

func (p packer) buildah(args ...string) []string {
	return append([]string{
		"buildah", "--root", filepath.Join(p.storage(), "root"), "--runroot", filepath.Join(p.storage(), "run"), "--storage-driver", "vfs",
	}, args...)
}

// ours makes the image as operators do.
func (p packer) ours(ctx context.Context) error {
	root, err := clusters.Root()
	if err != nil {
		return err
	}
	_, version, _ := strings.Cut(ourImage, ":")
	err = run(ctx, root, "make", "image", "BUILDER="+strings.Join(p.buildah(), " "), "IMAGE="+ourImage, "VERSION="+version)
	if err != nil {
		return err
	}
	return p.save(ctx, ourImage)
}

// pack makes an image of one program, with a file capability, that runs as a user who is not root: as the CoreDNS project does.
func (p packer) pack(ctx context.Context, name, program, capability string, args ...string) error {
	dir := filepath.Join(p.dir, filepath.Base(program))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	file := filepath.Base(program)
	entry := fmt.Sprintf("%q", "/"+file)
	for _, arg := range args {
		entry += fmt.Sprintf(", %q", arg)
	}
	recipe := fmt.Sprintf("FROM scratch\nCOPY %s /%s\nUSER 65532:65532\nENTRYPOINT [%s]\n", file, file, entry)
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, file), text, 0o755),
		os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(recipe), 0o644),
	); err != nil {
		return err
	}
	if capability != "" {
		if err := run(ctx, dir, "setcap", capability, file); err != nil {
			return err
		}
	}
	if err := run(ctx, dir, p.buildah("build", "--platform", "linux/"+runtime.GOARCH, "-t", name, ".")...); err != nil {
		return err
	}
	return p.save(ctx, name)
}

// save writes the archive of an image.
func (p packer) save(ctx context.Context, name string) error {
	path := filepath.Join(p.dir, strings.NewReplacer("/", "-", ":", "-").Replace(name)+".tar")
	built.Images = append(built.Images, path)
	return run(ctx, p.dir, p.buildah("push", "--quiet", name, "docker-archive:"+path+":"+name)...)
}

// run runs a command in a folder; the error has what it says.
func run(ctx context.Context, dir string, command ...string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%q: %w\n%s", slices.Clone(command), err, out)
	}
	return nil
}
