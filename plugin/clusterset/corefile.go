package clusterset

import (
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/caddy/caddyfile"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/fall"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/balance"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/corefile"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

// Defaults of the stanza.
const (
	defaultZone = mcs.Zone
	defaultTTL  = 5                // seconds, as in CoreDNS's kubernetes plugin
	maxTTL      = 3600             // seconds, likewise
	maxAnswers  = 4096             // what a DNS message can hold
	minStale    = 20 * time.Second // a quiet API server is asked every 15 seconds, and has 5 to reply
	maxStale    = 365 * 24 * time.Hour
)

// config is what one stanza says.
type config struct {
	zones       plugin.Zones
	local       topology.ClusterID
	members     []member
	imports     *watch.Connection // nil without `serviceimports`
	dynamic     *rosterSpec       // nil without `clusters`
	policy      *balance.Policy
	ttl         uint32 // seconds
	ignoreEmpty bool
	fall        fall.F
	shadow      bool   // the next plugin answers
	status      string // the address where status is told, "" for nowhere
	// stale is how long a source can be silent before it is stale, expire before it is forgotten; 0 means the default, and
	// never.
	stale, expire time.Duration
	state         string // the folder of the last known state, "" for none
	hash          uint64 // of the words of the stanza, see hashOf
}

// parser reads the stanza. Errors name file, line and property, and say what would be right.
type parser struct {
	*caddy.Controller
	config
	// seen tells the line of each property, but for cluster, of which there are many.
	seen map[string]int
	// importsHere is set for `serviceimports` without a KUBECONFIG, which means the API server of the local cluster.
	importsHere bool
}

// parse reads the one stanza of a server block. It contacts nobody.
func parse(c *caddy.Controller) (*config, error) {
	p := &parser{Controller: c, config: config{ttl: defaultTTL, policy: &balance.Policy{}, hash: hashOf(c.Dispenser)}, seen: map[string]int{}}
	stanzas := 0
	for c.Next() {
		if stanzas++; stanzas > 1 {
			return nil, c.Errf("a second stanza: %v, so write both as one", plugin.ErrOnce)
		}
		if err := p.stanza(); err != nil {
			return nil, err
		}
	}
	return &p.config, nil
}

// hashOf looks at words and where lines end, so not at comments or the space in between.
func hashOf(words caddyfile.Dispenser) uint64 {
	h, line := fnv.New64a(), 0
	for words.Next() {
		if words.Line() != line {
			line = words.Line()
			_, _ = h.Write([]byte{'\n'})
		}
		_, _ = h.Write(append([]byte(words.Val()), 0))
	}
	return h.Sum64()
}

func (p *parser) stanza() error {
	for _, zone := range p.RemainingArgs() {
		normalized := plugin.Host(zone).NormalizeExact()
		if len(normalized) != 1 {
			return p.Errf("zone %q is no domain name: use one such as %s", zone, defaultZone)
		}
		if normalized[0] == "." {
			return p.Errf("zone %q would hold every name: use one such as %s", zone, defaultZone)
		}
		p.zones = append(p.zones, normalized[0])
	}
	if len(p.zones) == 0 {
		p.zones = plugin.Zones{defaultZone}
	}
	opens := p.Dispenser // a copy: it looks ahead
	if !opens.NextArg() && opens.Next() && opens.Val() == "{" {
		return opens.Err("'{' at the beginning of a line: it belongs at the end of the line before")
	}
	if err := p.block(p.property); err != nil {
		return err
	}
	return p.check()
}

func (p *parser) block(line func(name string) error) error { return corefile.Block(p.Controller, line) }

// properties lists what a stanza may hold, for the error about everything else.
const properties = "local, cluster, clusters, serviceimports, prefer, answer, max_answers, panic, stale, state, ttl, ignore, fallthrough, shadow, status"

func (p *parser) property(name string) error {
	if first := p.seen[name]; name != "cluster" && first > 0 {
		return p.Errf("property '%s' is given twice, first in line %d: remove one", name, first)
	}
	p.seen[name] = p.Line()
	switch name {
	case "local":
		return p.parseLocal()
	case "cluster":
		return p.parseCluster()
	case "clusters":
		return p.parseClusters()
	case "serviceimports":
		return p.parseImports()
	case "prefer":
		return p.parsePrefer()
	case "answer":
		return p.parseAnswer()
	case "max_answers":
		n, err := p.number(name, "endpoints", 1, maxAnswers)
		p.policy.MaxAnswers = n
		return err
	case "panic":
		n, err := p.number(name, "percent", 0, 100)
		p.policy.Panic = n
		return err
	case "stale":
		return p.parseStale()
	case "state":
		return p.parseState()
	case "ttl":
		n, err := p.number(name, "seconds", 0, maxTTL)
		p.ttl = uint32(n) //nolint:gosec // checked
		return err
	case "ignore":
		_, err := p.oneOf(name, "empty_service")
		p.ignoreEmpty = true
		return err
	case "fallthrough":
		p.fall.SetZonesFromArgs(p.RemainingArgs())
		return nil
	case "status":
		arg, err := p.one(name, "an address to listen on, such as localhost:9154")
		if err != nil {
			return err
		}
		if p.status, err = parseStatus(arg); err != nil {
			return p.Errf("%v", err)
		}
		return nil
	case "shadow":
		p.shadow = true
		if p.NextArg() {
			return p.Errf("'shadow %s': 'shadow' takes no more words", p.Val())
		}
		return nil
	default:
		return p.Errf("unknown property '%s': use one of %s", name, properties)
	}
}

func (p *parser) one(property, what string) (string, error) {
	return corefile.One(p.Controller, property, what)
}

func (p *parser) oneOf(property string, allowed ...string) (string, error) {
	return corefile.OneOf(p.Controller, property, allowed...)
}

func (p *parser) parseLocal() error {
	arg, err := p.one("local", "the id of the cluster this server runs in")
	if err != nil {
		return err
	}
	if p.local, err = topology.ParseClusterID(arg); err != nil {
		return p.Errf("'local %s': %v", arg, err)
	}
	return nil
}

func (p *parser) parseAnswer() error {
	arg, err := p.oneOf("answer", "one", "all")
	if arg == "all" {
		p.policy.Answer = balance.All
	}
	return err
}

// number takes a whole number of something in a range.
func (p *parser) number(property, unit string, least, most int) (int, error) {
	arg, err := p.one(property, "a number of "+unit)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(arg)
	if err != nil || n < least || n > most {
		return 0, p.Errf("'%s %s': use a whole number of %s from %d to %d", property, arg, unit, least, most)
	}
	return n, nil
}

func (p *parser) parseStale() error {
	args := p.RemainingArgs()
	if len(args) < 1 || len(args) > 2 {
		return p.Errf("'stale' takes DURATION [EXPIRE], such as 60s 24h: got %d arguments", len(args))
	}
	for i, to := range []*time.Duration{&p.stale, &p.expire}[:len(args)] {
		d, err := time.ParseDuration(args[i])
		if err != nil || d < minStale || d > maxStale {
			return p.Errf("'stale %s': use durations from %v to %v, such as 60s", args[i], minStale, maxStale)
		}
		*to = d
	}
	if len(args) == 2 && p.expire <= p.stale {
		return p.Errf("'stale %v %v': what is forgotten after EXPIRE must be stale before, so give a longer one", p.stale, p.expire)
	}
	return nil
}

func (p *parser) parseState() error {
	dir, err := p.one("state", "a folder for the last known state")
	if err != nil {
		return err
	}
	p.state, err = p.folder("state", dir)
	return err
}

// folder looks at a folder, since nobody would notice one that cannot be used before it is needed.
func (p *parser) folder(property, dir string) (string, error) {
	if corefile.Offline(p.Controller) {
		return dir, nil
	}
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(dnsserver.GetConfig(p.Controller).Root, dir)
	}
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return "", p.Errf("'%s': %v: make the folder, or mount a volume there", property, err)
	case !info.IsDir():
		return "", p.Errf("'%s %s' is no folder: name one", property, dir)
	}
	return dir, nil
}

