package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/status"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/verdict"
)

// The setup of CoreDNS's grpc plugin makes a client that only its shutdown would end; it connects to nobody before it is used.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("google.golang.org/grpc/internal/grpcsync.(*CallbackSerializer).run"))
}

// documents are what the server of these tests says, by path.
func documents() map[string]any {
	return map[string]any{
		status.PathMembers: status.Members{
			Version: "v1", Server: status.Server{Time: "2026-11-21T12:00:00Z", Local: "east"},
			Members: []status.Member{
				{ID: "east", Local: true, Region: "eu", Address: "clusterip", Services: 1200, Endpoints: 30, Health: status.Health{State: "healthy"},
					Sources: []status.Source{{Kind: "exports", State: "synced", ProofAgeSeconds: new(1.5), CredentialExpiry: "2026-11-23T12:00:00Z"}}},
				{ID: "west", Address: "fixed", Gateway: []string{"192.0.2.10", "2001:db8::10"}, Weight: new(3), Services: 2, Health: status.Health{State: "unhealthy", Reason: "probes\x1b[2J\tfail"},
					Sources: []status.Source{{Kind: "exports", State: "stale", ProofAgeSeconds: new(183.0)}}, Rejections: map[string]uint64{"address": 4}, Unusable: map[string]int{"overlap": 1}},
			},
			Refused: []status.Refused{},
		},
		status.PathServices: status.Services{Version: "v1", Services: []status.ServiceSummary{
			{Namespace: "ads", Name: "mail", Type: "Headless", Members: []string{"west"}, Ready: 1, Total: 4, LeftOut: map[string]string{"south": "NoService", "north": "overlap"}},
			{Namespace: "shop", Name: "web", Type: "ClusterSetIP", Imported: true, Members: []string{"east", "west"}, Weights: []float64{3, 1.5}, Ready: 3, Total: 3, Conflicts: []string{"PortConflict"}},
		}},
		status.PathServices + "/shop/web": status.Service{
			Version: "v1", ServiceSummary: status.ServiceSummary{Namespace: "shop", Name: "web", Type: "ClusterSetIP", Members: []string{"east"}, Ready: 3, Total: 3},
			FQDN: "web.shop.svc.clusterset.local.", Ports: []status.Port{{Name: "http", Protocol: "TCP", Number: 80}}, ClientIPAffinity: true,
			Contributions: []status.Contribution{{Member: "east", Addresses: []string{"10.96.0.1"}, Ready: 3, Total: 3, Weight: 3, Exported: "2026-01-01T00:00:00Z"}},
			Unusable:      map[string]string{"west": "overlap"},
			Matrix:        []status.MatrixRow{{Region: "eu", Cluster: "east", Shares: map[string]float64{"east": 0.7, "west": 0.3}}, {Shares: map[string]float64{}}},
		},
		status.PathExplain + "?client=10.1.2.3&name=web.shop.svc.clusterset.local&type=A": status.Explanation{
			Version: "v1", Name: "web.shop.svc.clusterset.local.", Type: "A", Kind: "service", Service: "shop/web", ServiceType: "ClusterSetIP", Verdict: "10.96.0.1 of east.",
			Client: status.Client{Address: "10.1.2.3", Region: "eu", Cluster: "east", Source: "podcidr", Because: "10.1.2.0/24 is of n1"},
			Candidates: []status.Candidate{
				{Member: "east", Region: "eu", Addresses: []string{"10.96.0.1"}, MemberState: "synced", ProofAgeSeconds: new(2.0), Health: "healthy", Ready: 3, Total: 3, Weight: 3, Kept: true, Reason: "drawn"},
				{Member: "west", Health: "unhealthy", HealthReason: "probes fail", Tier: -1, Reason: "others take all"},
			},
			Tiers:  []status.Tier{{Tier: 0, Distance: "same cluster", Healthy: 3, Total: 3, HealthyPercent: 70}, {Tier: 1, Distance: "everywhere", HealthyPercent: 20, DegradedPercent: 10}},
			Draw:   &status.Draw{Point: 13.75, Epoch: 5, EpochSeconds: 5, Part: "healthy", Member: "east"},
			Answer: status.Answer{Rcode: "NOERROR", Answer: []string{"web.shop.svc.clusterset.local.\t5\tIN\tA\t10.96.0.1"}, Additional: []string{"more.\t5\tIN\tA\t10.96.0.2"}},
		},
		status.PathExplain + "?name=no.shop.svc.clusterset.local&type=AAAA": status.Explanation{
			Version: "v1", Verdict: "There is no such service.", Client: status.Client{Source: "none"}, Answer: status.Answer{Rcode: "NXDOMAIN", Answer: []string{}, Authority: []string{"clusterset.local.\t5\tIN\tSOA\t..."}},
		},
	}
}

