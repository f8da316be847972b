package clusterhealth

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/corefile"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// Ranges of the stanza's numbers. More often than once a second, probes are a load; over ten minutes they say nothing.
const (
	minInterval = time.Second
	maxInterval = 10 * time.Minute
	minTimeout  = 10 * time.Millisecond
	maxRun      = 10 // of fall and rise
)

// config is what one stanza says. local is added in OnStartup.
type config struct {
	probes   []probe
	interval time.Duration
	timeout  time.Duration
	fall     int
	rise     int
	drained  []topology.ClusterID
	// roots verify the certificates of https targets, nil means those of the system. rootsID stands for them.
	roots   *x509.CertPool
	rootsID string

	local topology.ClusterID
}

// probe is one `probe` property.
type probe struct {
	cluster topology.ClusterID
	kind    kind
	// target is HOST:PORT, a URL, or HOST:PORT and the name of a service in service.
	target  string
	service string
	line    int
}

// kind is how a member is probed.
type kind string

const (
	kindTCP   kind = "tcp"
	kindHTTP  kind = "http"
	kindHTTPS kind = "https"
	kindGRPC  kind = "grpc"
)

// key is equal for two configurations exactly when one set of probes serves both.
func (c *config) key() string {
	var b strings.Builder
	for _, p := range slices.SortedFunc(slices.Values(c.probes), func(a, b probe) int { return strings.Compare(string(a.cluster), string(b.cluster)) }) {
		fmt.Fprintf(&b, "probe %s %s\n", p.cluster, c.probeKey(p))
	}
	fmt.Fprintf(&b, "%v %v %d %d local %s drain %v\n", c.interval, c.timeout, c.fall, c.rise, c.local, slices.Sorted(slices.Values(c.drained)))
	return b.String()
}

// concerns reports whether anything is said about a member.
func (c *config) concerns(id topology.ClusterID) bool {
	return slices.Contains(c.drained, id) || slices.ContainsFunc(c.probes, func(p probe) bool { return p.cluster == id })
}

// probeKey is equal for two probes that find out the same.
func (c *config) probeKey(p probe) string {
	roots := ""
	if p.kind == kindHTTPS {
		roots = c.rootsID
	}
	return fmt.Sprintf("%s %q %q %s", p.kind, p.target, p.service, roots)
}

func (c *config) tracker(seed uint64) health.Config {
	return health.Config{
		Interval: c.interval, Timeout: c.timeout, Fall: c.fall, Rise: c.rise,
		Local: c.local, Drained: c.drained, Seed: seed,
	}
}

// parser reads the stanza. Errors name file, line and property, and say what would be right.
type parser struct {
	*caddy.Controller
	config
	lines map[string]int // where each property was given
}

// parse reads the one stanza of a server block. It probes nobody.
func parse(c *caddy.Controller) (*config, error) {
	p := &parser{Controller: c, lines: map[string]int{}, config: config{
		interval: health.DefaultInterval, timeout: health.DefaultTimeout, fall: health.DefaultFall, rise: health.DefaultRise,
	}}
	stanzas := 0
	for c.Next() {
		if stanzas++; stanzas > 1 {
			return nil, plugin.ErrOnce
		}
		if err := corefile.Block(c, p.property); err != nil {
			return nil, err
		}
		if err := p.check(); err != nil {
			return nil, err
		}
	}
	return &p.config, nil
}

// properties lists what a stanza may hold, for the error about everything else.
const properties = "probe, interval, timeout, fall, rise, drain, tls"

func (p *parser) property(name string) error {
	if line := p.lines[name]; line != 0 && name != "probe" {
		return p.Errf("property '%s' is given twice, first in line %d", name, line)
	}
	p.lines[name] = p.Line()
	switch name {
	case "probe":
		return p.parseProbe()
	case "interval":
		return p.duration(name, &p.interval, minInterval)
	case "timeout":
		return p.duration(name, &p.timeout, minTimeout)
	case "fall":
		return p.count(name, &p.fall)
	case "rise":
		return p.count(name, &p.rise)
	case "drain":
		return p.parseDrain()
	case "tls":
		return p.parseTLS()
	default:
		return p.Errf("unknown property '%s': use one of %s", name, properties)
	}
}

func (p *parser) duration(property string, to *time.Duration, least time.Duration) error {
	arg, err := corefile.One(p.Controller, property, "a duration such as 5s")
	if err != nil {
		return err
	}
	d, err := time.ParseDuration(arg)
	if err != nil || d < least || d > maxInterval {
		return p.Errf("'%s %s': use a duration from %v to %v, such as 5s", property, arg, least, maxInterval)
	}
	*to = d
	return nil
}

func (p *parser) count(property string, to *int) error {
	arg, err := corefile.One(p.Controller, property, "a number of probes")
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(arg)
	if err != nil || n < 1 || n > maxRun {
		return p.Errf("'%s %s': use a number of probes from 1 to %d", property, arg, maxRun)
	}
	*to = n
	return nil
}

