package clusters

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Program names one program of the control plane, and its file in the folder of binaries.
type Program string

// The programs that Build knows.
const (
	Etcd              Program = "etcd"
	APIServer         Program = "kube-apiserver"
	ControllerManager Program = "kube-controller-manager"
	Kubectl           Program = "kubectl"
)

// Binaries are the paths of the control-plane programs. Kubectl is empty unless Build was asked for it, and Scheduler is what
// BuildNode returns, for those who have nodes.
type Binaries struct{ Etcd, APIServer, ControllerManager, Kubectl, Scheduler string }

// Build makes the programs that are missing or that test/controlplane/go.mod has outgrown, in the folder bin of that
// module, and says on w what it does and how long it takes; with everything in place it says nothing and is done in
// milliseconds. Etcd, APIServer and ControllerManager are always made, others only when wanted. Processes that call it
// at the same time wait for each other.
func Build(ctx context.Context, w io.Writer, want ...Program) (Binaries, error) {
	root, err := Root()
	if err != nil {
		return Binaries{}, err
	}
	b := builder{
		module:  filepath.Join(root, "test", "controlplane"),
		version: "k8s.io/kubernetes",
		sources: map[Program]source{
			Etcd:              {"go.etcd.io/etcd/server/v3", "20 seconds"},
			APIServer:         {"k8s.io/kubernetes/cmd/kube-apiserver", "4 to 8 minutes"},
			ControllerManager: {"k8s.io/kubernetes/cmd/kube-controller-manager", "1 to 2 minutes"},
			Kubectl:           {"k8s.io/kubernetes/cmd/kubectl", "30 seconds"},
		},
	}
	programs := []Program{Etcd, APIServer, ControllerManager}
	for _, p := range want {
		if !slices.Contains(programs, p) {
			programs = append(programs, p)
		}
	}
	if err := b.build(ctx, w, programs); err != nil {
		return Binaries{}, fmt.Errorf("build the control plane: %w", err)
	}
	made := Binaries{Etcd: b.path(Etcd), APIServer: b.path(APIServer), ControllerManager: b.path(ControllerManager)}
	if slices.Contains(programs, Kubectl) {
		made.Kubectl = b.path(Kubectl)
	}
	return made, nil
}

// builder builds main packages that a module pins into that module's folder bin.
type builder struct {
	module  string // folder of the module
	sources map[Program]source
	version string // module whose version the programs report as Kubernetes' own; "" for none
	tags    string // build tags; "" for none
}

// source is the main package of a program, and how long it takes to build on two cores with an empty build cache.
type source struct{ pkg, takes string }

// flags are what every program is built with. The control plane is only built by Build, so plain builds of the server
// and these need not share a cache.
var flags = []string{"build", "-trimpath"}

func (b builder) flags() []string {
	if b.tags == "" {
		return slices.Clone(flags)
	}
	return append(slices.Clone(flags), "-tags", b.tags)
}

func (b builder) path(p Program) string  { return filepath.Join(b.module, "bin", string(p)) }
func (b builder) stamp(p Program) string { return b.path(p) + ".stamp" }

// build makes those of the programs that are missing or stale.
func (b builder) build(ctx context.Context, w io.Writer, programs []Program) error {
	for _, p := range programs {
		if b.sources[p].pkg == "" {
			return fmt.Errorf("unknown program %q", p)
		}
	}
	hash, err := b.hash()
	if err != nil {
		return err
	}
	if len(b.stale(programs, hash)) == 0 {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(b.module, "bin"), 0o755); err != nil {
		return err
	}
	unlock, err := lock(ctx, w, filepath.Join(b.module, "bin", ".lock"))
	if err != nil {
		return err
	}
	defer unlock()

	// Another process may have built them while this one waited.
	stale := b.stale(programs, hash)
	if len(stale) == 0 {
		return nil
	}
	ldflags, err := b.ldflags(ctx)
	if err != nil {
		return err
	}
	for _, p := range stale {
		if err := b.buildOne(ctx, w, p, ldflags, hash); err != nil {
			return err
		}
	}
	return nil
}