// serve starts a server that says these documents, after change.
func serve(t *testing.T) string {
	t.Helper()
	said := documents()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		if r.URL.RawQuery != "" {
			path += "?" + r.URL.RawQuery
		}
		var document any = status.Error{Version: "v1", Error: "there is no service " + path}
		switch known, there := said[path]; {
		case there:
			document = known
		case strings.Contains(path, "client=nonsense"):
			w.WriteHeader(http.StatusBadRequest)
			document = status.Error{Version: "v1", Error: "client nonsense is no address"}
		case strings.Contains(path, "broken"):
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, "<html>")
			return
		case strings.Contains(path, "busy"):
			w.WriteHeader(http.StatusServiceUnavailable)
			document = status.Error{Version: "v1", Error: "not started yet"}
		default:
			w.WriteHeader(http.StatusNotFound)
		}
		if err := json.NewEncoder(w).Encode(document); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// say runs a command line, and returns what it printed and its exit code.
func say(t *testing.T, program string, env map[string]string, colour bool, args ...string) (out, failed string, code int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	term := &terminal{out: &stdout, err: &stderr, in: strings.NewReader(". {\n  clusterste\n}\n"), getenv: func(name string) string { return env[name] }, colour: colour}
	code = term.run(t.Context(), append([]string{program}, args...))
	return stdout.String(), stderr.String(), code
}

