package status

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"sigs.k8s.io/yaml"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/status"
)

const web = "svc-1.team1.svc.clusterset.local."

// columns makes a table out of a printed one, without its alignment.
func columns(text string) string {
	return regexp.MustCompile(` {2,}`).ReplaceAllString(text, "|")
}

func TestClustersetctl(t *testing.T) {
	for _, row := range []struct {
		name, args string
		code       int
		// want is in what is printed, with | between columns; failed in what is printed as an error.
		want   []string
		failed string
	}{
		{"the members", "members", 0, []string{
			"MEMBER|REGION|STATE|PROOF|HEALTH|", "east (local)|eu|synced|", "north|eu|synced|", "west|us|synced|", "ago|healthy|6|12|0|0|clusterip\n",
		}, ""},
		{"the services", "services", 0, []string{
			"SERVICE|TYPE|READY|MEMBERS\n", "team0/svc-0|Headless|6/6|east", "team1/svc-1|ClusterSetIP|6/6|east", "team5/svc-5|",
		}, ""},
		{"the services of a namespace", "services -n team3", 0, []string{"team3/svc-3|ClusterSetIP|6/6|east"}, ""},
		{"a service", "services team1/svc-1", 0, []string{
			"Name:|" + web + "\n", "http 80/TCP", "MEMBER|READY|WEIGHT|ADDRESSES|EXPORTED\n",
			"east|2/2|2|" + world.ClusterIP(0, 1).String() + "|2026-01-01T00:00:00Z\n", "west|2/2|2|" + world.ClusterIP(1, 1).String() + "|",
			"CLIENTS IN|GET\n", "eu / east|east 100 %\n", "us / west|west 100 %\n",
		}, ""},
		{"a headless service", "services team0/svc-0", 0, []string{"Type:|Headless\n"}, ""},
		{"a service that is not there", "services team1/svc-0", 1, nil, "team1/svc-0"},
		{"a name in another cluster", "explain " + web + " --client 10.2.3.4", 0, []string{"10.2.3.4\n", "us / west (by cidr)\n", "NOERROR\n" + web, world.ClusterIP(1, 1).String()}, ""},
		{"a name that does not exist", "explain nothing.team1.svc.clusterset.local", 1, []string{"NXDOMAIN\n"}, ""},
		{"a name that is not of the zone", "explain example.org", 2, nil, "is not below clusterset.local."},
		{"records of a type that there are none of", "explain " + web + " --type TXT", 1, []string{"NOERROR\n"}, ""},
		{"a type that is none", "explain " + web + " --type NONSENSE", 2, nil, "NONSENSE"},
		{"a client that is none", "explain " + web + " --client nobody", 2, nil, "nobody"},
		{"the server's own Corefile", "check " + "COREFILE", 0, []string{"OK: "}, ""},
		{"another port", "members --server http://127.0.0.1:1", 3, nil, "cannot reach http://127.0.0.1:1"},
		{"the port for metrics", "members --server METRICS", 3, nil, "does not talk like a status address"},
	} {
		t.Run(row.name, func(t *testing.T) {
			args := strings.NewReplacer("COREFILE", corefile, "METRICS", fmt.Sprintf("http://127.0.0.1:%d", here.Port("Metrics"))).Replace(row.args)
			got, err := ctl(t.Context(), strings.Fields(args)...)
			must(t, err)
			if got.code != row.code || (row.failed == "") != (got.failed == "") {
				t.Errorf("exit code %d, want %d: %s", got.code, row.code, got.failed)
			}
			if err := wants(columns(got.out), row.want...); err != nil {
				t.Error(err)
			}
			if err := wants(got.failed, row.failed); err != nil {
				t.Error(err)
			}
			if strings.Contains(got.out, "\x1b") {
				t.Error("colours, though this is no terminal")
			}
		})
	}
}

