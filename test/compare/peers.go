//go:build linux

package compare

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/compare/world"
)

// peer is an authoritative server that is no CoreDNS: it shows what is left to gain. It answers from a zone file.
type peer struct {
	name    string
	program string
	args    []string
	// versionFlag makes the program print its version.
	versionFlag string
	// config is a template for fmt: a folder and a port.
	config string
}

// configFile and zoneFile lie in the working directory of a peer.
const (
	configFile = "config"
	zoneFile   = "zone"
	stopWithin = 5 * time.Second
)

var peers = []peer{
	{"Knot DNS", "knotd", []string{"-c", configFile}, "-V", `server:
    listen: 127.0.0.1@%[2]d
    rundir: %[1]s
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: warning
database:
    storage: %[1]s
zone:
  - domain: clusterset.local
    file: %[1]s/zone
    zonefile-sync: -1
    journal-content: none
`},
	{"NSD", "nsd", []string{"-d", "-c", configFile}, "-v", `server:
    ip-address: 127.0.0.1@%[2]d
    server-count: 1
    rrl-ratelimit: 0
    username: ""
    zonesdir: %[1]s
    database: ""
    pidfile: ""
    zonelistfile: %[1]s/zones
    xfrdfile: ""
    xfrdir: %[1]s
remote-control:
    control-enable: no
zone:
    name: clusterset.local
    zonefile: zone
`},
}

// find returns where the program of a peer is, also where administrators' programs are not searched for.
func (p peer) find() (string, bool) {
	for _, name := range []string{p.program, "/usr/sbin/" + p.program, "/usr/local/sbin/" + p.program} {
		if path, err := exec.LookPath(name); err == nil {
			return path, true
		}
	}
	return "", false
}

// version returns the first line of what a peer says of its version.
func (p peer) version(path string) string {
	out, err := exec.Command(path, p.versionFlag).CombinedOutput()
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if err != nil || line == "" {
		return p.name + " of an unknown version"
	}
	return line
}

// start runs a peer.
func (p peer) start(path string, services int) (*running, error) {
	questions, err := draw(clusterSetZone, services, 1)
	if err != nil {
		return nil, err
	}
	for i := range questions {
		// Such servers answer nothing rather than some when not all fits.
		if questions[i].Least != questions[i].Most {
			questions[i].Least = 0
		}
	}
	dir, err := os.MkdirTemp("", "clusterset-dns-compare-")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err == nil {
		err = errors.Join(
			os.WriteFile(filepath.Join(dir, configFile), fmt.Appendf(nil, p.config, dir, port), 0o600),
			os.WriteFile(filepath.Join(dir, zoneFile), zone(services), 0o600),
		)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	cmd := exec.Command(path, p.args...)
	cmd.Dir = dir
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	done, err := runTied(cmd)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", p.name, err), os.RemoveAll(dir))
	}
	stop := func() error {
		err := cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
			err = nil // it may have ended by itself
		case <-time.After(stopWithin):
			err = errors.Join(err, cmd.Process.Kill())
			<-done
		}
		return errors.Join(err, os.RemoveAll(dir))
	}
	return &running{
		name: p.name, questions: questions, port: port, pid: cmd.Process.Pid, stop: stop,
		alive: func() bool {
			select {
			case <-done:
				return false
			default:
				return true
			}
		},
	}, nil
}

// runTied starts a program that the kernel kills together with this process, and closes done when it has ended.
func runTied(cmd *exec.Cmd) (done <-chan struct{}, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		// The kernel looks at the thread that has started it, so that is kept.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended does not matter
		}
		close(ended)
	}()
	return ended, <-started
}

// freePort returns a port of 127.0.0.1 that is free for UDP and TCP at this moment.
func freePort() (int, error) {
	for range 50 {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		port := tcp.Addr().(*net.TCPAddr).Port
		tcp.Close()
		if err == nil {
			udp.Close()
			return port, nil
		}
	}
	return 0, errors.New("find a port: none is free for both TCP and UDP")
}

// zone is a zone file with the records of all services.
func zone(services int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "$ORIGIN %s\n$TTL 5\n@ SOA ns.dns hostmaster 1 7200 1800 86400 5\n@ NS ns.dns\nns.dns A 127.0.0.1\n", clusterSetZone)
	for i := range services {
		s := world.Service(i)
		name := s.FQDN(clusterSetZone)
		if !s.Headless() {
			fmt.Fprintf(&b, "%s A %s\n_%s._tcp.%s SRV 0 100 %d %s\n", name, s.ClusterIP(), world.PortName, name, world.Port, name)
			continue
		}
		for _, address := range s.Addresses() {
			host := strings.ReplaceAll(address.String(), ".", "-") + "." + world.Cluster + "." + name
			fmt.Fprintf(&b, "%s A %s\n%s A %s\n", name, address, host, address)
			fmt.Fprintf(&b, "_%s._tcp.%s SRV 0 %d %d %s\n", world.PortName, name, 100/world.Endpoints, world.TargetPort, host)
		}
	}
	return b.Bytes()
}

// startPeers runs the peers that are installed, and says which are not.
func startPeers(ctx context.Context, services int) (all []*running, missing []string, err error) {
	for _, p := range peers {
		path, ok := p.find()
		if !ok {
			missing = append(missing, fmt.Sprintf("%s was skipped: there is no program %s", p.name, p.program))
			continue
		}
		r, err := p.start(path, services)
		if err != nil {
			return all, missing, err
		}
		all = append(all, r)
		if _, err := r.untilRight(ctx); err != nil {
			return all, missing, err
		}
		if err := r.pin(); err != nil {
			return all, missing, err
		}
	}
	return all, missing, nil
}
