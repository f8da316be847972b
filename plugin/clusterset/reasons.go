package clusterset

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/balance"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/status"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// reason says in a few words why a candidate was kept or dropped.
func (e *explaining) reason(s *mcs.Service, b *balance.Explanation, c *balance.Candidate, addrs []netip.Addr) string {
	id := s.Members[c.Member].Cluster
	switch c.Outcome {
	case balance.Given:
		return e.givenBecause(s, b, c)
	case balance.Addressless:
		for _, u := range e.snapshot.Report(s.Key().Namespace, s.Key().Name).Unusable {
			if u.Cluster == id {
				return unusableBecause[u.Reason]
			}
		}
		return "it has no address"
	case balance.Excluded:
		return "takes no part while others can answer: " + cmp.Or(e.excludedBecause(id), "its weight is 0")
	case balance.Idle:
		return "no endpoint of it is ready"
	case balance.WrongFamily:
		family := "IPv4"
		if e.qtype == dns.TypeAAAA {
			family = "IPv6"
		}
		if len(addrs) == 0 {
			return "it has no address"
		}
		return "it has no address of the family asked for, " + family
	case balance.OtherTier:
		return e.otherTier(b, c)
	case balance.OtherPart:
		if c.State == health.Degraded {
			return "degraded: it is for what the healthy ones of its tier cannot take"
		}
		if b.Choice.Degraded && c.State == health.Healthy {
			return "the draw fell on the degraded part of its tier"
		}
		return c.State.String() + ": it is given only when nothing is healthy or degraded"
	case balance.LeftOut:
		if most := e.policy.MaxAnswers; most > 0 {
			return fmt.Sprintf("in the tier that was drawn, but the answer holds %d endpoints at most", most)
		}
		return "in the tier that was drawn, but the message has no room for it"
	default:
		return fmt.Sprintf("in the tier that was drawn, but there %s was drawn by weight", b.Choice.Member)
	}
}

// excludedBecause is empty when the member itself is not excluded.
func (e *explaining) excludedBecause(id topology.ClusterID) string {
	if st := e.view.Health.Status(id); st.State == health.Excluded {
		return st.Reason
	}
	return ""
}

func (e *explaining) givenBecause(s *mcs.Service, b *balance.Explanation, c *balance.Candidate) string {
	alone := true
	for i := range b.Candidates {
		o := &b.Candidates[i]
		alone = alone && (o.Outcome != balance.NotDrawn && (o.Outcome != balance.Given || o.Member == c.Member))
	}
	tier := "the draw fell on its tier"
	if c.Tier >= 0 && c.Tier < len(b.Tiers) {
		switch l := b.Tiers[c.Tier].Load; {
		case b.Choice.Panic:
			tier = "nothing is healthy or degraded enough, so all that is ready may answer"
		case max(l.Healthy, l.Degraded) == 10000:
			tier = "its tier takes all clients"
		}
	}
	switch {
	case b.Choice.Member == "" && !alone:
		return tier + ", and everybody in it answers"
	case alone:
		return tier + ", and there is nobody else in it"
	case s.ClientIPAffinity:
		return tier + ", and it was drawn there by weight, for this client for ever"
	default:
		return tier + ", and it was drawn there by weight"
	}
}

func (e *explaining) otherTier(b *balance.Explanation, c *balance.Candidate) string {
	if c.Tier < 0 || c.Tier >= len(b.Tiers) {
		return "it is in no tier"
	}
	l := b.Tiers[c.Tier].Load
	switch {
	case l.Healthy+l.Degraded == 0 && c.Tier > b.Choice.Tier:
		return "farther away, and nearer ones take all clients"
	case l.Healthy+l.Degraded == 0:
		return "nearer, but nothing there is well"
	default:
		return fmt.Sprintf("its tier takes %.2f %% of the clients, and this one is not among them", percent(l.Healthy+l.Degraded))
	}
}

// describeLeftOut adds the clusters whose exports count for nothing, with the reason.
func (e *explaining) describeLeftOut() {
	if e.name.kind != serviceName && e.name.kind != belowName {
		return
	}
	leftOut := leftOutOf(e.snapshot.Report(e.name.namespace, e.name.service))
	for _, member := range slices.Sorted(maps.Keys(leftOut)) {
		there := slices.ContainsFunc(e.out.Candidates, func(c status.Candidate) bool { return c.Member == member })
		if !there {
			id := topology.ClusterID(member)
			st := e.view.Health.Status(id)
			e.out.Candidates = append(e.out.Candidates, status.Candidate{
				Member: member, Region: e.view.Regions[id], Health: st.State.String(), HealthReason: st.Reason, Tier: -1, Reason: leftOutBecause(leftOut[member]),
			})
		}
	}
}

// verdict says in one sentence what is answered and why.
func (e *explaining) verdict() string {
	if e.shadow {
		return "The next plugin answers (shadow). Without that: " + e.verdictAlone()
	}
	return e.verdictAlone()
}

