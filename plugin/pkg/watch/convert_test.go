package watch

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	mcsv1alpha1 "sigs.k8s.io/mcs-api/pkg/apis/v1alpha1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// rejections collects what a converter left out, in order.
type rejections []Rejection

func (r *rejections) converter() converter {
	return converter{reject: func(reason Rejection) { *r = append(*r, reason) }, ports: &portLists{}}
}

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

// badAddresses are refused wherever an address may stand.
var badAddresses = []struct{ name, text string }{
	{"nothing", ""},
	{"no address", "example.org"},
	{"a network", "10.0.0.0/8"},
	{"leading zeros", "010.0.0.1"},
	{"a scope", "fd00::1%eth0"},
	{"IPv4 in IPv6", "::ffff:10.0.0.1"},
	{"IPv4 loopback in IPv6", "::ffff:127.0.0.1"},
	{"IPv4 loopback in IPv6, in hexadecimal", "::ffff:7f00:1"},
	{"IPv4 loopback", "127.0.0.1"},
	{"IPv4 loopback, not the first", "127.255.1.2"},
	{"IPv6 loopback", "::1"},
	{"IPv6 loopback, in full", "0:0:0:0:0:0:0:1"},
	{"IPv4 link-local, where clouds have their metadata", "169.254.169.254"},
	{"IPv6 link-local", "fe80::1"},
	{"IPv4 multicast", "224.0.0.1"},
	{"IPv6 multicast", "ff02::1"},
	{"IPv4 unspecified", "0.0.0.0"},
	{"IPv6 unspecified", "::"},
	{"IPv4 broadcast", "255.255.255.255"},
}

func TestBadAddressesAreRefusedEverywhere(t *testing.T) {
	for _, bad := range badAddresses {
		t.Run(bad.name, func(t *testing.T) {
			var left rejections
			c := left.converter()
			family := discoveryv1.AddressTypeIPv4
			if strings.Contains(bad.text, ":") {
				family = discoveryv1.AddressTypeIPv6
			}
			slice := c.slice(&discoveryv1.EndpointSlice{AddressType: family, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{bad.text}}}})
			if slice.Endpoints.Len() != 0 {
				t.Errorf("An endpoint may be %v", slice.Endpoints.Addr(0))
			}
			service := c.service(&corev1.Service{Spec: corev1.ServiceSpec{ClusterIPs: []string{bad.text}}})
			if service.ClusterIPs != (mcs.Addresses{}) {
				t.Errorf("A cluster IP may be %v", service.ClusterIPs)
			}
			_, imp, _ := c.serviceImport(&mcsv1beta1.ServiceImport{ObjectMeta: meta("shop", "web"),
				Spec: mcsv1beta1.ServiceImportSpec{Type: mcsv1beta1.ClusterSetIP, IPs: []string{bad.text}}})
			if imp.IPs != (mcs.Addresses{}) {
				t.Errorf("A ClusterSet IP may be %v", imp.IPs)
			}
			want := 3
			if bad.text != "" { // an ingress without IP has a host name
				want++
				balanced := &corev1.Service{}
				balanced.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: bad.text}}
				if got := c.service(balanced).LoadBalancer; got != nil {
					t.Errorf("A load balancer's address may be %v", got)
				}
			}
			if !slices.Equal(left, slices.Repeat(rejections{BadAddress}, want)) {
				t.Errorf("Counted %v, want %d times %s", left, want, BadAddress)
			}
		})
	}
}

