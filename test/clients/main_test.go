package clients

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/kube"
	"github.com/clusterset-dns/clusterset-dns/test/server"
	"github.com/clusterset-dns/clusterset-dns/test/suite"
)

const (
	namespace = "clients"
	domain    = "." + namespace + ".svc.clusterset.local"
	// limit bounds each wait, and each program.
	limit = 60 * time.Second
	// many is how many endpoints the service "large" has: more than fit into 4096 octets, which is the most that a client asks
	// for over UDP.
	many             = 300
	endpointsPerPart = 100
)

// coredns is the server that is asked. Where it cannot be, cannot says why.
var (
	coredns *server.Server
	cannot  string
)

// truth are the addresses of each service.
var truth = map[string][]string{}

var must = suite.Must

func TestMain(m *testing.M) {
	os.Exit(suite.Run(m, func(ctx context.Context) (func() error, error) {
		if cannot = impossible(); cannot != "" {
			return func() error { return nil }, nil
		}
		return start(ctx)
	}))
}

// start brings up two clusters with some services, a network with a machine in it, and a server that this machine asks.
func start(ctx context.Context) (stop func() error, err error) {
	var stops []func() error
	stop = func() error {
		var errs []error
		for _, s := range slices.Backward(stops) {
			errs = append(errs, s())
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, stop())
		}
	}()
	binaries, err := clusters.Build(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	binary, err := server.Build(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	started, err := clusters.StartAll(ctx, binaries, clusters.Options{Name: "east"}, clusters.Options{Name: "west"})
	if err != nil {
		return nil, err
	}
	stops = append(stops, func() error { return clusters.StopAll(started...) })
	if err = fill(ctx, started[0], started[1]); err != nil {
		return nil, err
	}
	if err = layCable(); err != nil {
		return nil, err
	}
	stops = append(stops, removeCable)
	if coredns, err = server.Start(ctx, binary, corefile(started[0], started[1]), server.Options{}); err != nil {
		return nil, err
	}
	stops = append(stops, coredns.Stop)
	return stop, coredns.WaitReady(ctx)
}

// corefile has a block for whoever starts the server, and one for the machine, which says what it was asked. The TTL is short, so
// that a test can outlive it.
func corefile(east, west *clusters.Cluster) string {
	stanza := fmt.Sprintf("    clusterset {\n        local east\n        cluster east %s\n        cluster west %s {\n            address clusterip\n        }\n        ttl %d\n    }\n",
		east.Kubeconfig(), west.Kubeconfig(), ttl/time.Second)
	return ".:{{.DNS}} {\n    bind 127.0.0.1\n    errors\n    ready {{.Ready}}\n    prometheus {{.Metrics}}\n" + stanza + "}\n" +
		".:53 {\n    bind " + here + "\n    errors\n    log . \"" + logFormat + "\"\n" + stanza +
		"    template ANY ANY {\n        rcode NXDOMAIN\n    }\n}\n"
}

// fill makes the services: web has a cluster IP, the others are headless.
func fill(ctx context.Context, east, west *clusters.Cluster) error {
	inEast, err := kube.New(east)
	if err != nil {
		return err
	}
	inWest, err := kube.New(west)
	if err != nil {
		return err
	}
	if err := errors.Join(inEast.Namespace(ctx, namespace), inWest.Namespace(ctx, namespace)); err != nil {
		return err
	}
	web := kube.Simple{Namespace: namespace, Name: "web", Addresses: []string{"10.1.0.30"}}
	made, err := inEast.Service(ctx, web.Service())
	if err != nil {
		return err
	}
	truth["web"] = made.Spec.ClusterIPs
	if err := errors.Join(inEast.Slice(ctx, web.Slice()), inEast.Export(ctx, namespace, "web")); err != nil {
		return err
	}
	for _, s := range []struct {
		name      string
		in        kube.Client
		addresses []string
	}{
		{"db", inEast, []string{"10.1.0.20", "10.1.0.21", "fd00:10:1::20", "fd00:10:1::21"}},
		{"db", inWest, []string{"10.2.0.20", "fd00:10:2::20"}},
		{"order", inEast, order()},
		{"rpc", inEast, []string{here}},
		{"kept", inEast, []string{"10.1.0.22"}},
		{"searched", inEast, []string{"10.1.0.23"}},
		{"absolute", inEast, []string{"10.1.0.24"}},
		{"large", inWest, counted("10.3.0.0", many)},
	} {
		if err := headless(ctx, s.in, s.name, s.addresses); err != nil {
			return err
		}
		truth[s.name] = append(truth[s.name], s.addresses...)
	}
	return nil
}

// order are addresses of both families, half of them in the network that the machine is in.
func order() []string {
	var all []string
	for i := range 4 {
		all = append(all, fmt.Sprintf("10.2.0.%d", 41+2*i), fmt.Sprintf("10.9.0.%d", 42+2*i),
			fmt.Sprintf("fd00:10:2::%d", 41+2*i), fmt.Sprintf("fd00:10:9::%d", 42+2*i))
	}
	return all
}

// counted returns n addresses after the first one.
func counted(first string, n int) []string {
	all := make([]string, n)
	for i, a := 0, netip.MustParseAddr(first); i < n; i++ {
		a = a.Next()
		all[i] = a.String()
	}
	return all
}

// headless makes and exports a headless service with one TCP port, http. Its endpoints have host names NAME-0, NAME-1 and so on in
// each family.
func headless(ctx context.Context, c kube.Client, name string, addresses []string) error {
	if _, err := c.Service(ctx, kube.Simple{Namespace: namespace, Name: name, Headless: true}.Service()); err != nil {
		return err
	}
	for _, v4 := range []bool{true, false} {
		var of []string
		for _, a := range addresses {
			if netip.MustParseAddr(a).Is4() == v4 {
				of = append(of, a)
			}
		}
		part := 0
		for chunk := range slices.Chunk(of, endpointsPerPart) {
			if err := c.Slice(ctx, slice(name, part, v4, chunk)); err != nil {
				return err
			}
			part++
		}
	}
	return c.Export(ctx, namespace, name)
}

func slice(name string, part int, v4 bool, addresses []string) *discoveryv1.EndpointSlice {
	port, http, tcp, ready, family := int32(8080), "http", corev1.ProtocolTCP, true, discoveryv1.AddressTypeIPv6
	if v4 {
		family = discoveryv1.AddressTypeIPv4
	}
	object := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: strings.ToLower(name + "-" + string(family) + "-" + strconv.Itoa(part)),
			Labels: map[string]string{discoveryv1.LabelServiceName: name},
		},
		AddressType: family,
		Ports:       []discoveryv1.EndpointPort{{Name: &http, Port: &port, Protocol: &tcp}},
	}
	for i, a := range addresses {
		host := name + "-" + strconv.Itoa(part*endpointsPerPart+i)
		object.Endpoints = append(object.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{a}, Hostname: &host, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		})
	}
	return object
}
