package clusterset

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"
	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/lease"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/status"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/statuspage"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

// shopMembers are the members of the shop world as a Corefile would have them.
func shopMembers(c *Clusterset) {
	weight := 30
	c.members = []member{
		{Member: mcs.Member{ID: "east"}, region: "eu", origin: "corefile"},
		{Member: mcs.Member{ID: "west.eu", Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, region: "us", weight: &weight, origin: "secret members/west"},
	}
}

// ownStore gives a test a store of its own: what is known of members is the same for all.
func ownStore(t *testing.T) {
	t.Helper()
	old := process
	t.Cleanup(func() { process = old })
	process = newTestStore(t)
}

func pagesOf(blocks ...*Clusterset) *pages {
	return newPages(func() []*Clusterset { return blocks })
}

// fetch asks for a path.
func fetch(t *testing.T, p http.Handler, method, path string) (w *httptest.ResponseRecorder, body string) {
	t.Helper()
	w = httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, nil))
	return w, w.Body.String()
}

// toldAs fetches a document and takes it apart; no field may be unknown.
func toldAs[T any](t *testing.T, p http.Handler, path string) (out T) {
	t.Helper()
	r, body := fetch(t, p, http.MethodGet, path)
	decoder := json.NewDecoder(strings.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&out); err != nil || r.Code != http.StatusOK {
		t.Fatalf("%s: %d, %v: %s", path, r.Code, err, body)
	}
	return out
}

func TestStatusPaths(t *testing.T) {
	ownStore(t)
	one := handlerOf(shop(true), shopMembers)
	other := handlerOf(shop(true), shopMembers, func(c *Clusterset) { c.zones, c.ttl = plugin.Zones{"example.org."}, 7 })
	p := pagesOf(one, other)
	const json, html = "application/json; charset=utf-8", "text/html; charset=utf-8"
	for _, tc := range []struct {
		name, method, path string
		code               int
		mediaType, says    string
	}{
		{"the overview", "GET", "/", 200, html, "west.eu"},
		{"filtered", "GET", "/?q=web", 200, html, "shop/web"},
		{"a service's page", "GET", "/services/shop/web", 200, html, "10.0.0.1"},
		{"a service's page that is not there", "GET", "/services/shop/none", 404, html, "no service shop/none is known"},
		{"the form of an explanation", "GET", "/explain", 200, html, "<form"},
		{"the page of an explanation", "GET", "/explain?name=web.shop.svc.clusterset.local&client=10.0.0.9", 200, html, "is given the address of east"},
		{"the page of a question that is none", "GET", "/explain?name=web.shop.svc.clusterset.local&client=x", 400, html, "is no address"},
		{"a style", "GET", "/assets/style.css", 200, "text/css; charset=utf-8", "{"},
		{"an asset that is not there", "GET", "/assets/none.css", 404, html, "nothing under this path"},
		{"the members", "GET", "/api/v1/members", 200, json, `"id":"west.eu"`},
		{"the services", "GET", "/api/v1/services", 200, json, `"name":"web"`},
		{"a service", "GET", "/api/v1/services/shop/web", 200, json, `"fqdn":"web.shop.svc.clusterset.local."`},
		{"a service that is not there", "GET", "/api/v1/services/shop/none", 404, json, "no service shop/none is known"},
		{"a service without a name", "GET", "/api/v1/services/shop", 404, json, "no service"},
		{"an explanation", "GET", "/api/v1/explain?name=web.shop.svc.clusterset.local&type=aaaa&client=10.0.0.9", 200, json, "fd00::1"},
		{"an explanation for whoever asks", "GET", "/api/v1/explain?name=web.shop.svc.clusterset.local", 200, json, `"address":"192.0.2.1"`},
		{"an explanation of the other block's name", "GET", "/api/v1/explain?name=web.shop.svc.example.org", 200, json, `\t7\tIN\tA\t`},
		{"an explanation of nothing", "GET", "/api/v1/explain", 400, json, "parameter name is missing"},
		{"an explanation of a name elsewhere", "GET", "/api/v1/explain?name=example.com", 400, json, "in none of the zones"},
		{"an explanation of no type", "GET", "/api/v1/explain?name=a&type=nonsense", 400, json, `is none`},
		{"an explanation of a size", "GET", "/api/v1/explain?name=web.shop.svc.clusterset.local&size=100", 400, json, `from 512`},
		{"an explanation of TCP", "GET", "/api/v1/explain?name=web.shop.svc.clusterset.local&tcp=1&size=4096", 200, json, "10.0.0.1"},
		{"an explanation of neither", "GET", "/api/v1/explain?name=web.shop.svc.clusterset.local&tcp=x", 400, json, "true or false"},
		{"another version", "GET", "/api/v2/members", 404, json, "nothing under this path"},
		{"elsewhere", "GET", "/metrics", 404, html, "nothing under this path"},
		{"the other block", "GET", "/zones/example.org/api/v1/members", 200, json, `"ttlSeconds":7`},
		{"the other block's page", "GET", "/zones/example.org/", 200, html, "west.eu"},
		{"a block that is not there", "GET", "/zones/example.com/api/v1/members", 404, json, `has the zone`},
		{"only the headers", "HEAD", "/api/v1/members", 200, json, ""},
		{"a change", "POST", "/api/v1/members", 405, json, "use GET"},
		{"a deletion", "DELETE", "/", 405, html, "use GET"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, body := fetch(t, p, tc.method, tc.path)
			if r.Code != tc.code || r.Header().Get("Content-Type") != tc.mediaType || !strings.Contains(body, tc.says) || tc.method == "HEAD" && body != "" {
				t.Errorf("Got %d, %s: %.600s", r.Code, r.Header().Get("Content-Type"), body)
			}
			if tc.code == 405 && r.Header().Get("Allow") != "GET, HEAD" {
				t.Errorf("Allowed is %q", r.Header().Get("Allow"))
			}
			cached := "no-store"
			if tc.mediaType != json && tc.mediaType != html {
				cached = "public, max-age=31536000, immutable"
			}
			for header, want := range map[string]string{
				"Content-Security-Policy": statuspage.SecurityPolicy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
				"X-Frame-Options": "DENY", "Cache-Control": cached, "Cross-Origin-Resource-Policy": "same-origin",
			} {
				if got := r.Header().Get(header); got != want {
					t.Errorf("%s is %q, want %q", header, got, want)
				}
			}
		})
	}
	if r, body := fetch(t, pagesOf(), http.MethodGet, "/api/v1/members"); r.Code != http.StatusServiceUnavailable {
		t.Errorf("Without a server block: %d, %s", r.Code, body)
	}
}

