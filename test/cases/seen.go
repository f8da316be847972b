package cases

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/test/server"
)

const (
	// seenNamespace holds the objects by which the runner sees how far a server has read.
	seenNamespace = "cases-seen"
	// seenTimeout is how long a server may take to show a write. It needs milliseconds; a loaded machine has time.
	seenTimeout = 20 * time.Second
)

// seen writes, after everything else, one more object of every kind that is watched, and waits until a server shows
// all of them. An API server hands out the objects of one kind in the order in which they were written, so that a server
// that shows these has read what the worlds wrote before: a name that is denied then is not just late.
type seen struct {
	planes []*plane
	round  int
}

// write begins another round.
func (s *seen) write(ctx context.Context) error {
	s.round++
	errs := make([]error, len(s.planes))
	var group sync.WaitGroup
	for i, p := range s.planes {
		group.Go(func() {
			for _, o := range s.objects(i) {
				if _, err := p.put(ctx, o); err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// objects are those of the i-th cluster in this round. Some are new in each round, the others change in it.
func (s *seen) objects(i int) []Object {
	name := s.planes[i].Name()
	fresh := fmt.Sprintf("fresh-%s-%d", name, s.round)
	made := []Object{
		head("Namespace", "", seenNamespace, nil),
		// A slice that changes: the watch of EndpointSlices.
		seenService("slice-"+name, "None", 80),
		seenSlice("slice-"+name, s.address(i), nil),
		head("ServiceExport", seenNamespace, "slice-"+name, nil),
		// A Service that changes: the watch of Services.
		seenService("port-"+name, s.serviceIP(i), s.port()),
		seenSlice("port-"+name, s.address(i), nil),
		head("ServiceExport", seenNamespace, "port-"+name, nil),
		// A new export: the watch of ServiceExports.
		seenService(fresh, "None", 80),
		seenSlice(fresh, s.address(i), nil),
		head("ServiceExport", seenNamespace, fresh, nil),
		// ServiceImports, and the slices that belong to one.
		seenImport("ips-"+name, "ClusterSetIP", s.address(i)),
		seenImport("pods-"+name, "Headless", ""),
		seenSlice("pods-"+name, s.address(i), map[string]any{
			"multicluster.kubernetes.io/service-name":   "pods-" + name,
			"multicluster.kubernetes.io/source-cluster": "seen",
		}),
		head("Namespace", "", s.namespace(), nil),
	}
	return made
}

func head(kind, namespace, name string, spec map[string]any) Object {
	o := Object{"apiVersion": apiVersions[kind], "kind": kind, "metadata": map[string]any{"name": name}}
	if namespace != "" {
		o.metadata()["namespace"] = namespace
	}
	if spec != nil {
		o["spec"] = spec
	}
	return o
}

func seenService(name, ip string, port int64) Object {
	return head("Service", seenNamespace, name, map[string]any{
		"clusterIP": ip, "ports": []any{map[string]any{"name": "seen", "protocol": "TCP", "port": port}},
	})
}

func seenSlice(service, address string, labels map[string]any) Object {
	if labels == nil {
		labels = map[string]any{"kubernetes.io/service-name": service}
	}
	labels["endpointslice.kubernetes.io/managed-by"] = "cases.example.test"
	o := head("EndpointSlice", seenNamespace, service, nil)
	o.metadata()["labels"] = labels
	o["addressType"] = "IPv4"
	o["ports"] = []any{map[string]any{"name": "seen", "protocol": "TCP", "port": int64(80)}}
	o["endpoints"] = []any{map[string]any{"addresses": []any{address}, "conditions": map[string]any{"ready": true}}}
	return o
}

func seenImport(name, form, ip string) Object {
	spec := map[string]any{"type": form, "ports": []any{map[string]any{"name": "seen", "protocol": "TCP", "port": int64(80)}}}
	if ip != "" {
		spec["ips"] = []any{ip}
	}
	return head("ServiceImport", seenNamespace, name, spec)
}

func (s *seen) address(i int) string { return fmt.Sprintf("198.18.%d.%d", i, s.round) }

// serviceIP lies at the end of the cluster's service network, far from those of the worlds.
func (s *seen) serviceIP(i int) string { return fmt.Sprintf("10.%d.255.10", firstNetwork+i) }

func (s *seen) port() int64 { return int64(10000 + s.round) }

func (s *seen) namespace() string { return fmt.Sprintf("cases-seen-%d", s.round) }

// wait returns when the server shows this round, of every member that it can reach.
func (s *seen) wait(ctx context.Context, srv *server.Server, in *setup, reached func(cluster string) bool) error {
	ctx, cancel := context.WithTimeout(ctx, seenTimeout)
	defer cancel()
	for _, question := range s.questions(in, reached) {
		if err := untilAnswered(ctx, srv, question); err != nil {
			return fmt.Errorf("the server does not show the last write: %w", err)
		}
	}
	return nil
}

// sign is a question whose answer proves that a write has been read.
type sign struct {
	name  string
	qtype uint16
	want  string // in the answer; "" for any answer but NXDOMAIN
}

func (s *seen) questions(in *setup, reached func(cluster string) bool) []sign {
	var all []sign
	name := func(service string) string { return service + "." + seenNamespace + ".svc." + in.zone() }
	for i, p := range s.planes {
		if in.id(p.Name()) == "" || !reached(p.Name()) {
			continue
		}
		all = append(all,
			sign{name("slice-" + p.Name()), dns.TypeA, s.address(i)},
			sign{name("port-" + p.Name()), dns.TypeSRV, fmt.Sprint(s.port())},
			sign{name(fmt.Sprintf("fresh-%s-%d", p.Name(), s.round)), dns.TypeA, s.address(i)})
	}
	if in.local != "" && reached(in.local) {
		all = append(all, sign{s.namespace() + ".svc." + in.zone(), dns.TypeA, ""})
	}
	if i := slices.IndexFunc(s.planes, func(p *plane) bool { return p.Name() == in.imports }); i >= 0 && reached(in.imports) {
		all = append(all, sign{name("ips-" + in.imports), dns.TypeA, s.address(i)}, sign{name("pods-" + in.imports), dns.TypeA, s.address(i)})
	}
	return all
}

// untilAnswered asks until the answer shows the sign.
func untilAnswered(ctx context.Context, srv *server.Server, q sign) error {
	var last error
	for {
		m, err := srv.Query(ctx, q.name, q.qtype)
		if err == nil {
			if q.shownIn(m) {
				return nil
			}
			err = fmt.Errorf("asked %s %s, got %s", q.name, dns.TypeToString[q.qtype], formatAnswer(m))
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return errors.Join(last, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (q sign) shownIn(m *dns.Msg) bool {
	if q.want == "" {
		return m.Rcode == dns.RcodeSuccess
	}
	return slices.ContainsFunc(m.Answer, func(rr dns.RR) bool { return slices.Contains(strings.Fields(rdata(rr)), q.want) })
}