const clustersHelp = "use 'clusters secrets NAMESPACE [SELECTOR]' or 'clusters directory DIR'"

func (p *parser) parseClusters() error {
	args := p.RemainingArgs()
	switch {
	case len(args) == 2 && args[0] == "directory":
		dir, err := p.folder("clusters directory", args[1])
		p.dynamic = &rosterSpec{dir: dir}
		return err
	case (len(args) == 2 || len(args) == 3) && args[0] == "secrets":
		if !topology.IsLabel(args[1]) {
			return p.Errf("'clusters secrets %s': that is no name of a namespace: %s", args[1], clustersHelp)
		}
		p.dynamic = &rosterSpec{namespace: args[1], selector: strings.Join(args[2:], "")}
		if err := watch.CheckSelector(p.dynamic.selector); err != nil {
			return p.Errf("'clusters secrets %s %s': %v", args[1], args[2], err)
		}
		return nil
	default:
		return p.Errf("'clusters %s': %s", strings.Join(args, " "), clustersHelp)
	}
}

// preferLabels are the words of `prefer`, from narrow to broad.
var preferLabels = []struct {
	word  string
	label balance.Label
}{{"node", balance.Node}, {"zone", balance.Zone}, {"cluster", balance.Cluster}, {"region", balance.Region}}