// TestOnlyWhoKnowsUsIsAnswered: a site that points its own name to 127.0.0.1 must not read what a forwarded port leads to.
func TestOnlyWhoKnowsUsIsAnswered(t *testing.T) {
	p := pagesOf(handlerOf(shop(true), shopMembers))
	for _, tc := range []struct {
		name, from, host string
		code             int
	}{
		{"a browser through a forwarded port", "127.0.0.1:5", "localhost:9154", 200},
		{"by the address", "127.0.0.1:5", "127.0.0.1:9154", 200},
		{"by the address of IPv6", "[::1]:5", "[::1]:9154", 200},
		{"without a port", "[::1]:5", "[::1]", 200},
		{"in capitals", "127.0.0.1:5", "LOCALHOST", 200},
		{"by another name", "127.0.0.1:5", "evil.example.org:9154", 421},
		{"by another name, mapped", "[::ffff:127.0.0.1]:5", "evil.example.org", 421},
		{"by nearly the name", "127.0.0.1:5", "localhost.example.org", 421},
		{"a proxy elsewhere, which has to know what it does", "10.0.0.7:5", "status.example.org", 200},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, status.PathMembers, nil)
			r.RemoteAddr, r.Host = tc.from, tc.host
			w := httptest.NewRecorder()
			if p.ServeHTTP(w, r); w.Code != tc.code || (tc.code != 200) != strings.Contains(w.Body.String(), "ask for localhost") {
				t.Errorf("Got %d: %.200s", w.Code, w.Body)
			}
		})
	}
}

