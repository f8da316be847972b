package clusterhealth

import (
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// writeCA writes the certificate that httptest servers use, and an empty file beside it.
func writeCA(t *testing.T) (ca, empty string) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	dir := t.TempDir()
	ca, empty = filepath.Join(dir, "ca.pem"), filepath.Join(dir, "empty.pem")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: s.TLS.Certificates[0].Certificate[0]}
	if err := os.WriteFile(ca, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(empty, []byte("nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return ca, empty
}

func parseText(text string) (*config, error) { return parse(caddy.NewTestController("dns", text)) }

func TestParse(t *testing.T) {
	ca, _ := writeCA(t)
	tests := []struct {
		name    string
		input   string
		probes  []probe
		drained []topology.ClusterID
		timing  [2]time.Duration
		runs    [2]int
	}{
		{
			name:   "one probe and the defaults",
			input:  "clusterhealth {\n probe east tcp gateway.example.org:443\n}",
			probes: []probe{{"east", kindTCP, "gateway.example.org:443", "", 2}},
			timing: [2]time.Duration{5 * time.Second, 2 * time.Second},
			runs:   [2]int{3, 2},
		},
		{
			name: "every kind of probe",
			input: `clusterhealth {
				probe a tcp 192.0.2.1:443
				probe b tcp [2001:db8::1]:443
				probe c http http://192.0.2.1/healthz
				probe d http http://gw.example.org:8080
				probe e https https://gw.example.org/ready?full=1
				probe f.example https https://[2001:db8::1]:8443/
				probe g grpc gw.example.org.:50051
				probe h grpc gw:50051/shop.Cart
			}`,
			probes: []probe{
				{"a", kindTCP, "192.0.2.1:443", "", 2},
				{"b", kindTCP, "[2001:db8::1]:443", "", 3},
				{"c", kindHTTP, "http://192.0.2.1/healthz", "", 4},
				{"d", kindHTTP, "http://gw.example.org:8080", "", 5},
				{"e", kindHTTPS, "https://gw.example.org/ready?full=1", "", 6},
				{"f.example", kindHTTPS, "https://[2001:db8::1]:8443/", "", 7},
				{"g", kindGRPC, "gw.example.org.:50051", "", 8},
				{"h", kindGRPC, "gw:50051", "shop.Cart", 9},
			},
			timing: [2]time.Duration{5 * time.Second, 2 * time.Second},
			runs:   [2]int{3, 2},
		},
		{
			name:   "all timing properties",
			input:  "clusterhealth {\n probe East tcp gw:443\n interval 10m\n timeout 10ms\n fall 10\n rise 1\n}",
			probes: []probe{{"east", kindTCP, "gw:443", "", 2}},
			timing: [2]time.Duration{10 * time.Minute, 10 * time.Millisecond},
			runs:   [2]int{10, 1},
		},
		{
			name:    "drain without any probe",
			input:   "clusterhealth {\n drain East west.example\n}",
			drained: []topology.ClusterID{"east", "west.example"},
			timing:  [2]time.Duration{5 * time.Second, 2 * time.Second},
			runs:    [2]int{3, 2},
		},
		{
			name:    "a drained cluster is probed all the same",
			input:   "clusterhealth {\n drain east\n probe east https https://gw\n tls " + ca + "\n interval 2s\n}",
			probes:  []probe{{"east", kindHTTPS, "https://gw", "", 3}},
			drained: []topology.ClusterID{"east"},
			timing:  [2]time.Duration{2 * time.Second, 2 * time.Second},
			runs:    [2]int{3, 2},
		},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			c, err := parseText(tc.input)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(c.probes, tc.probes) {
				t.Errorf("Expected probes %v, got %v", tc.probes, c.probes)
			}
			if !slices.Equal(c.drained, tc.drained) {
				t.Errorf("Expected drained %v, got %v", tc.drained, c.drained)
			}
			if got := [2]time.Duration{c.interval, c.timeout}; got != tc.timing {
				t.Errorf("Expected interval and timeout %v, got %v", tc.timing, got)
			}
			if got := [2]int{c.fall, c.rise}; got != tc.runs {
				t.Errorf("Expected fall and rise %v, got %v", tc.runs, got)
			}
			if want := strings.Contains(tc.input, "tls"); want != (c.roots != nil) {
				t.Errorf("Expected roots of its own: %v, got %v", want, c.roots)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	ca, empty := writeCA(t)
	const probe = "probe east tcp gw:443\n"
	tests := []struct {
		name string
		body string // between the braces of the stanza, from line 2 on; or the whole, where it begins with the plugin's name
		want string // what the error holds
	}{
		{"a stanza without a block", "clusterhealth\n", "Testfile:1 - Error during parsing: no 'probe' and no 'drain'"},
		{"an empty block", "clusterhealth {\n}", "no 'probe' and no 'drain'"},
		{"zones", "clusterhealth example.org {\n drain a\n}", `unexpected "example.org"`},
		{"a block on one line", "clusterhealth { drain a }", "begin a new line"},
		{"a block that is not closed", "clusterhealth {\n drain a\n", "'}' is missing"},
		{"a second stanza", "clusterhealth {\n drain a\n}\nclusterhealth {\n drain b\n}", "only be used once"},
		{"an unknown property", "probes east tcp gw:443", "Testfile:2 - Error during parsing: unknown property 'probes': use one of probe, interval"},
		{"a block behind a property", "drain {\n a\n}", "'drain' needs"},
		{"a probe without anything", "probe", "got 0 arguments: use probe CLUSTER tcp HOST:PORT"},
		{"a probe without a target", "probe east tcp", "got 2 arguments"},
		{"a probe with too much", "probe east tcp gw:443 gw:444", "got 4 arguments"},
		{"a cluster that is no id", "probe ea_st tcp gw:443", "'probe ea_st': cluster id"},
		{"a cluster that is probed twice", probe + "probe EAST http http://gw/", "'probe east' is given twice, first in line 2: a cluster has one target"},
		{"an unknown kind", "probe east udp gw:443", "unknown kind: use probe CLUSTER tcp"},
		{"a kind in upper case", "probe east TCP gw:443", "unknown kind"},
		{"a tcp target without a port", "probe east tcp gw", `"gw" is not HOST:PORT, as in gateway.example.org:443`},
		{"a tcp target that is a bare IPv6 address", "probe east tcp 2001:db8::1", "is not HOST:PORT"},
		{"a tcp target without a host", "probe east tcp :443", `host "" is neither`},
		{"a tcp target with a named port", "probe east tcp gw:https", `port "https" is no number from 1 to 65535`},
		{"a tcp target with port 0", "probe east tcp gw:0", "no number from 1 to 65535"},
		{"a tcp target with a port too high", "probe east tcp gw:65536", "no number from 1 to 65535"},
		{"a tcp target that is a URL", "probe east tcp http://gw:80", "is not HOST:PORT"},
		{"a host that is no name", "probe east tcp g_w:443", `host "g_w" is neither`},
		{"a host that is too long", "probe east tcp " + strings.Repeat("a.", 130) + "a:443", "is neither an IP address nor a name"},
		{"the unspecified address", "probe east tcp 0.0.0.0:443", "nobody has the address 0.0.0.0"},
		{"a multicast address", "probe east tcp [ff02::1]:443", "nobody has the address ff02::1"},
		{"an http target without a scheme", "probe east http gw:80/healthz", "use a URL of the form http://HOST"},
		{"an http target with another scheme", "probe east http https://gw/", "use a URL of the form http://HOST"},
		{"an https target with another scheme", "probe east https http://gw/", "use a URL of the form https://HOST"},
		{"a URL without a host", "probe east http http:///healthz", "use a URL of the form http://HOST"},
		{"a URL with a port only", "probe east http http://:80/", `host "" is neither`},
		{"a URL with port 0", "probe east http http://gw:0/", "no number from 1 to 65535"},
		{"a URL with a password", "probe east http http://me:secret@gw/", "user or password cannot be probed"},
		{"a URL with a fragment", "probe east http \"http://gw/#top\"", "leave out what follows '#'"},
		{"a malformed URL", "probe east http http://gw/%zz", "the URL is malformed"},
		{"a URL with a host that is no name", "probe east http http://g!w/", "is neither an IP address nor a name"},
		{"a grpc target without a port", "probe east grpc gw/shop", "is not HOST:PORT"},
		{"a grpc target that is a URL", "probe east grpc http://gw:50051", `port "" is no number`},
		{"an interval without a value", probe + "interval", "Testfile:3 - Error during parsing: 'interval' takes a duration such as 5s"},
		{"an interval with two values", probe + "interval 5s 6s", "got 2 arguments"},
		{"an interval without a unit", probe + "interval 5", "'interval 5': use a duration from 1s to 10m0s, such as 5s"},
		{"an interval too short", probe + "interval 999ms", "use a duration from 1s"},
		{"an interval too long", probe + "interval 601s", "use a duration from 1s to 10m0s"},
		{"a negative interval", probe + "interval -5s", "use a duration from 1s"},
		{"a timeout too short", probe + "timeout 1ms", "use a duration from 10ms"},
		{"a timeout longer than the interval", probe + "interval 5s\ntimeout 6s", "Testfile:4 - Error during parsing: 'timeout' makes the timeout, 6s, longer than the interval, 5s: lower the timeout"},
		{"an interval shorter than the default timeout", probe + "interval 1s", "Testfile:3 - Error during parsing: 'interval' makes the timeout, 2s, longer than the interval, 1s"},
		{"fall 0", probe + "fall 0", "'fall 0': use a number of probes from 1 to 10"},
		{"fall 11", probe + "fall 11", "use a number of probes from 1 to 10"},
		{"fall that is no number", probe + "fall three", "use a number of probes from 1 to 10"},
		{"rise that is negative", probe + "rise -1", "use a number of probes from 1 to 10"},
		{"rise without a value", probe + "rise", "'rise' takes a number of probes"},
		{"a property twice", probe + "fall 2\nfall 3", "property 'fall' is given twice, first in line 3"},
		{"drain without a cluster", "drain", "'drain' needs the ids of the clusters"},
		{"drain of what is no id", "drain east -west", "'drain -west': cluster id"},
		{"drain of a cluster twice", "drain east EAST", "'drain east': the cluster is named twice"},
		{"tls without a file", probe + "tls", "'tls' takes a file with the certificates"},
		{"tls with a file that is not there", "probe east https https://gw\ntls /does/not/exist.pem", "no such file"},
		{"tls with a file without certificates", "probe east https https://gw\ntls " + empty, "the file holds no certificate in PEM"},
		{"tls without an https probe", probe + "tls " + ca, "Testfile:3 - Error during parsing: 'tls' is for https probes, and there are none: remove it"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			input := tc.body
			if !strings.HasPrefix(input, pluginName) {
				input = "clusterhealth {\n" + tc.body + "\n}"
			}
			_, err := parseText(input)
			if err == nil {
				t.Fatal("Expected an error")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Expected %q in %q", tc.want, err)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("Expected no password in %q", err)
			}
		})
	}
}

func TestKeysTellConfigurationsApart(t *testing.T) {
	ca, _ := writeCA(t)
	parsed := func(body string) *config {
		c, err := parseText("clusterhealth {\n" + body + "\n}")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	base := "probe east tcp gw:443\nprobe west https https://gw"
	tests := []struct {
		name string
		body string
		same bool
	}{
		{"the same in another order and with the defaults written", "interval 5s\nprobe west https https://gw\nprobe east tcp gw:443", true},
		{"another interval", base + "\ninterval 6s", false},
		{"another timeout", base + "\ntimeout 1s", false},
		{"another fall", base + "\nfall 2", false},
		{"another rise", base + "\nrise 3", false},
		{"a drained cluster", base + "\ndrain east", false},
		{"other certificates", base + "\ntls " + ca, false},
		{"another target", "probe east tcp gw:444\nprobe west https https://gw", false},
		{"another kind", "probe east grpc gw:443\nprobe west https https://gw", false},
		{"one probe less", "probe east tcp gw:443", false},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			if got := parsed(base).key() == parsed(tc.body).key(); got != tc.same {
				t.Errorf("Expected the keys to be equal: %v, got %v", tc.same, got)
			}
		})
	}
	here := parsed(base)
	here.local = "east"
	if here.key() == parsed(base).key() {
		t.Error("Expected another local cluster to make another key")
	}
	if parsed("drain a b").key() != parsed("drain b a").key() {
		t.Error("Expected the order of drained clusters not to matter")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("clusterhealth {\n probe east tcp gw:443\n}")
	f.Add("clusterhealth {\n probe east grpc [::1]:1/a\n drain b\n interval 5s\n}\n")
	f.Add("clusterhealth {\n probe east http http://a/\n fall 3\n rise 2\n timeout 1s")
	f.Fuzz(func(t *testing.T, input string) {
		if strings.Contains(input, "tls") || strings.Contains(input, "import") {
			t.Skip("reads files")
		}
		c, err := parseText(input)
		if err != nil || len(c.probes)+len(c.drained) == 0 {
			return
		}
		if c.tracker(0).Bound() < c.interval || c.timeout > c.interval || c.fall < 1 || c.rise < 1 {
			t.Errorf("Expected usable numbers, got %+v", c)
		}
		for _, p := range c.probes {
			if newProber(p, nil) == nil {
				t.Errorf("Expected a prober for %+v", p)
			}
		}
	})
}
