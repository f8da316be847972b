//go:build linux

package compare

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/compare/world"
	"github.com/clusterset-dns/clusterset-dns/test/measure"
	"github.com/clusterset-dns/clusterset-dns/test/server"
)

const (
	clusterSetZone = "clusterset.local."
	clusterZone    = "cluster.local."
	// rightWithin bounds the wait for right answers after a start.
	rightWithin = time.Minute
	// pause is that between two looks.
	pause = 5 * time.Millisecond
	// sample is how many questions are asked to know that everything is there.
	sample = 64
)

// subject is a CoreDNS that is compared.
type subject struct {
	// name is what it is called in the tables.
	name string
	// zone is what it is asked about.
	zone string
	// program is the binary.
	program program
	// fixed says that it gives everything the same answer.
	fixed bool
	// corefile is its server block without ports (see block).
	corefile func(p planes, services int) string
}

// program is a binary that is compared.
type program uint8

const (
	// ourProgram is the server of this project.
	ourProgram program = iota
	// stockProgram is CoreDNS as its own project builds it, of the version that ours is made of.
	stockProgram
	// floorProgram has the two plugins that are a floor.
	floorProgram
)

// The subjects that answer the questions of a comparison.
var (
	ours           = subject{name: "ours", zone: clusterSetZone, corefile: watching(everything, oneMember)}
	kubernetes     = subject{name: "kubernetes", zone: clusterZone, program: stockProgram, corefile: watching(everything, kubernetesOnly)}
	kubernetesHere = subject{name: "kubernetes in our server", zone: clusterZone, corefile: watching(everything, kubernetesOnly)}
	inTree         = subject{name: "kubernetes with multicluster", zone: clusterSetZone, program: stockProgram, corefile: watching(imports, multicluster)}
	prebuilt       = subject{name: "prebuilt records", zone: clusterSetZone, program: floorProgram,
		corefile: func(_ planes, services int) string { return fmt.Sprintf("prebuilt clusterset.local %d\n", services) }}
	fixed = subject{name: "fixed record", zone: clusterSetZone, program: floorProgram, fixed: true,
		corefile: func(planes, int) string { return "fixed\n" }}
	chain     = subject{name: "kubeadm's chain: kubernetes", zone: clusterZone, program: stockProgram, corefile: watching(everything, kubeadmAlone)}
	chainOurs = subject{name: "kubeadm's chain: ours", zone: clusterSetZone, corefile: watching(everything, kubeadmWithOne)}
)

// watching makes the Corefile of a subject that watches one control plane.
func watching(p plane, corefile func(kubeconfig string) string) func(planes, int) string {
	return func(all planes, _ int) string { return corefile(all[p.name].Kubeconfig()) }
}

func kubernetesOnly(kubeconfig string) string {
	return fmt.Sprintf("kubernetes cluster.local {\nkubeconfig %s\n}\n", kubeconfig)
}

func multicluster(kubeconfig string) string {
	return fmt.Sprintf("kubernetes cluster.local clusterset.local {\nkubeconfig %s\nmulticluster clusterset.local\n}\n", kubeconfig)
}

func oneMember(kubeconfig string) string { return stanza(member{world.Cluster, kubeconfig}) }

func kubeadmAlone(kubeconfig string) string { return kubeadm(kubeconfig, "") }

func kubeadmWithOne(kubeconfig string) string { return kubeadm(kubeconfig, oneMember(kubeconfig)) }

// member is a cluster in a stanza. Several may be the same API server under several names: each is watched on its own.
type member struct{ name, kubeconfig string }

// three are three members with the same content.
func three(kubeconfig string) []member {
	return []member{{world.Cluster, kubeconfig}, {"west", kubeconfig}, {"north", kubeconfig}}
}

// stanza is ours with everything switched on that takes time: locality, health and weights. The first member is the
// local one. What is probed is a port of the server itself.
func stanza(members ...member) string {
	var b strings.Builder
	local := members[0]
	fmt.Fprintf(&b, "locality {\ncluster %s eu\nnodes %s\ncidr 127.0.1.0/24 zone=eu-a\n}\n", local.name, local.kubeconfig)
	fmt.Fprintf(&b, "clusterhealth {\nprobe %s tcp 127.0.0.1:{{.Port \"pprof\"}}\n}\n", local.name)
	fmt.Fprintf(&b, "clusterset {\nlocal %s\n", local.name)
	for i, m := range members {
		fmt.Fprintf(&b, "cluster %s %s {\nregion eu\nweight 100\n", m.name, m.kubeconfig)
		if i > 0 {
			b.WriteString("address clusterip\n")
		}
		b.WriteString("}\n")
	}
	b.WriteString("prefer cluster region\n}\n")
	return b.String()
}