func TestWhatIsAskedForIsEscaped(t *testing.T) {
	p := pagesOf(handlerOf(shop(true), shopMembers))
	const evil = "%3Cscript%3Ealert(1)%3C/script%3E"
	for _, path := range []string{"/" + evil, "/explain?name=" + evil, "/explain?name=a&client=" + evil, "/?q=" + evil + "&mq=" + evil, "/services/shop/" + evil, "/zones/" + evil + "/"} {
		if _, body := fetch(t, p, http.MethodGet, path); strings.Contains(body, "<script>alert") {
			t.Errorf("%s: %s", path, body)
		}
	}
}

// watchesNodes is a locator whose Nodes cannot be read.
type watchesNodes struct{ atPlaces }

func (watchesNodes) Nodes() (watch.Status, bool) {
	return watch.Status{Problems: map[string]watch.Problem{"nodes": watch.Forbidden}}, true
}

func TestMembersDocument(t *testing.T) {
	ownStore(t)
	c := handlerOf(shop(true), shopMembers, func(c *Clusterset) {
		c.healther = inHealth{health.NewSnapshot(map[topology.ClusterID]health.Status{"west.eu": {State: health.Unhealthy, Probed: true, Reason: health.ReasonFailing}})}
	})
	process.rejected.count("west.eu", "address")
	process.rejected.count("west.eu", "address")
	process.conditions.setDrained("west.eu", true)
	process.conditions.setStale("east", true)
	process.claims.set("west.eu", "other")
	t.Cleanup(func() { forgetSource("west.eu", false) })
	c.locator = watchesNodes{}
	m := toldAs[status.Members](t, pagesOf(c), status.PathMembers)
	if got := m.Members[0].Sources; len(got) != 1 || got[0].Kind != "nodes" || got[0].Problems["nodes"] != "forbidden" || len(m.Members[1].Sources) != 0 {
		t.Errorf("The sources are %+v", got)
	}
	if s := m.Server; s.Local != "east" || s.Services != 8 || s.Serial == 0 || s.TTLSeconds != 5 || s.Answer != "one" || !slices.Equal(s.Prefer, []string{"cluster", "region"}) || !slices.Equal(s.Zones, []string{defaultZone}) {
		t.Errorf("The server is %+v", s)
	}
	if _, err := time.Parse(time.RFC3339, m.Server.Time); err != nil {
		t.Error(err)
	}
	if len(m.Members) != 2 {
		t.Fatalf("The members are %+v", m.Members)
	}
	east, west := m.Members[0], m.Members[1]
	if east.ID != "east" || !east.Local || east.Region != "eu" || east.Health.State != "healthy" || east.Invalid["NoService"] != 1 || len(east.Health.History) != 0 {
		t.Errorf("The local member is %+v", east)
	}
	if west.Rejections["address"] != 2 || !west.Drained || west.Health.State != "excluded" || west.ClaimedID != "other" || *west.Weight != 30 ||
		west.Origin != "secret members/west" || !slices.Equal(west.Allow, []string{"10.0.0.0/8"}) ||
		len(west.Health.History) != 1 || west.Health.History[0].Reason != reasonDrained {
		t.Errorf("The other member is %+v", west)
	}
}

func TestServiceDocument(t *testing.T) {
	ownStore(t)
	w := shop(true)
	for id, address := range map[topology.ClusterID]string{"east": "10.0.0.1", "west.eu": "10.1.0.1"} {
		s := clusterIPShard(address)
		s.Export = mcs.Export{WeightPercent: 50, Created: 1_700_000_000}
		w.shard(id, "shop", "web", s)
	}
	w.publish()
	c := handlerOf(w, shopMembers)
	all := toldAs[status.Services](t, pagesOf(c), status.PathServices)
	var names []string
	for _, s := range all.Services {
		names = append(names, s.Namespace+"/"+s.Name)
	}
	if want := []string{"data/bare", "data/db", "data/down", "shop/absent", "shop/idle", "shop/imported", "shop/v6", "shop/web"}; !slices.Equal(names, want) {
		t.Errorf("The services are %v", names)
	}
	s := toldAs[status.Service](t, pagesOf(c), status.PathServices+"/shop/web")
	if s.FQDN != "web.shop.svc.clusterset.local." || s.Type != "ClusterSetIP" || s.Ready != 2 || s.Total != 2 || len(s.Ports) != 3 || !slices.Equal(s.Members, []string{"east", "west.eu"}) {
		t.Errorf("The service is %+v", s)
	}
	if w := s.Contributions; len(w) != 2 || w[0].Weight != 0.5 || w[1].Weight != 15 || !slices.Equal(w[0].Addresses, []string{"10.0.0.1"}) || w[0].Exported != "2023-11-14T22:13:20Z" {
		t.Errorf("The parts are %+v", w)
	}
	if len(s.Matrix) != 2 || s.Matrix[0].Cluster != "east" || s.Matrix[0].Shares["east"] != 1 || s.Matrix[1].Shares["west.eu"] != 1 {
		t.Errorf("The matrix is %+v", s.Matrix)
	}
	if len(all.Matrix) != 2 || all.Matrix[0].Shares["east"] <= 0.5 {
		t.Errorf("On average it is %+v", all.Matrix)
	}
}