func TestCommands(t *testing.T) {
	server := serve(t)
	file := t.TempDir() + "/Corefile"
	if err := os.WriteFile(file, []byte(". {\n  errors\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, args string
		code       int
		// want are pieces of the output, failed of what is printed as an error.
		want   []string
		failed string
	}{
		{"members", "members", exitOK, []string{
			"MEMBER         REGION   STATE    PROOF       HEALTH      CREDENTIALS   SERVICES   ENDPOINTS   REJECTED   OUT   ADDRESS                   WEIGHT\n",
			"east (local)   eu       synced   1.5 s ago   healthy     in 2 d        1,200      30          0          0     clusterip\n",
			"west                    stale    3 min ago   unhealthy                 2          0           4          1     192.0.2.10,2001:db8::10   3\n",
			"Error: west: it is unhealthy: probes?[2J fail\n", "Warning: east: its credentials end in 2 d\n",
		}, ""},
		{"members as JSON", "members -o json", exitOK, []string{`"id": "east"`, `"refused": []`}, ""},
		{"members as YAML", "members -o yaml", exitOK, []string{"- address: clusterip", "  id: east"}, ""},
		{"services", "services", exitOK, []string{
			"SERVICE    TYPE                    READY   MEMBERS           CONFLICTS      LEFT OUT\n",
			"ads/mail   Headless                1/4     west                             north=overlap,south=NoService\n",
			"shop/web   ClusterSetIP (import)   3/3     east=3,west=1.5   PortConflict\n",
		}, ""},
		{"the services of a namespace", "services -n ads", exitOK, []string{"SERVICE    TYPE       READY   MEMBERS   LEFT OUT\nads/mail   Headless   1/4     west      north=overlap,south=NoService\n"}, ""},
		{"those as JSON", "services --namespace ads -o json", exitOK, []string{`"namespace": "ads"`}, ""},
		{"one service", "services shop/web", exitOK, []string{
			"Name:          web.shop.svc.clusterset.local.\n", "Affinity:      ClientIP\n", "Ports:         http 80/TCP\n",
			"east     3/3     3        10.96.0.1   2026-01-01T00:00:00Z", "west                                                         overlap\n",
			"eu / east       east 70 %, west 30 %\n", "anywhere else   nothing: nobody serves\n",
		}, ""},
		{"one service by its namespace", "services -n shop web -o yaml", exitOK, []string{"fqdn: web.shop.svc.clusterset.local."}, ""},
		{"a service that does not exist", "services shop/no", exitNegative, nil, "clustersetctl: there is no service /api/v1/services/shop/no\n"},
		{"no NAMESPACE/NAME", "services web", exitUsage, nil, "use NAMESPACE/NAME"},
		{"two services", "services a/b c/d", exitUsage, nil, `got "c/d" in addition`},
		{"explain", "explain web.shop.svc.clusterset.local --client 10.1.2.3", exitOK, []string{
			"10.96.0.1 of east.\n", "in:            eu / east (by podcidr)\n", "since:         10.1.2.0/24 is of n1\n",
			"0      same cluster   3         0          0          3           70 %                       <- drawn\n", "20 % and, degraded, 10 %\n",
			"The draw fell on 13.75 of 100: tier 0, its healthy part, and there on east. It is that of epoch 5, which lasts 5 s.\n",
			"east     eu      synced 2 s ago   healthy                  3/3     3        0      yes    drawn             10.96.0.1\n",
			"west                              unhealthy: probes fail   0/0     0        none   no     others take all\n",
			"\nNOERROR\nweb.shop.svc.clusterset.local. 5 IN A 10.96.0.1\n;; additional\nmore. 5 IN A 10.96.0.2\n",
		}, ""},
		{"explain as JSON", "explain web.shop.svc.clusterset.local --client 10.1.2.3 -o json", exitOK, []string{`"verdict": "10.96.0.1 of east."`}, ""},
		{"flags before the name", "explain --client=10.1.2.3 -o yaml web.shop.svc.clusterset.local", exitOK, []string{"verdict: 10.96.0.1 of east."}, ""},
		{"explain a name that is not answered", "explain no.shop.svc.clusterset.local --type AAAA", exitNegative, []string{"There is no such service.", "NXDOMAIN\n;; authority\n"}, ""},
		{"that as JSON", "explain no.shop.svc.clusterset.local --type AAAA -o json", exitNegative, []string{`"rcode": "NXDOMAIN"`}, ""},
		{"explain nothing", "explain", exitUsage, nil, "explain takes one NAME: got 0"},
		{"a client that is no address", "explain a --client nonsense", exitUsage, nil, "client nonsense is no address"},
		{"a server that is not ready", "explain busy", exitUnreachable, nil, "clustersetctl: not started yet\n"},
		{"another kind of server", "explain broken", exitUnreachable, nil, "does not talk like a status address: it answers with 500 Internal Server Error"},
		{"a server that is not there", "members --server http://127.0.0.1:1", exitUnreachable, nil, "cannot reach http://127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused; is the status address on"},
		{"an address that is none", "members --server 127.0.0.1:9154", exitUsage, nil, "is no URL such as http://127.0.0.1:9154"},
		{"check", "check " + file, exitOK, []string{"OK: " + file + "\n"}, ""},
		{"check as JSON", "check -o json " + file, exitOK, []string{`"ok": true`}, ""},
		{"check the standard input", "check -", exitNegative, []string{"Error: Corefile:2: Unknown directive 'clusterste'\n"}, ""},
		{"that as JSON", "check - -o json", exitNegative, []string{`"ok": false`, `"line": 2`}, ""},
		{"check a file that is not there", "check /nowhere/Corefile", exitUsage, nil, "no such file"},
		{"check nothing", "check", exitUsage, nil, "check takes one COREFILE: got 0"},
		{"no command", "", exitUsage, nil, "a command is needed: members, services, explain, check, version\nclustersetctl --help tells more\n"},
		{"a command that is none", "member", exitUsage, nil, `there is no command "member"`},
		{"a flag that is none", "members --colour", exitUsage, nil, "unknown flag: --colour"},
		{"a format that is none", "members -o xml", exitUsage, nil, "-o xml: use table, json or yaml"},
		{"an argument too many", "members east", exitUsage, nil, "members takes no argument"},
		{"help", "--help", exitOK, []string{"clustersetctl COMMAND [ARGUMENTS] [FLAGS]", "  explain NAME                     Tell why", "\n  3  no server answered\n"}, ""},
		{"help for a command", "explain --help", exitOK, []string{"clustersetctl explain NAME [FLAGS]", "--client ADDRESS", `(default "` + server + `")`}, ""},
		{"help for a command by help", "help check", exitOK, []string{"clustersetctl check COREFILE [FLAGS]", "-o, --output FORMAT"}, ""},
		{"version", "version", exitOK, []string{"clustersetctl "}, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			out, failed, code := say(t, "/usr/bin/clustersetctl", map[string]string{serverVariable: server}, false, strings.Fields(row.args)...)
			if code != row.code {
				t.Errorf("Exit code %d, want %d: %s", code, row.code, failed)
			}
			for _, want := range row.want {
				if !strings.Contains(out, want) {
					t.Errorf("%q is not in\n%s", want, out)
				}
			}
			if (row.failed == "") != (failed == "") || !strings.Contains(failed, row.failed) {
				t.Errorf("%q is said as an error, want %q", failed, row.failed)
			}
			if strings.Contains(out+failed, "\x1b") {
				t.Error("There are control characters")
			}
		})
	}
}