// TestFormats reads what is printed for programs.
func TestFormats(t *testing.T) {
	for name, read := range map[string]func([]byte, any) error{
		"json": json.Unmarshal,
		"yaml": func(text []byte, into any) error { return yaml.Unmarshal(text, into) },
	} {
		t.Run(name, func(t *testing.T) {
			var m status.Members
			var s status.Services
			var one status.Service
			var e status.Explanation
			for _, q := range []struct {
				args string
				into any
			}{{"members", &m}, {"services", &s}, {"services team1/svc-1", &one}, {"explain " + web, &e}} {
				got, err := ctl(t.Context(), append(strings.Fields(q.args), "-o", name)...)
				must(t, err)
				if err := read([]byte(got.out), q.into); err != nil || got.code != 0 {
					t.Fatalf("%s: exit code %d, %v\n%s%s", q.args, got.code, err, got.out, got.failed)
				}
			}
			var ids []string
			for _, one := range m.Members {
				ids = append(ids, one.ID)
			}
			if !slices.Equal(ids, []string{"east", "north", "west"}) || m.Server.Local != "east" || m.Server.Services != world.Services {
				t.Errorf("members %v of %+v", ids, m.Server)
			}
			if len(s.Services) != world.Services || one.FQDN != web || len(one.Contributions) != 3 || e.Service != "team1/svc-1" || len(e.Answer.Answer) != 1 {
				t.Errorf("%d services, %+v\n%+v", len(s.Services), one, e)
			}
		})
	}
}

// TestExplainSaysWhatAQueryGets compares the records of explain with those of a query from the same client, unless the epoch of
// the draw ends between two explanations around it.
func TestExplainSaysWhatAQueryGets(t *testing.T) {
	for _, row := range []struct {
		name  string
		qtype uint16
	}{
		{web, dns.TypeA}, {web, dns.TypeSRV}, {"svc-0.team0.svc.clusterset.local.", dns.TypeA}, {"dns-version.clusterset.local.", dns.TypeTXT}, {web, dns.TypeAAAA},
	} {
		t.Run(row.name+" "+dns.TypeToString[row.qtype], func(t *testing.T) {
			explain := func(ctx context.Context) (answer []string, err error) {
				got, err := ctl(ctx, "explain", row.name, "--type", dns.TypeToString[row.qtype], "--client", "127.0.0.1", "-o", "json")
				if err != nil {
					return nil, err
				}
				var e status.Explanation
				err = json.Unmarshal([]byte(got.out), &e)
				return slices.Sorted(slices.Values(e.Answer.Answer)), err
			}
			within(t, limit, "an epoch that lasts", func(ctx context.Context) error {
				before, err := explain(ctx)
				if err != nil {
					return err
				}
				m := new(dns.Msg).SetQuestion(row.name, row.qtype)
				client := dns.Client{Net: "tcp", Dialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}}
				reply, _, err := client.ExchangeContext(ctx, m, here.Addr())
				if err != nil {
					return err
				}
				after, err := explain(ctx)
				if err != nil || !slices.Equal(before, after) {
					return fmt.Errorf("%v became %v: %w", before, after, err)
				}
				var records []string
				for _, rr := range reply.Answer {
					records = append(records, rr.String())
				}
				slices.Sort(records)
				if !slices.Equal(records, after) {
					t.Errorf("a query gets\n%s\nand explain says\n%s", strings.Join(records, "\n"), strings.Join(after, "\n"))
				}
				return nil
			})
		})
	}
}

// dumped are where the API servers have what `clustersetctl explain --help` says that manifests are.
var dumped = []string{
	"/apis/multicluster.x-k8s.io/v1beta1/serviceexports", "/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices", "/api/v1/namespaces", "/api/v1/nodes",
}