func TestServicesTellWhoIsLeftOut(t *testing.T) {
	ownStore(t)
	for _, tc := range []struct {
		name           string
		east, west     *mcs.Shard
		leftOut, words map[string]string
	}{
		{"all take part", clusterIPShard("10.0.0.1"), clusterIPShard("10.1.0.1"), nil, nil},
		{"an address that is not allowed", clusterIPShard("10.0.0.1"), clusterIPShard("192.0.2.1"), map[string]string{"west.eu": "not_allowed"}, map[string]string{"west.eu": "'allow'"}},
		{"an export of nothing", &mcs.Shard{}, clusterIPShard("10.1.0.1"), map[string]string{"east": "NoService"}, map[string]string{"east": "no Service of this name"}},
		{
			"both", &mcs.Shard{}, clusterIPShard("10.1.0.1", "192.0.2.1"), map[string]string{"east": "NoService", "west.eu": "not_allowed"},
			map[string]string{"east": "no Service of this name", "west.eu": "'allow'"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newQuietWorld(mcs.Scope{Members: []mcs.Member{{ID: "east"}, {ID: "west.eu", Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}})
			w.ApplyShard("east", mcs.ServiceKey{Namespace: "shop", Name: "web"}, tc.east, time.Time{})
			w.ApplyShard("west.eu", mcs.ServiceKey{Namespace: "shop", Name: "web"}, tc.west, time.Time{})
			w.publish()
			c := handlerOf(w, shopMembers)
			all := c.Services().Services
			if len(all) != 1 || !maps.Equal(all[0].LeftOut, tc.leftOut) {
				t.Errorf("%+v, want one with %v", all, tc.leftOut)
			}
			one, _ := c.Service("shop", "web")
			if len(one.Unusable) != len(tc.words) {
				t.Errorf("%v in words", one.Unusable)
			}
			for id, words := range tc.words {
				if !strings.Contains(one.Unusable[id], words) {
					t.Errorf("%s: %q, want %q in it", id, one.Unusable[id], words)
				}
			}
		})
	}
}

func TestWhatIsLeftOutIsCountedByWhy(t *testing.T) {
	w := newQuietWorld(mcs.Scope{Members: []mcs.Member{{ID: "east"}, {ID: "west", Namespaces: []string{"data"}}}})
	external := clusterIPShard("10.0.0.1")
	external.Service.ExternalName = true
	for name, shard := range map[string]*mcs.Shard{"none": {}, "external": external, "good": clusterIPShard("10.0.0.2")} {
		w.ApplyShard("east", mcs.ServiceKey{Namespace: "shop", Name: name}, shard, time.Time{})
	}
	w.ApplyShard("west", mcs.ServiceKey{Namespace: "shop", Name: "good"}, clusterIPShard("10.1.0.2"), time.Time{})
	w.publish()
	unusable, invalid := countLeftOut(w.snapshot.Load())
	if want := map[string]int{"NoService": 1, "InvalidServiceType": 1}; !maps.Equal(invalid["east"], want) || len(invalid) != 1 {
		t.Errorf("Invalid are %v, want %v of east", invalid, want)
	}
	if want := map[string]int{"namespace": 1}; !maps.Equal(unusable["west"], want) || len(unusable) != 1 {
		t.Errorf("Unusable are %v, want %v of west", unusable, want)
	}
}

// TestNothingSecretIsTold looks for credentials and paths in all documents.
func TestNothingSecretIsTold(t *testing.T) {
	ownStore(t)
	path := kubeconfigFile(t)
	config, err := parseStanza(path, "clusterset {\n local east\n cluster east KC east\n cluster west KC west {\n address clusterip\n region r\n }\n serviceimports KC\n}")
	if err != nil {
		t.Fatal(err)
	}
	tenant := &lease.Tenant{}
	w, key := process.mustAcquire(t, tenant, config)
	c := &Clusterset{config: *config, world: w}
	p := pagesOf(c)
	known := func(m status.Member) bool {
		return len(m.Sources) > 0 && m.Sources[0].Problems["discovery"] == "unreachable"
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		m := toldAs[status.Members](t, p, status.PathMembers)
		if !slices.ContainsFunc(m.Members, func(m status.Member) bool { return !known(m) }) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("The members are %+v", m.Members)
		}
	}
	for _, wanted := range []string{"/", "/explain", status.PathMembers, status.PathServices, status.PathExplain + "?name=web.shop.svc.clusterset.local"} {
		_, body := fetch(t, p, http.MethodGet, wanted)
		for _, secret := range []string{path, "kubeconfig", "127.0.0.1:1", "token"} {
			if strings.Contains(body, secret) {
				t.Fatalf("%s tells %q: %s", wanted, secret, body)
			}
		}
	}
	m := toldAs[status.Members](t, p, status.PathMembers)
	if len(m.Members) != 3 || m.Members[2].ID != "serviceimports" || len(m.Members[0].Sources) != 4 || len(m.Members[1].Sources) != 2 {
		t.Errorf("The members are %+v", m.Members)
	}
	for _, one := range m.Members {
		if one.Sources[0].State != "syncing" {
			t.Errorf("%s: the sources are %+v", one.ID, one.Sources)
		}
	}
	process.worlds.Release(tenant, key)
}

