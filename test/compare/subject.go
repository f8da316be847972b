//go:build linux

package compare

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/compare/world"
	"github.com/clusterset-dns/clusterset-dns/test/server"
)

const (
	clusterSetZone = "clusterset.local."
	clusterZone    = "cluster.local."
	// rightWithin bounds the wait for right answers after a start.
	rightWithin = time.Minute
	// sample is how many questions are asked to know that everything is there.
	sample = 64
)

// subject is a kind of server that is compared.
type subject struct {
	// name is what it is called in the tables.
	name string
	// zone is what it is asked about.
	zone string
	// plane is what it watches; nil for one that knows everything beforehand.
	plane *plane
	// floor says that it is not our binary, but the one with the two plugins that are a floor.
	floor bool
	// fixed says that it gives everything the same answer.
	fixed bool
	// corefile is its server block without ports (see block), given the kubeconfig and the number of services.
	corefile func(kubeconfig string, services int) string
}

// The subjects.
var (
	ours = subject{name: "ours", zone: clusterSetZone, plane: &everything,
		corefile: func(kubeconfig string, _ int) string { return stanza(kubeconfig, world.Cluster) }}
	kubernetes = subject{name: "kubernetes", zone: clusterZone, plane: &everything,
		corefile: func(kubeconfig string, _ int) string {
			return fmt.Sprintf("kubernetes cluster.local {\nkubeconfig %s\n}\n", kubeconfig)
		}}
	inTree = subject{name: "kubernetes, multicluster", zone: clusterSetZone, plane: &imports,
		corefile: func(kubeconfig string, _ int) string {
			return fmt.Sprintf("kubernetes cluster.local clusterset.local {\nkubeconfig %s\nmulticluster clusterset.local\n}\n", kubeconfig)
		}}
	prebuilt = subject{name: "prebuilt records", zone: clusterSetZone, floor: true,
		corefile: func(_ string, services int) string { return fmt.Sprintf("prebuilt clusterset.local %d\n", services) }}
	fixed = subject{name: "fixed record", zone: clusterSetZone, floor: true, fixed: true,
		corefile: func(string, int) string { return "fixed\n" }}
	chain = subject{name: "kubeadm's chain", zone: clusterZone, plane: &everything,
		corefile: func(kubeconfig string, _ int) string { return kubeadm(kubeconfig, "") }}
	chainOurs = subject{name: "kubeadm's chain, ours", zone: clusterSetZone, plane: &everything,
		corefile: func(kubeconfig string, _ int) string { return kubeadm(kubeconfig, stanza(kubeconfig, world.Cluster)) }}
)

// stanza is ours with everything switched on that takes time: locality, health and weights. Several clusters are the
// same API server under several names.
func stanza(kubeconfig string, names ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "locality {\ncluster %s eu\nnodes %s\ncidr 127.0.1.0/24 zone=eu-a\n}\n", names[0], kubeconfig)
	fmt.Fprintf(&b, "clusterhealth {\nprobe %s tcp 127.0.0.1:{{.Port \"pprof\"}}\n}\n", names[0])
	fmt.Fprintf(&b, "clusterset {\nlocal %s\n", names[0])
	for i, name := range names {
		fmt.Fprintf(&b, "cluster %s %s {\nregion eu\nweight %d\n", name, kubeconfig, 100)
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

// running is a subject that runs.
type running struct {
	subject
	server    *server.Server
	questions []question
}

// programs are the binaries.
type programs struct {
	controlPlane   clusters.Binaries
	coredns, floor string
}

// start runs a subject, on a processor of its own where there are two.
func (s subject) start(ctx context.Context, p programs, planes map[string]*clusters.Cluster, services int) (*running, error) {
	kubeconfig := ""
	if s.plane != nil {
		kubeconfig = planes[s.plane.name].Kubeconfig()
	}
	binary := p.coredns
	if s.floor {
		binary = p.floor
	}
	// What a server would do on a second processor, it does on the first: figures are those of one.
	started, err := server.Start(ctx, binary, block(s.corefile(kubeconfig, services)), server.Options{Env: []string{"GOMAXPROCS=1"}})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	r := &running{subject: s, server: started}
	r.questions, err = draw(s.zone, services, 1)
	if s.fixed {
		r.questions = anything(r.questions)
	}
	if err = errors.Join(err, pinProcess(started.PID(), serverProcessor)); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", s.name, err), started.Stop())
	}
	return r, nil
}

// untilRight waits until a sample of the questions is answered as it must be, one after the other, and returns when that
// was.
func (r *running) untilRight(ctx context.Context) (time.Time, error) {
	conn, err := net.Dial("udp", r.server.Addr())
	if err != nil {
		return time.Time{}, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, rightWithin)
	defer cancel()
	for {
		err := allRight(conn, r.questions[:sample])
		if err == nil {
			return time.Now(), nil
		}
		if ctx.Err() != nil || !r.server.Running() {
			return time.Time{}, fmt.Errorf("%s: %w, last: %w; its log:\n%s", r.name, context.Cause(ctx), err, r.server.Log())
		}
	}
}

// allRight asks one question after the other until an answer is wrong.
func allRight(conn net.Conn, questions []question) error {
	var answer [4096]byte
	for i := range questions {
		q := &questions[i]
		if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		if _, err := conn.Write(q.packet); err != nil {
			return err
		}
		n, err := conn.Read(answer[:])
		if err != nil {
			return err
		}
		if n < 12 || !bytes.Equal(answer[:2], q.packet[:2]) {
			return errors.New("an answer to something else")
		}
		if err := q.check(answer[:n]); err != nil {
			return err
		}
	}
	return nil
}