func (p *parser) parseDrain() error {
	args := p.RemainingArgs()
	if len(args) == 0 {
		return p.Err("'drain' needs the ids of the clusters to be drained: drain CLUSTER...")
	}
	for _, arg := range args {
		id, err := topology.ParseClusterID(arg)
		if err != nil {
			return p.Errf("'drain %s': %v", arg, err)
		}
		if slices.Contains(p.drained, id) {
			return p.Errf("'drain %s': the cluster is named twice", id)
		}
		p.drained = append(p.drained, id)
	}
	return nil
}

// parseTLS reads the certificates that https targets are verified with. A relative path is relative to the *root*
// plugin's folder, as elsewhere in CoreDNS.
func (p *parser) parseTLS() error {
	path, err := corefile.One(p.Controller, "tls", "a file with the certificates of authorities, in PEM")
	if err != nil {
		return err
	}
	if corefile.Offline(p.Controller) {
		p.roots = x509.NewCertPool()
		return nil
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dnsserver.GetConfig(p.Controller).Root, path)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return p.Errf("'tls': %v", err)
	}
	p.roots = x509.NewCertPool()
	if !p.roots.AppendCertsFromPEM(content) {
		return p.Errf("'tls %s': the file holds no certificate in PEM", path)
	}
	p.rootsID = fmt.Sprintf("%x", sha256.Sum256(content))
	return nil
}

// probeUsage says what a probe looks like, for errors.
const probeUsage = "probe CLUSTER tcp HOST:PORT, http URL, https URL, or grpc HOST:PORT[/SERVICE]"

func (p *parser) parseProbe() error {
	line, args := p.Line(), p.RemainingArgs()
	if len(args) != 3 {
		return p.Errf("'probe' takes a cluster, a kind and a target, got %d arguments: use %s", len(args), probeUsage)
	}
	id, err := topology.ParseClusterID(args[0])
	if err != nil {
		return p.Errf("'probe %s': %v", args[0], err)
	}
	for _, other := range p.probes {
		if other.cluster == id {
			return p.Errf("'probe %s' is given twice, first in line %d: a cluster has one target", id, other.line)
		}
	}
	made := probe{cluster: id, kind: kind(args[1]), target: args[2], line: line}
	switch made.kind {
	case kindTCP:
		err = checkHostPort(made.target)
	case kindHTTP, kindHTTPS:
		err = checkURL(made.target, args[1])
	case kindGRPC:
		made.target, made.service, _ = strings.Cut(args[2], "/")
		err = checkHostPort(made.target)
	default:
		return p.Errf("'probe %s %s': unknown kind: use %s", id, args[1], probeUsage)
	}
	if err != nil {
		return p.Errf("'probe %s %s': %v", id, args[1], err) // not the target, which may hold a password
	}
	p.probes = append(p.probes, made)
	return nil
}

func checkHostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not HOST:PORT, as in gateway.example.org:443 or [2001:db8::1]:443", s)
	}
	return errors.Join(checkHost(host), checkPort(port))
}

func checkPort(port string) error {
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("port %q is no number from 1 to 65535", port)
	}
	return nil
}

func checkHost(host string) error {
	if a, err := netip.ParseAddr(host); err == nil {
		if a.IsUnspecified() || a.IsMulticast() {
			return fmt.Errorf("nobody has the address %s", host)
		}
		return nil
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	for label := range strings.SplitSeq(name, ".") {
		if !topology.IsLabel(label) || len(name) > 253 {
			return fmt.Errorf("host %q is neither an IP address nor a name", host)
		}
	}
	return nil
}

// checkURL refuses what a probe would not use as written. A password would end up in logs.
func checkURL(s, scheme string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return fmt.Errorf("the URL is malformed, use %s://HOST[:PORT][/PATH]", scheme)
	case u.Scheme != scheme || u.Host == "":
		return fmt.Errorf("use a URL of the form %s://HOST[:PORT][/PATH]", scheme)
	case u.User != nil:
		return errors.New("a URL with a user or password cannot be probed: use one that needs none")
	case u.Fragment != "":
		return errors.New("a fragment is never sent: leave out what follows '#'")
	case u.Port() != "":
		return errors.Join(checkHost(u.Hostname()), checkPort(u.Port()))
	default:
		return checkHost(u.Hostname())
	}
}

// check looks at what only the whole stanza can tell.
func (p *parser) check() error {
	at := func(property, format string, args ...any) error {
		return fmt.Errorf("%s:%d - Error during parsing: '%s' %s", p.File(), p.lines[property], property, fmt.Sprintf(format, args...))
	}
	if len(p.probes) == 0 && len(p.drained) == 0 {
		return p.Err("no 'probe' and no 'drain': there is nothing to do")
	}
	if p.timeout > p.interval {
		property := "timeout"
		if p.lines[property] == 0 {
			property = "interval"
		}
		return at(property, "makes the timeout, %v, longer than the interval, %v: lower the timeout", p.timeout, p.interval)
	}
	https := slices.ContainsFunc(p.probes, func(p probe) bool { return p.kind == kindHTTPS })
	if p.roots != nil && !https {
		return at("tls", "is for https probes, and there are none: remove it")
	}
	return nil
}