func TestConvertExport(t *testing.T) {
	created := metav1.NewTime(time.Unix(1_700_000_000, 0))
	m := meta("shop", "web")
	m.CreationTimestamp = created
	m.Labels = map[string]string{"not": "exported"}
	labels, annotations := map[string]string{"a": "1"}, map[string]string{"b": "2"}
	want := mcs.Export{Created: 1_700_000_000, WeightPercent: 100, Labels: mcs.Digest(labels), Annotations: mcs.Digest(annotations)}
	named := func(namespace, name string) *mcsv1beta1.ServiceExport {
		return &mcsv1beta1.ServiceExport{ObjectMeta: meta(namespace, name)}
	}
	weighed := func(text string) *mcsv1beta1.ServiceExport {
		o := named("shop", "web")
		o.CreationTimestamp, o.Annotations = created, map[string]string{annotationWeight: text}
		return o
	}
	percent := func(n uint8) mcs.Export { return mcs.Export{Created: 1_700_000_000, WeightPercent: n} }
	for _, tc := range []struct {
		name string
		obj  any
		want mcs.Export
		ok   bool
		left rejections
	}{
		{"v1beta1", &mcsv1beta1.ServiceExport{ObjectMeta: m, Spec: mcsv1beta1.ServiceExportSpec{ExportedLabels: labels, ExportedAnnotations: annotations}}, want, true, nil},
		{"v1alpha1", &mcsv1alpha1.ServiceExport{ObjectMeta: m, Spec: mcsv1alpha1.ServiceExportSpec{ExportedLabels: labels, ExportedAnnotations: annotations}}, want, true, nil},
		{"a namespace with a dot", named("sh.op", "web"), mcs.Export{}, false, rejections{BadName}},
		{"a name with a dot", named("shop", "web.v2"), mcs.Export{}, false, rejections{BadName}},
		{"a name in upper case", named("shop", "Web"), mcs.Export{}, false, rejections{BadName}},
		{"a name of 64 characters", named("shop", strings.Repeat("w", 64)), mcs.Export{}, false, rejections{BadName}},
		{"no name", named("shop", ""), mcs.Export{}, false, rejections{BadName}},
		{"no namespace", named("", "web"), mcs.Export{}, false, rejections{BadName}},
		{"another kind", &corev1.Pod{ObjectMeta: m}, mcs.Export{}, false, nil},
		{"a weight-percent of 0 drains", weighed("0"), percent(0), true, nil},
		{"a weight-percent between", weighed("37"), percent(37), true, nil},
		{"a weight-percent above 100 counts as none", weighed("101"), percent(100), true, rejections{BadWeight}},
		{"a negative weight-percent counts as none", weighed("-1"), percent(100), true, rejections{BadWeight}},
		{"a weight-percent that is no number counts as none", weighed("half"), percent(100), true, rejections{BadWeight}},
		{"an empty weight-percent counts as none", weighed(""), percent(100), true, rejections{BadWeight}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var left rejections
			key, got, ok := left.converter().export(tc.obj)
			if ok != tc.ok || ok && (got != tc.want || key != (mcs.ServiceKey{Namespace: "shop", Name: "web"})) {
				t.Errorf("Got %v %+v, %v, want %+v, %v", key, got, ok, tc.want, tc.ok)
			}
			if !slices.Equal(left, tc.left) {
				t.Errorf("Counted %v, want %v", left, tc.left)
			}
		})
	}
}