const preferHelp = "use none, service, or some of node, zone, cluster, region in this order"

func (p *parser) parsePrefer() error {
	args := p.RemainingArgs()
	switch {
	case len(args) == 0:
		return p.Errf("'prefer' needs an argument: %s", preferHelp)
	case len(args) == 1 && args[0] == "none":
		p.policy.Prefer = balance.ByLabels
		return nil
	case len(args) == 1 && args[0] == "service":
		p.policy.Prefer = balance.ByService
		return nil
	}
	p.policy.Prefer = balance.ByLabels
	rest := preferLabels
	for _, arg := range args {
		at := 0
		for at < len(rest) && rest[at].word != arg {
			at++
		}
		if at == len(rest) {
			return p.Errf("'prefer %s': %q cannot stand here: %s", strings.Join(args, " "), arg, preferHelp)
		}
		p.policy.Labels = append(p.policy.Labels, rest[at].label)
		rest = rest[at+1:]
	}
	return nil
}

func (p *parser) parseImports() error {
	args := p.RemainingArgs()
	if len(args) == 0 {
		p.importsHere = true
		return nil
	}
	connection, err := p.connect("serviceimports", args)
	p.imports = &connection
	return err
}

func (p *parser) connect(property string, args []string) (watch.Connection, error) {
	return corefile.Connection(p.Controller, property, args)
}

func (p *parser) parseCluster() error {
	m := member{line: p.Line(), origin: "corefile"}
	args := p.RemainingArgs()
	if len(args) == 0 {
		return p.Err("'cluster' needs the cluster's id: cluster NAME [KUBECONFIG [CONTEXT]]")
	}
	id, err := topology.ParseClusterID(args[0])
	if err != nil {
		return p.Errf("'cluster %s': %v", args[0], err)
	}
	m.ID = id
	for _, other := range p.members {
		if other.ID == id {
			return p.Errf("'cluster %s' is given twice, first in line %d: ids are unique in a ClusterSet", id, other.line)
		}
	}
	if m.connection, err = p.connect("cluster "+string(id), args[1:]); err != nil {
		return err
	}
	given := map[string]bool{}
	err = p.block(func(name string) error {
		if given[name] {
			return p.Errf("property '%s' of cluster %s is given twice: remove one", name, id)
		}
		given[name] = true
		if err := m.set(name, p.RemainingArgs()); err != nil {
			return p.Errf("%v", err)
		}
		return nil
	})
	p.members = append(p.members, m)
	return err
}

// check looks at what only the whole stanza can tell.
func (p *parser) check() error {
	if len(p.members) == 0 && p.seen["serviceimports"] == 0 && p.dynamic == nil {
		return p.Err("no 'cluster' and no 'serviceimports': there is nothing to answer from, so add one")
	}
	at := slices.IndexFunc(p.members, func(m member) bool { return m.ID == p.local })
	if p.local != "" && at < 0 {
		return p.errorIn(p.seen["local"], "'local %s' is none of the clusters: add 'cluster %s'", p.local, p.local)
	}
	for i := range p.members {
		m := &p.members[i]
		if m.ID != p.local && !m.hasAddress {
			return p.errorIn(m.line, "cluster %s needs an 'address': how do clients of this server reach its services? Use %s", m.ID, addressChoice)
		}
	}
	var err error
	if p.importsHere {
		if p.imports, err = p.here("serviceimports", at); err != nil {
			return err
		}
	}
	if p.dynamic != nil && p.dynamic.dir == "" {
		p.dynamic.connection, err = p.here("clusters", at)
	}
	return err
}

// here returns the connection to the API server of the local cluster, which stands at a place among the members, or, where
// none is named, of the cluster that this process runs in.
func (p *parser) here(property string, at int) (*watch.Connection, error) {
	if at >= 0 {
		return &p.members[at].connection, nil
	}
	connection, err := corefile.InCluster(p.Controller)
	if err != nil {
		return nil, p.errorIn(p.seen[property], "'%s': %v", property, err)
	}
	return &connection, nil
}

// errorIn is Errf for a line that has been read already.
func (p *parser) errorIn(line int, format string, args ...any) error {
	return fmt.Errorf("%s:%d - Error during parsing: %s", p.File(), line, fmt.Sprintf(format, args...))
}