// largeWorld has 100,000 endpoints.
func largeWorld() *world {
	return newTestWorld(shopScope, func(w *world) {
		w.ApplyNamespace("shop", true)
		for i := range 20_000 {
			s := sliceOf([]mcs.Port{http80})
			for e := range 5 {
				one := host(fmt.Sprintf("10.%d.%d.%d", 8+e, i>>8, i&255), "")
				s.Endpoints.Add(&one)
			}
			w.shard([]topology.ClusterID{"east", "west.eu"}[i%2], "shop", fmt.Sprintf("web-%d", i), headlessShard(s))
		}
		w.allSynced()
	})
}

// smallBuffers accepts connections that take little before somebody reads.
type smallBuffers struct{ net.Listener }

func (l smallBuffers) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok {
		err = tcp.SetWriteBuffer(4096)
	}
	return conn, err
}

// TestASlowReaderHoldsNobodyUp lets readers of a large document stop in the middle. Queries, updates and other readers of the
// address go on.
func TestASlowReaderHoldsNobodyUp(t *testing.T) {
	w := largeWorld()
	c := handlerOf(w, shopMembers)
	server := httptest.NewUnstartedServer(pagesOf(c))
	server.Listener = smallBuffers{server.Listener}
	server.Start()
	defer server.Close()
	var stopped []net.Conn
	for range atOnce {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", status.PathServices); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 1000)); err != nil { // the document is being written
			t.Fatal(err)
		}
		stopped = append(stopped, conn)
	}

	began := time.Now()
	for i := range 100 {
		w.shard("east", "shop", "web-0", headlessShard(sliceOf([]mcs.Port{http80}, host(fmt.Sprintf("10.99.0.%d", i+1), ""))))
		w.publish()
		reply := dnstest.NewRecorder(&test.ResponseWriter{})
		if _, err := c.ServeDNS(t.Context(), reply, new(dns.Msg).SetQuestion("web-0.shop.svc.clusterset.local.", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		if got := reply.Msg.Answer[0].(*dns.A).A.String(); got != fmt.Sprintf("10.99.0.%d", i+1) {
			t.Fatalf("After update %d the answer is %s", i, got)
		}
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("100 updates and queries took %s", took)
	}

	r, err := http.Get(server.URL + status.PathMembers) //nolint:noctx // of this test
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if body, _ := io.ReadAll(r.Body); r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" || !bytes.Contains(body, []byte("ask again")) {
		t.Errorf("One reader too many is answered %d: %s", r.StatusCode, body)
	}
	for _, conn := range stopped {
		conn.Close()
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		again, err := http.Get(server.URL + status.PathMembers) //nolint:noctx // of this test
		if err != nil {
			t.Fatal(err)
		}
		again.Body.Close()
		if again.StatusCode == http.StatusOK {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("Readers that have gone are still waited for")
		}
	}
}