func TestConvertService(t *testing.T) {
	service := func(change func(*corev1.ServiceSpec)) *corev1.Service {
		s := &corev1.Service{Spec: corev1.ServiceSpec{ClusterIPs: []string{"10.0.0.1"}, ClusterIP: "10.0.0.1", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}}}
		change(&s.Spec)
		return s
	}
	basic := func(change func(*mcs.ServiceSpec)) *mcs.ServiceSpec {
		s := &mcs.ServiceSpec{Traits: mcs.Traits{IPv4: true}}
		s.ClusterIPs[0] = netip.MustParseAddr("10.0.0.1")
		change(s)
		return s
	}
	ingress := func(all ...corev1.LoadBalancerIngress) *corev1.Service {
		s := service(func(*corev1.ServiceSpec) {})
		s.Status.LoadBalancer.Ingress = all
		return s
	}
	port := func(p ...corev1.ServicePort) *corev1.Service {
		return service(func(s *corev1.ServiceSpec) { s.Ports = p })
	}
	withPorts := func(p ...mcs.Port) *mcs.ServiceSpec {
		return basic(func(s *mcs.ServiceSpec) { s.Ports = p })
	}
	for _, tc := range []struct {
		name string
		in   *corev1.Service
		want *mcs.ServiceSpec
		left rejections
	}{
		{"an object without any field", &corev1.Service{}, &mcs.ServiceSpec{}, nil},
		{"a cluster IP", service(func(*corev1.ServiceSpec) {}), basic(func(*mcs.ServiceSpec) {}), nil},
		{"the old field alone", service(func(s *corev1.ServiceSpec) { s.ClusterIPs = nil }), basic(func(*mcs.ServiceSpec) {}), nil},
		{"two families", service(func(s *corev1.ServiceSpec) {
			s.ClusterIPs, s.IPFamilies = []string{"fd00::1", "10.0.0.1"}, []corev1.IPFamily{corev1.IPv6Protocol, corev1.IPv4Protocol}
		}), basic(func(s *mcs.ServiceSpec) {
			s.IPv6, s.ClusterIPs = true, mcs.Addresses(addrs("fd00::1", "10.0.0.1"))
		}), nil},
		{"more cluster IPs than there are families", service(func(s *corev1.ServiceSpec) {
			s.ClusterIPs = []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}
		}), basic(func(s *mcs.ServiceSpec) { s.ClusterIPs = mcs.Addresses(addrs("10.0.0.1", "10.0.0.2")) }), nil},
		{"a bad cluster IP leaves the good one", service(func(s *corev1.ServiceSpec) { s.ClusterIPs = []string{"x", "10.0.0.1"} }), basic(func(*mcs.ServiceSpec) {}), rejections{BadAddress}},
		{"headless", service(func(s *corev1.ServiceSpec) { s.ClusterIPs = []string{"None"} }), &mcs.ServiceSpec{Traits: mcs.Traits{Type: mcs.Headless, IPv4: true}}, nil},
		{"headless by the old field alone", service(func(s *corev1.ServiceSpec) { s.ClusterIPs, s.ClusterIP = nil, "None" }), &mcs.ServiceSpec{Traits: mcs.Traits{Type: mcs.Headless, IPv4: true}}, nil},
		{"ExternalName", &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.org"}}, &mcs.ServiceSpec{ExternalName: true}, nil},
		{"NodePort and LoadBalancer are ClusterSetIP", service(func(s *corev1.ServiceSpec) { s.Type = corev1.ServiceTypeNodePort }), basic(func(*mcs.ServiceSpec) {}), nil},
		{"publishNotReadyAddresses", service(func(s *corev1.ServiceSpec) { s.PublishNotReadyAddresses = true }), basic(func(s *mcs.ServiceSpec) { s.PublishNotReady = true }), nil},
		{"affinity with a timeout", service(func(s *corev1.ServiceSpec) {
			s.SessionAffinity = corev1.ServiceAffinityClientIP
			s.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(int32(60))}}
		}), basic(func(s *mcs.ServiceSpec) { s.ClientIPAffinity, s.AffinitySeconds = true, 60 }), nil},
		{"affinity with an empty configuration", service(func(s *corev1.ServiceSpec) {
			s.SessionAffinity, s.SessionAffinityConfig = corev1.ServiceAffinityClientIP, &corev1.SessionAffinityConfig{}
		}), basic(func(s *mcs.ServiceSpec) { s.ClientIPAffinity = true }), nil},
		{"affinity with an empty ClientIP", service(func(s *corev1.ServiceSpec) {
			s.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{}}
		}), basic(func(*mcs.ServiceSpec) {}), nil},
		{"traffic policy and distribution", service(func(s *corev1.ServiceSpec) {
			s.InternalTrafficPolicy, s.TrafficDistribution = new(corev1.ServiceInternalTrafficPolicyLocal), new("PreferSameZone")
		}), basic(func(s *mcs.ServiceSpec) { s.InternalTrafficPolicy, s.TrafficDistribution = "Local", "PreferSameZone" }), nil},
		{"load balancer addresses and names, sorted", ingress(
			corev1.LoadBalancerIngress{IP: "192.0.2.2"}, corev1.LoadBalancerIngress{Hostname: "LB.example.org."}, corev1.LoadBalancerIngress{IP: "192.0.2.1"},
			corev1.LoadBalancerIngress{Hostname: "a.example.org"}, corev1.LoadBalancerIngress{Hostname: "lb.example.org"},
		), basic(func(s *mcs.ServiceSpec) {
			s.LoadBalancer = &mcs.LoadBalancer{Addrs: addrs("192.0.2.1", "192.0.2.2"), Hosts: []string{"a.example.org", "lb.example.org"}}
		}), nil},
		{"a load balancer's name that is none, or that a search path could complete", ingress(
			corev1.LoadBalancerIngress{Hostname: "lb"}, corev1.LoadBalancerIngress{Hostname: "a..b"}, corev1.LoadBalancerIngress{Hostname: "*.example.org"},
		), basic(func(*mcs.ServiceSpec) {}), rejections{BadHostname, BadHostname, BadHostname}},
		{"ports of each protocol, TCP by default", port(
			corev1.ServicePort{Name: "a", Port: 1}, corev1.ServicePort{Name: "b", Port: 2, Protocol: "UDP"},
			corev1.ServicePort{Name: "c", Port: 3, Protocol: "SCTP"}, corev1.ServicePort{Port: 65535, Protocol: "TCP"},
		), withPorts(mcs.Port{Name: "a", Number: 1}, mcs.Port{Name: "b", Protocol: mcs.UDP, Number: 2},
			mcs.Port{Name: "c", Protocol: mcs.SCTP, Number: 3}, mcs.Port{Number: 65535}), nil},
		{"a port's name in upper case is folded", port(corev1.ServicePort{Name: "HTTP", Port: 80}), withPorts(mcs.Port{Name: "http", Number: 80}), nil},
		{"bad ports leave the good one", port(
			corev1.ServicePort{Name: "zero", Port: 0}, corev1.ServicePort{Name: "negative", Port: -1}, corev1.ServicePort{Name: "large", Port: 65536},
			corev1.ServicePort{Name: "wraps", Port: 65536 + 80}, corev1.ServicePort{Name: "icmp", Port: 1, Protocol: "ICMP"},
			corev1.ServicePort{Name: "tcp", Port: 1, Protocol: "tcp"}, corev1.ServicePort{Name: "a.b", Port: 1},
			corev1.ServicePort{Name: "_a", Port: 1}, corev1.ServicePort{Name: strings.Repeat("p", 64), Port: 1},
			corev1.ServicePort{Name: "http", Port: 80},
		), withPorts(mcs.Port{Name: "http", Number: 80}), slices.Repeat(rejections{BadPort}, 9)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var left rejections
			if got := left.converter().service(tc.in); !got.Equal(tc.want) {
				t.Errorf("Got %+v, want %+v", got, tc.want)
			}
			if !slices.Equal(left, tc.left) {
				t.Errorf("Counted %v, want %v", left, tc.left)
			}
		})
	}
}