// buildOne builds a program. The stamp goes first and comes last, so that an interrupted build leaves none.
func (b builder) buildOne(ctx context.Context, w io.Writer, p Program, ldflags, hash string) error {
	if err := os.Remove(b.stamp(p)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	fmt.Fprintf(w, "building %s from source, once; about %s on 2 cores\n", p, b.sources[p].takes)
	start := time.Now()
	args := append(b.flags(), "-ldflags", ldflags, "-o", b.path(p), b.sources[p].pkg)
	if err := b.goCommand(ctx, io.Discard, w, "building "+string(p), args...); err != nil {
		return err
	}
	fmt.Fprintf(w, "built %s in %s\n", p, time.Since(start).Round(time.Second))
	return os.WriteFile(b.stamp(p), []byte(hash+"\n"), 0o644)
}

// stale returns the programs whose file or stamp is missing, or whose stamp is of another go.mod.
func (b builder) stale(programs []Program, hash string) []Program {
	return slices.DeleteFunc(slices.Clone(programs), func(p Program) bool {
		if _, err := os.Stat(b.path(p)); err != nil {
			return false
		}
		stamp, err := os.ReadFile(b.stamp(p))
		return err == nil && strings.TrimSpace(string(stamp)) == hash
	})
}

// hash identifies what the programs are built from: the module's requirements and our flags.
func (b builder) hash() (string, error) {
	gomod, err := os.ReadFile(filepath.Join(b.module, "go.mod"))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(gomod, "%q", b.flags()))), nil
}

// ldflags strips the programs and makes them report the version of Kubernetes they are, as released ones do; clients
// read it from /version.
func (b builder) ldflags(ctx context.Context) (string, error) {
	const strip = "-s -w"
	if b.version == "" {
		return strip, nil
	}
	var out bytes.Buffer
	if err := b.goCommand(ctx, &out, io.Discard, "", "list", "-m", "-f", "{{.Version}}", b.version); err != nil {
		return "", err
	}
	version := strings.TrimSpace(out.String())
	number := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(number) != 3 {
		return "", fmt.Errorf("version %q of %s: not major.minor.patch", version, b.version)
	}
	const base = "k8s.io/component-base/version."
	return fmt.Sprintf("%s -X %sgitVersion=%s -X %sgitMajor=%s -X %sgitMinor=%s -X k8s.io/client-go/pkg/version.gitVersion=%s",
		strip, base, version, base, number[0], base, number[1], version), nil
}

// goCommand runs the go command in the module and repeats on w every half minute that it is still at it. The error
// holds the end of what the command said.
func (b builder) goCommand(ctx context.Context, out, w io.Writer, doing string, args ...string) error {
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = b.module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	cmd.Stdout, cmd.Stderr = out, &said
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // go stops its compilers and cleans up
	cmd.WaitDelay = 10 * time.Second
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-exited:
			if err != nil {
				return fmt.Errorf("go %s in %s: %w\n%s", args[0], b.module, err, tail(said.Bytes(), 20))
			}
			return nil
		case <-tick.C:
			fmt.Fprintf(w, "still %s (%s)\n", doing, time.Since(start).Round(time.Second))
		}
	}
}

// lock takes the lock file for this process, waiting for others as long as ctx allows.
func lock(ctx context.Context, w io.Writer, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for waited := false; ; waited = true {
		// A blocking flock could not be cancelled.
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if !waited {
			fmt.Fprintln(w, "waiting for another process that builds the same")
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// tail returns the last n lines of text.
func tail(text []byte, n int) []byte {
	text = bytes.TrimRight(text, "\n")
	end := len(text)
	for ; n > 0 && end >= 0; n-- {
		end = bytes.LastIndexByte(text[:end], '\n')
	}
	return text[end+1:]
}