// kubeadm is the server block that kubeadm v1.36 writes, with something added and without a time for lame ducks. What
// it forwards, nobody answers.
func kubeadm(kubeconfig, more string) string {
	return fmt.Sprintf(`errors
    health {{.Health}}
    ready {{.Ready}}
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       kubeconfig %s
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus {{.Metrics}}
    forward . 127.0.0.1:{{.Port "upstream"}} {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
%s`, kubeconfig, more)
}

// block makes a Corefile of a server block.
func block(inside string) string {
	return ".:{{.DNS}} {\nbind 127.0.0.1\npprof 127.0.0.1:{{.Port \"pprof\"}}\n" + inside + "}\n"
}

// running is a server that runs: one of the subjects, or a peer.
type running struct {
	name      string
	questions []measure.Question
	port      int
	pid       int
	// pprof is the address of that plugin, "" for what is no CoreDNS.
	pprof string
	stop  func() error
	alive func() bool
	// server is nil for what is no CoreDNS.
	server *server.Server
}

// programs are the binaries.
type programs struct {
	controlPlane          clusters.Binaries
	coredns, stock, floor string
}

// path is that of a binary.
func (p *programs) path(of program) string {
	return map[program]string{ourProgram: p.coredns, stockProgram: p.stock, floorProgram: p.floor}[of]
}

// start runs a subject. It may use every processor.
func (s subject) start(ctx context.Context, p programs, planes planes, services int, env ...string) (*running, error) {
	questions, err := draw(s.zone, services, 1)
	if err != nil {
		return nil, err
	}
	if s.fixed {
		questions = anything(questions)
	}
	started, err := server.Start(ctx, p.path(s.program), block(s.corefile(planes, services)), server.Options{Env: env})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return &running{
		name: s.name, questions: questions, port: started.Port("DNS"), pid: started.PID(), stop: started.Stop, alive: started.Running,
		pprof: fmt.Sprintf("127.0.0.1:%d", started.Port("pprof")), server: started,
	}, nil
}

// onOneProcessor is the environment of a server that is pinned: what it would do on a second processor, it does on the first.
var onOneProcessor = []string{"GOMAXPROCS=1", traceGarbage}

// startPinned runs a subject on the processor of servers, and returns when it answers right.
func (s subject) startPinned(ctx context.Context, p programs, planes planes, services int) (*running, error) {
	r, err := s.start(ctx, p, planes, services, onOneProcessor...)
	if err != nil {
		return nil, err
	}
	if err = r.pin(); err == nil {
		_, err = r.untilRight(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, r.stop())
	}
	return r, nil
}

// pin holds a server to the processor of servers.
func (r *running) pin() error {
	for _, pid := range measure.Family(r.pid) {
		if err := measure.PinProcess(pid, measure.ServerProcessor); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return nil
}

// cpu returns how long the processors have worked for a server so far.
func (r *running) cpu() (sum time.Duration, err error) {
	for _, pid := range measure.Family(r.pid) {
		used, err := measure.CPUTime(pid)
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

// log is what a server has printed.
func (r *running) log() string {
	if r.server == nil {
		return ""
	}
	return r.server.Log()
}

// untilRight waits until a sample of the questions is answered as it must be, one after the other, and returns when that
// was.
func (r *running) untilRight(ctx context.Context) (time.Time, error) {
	conn, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", r.port))
	if err != nil {
		return time.Time{}, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, rightWithin)
	defer cancel()
	for {
		err := measure.AllRight(conn, r.questions[:min(sample, len(r.questions))])
		if err == nil {
			return time.Now(), nil
		}
		if ctx.Err() != nil || !r.alive() {
			return time.Time{}, errors.Join(fmt.Errorf("%s: %w; its log:\n%s", r.name, err, r.log()), ctx.Err())
		}
		time.Sleep(pause) // who is starting has better things to do
	}
}