func TestConvertServiceImport(t *testing.T) {
	spec := mcsv1beta1.ServiceImportSpec{
		Type: mcsv1beta1.ClusterSetIP, IPs: []string{"172.30.0.1", "fd00::1"},
		Ports:                 []mcsv1beta1.ServicePort{{Name: "http", Port: 80}, {Name: "bad", Port: 0}},
		IPFamilies:            []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol},
		SessionAffinity:       corev1.ServiceAffinityClientIP,
		SessionAffinityConfig: &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(int32(9))}},
		InternalTrafficPolicy: new(corev1.ServiceInternalTrafficPolicyLocal),
		TrafficDistribution:   new("PreferClose"),
	}
	want := mcs.Import{
		Traits: mcs.Traits{ClientIPAffinity: true, AffinitySeconds: 9, InternalTrafficPolicy: "Local", TrafficDistribution: "PreferClose", IPv4: true, IPv6: true},
		IPs:    mcs.Addresses(addrs("172.30.0.1", "fd00::1")), NoSlices: true, Ports: []mcs.Port{{Name: "http", Number: 80}},
	}
	full := &mcsv1beta1.ServiceImport{ObjectMeta: meta("shop", "web"), Spec: spec}
	full.Status.EndpointSliceObjects = mcsv1beta1.EndpointSliceObjectsAbsent
	// The two versions have the same schema, so the same JSON is both.
	text, err := json.Marshal(full)
	if err != nil {
		t.Fatal(err)
	}
	alpha := &mcsv1alpha1.ServiceImport{}
	if err := json.Unmarshal(text, alpha); err != nil {
		t.Fatal(err)
	}
	of := func(change func(*mcsv1beta1.ServiceImport)) *mcsv1beta1.ServiceImport {
		o := &mcsv1beta1.ServiceImport{ObjectMeta: meta("shop", "web"), Spec: mcsv1beta1.ServiceImportSpec{Type: mcsv1beta1.ClusterSetIP}}
		change(o)
		return o
	}
	for _, tc := range []struct {
		name string
		obj  any
		want mcs.Import
		ok   bool
		left rejections
	}{
		{"v1beta1", full, want, true, rejections{BadPort}},
		{"v1alpha1", alpha, want, true, rejections{BadPort}},
		{"ClusterSetIP without an IP yet and without ports", of(func(*mcsv1beta1.ServiceImport) {}), mcs.Import{}, true, nil},
		{"headless: IPs would make no sense", of(func(o *mcsv1beta1.ServiceImport) {
			o.Spec.Type, o.Spec.IPs = mcsv1beta1.Headless, []string{"172.30.0.1"}
		}), mcs.Import{Traits: mcs.Traits{Type: mcs.Headless}}, true, nil},
		{"slices are present", of(func(o *mcsv1beta1.ServiceImport) { o.Status.EndpointSliceObjects = "Present" }), mcs.Import{}, true, nil},
		{"an unknown type", of(func(o *mcsv1beta1.ServiceImport) { o.Spec.Type = "Nonsense" }), mcs.Import{}, false, rejections{BadType}},
		{"no type", of(func(o *mcsv1beta1.ServiceImport) { o.Spec.Type = "" }), mcs.Import{}, false, rejections{BadType}},
		{"a name that is too long", of(func(o *mcsv1beta1.ServiceImport) { o.Name = strings.Repeat("w", 64) }), mcs.Import{}, false, rejections{BadName}},
		{"a bad IP leaves the good one", of(func(o *mcsv1beta1.ServiceImport) { o.Spec.IPs = []string{"127.0.0.1", "172.30.0.1"} }),
			mcs.Import{IPs: mcs.Addresses{netip.MustParseAddr("172.30.0.1")}}, true, rejections{BadAddress}},
		{"another kind", &corev1.Pod{}, mcs.Import{}, false, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var left rejections
			_, got, ok := left.converter().serviceImport(tc.obj)
			if ok != tc.ok || !(&mcs.ImportShard{Import: got}).Equal(&mcs.ImportShard{Import: tc.want}) {
				t.Errorf("Got %+v, %v, want %+v, %v", got, ok, tc.want, tc.ok)
			}
			if !slices.Equal(left, tc.left) {
				t.Errorf("Counted %v, want %v", left, tc.left)
			}
		})
	}
}