// TestOfflineSaysWhatTheServerSays writes what the clusters have by kubectl, and compares explanations of that with the server's.
func TestOfflineSaysWhatTheServerSays(t *testing.T) {
	dir := t.TempDir()
	for i, m := range here.Members.Members() {
		id := []string{"east", "west", "north"}[i]
		must(t, os.Mkdir(filepath.Join(dir, id), 0o755))
		config := filepath.Join(t.TempDir(), "kubeconfig")
		must(t, m.Kubeconfig(config, "127.0.0.1"))
		for n, path := range dumped {
			got, err := run(t.Context(), kubectl, nil, "--kubeconfig", config, "get", "--raw", path)
			must(t, err)
			if got.code != 0 {
				t.Fatalf("kubectl get: %s", got.failed)
			}
			must(t, os.WriteFile(filepath.Join(dir, id, fmt.Sprintf("%d.json", n)), []byte(got.out), 0o600))
		}
	}
	for _, q := range []string{web + " --client 127.0.0.1", web + " --client 10.2.3.4 --type SRV", "svc-0.team0.svc.clusterset.local. --client 10.2.3.4", "nothing.team1.svc.clusterset.local --client 10.2.3.4"} {
		t.Run(q, func(t *testing.T) {
			explain := func(ctx context.Context, more ...string) (e status.Explanation, err error) {
				got, err := ctl(ctx, slices.Concat([]string{"explain"}, strings.Fields(q), []string{"-o", "json"}, more)...)
				if err != nil {
					return e, err
				}
				if err := json.Unmarshal([]byte(got.out), &e); err != nil {
					return e, fmt.Errorf("%w: %s", err, got.failed)
				}
				for i := range e.Candidates { // nobody watches files
					e.Candidates[i].MemberState, e.Candidates[i].ProofAgeSeconds = "", nil
				}
				return e, nil
			}
			within(t, limit, "an epoch that lasts", func(ctx context.Context) error {
				before, err := explain(ctx)
				if err != nil {
					return err
				}
				files, err := explain(ctx, "--manifests", dir, "--corefile", corefile)
				if err != nil {
					return err
				}
				after, err := explain(ctx)
				if err != nil {
					return err
				}
				if !reflect.DeepEqual(before, after) {
					return fmt.Errorf("the server has changed its mind: %+v and %+v", before, after)
				}
				// SOA serials count the seconds of the last change.
				files.Answer.Authority, after.Answer.Authority = nil, nil
				if !reflect.DeepEqual(files, after) {
					t.Errorf("files say\n%+v\nand the server\n%+v", files, after)
				}
				return nil
			})
		})
	}
}

// TestTroubleIsTold: a cluster whose API server is gone is named.
func TestTroubleIsTold(t *testing.T) {
	west := here.Members.Members()[1]
	west.Down()
	t.Cleanup(func() { must(t, west.Up()) })
	within(t, limit, "a word about west", func(ctx context.Context) error {
		got, err := ctl(ctx, "members")
		if err != nil {
			return err
		}
		return wants(got.out, "Error: west: serviceexports cannot be read (unreachable)")
	})
}

// TestKubectlPlugin: kubectl finds the program in the PATH by its name, and it then calls itself so.
func TestKubectlPlugin(t *testing.T) {
	for _, row := range []struct {
		args string
		code int
		want string
	}{
		{"clusterset members --server SERVER", 0, "east (local)"},
		{"clusterset services team1/svc-1 --server SERVER -o yaml", 0, "fqdn: " + web},
		{"clusterset explain nothing.team1.svc.clusterset.local --server SERVER", 1, "NXDOMAIN"},
		{"clusterset check COREFILE", 0, "OK: "},
		{"clusterset explain --help", 0, "kubectl clusterset explain NAME [FLAGS]"},
		{"clusterset nonsense", 2, "kubectl clusterset: there is no command \"nonsense\""},
		{"plugin list", 0, "kubectl-clusterset"},
	} {
		t.Run(row.args, func(t *testing.T) {
			got, err := run(t.Context(), kubectl, nil, strings.Fields(strings.NewReplacer("SERVER", here.URL, "COREFILE", corefile).Replace(row.args))...)
			must(t, err)
			if got.code != row.code {
				t.Errorf("exit code %d, want %d", got.code, row.code)
			}
			if err := wants(got.out+got.failed, row.want); err != nil {
				t.Error(err)
			}
		})
	}
}