// TestEveryFieldIsDescribed looks for the fields of the documents in their description.
func TestEveryFieldIsDescribed(t *testing.T) {
	text, err := os.ReadFile("../../docs/status-api.md")
	if err != nil {
		t.Fatal(err)
	}
	fields := 0
	seen := map[reflect.Type]bool{}
	var look func(reflect.Type)
	look = func(of reflect.Type) {
		switch of.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			look(of.Elem())
		case reflect.Struct:
			if seen[of] {
				return
			}
			seen[of] = true
			for f := range of.Fields() {
				if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
					fields++
					if !regexp.MustCompile("`" + name + `(\[\])?` + "`").Match(text) {
						t.Errorf("%s.%s: %q is not described", of.Name(), f.Name, name)
					}
				}
				look(f.Type)
			}
		}
	}
	for _, document := range []any{status.Error{}, status.Members{}, status.Services{}, status.Service{}, status.Explanation{}} {
		look(reflect.TypeOf(document))
	}
	if fields < 80 {
		t.Errorf("Only %d fields were looked at", fields)
	}
}

// TestConnectionsAreBounded opens one connection more than there is room for.
func TestConnectionsAreBounded(t *testing.T) {
	ownStore(t)
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &bounded{Listener: ln, free: make(chan struct{}, 2)}
	server := &http.Server{Handler: pagesOf(handlerOf(shop(true), shopMembers)), ReadHeaderTimeout: readTimeout}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(b) })
	defer serving.Wait()
	defer server.Close()
	// answered tells whether a new connection gets an answer; it is closed by the second result.
	answered := func() (bool, func()) {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", status.PathMembers)
		_, err = conn.Read(make([]byte, 1))
		return err == nil, func() { conn.Close() }
	}
	var last func()
	for i := range 3 {
		ok, done := answered()
		defer done()
		if ok != (i < 2) {
			t.Errorf("Connection %d is answered: %v", i+1, ok)
		}
		if i == 1 {
			last = done
		}
	}
	last()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		ok, done := answered()
		done()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("The room of a connection that has ended is not used again")
		}
	}
}

// FuzzStatus asks for any path with any method: nothing panics, every answer has the headers, and what is asked for is never
// written as HTML.
func FuzzStatus(f *testing.F) {
	p := pagesOf(handlerOf(shop(true), shopMembers))
	for _, path := range []string{"/", "/?q=web&sort=-name", "/services/shop/web", "/explain?name=web.shop.svc.clusterset.local&client=::1&type=SRV", status.PathMembers, status.PathServices + "/a/b", status.PathExplain + "?name=x&size=512&tcp=1", "/zones/clusterset.local/", "/assets/style.css"} {
		f.Add("GET", path)
	}
	f.Add("POST", "/")
	f.Fuzz(func(t *testing.T, method, path string) {
		u, err := url.Parse("/" + strings.TrimPrefix(path, "/"))
		if err != nil || u.Host != "" {
			return
		}
		r := &http.Request{Method: method, URL: u, Header: http.Header{}, RemoteAddr: "192.0.2.1:1"}
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r.WithContext(t.Context()))
		if w.Header().Get("Content-Security-Policy") == "" || w.Header().Get("X-Content-Type-Options") != "nosniff" || w.Code == http.StatusInternalServerError {
			t.Errorf("%s %s: %d %v", method, path, w.Code, w.Header())
		}
		if body := w.Body.String(); strings.Contains(path, "<script") && strings.Contains(strings.ReplaceAll(body, "<script src", ""), "<script") {
			t.Errorf("%s: %s", path, body)
		}
	})
}