// TestV1alpha1ImportsHaveTheSameFields fails when a version of the API gains a field that the other lacks.
func TestV1alpha1ImportsHaveTheSameFields(t *testing.T) {
	for _, pair := range [][2]reflect.Type{
		{reflect.TypeFor[mcsv1alpha1.ServiceImportSpec](), reflect.TypeFor[mcsv1beta1.ServiceImportSpec]()},
		{reflect.TypeFor[mcsv1alpha1.ServiceExportSpec](), reflect.TypeFor[mcsv1beta1.ServiceExportSpec]()},
	} {
		for field := range pair[1].Fields() {
			if _, ok := pair[0].FieldByName(field.Name); !ok {
				t.Errorf("%s has no %s", pair[0], field.Name)
			}
		}
	}
}

func TestConvertSlice(t *testing.T) {
	const all = mcs.Ready | mcs.Serving
	e := func(addr, label string, c mcs.Conditions) mcs.Endpoint {
		return mcs.Endpoint{Addr: netip.MustParseAddr(addr), Label: label, Conditions: c}
	}
	v4 := func(endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{ObjectMeta: meta("shop", "web-1"), AddressType: discoveryv1.AddressTypeIPv4, Endpoints: endpoints}
	}
	v6 := func(endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
		s := v4(endpoints...)
		s.AddressType = discoveryv1.AddressTypeIPv6
		return s
	}
	at := func(addrs ...string) discoveryv1.Endpoint { return discoveryv1.Endpoint{Addresses: addrs} }
	host := func(name string, addrs ...string) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{Addresses: addrs, Hostname: &name}
	}
	ports := func(p ...discoveryv1.EndpointPort) *discoveryv1.EndpointSlice {
		s := v4()
		s.Ports = p
		return s
	}
	conditions := func(ready, serving, terminating *bool) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{Addresses: []string{"10.0.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: ready, Serving: serving, Terminating: terminating}}
	}
	yes, no := new(true), new(false)
	for _, tc := range []struct {
		name      string
		in        *discoveryv1.EndpointSlice
		endpoints []mcs.Endpoint
		ports     []mcs.Port
		left      rejections
	}{
		{"nil conditions are ready and serving", v4(conditions(nil, nil, nil)), []mcs.Endpoint{e("10.0.0.1", "10-0-0-1", all)}, nil, nil},
		{"not ready", v4(conditions(no, nil, nil)), []mcs.Endpoint{e("10.0.0.1", "10-0-0-1", mcs.Serving)}, nil, nil},
		{"terminating", v4(conditions(no, no, yes)), []mcs.Endpoint{e("10.0.0.1", "10-0-0-1", mcs.Terminating)}, nil, nil},
		{"all said", v4(conditions(yes, yes, no)), []mcs.Endpoint{e("10.0.0.1", "10-0-0-1", all)}, nil, nil},
		{"several addresses are several endpoints", v4(at("10.0.0.1", "10.0.0.2")), []mcs.Endpoint{e("10.0.0.1", "10-0-0-1", all), e("10.0.0.2", "10-0-0-2", all)}, nil, nil},
		{"IPv6", v6(at("fd00::1")), []mcs.Endpoint{e("fd00::1", "fd00--1", all)}, nil, nil},
		{"an endpoint without address", v4(at()), nil, nil, nil},
		{"a hostname", v4(host("db-0", "10.0.0.1")), []mcs.Endpoint{e("10.0.0.1", "db-0", all)}, nil, nil},
		{"a hostname in upper case", v4(host("DB-0", "10.0.0.1")), []mcs.Endpoint{e("10.0.0.1", "db-0", all)}, nil, nil},
		{"an empty hostname", v4(host("", "10.0.0.1")), []mcs.Endpoint{e("10.0.0.1", "10-0-0-1", all)}, nil, nil},
		{"a hostname with a dot is left, not its endpoint", v4(host("db.0", "10.0.0.1")), []mcs.Endpoint{e("10.0.0.1", "10-0-0-1", all)}, nil, rejections{BadHostname}},
		{"a hostname with an underscore", v4(host("_tcp", "10.0.0.1")), []mcs.Endpoint{e("10.0.0.1", "10-0-0-1", all)}, nil, rejections{BadHostname}},
		{"a hostname of 64 characters", v4(host(strings.Repeat("h", 64), "10.0.0.1")), []mcs.Endpoint{e("10.0.0.1", "10-0-0-1", all)}, nil, rejections{BadHostname}},
		{"a hostname that is no text", v4(host("\x00\xff", "10.0.0.1")), []mcs.Endpoint{e("10.0.0.1", "10-0-0-1", all)}, nil, rejections{BadHostname}},
		{"IPv4 in an IPv6 slice", v6(at("10.0.0.1", "fd00::1")), []mcs.Endpoint{e("fd00::1", "fd00--1", all)}, nil, rejections{BadAddress}},
		{"IPv6 in an IPv4 slice", v4(at("fd00::1", "10.0.0.1")), []mcs.Endpoint{e("10.0.0.1", "10-0-0-1", all)}, nil, rejections{BadAddress}},
		{"a bad address leaves the others", v4(at("127.0.0.1"), at("10.0.0.1")), []mcs.Endpoint{e("10.0.0.1", "10-0-0-1", all)}, nil, rejections{BadAddress}},
		{"node, zone and target", v4(discoveryv1.Endpoint{Addresses: []string{"10.0.0.1"}, NodeName: new("n1"), Zone: new("z1"), TargetRef: &corev1.ObjectReference{UID: "u1"}}),
			[]mcs.Endpoint{{Addr: netip.MustParseAddr("10.0.0.1"), Label: "10-0-0-1", ID: targetID("u1"), Node: "n1", Zone: "z1", Conditions: all}}, nil, nil},
		{"ports", ports(discoveryv1.EndpointPort{Name: new("http"), Port: new(int32(8080))}, discoveryv1.EndpointPort{Name: new("dns"), Protocol: new(corev1.ProtocolUDP), Port: new(int32(53))}),
			nil, []mcs.Port{{Name: "http", Number: 8080}, {Name: "dns", Protocol: mcs.UDP, Number: 53}}, nil},
		{"a port without a name", ports(discoveryv1.EndpointPort{Port: new(int32(80))}), nil, []mcs.Port{{Number: 80}}, nil},
		{"a port without a number means all ports, and is left without a word", ports(discoveryv1.EndpointPort{Name: new("http")}), nil, nil, nil},
		{"bad ports", ports(discoveryv1.EndpointPort{Port: new(int32(0))}, discoveryv1.EndpointPort{Port: new(int32(70000))}, discoveryv1.EndpointPort{Port: new(int32(1)), Name: new("a b")},
			discoveryv1.EndpointPort{Port: new(int32(1)), Protocol: new(corev1.Protocol("QUIC"))}), nil, nil, slices.Repeat(rejections{BadPort}, 4)},
		{"nothing but a type", v4(), nil, nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var left rejections
			got := left.converter().slice(tc.in)
			if want := (&mcs.Slice{Name: "web-1", Ports: tc.ports, Endpoints: mcs.Pack(tc.endpoints...)}); !got.Equal(want) {
				t.Errorf("Got %+v, want %+v", got, want)
			}
			if !slices.Equal(left, tc.left) {
				t.Errorf("Counted %v, want %v", left, tc.left)
			}
		})
	}
	for _, kind := range []discoveryv1.AddressType{discoveryv1.AddressTypeFQDN, "", "IPv5", "ipv4"} {
		t.Run(fmt.Sprintf("address type %q holds no IP addresses", kind), func(t *testing.T) {
			var left rejections
			s := v4(at("10.0.0.1"))
			s.AddressType = kind
			if got := left.converter().slice(s); got != nil || !slices.Equal(left, rejections{BadAddressType}) {
				t.Errorf("Got %+v, counted %v", got, left)
			}
		})
	}
}