// verdictAlone is the verdict without regard to `shadow`.
func (e *explaining) verdictAlone() string {
	n := &e.name
	switch {
	case e.refused:
		return "Zone transfers are refused."
	case e.absent && e.fall.Through(strings.ToLower(e.qname)):
		return "The name is not known, so the next plugin answers (fallthrough)."
	case e.absent && !e.certain:
		return fmt.Sprintf("Nobody who has told all it knows has this name, but it may yet come from %s, so the answer is SERVFAIL: clients ask again.", e.unsynced())
	case e.absent:
		return e.denied()
	case n.kind == serviceName, n.kind == belowName:
		return e.ofService()
	case len(e.records) == 0:
		return fmt.Sprintf("The name exists, but has no %s records.", e.out.Type)
	case n.kind == serverName:
		return "The name stands for this server."
	default:
		return "The zone itself has this record."
	}
}

func (e *explaining) unsynced() string {
	var names []string
	for _, s := range e.snapshot.Unsynced() {
		name := s.Kind.String()
		if s.Cluster != "" {
			name = fmt.Sprintf("%s (%s)", s.Cluster, s.Kind)
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return "clusters whose endpoints nobody tells"
	}
	return strings.Join(names, ", ")
}

// denied says why a name is known not to exist.
func (e *explaining) denied() string {
	n := &e.name
	switch s := e.service; {
	case n.kind == noName:
		return "No name of the zone has this form."
	case e.snapshot.NamespaceDenied(n.namespace):
		return fmt.Sprintf("The local cluster has no namespace %s, and names exist only in namespaces that it has.", n.namespace)
	case n.kind == namespaceName:
		return fmt.Sprintf("There is no namespace %s.", n.namespace)
	case s == nil && !e.snapshot.Report(n.namespace, n.service).Clean():
		return fmt.Sprintf("The service %s/%s is exported, but no export of it is of use.", n.namespace, n.service)
	case s == nil:
		return fmt.Sprintf("No cluster exports a service %s/%s.", n.namespace, n.service)
	case !e.exists(s) && s.Type == mcs.Headless:
		return fmt.Sprintf("No endpoint of the headless service %s is ready, and so it has no names.", s.Key())
	case !e.exists(s):
		return fmt.Sprintf("No endpoint of the service %s is ready, and names of such services are denied (ignore empty_service).", s.Key())
	case e.out.Kind == "port":
		return fmt.Sprintf("The service %s has no such port.", s.Key())
	default:
		return fmt.Sprintf("The service %s has no ready endpoint of this name.", s.Key())
	}
}

// ofService says what is answered for a name of a service that exists.
func (e *explaining) ofService() string {
	s := e.service
	kept, members := 0, map[string]bool{}
	for i := range e.out.Candidates {
		if c := &e.out.Candidates[i]; c.Kept {
			kept++
			members[c.Member] = true
		}
	}
	names := strings.Join(slices.Sorted(maps.Keys(members)), " and ")
	truncated := ""
	if e.out.Answer.Truncated {
		truncated = " Not all of it fits into the message, so it is marked as truncated and clients ask again over TCP."
	}
	switch {
	case len(e.out.Answer.Answer) == 0 && !e.out.Answer.Truncated:
		return fmt.Sprintf("The name exists, but has no %s records.", e.out.Type)
	case s.Import != nil && s.Type != mcs.Headless && len(e.out.Candidates) == 0:
		return "A ServiceImport gives the addresses of this service, and they are answered as they are, whoever asks."
	case !e.chooses():
		return "The name stands for one endpoint, whoever asks."
	}
	what := "the address of " + names
	if s.Type == mcs.Headless {
		what = fmt.Sprintf("%d ready endpoints of %s", kept, names)
	} else if len(members) > 1 {
		what = "the addresses of " + names
	}
	return fmt.Sprintf("This client is given %s%s.%s", what, e.nearness(), truncated)
}

// nearness says which tier answers.
func (e *explaining) nearness() string {
	d := e.out.Draw
	if d == nil || d.Tier >= len(e.out.Tiers) {
		return ""
	}
	t := &e.out.Tiers[d.Tier]
	where := fmt.Sprintf(", tier %d (%s)", t.Tier, t.Distance)
	if t.Distance == "no preference" {
		where = ", as nothing is preferred here"
	}
	switch {
	case t.Distance == "no preference" && d.Part == "healthy":
		return where
	case d.Part == "panic":
		return where + ", though nothing there is well: there is nobody better"
	case d.Part == "degraded":
		return where + ", degraded, since the healthy ones cannot take all clients"
	case t.HealthyPercent == 100:
		return where + ", which takes all clients"
	default:
		return where + fmt.Sprintf(", which takes %.2f %% of the clients; the draw fell on %.2f", t.HealthyPercent, d.Point)
	}
}