// world is a Corefile and what two clusters say.
var world = map[string]string{
	"Corefile": ". {\n  locality {\n    cluster east\n    cidr 10.9.0.0/16 cluster=west\n  }\n  clusterset {\n    local east\n    cluster east\n    cluster west west.kubeconfig {\n      address clusterip\n    }\n  }\n}\n",
	"other":    ". {\n  locality {\n    cluster east\n    cidr 10.9.0.0/16 cluster=west\n  }\n  clusterset {\n    local east\n    cluster east\n    cluster west west.kubeconfig {\n      address 192.0.2.77\n    }\n  }\n}\n",
	"east/all.yaml": `{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceExport, metadata: {name: web, namespace: shop}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ports: [{port: 80}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}, addressType: IPv4, endpoints: [{addresses: [10.8.0.1]}, {addresses: [127.0.0.1]}]}
`,
	"west/all.yaml": `{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceExport, metadata: {name: web, namespace: shop}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {clusterIP: 10.1.0.1, clusterIPs: [10.1.0.1], ports: [{port: 80}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}, addressType: IPv4, endpoints: [{addresses: [10.9.0.1]}]}
`,
}

func TestOffline(t *testing.T) {
	dir := t.TempDir()
	for name, text := range world {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const left = "Warning: "
	for _, row := range []struct {
		name, args string
		code       int
		want       []string
		failed     string
	}{
		{"a client is given its own cluster", "explain web.shop.svc.clusterset.local --client 10.8.0.9 --manifests DIR", exitOK, []string{"NOERROR\nweb.shop.svc.clusterset.local. 5 IN A 10.0.0.1\n"}, left},
		{"one in the other cluster is given that", "explain web.shop.svc.clusterset.local --client 10.9.0.9 --manifests DIR -o yaml", exitOK, []string{`A\t10.1.0.1`}, left},
		{"what if that were not well", "explain web.shop.svc.clusterset.local --client 10.9.0.9 --manifests DIR --health west=unhealthy", exitOK, []string{"IN A 10.0.0.1\n"}, left},
		{"what if the Corefile were another", "explain web.shop.svc.clusterset.local --client 10.9.0.9 --manifests DIR --corefile DIR/other", exitOK, []string{"IN A 192.0.2.77\n"}, left},
		{"a name that does not exist", "explain no.shop.svc.clusterset.local --client 10.9.0.9 --manifests DIR", exitNegative, []string{"NXDOMAIN\n"}, left},
		{"nobody asks", "explain web.shop.svc.clusterset.local --manifests DIR", exitUsage, nil, `--client "" is no address: say who asks`},
		{"a name of another zone", "explain example.org --client 10.8.0.9 --manifests DIR", exitUsage, nil, "is not below clusterset.local."},
		{"a type that is none", "explain web.shop.svc.clusterset.local --type X --client 10.8.0.9 --manifests DIR", exitUsage, nil, "--type X is none"},
		{"a health that is none", "explain web.shop.svc.clusterset.local --client 10.8.0.9 --manifests DIR --health west=tired", exitUsage, nil, "--health west=tired: use healthy, degraded, unhealthy or excluded"},
		{"no manifests", "explain web.shop.svc.clusterset.local --client 10.8.0.9 --manifests DIR/nowhere --corefile DIR/Corefile", exitUsage, nil, "no such file"},
		{"a Corefile and a server", "explain web.shop.svc.clusterset.local --corefile DIR/Corefile", exitUsage, nil, "--corefile and --health go with --manifests"},
		{"services", "services --manifests DIR", exitOK, []string{"shop/web   ClusterSetIP   2/2     east=1,west=1\n"}, left},
		{"a service", "services shop/web --manifests DIR", exitOK, []string{"west     1/1     1        10.1.0.1\n", "west         west 100 %\n"}, left},
		{"a service that nobody exports", "services shop/no --manifests DIR", exitNegative, nil, "no service shop/no is exported"},
	} {
		t.Run(row.name, func(t *testing.T) {
			out, failed, code := say(t, "clustersetctl", nil, false, strings.Fields(strings.ReplaceAll(row.args, "DIR", dir))...)
			if code != row.code {
				t.Errorf("Exit code %d, want %d: %s", code, row.code, failed)
			}
			for _, want := range row.want {
				if !strings.Contains(out, want) {
					t.Errorf("%q is not in\n%s", want, out)
				}
			}
			if !strings.Contains(failed, row.failed) {
				t.Errorf("%q is said as an error, want %q", failed, row.failed)
			}
		})
	}
}

func TestAsAPluginOfKubectlItIsCalledSo(t *testing.T) {
	for _, program := range []string{"/usr/local/bin/kubectl-clusterset", `kubectl-clusterset.exe`} {
		out, _, _ := say(t, program, nil, false, "--help")
		if !strings.Contains(out, "\n  kubectl clusterset COMMAND [ARGUMENTS] [FLAGS]\n") || strings.Contains(out, "clustersetctl") {
			t.Errorf("%s says\n%s", program, out)
		}
		out, _, _ = say(t, program, nil, false, "check", "--help")
		if !strings.Contains(out, "  kubectl clusterset check deploy/drop-in/Corefile\n") || strings.Contains(out, "clustersetctl") {
			t.Errorf("%s says\n%s", program, out)
		}
		if _, failed, _ := say(t, program, nil, false, "nonsense"); !strings.HasPrefix(failed, "kubectl clusterset: ") {
			t.Errorf("%s says\n%s", program, failed)
		}
	}
}

func TestColours(t *testing.T) {
	server := serve(t)
	out, _, _ := say(t, "clustersetctl", map[string]string{serverVariable: server}, true, "members")
	for _, want := range []string{"\x1b[32msynced\x1b[0m   1.5 s ago", "\x1b[31munhealthy\x1b[0m", "\x1b[33mstale\x1b[0m    3 min ago"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%q", want, out)
		}
	}
	for _, row := range []struct {
		name, variable, value string
	}{{"a file is no terminal", "", ""}, {"NO_COLOR", "NO_COLOR", "1"}, {"a dumb terminal", "TERM", "dumb"}} {
		t.Run(row.name, func(t *testing.T) {
			if colours(os.Stdout, func(name string) string { return map[string]string{row.variable: row.value}[name] }) {
				t.Error("There are colours")
			}
		})
	}
	plain := &terminal{}
	if got := plain.paint(cell{"x", verdict.Bad}); got != "x" {
		t.Errorf("%q without colours", got)
	}
}

// What a newer server says beyond what this program knows is in its JSON and YAML all the same.
func TestWhatIsNotKnownIsPrinted(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"version":"v1","mood":"fine","members":[]}`)
	}))
	defer s.Close()
	for _, format := range []string{"json", "yaml"} {
		if out, _, code := say(t, "clustersetctl", nil, false, "members", "--server", s.URL, "-o", format); !strings.Contains(out, "mood") || code != exitOK {
			t.Errorf("%s: %d %s", format, code, out)
		}
	}
}