func TestServiceOfASlice(t *testing.T) {
	for _, tc := range []struct {
		name   string
		labels map[string]string
		want   mcs.ServiceKey
	}{
		{"its service-name label", map[string]string{labelServiceName: "web"}, mcs.ServiceKey{Namespace: "shop", Name: "web"}},
		{"an imported copy belongs to nobody here", map[string]string{labelServiceName: "web", labelImportName: "web"}, mcs.ServiceKey{}},
		{"an imported copy with an empty label, too", map[string]string{labelServiceName: "web", labelImportName: ""}, mcs.ServiceKey{}},
		{"and one that only says where it is from", map[string]string{labelServiceName: "web", labelSourceCluster: "west"}, mcs.ServiceKey{}},
		{"no label: a name that nothing has", nil, mcs.ServiceKey{Namespace: "shop"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := meta("shop", "web-1")
			m.Labels = tc.labels
			if got := serviceOf(&discoveryv1.EndpointSlice{ObjectMeta: m}); got != tc.want {
				t.Errorf("Got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestChangedAtAndVersion(t *testing.T) {
	s := &discoveryv1.EndpointSlice{}
	for text, want := range map[string]time.Time{
		"2026-01-02T03:04:05.678Z": time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC),
		"yesterday":                {},
		"":                         {},
	} {
		s.Annotations = map[string]string{annotationChanged: text}
		if got := changedAt(s); !got.Equal(want) {
			t.Errorf("changedAt(%q) = %v, want %v", text, got, want)
		}
	}
	for text, want := range map[string]uint64{"17": 17, "": 0, "abc": 0, "-1": 0, "18446744073709551615": 1<<64 - 1, "18446744073709551616": 0} {
		if got := version(text); got != want {
			t.Errorf("version(%q) = %d, want %d", text, got, want)
		}
	}
	if n := len(Rejections()); n != 9 {
		t.Errorf("%d rejections are listed, 9 constants exist", n)
	}
}

// FuzzSlice decodes an EndpointSlice as an API server may send it, in protobuf or JSON, and converts it.
func FuzzSlice(f *testing.F) {
	seed := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: "web-1", Labels: map[string]string{labelServiceName: "web", labelImportName: "web", labelSourceCluster: "east.eu"}},
		AddressType: discoveryv1.AddressTypeIPv6,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Protocol: new(corev1.ProtocolTCP), Port: new(int32(80))}, {}},
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"fd00::1", "::5", "::ffff:127.0.0.1"}, Hostname: new("DB-0"), NodeName: new("n"), Zone: new("z"), TargetRef: &corev1.ObjectReference{UID: "u"}},
			{Addresses: []string{"10.0.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: new(false)}}, {},
		},
	}
	protobuf, err := seed.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	text, err := json.Marshal(seed)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(protobuf)
	f.Add(text)
	f.Add([]byte(`{"addressType":"IPv4","endpoints":[{"addresses":["127.0.0.1",""]},{"addresses":null,"hostname":"\u212A"}],"ports":[{"port":-1},{"name":"A"}]}`))
	f.Add([]byte(`{"addressType":"FQDN","endpoints":[{"addresses":["example.org"]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &discoveryv1.EndpointSlice{}
		if s.Unmarshal(data) != nil {
			if s = new(discoveryv1.EndpointSlice); json.Unmarshal(data, s) != nil {
				return
			}
		}
		var left rejections
		slice := left.converter().slice(s)
		for _, reason := range left {
			if !slices.Contains(Rejections(), reason) {
				t.Errorf("%q is no known reason", reason)
			}
		}
		changedAt(s)
		serviceOf(s)
		if f := (&importFeed{convert: left.converter()}).compactSlice(s).(*item); f.fact != nil {
			if !topology.IsLabel(f.key.Namespace) || !topology.IsLabel(f.key.Name) {
				t.Errorf("An imported slice of %q", f.key)
			}
			if id, err := topology.ParseClusterID(string(f.fact.(sliceFact).slice.Source)); err != nil || id == "" {
				t.Errorf("An imported slice from %q", f.fact.(sliceFact).slice.Source)
			}
		}
		if slice == nil {
			return
		}
		for _, p := range slice.Ports {
			if p.Number == 0 || p.Name != "" && !topology.IsLabel(p.Name) {
				t.Errorf("Port %+v", p)
			}
		}
		for _, e := range slice.Endpoints.All() {
			if !topology.IsLabel(e.Label) {
				t.Errorf("Label %q of %v", e.Label, e.Addr)
			}
			if e.Addr.Is4() != (s.AddressType == discoveryv1.AddressTypeIPv4) || e.Addr.Zone() != "" || !harmless(e.Addr) {
				t.Errorf("Address %v in a slice of %s", e.Addr, s.AddressType)
			}
		}
	})
}

// harmless says by prefixes what the converter says by predicates.
func harmless(a netip.Addr) bool {
	for _, p := range []string{"0.0.0.0/32", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32", "::/127", "::ffff:0:0/96", "fe80::/10", "ff00::/8"} {
		if netip.MustParsePrefix(p).Contains(a) {
			return false
		}
	}
	return true
}

// FuzzExport decodes a ServiceExport and a Service as an API server may send them, and converts them.
func FuzzExport(f *testing.F) {
	f.Add([]byte(`{"metadata":{"namespace":"shop","name":"web","creationTimestamp":"2026-01-01T00:00:00Z","annotations":{"clusterset-dns.io/weight-percent":"50"}},"spec":{"exportedLabels":{"a":"b"},"exportedAnnotations":{"\"":"\\"}}}`),
		[]byte(`{"metadata":{"namespace":"shop","name":"web"},"spec":{"clusterIP":"10.0.0.1","clusterIPs":["10.0.0.1","fd00::1"],"ports":[{"name":"http","port":80}]},"status":{"loadBalancer":{"ingress":[{"hostname":"LB.example.org."},{"ip":"127.0.0.1"}]}}}`))
	f.Add([]byte(`{"metadata":{"namespace":"SHOP","name":"a.b","annotations":{"clusterset-dns.io/weight-percent":"-1"}}}`), []byte(`{"spec":{"clusterIP":"None","ports":[{"port":70000,"protocol":"X"}]}}`))
	f.Add([]byte(`{}`), []byte(`{"status":{"loadBalancer":{"ingress":[{"hostname":"localhost"},{"hostname":"..."}]}}}`))
	f.Fuzz(func(t *testing.T, export, service []byte) {
		var left rejections
		c := left.converter()
		e, s := new(mcsv1beta1.ServiceExport), new(corev1.Service)
		if json.Unmarshal(export, e) == nil {
			key, fact, ok := c.export(e)
			if ok && (!topology.IsLabel(key.Namespace) || !topology.IsLabel(key.Name) || fact.WeightPercent > 100) {
				t.Errorf("An export of %q with %d percent", key, fact.WeightPercent)
			}
		}
		if json.Unmarshal(service, s) != nil {
			return
		}
		spec := c.service(s)
		balancer := cmp.Or(spec.LoadBalancer, &mcs.LoadBalancer{})
		for _, a := range append(balancer.Addrs, spec.ClusterIPs[:]...) {
			if a.IsValid() && (a.Zone() != "" || !harmless(a)) {
				t.Errorf("The address %v", a)
			}
		}
		for _, host := range balancer.Hosts {
			if len(host) > maxHost || !strings.Contains(host, ".") || strings.HasSuffix(host, ".") {
				t.Errorf("The host %q", host)
			}
		}
		for _, p := range spec.Ports {
			if p.Number == 0 || p.Name != "" && !topology.IsLabel(p.Name) {
				t.Errorf("The port %+v", p)
			}
		}
		for _, reason := range left {
			if !slices.Contains(Rejections(), reason) {
				t.Errorf("%q is no known reason", reason)
			}
		}
	})
}
