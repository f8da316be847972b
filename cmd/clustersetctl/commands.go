package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/status"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/verdict"
)

var membersCommand = command{
	name: "members", short: "List the members, and what deserves attention", remote: true,
	long: `
STATE is the worst of the member's watches, PROOF how long ago its API server last said
something, CREDENTIALS when the first of them end. REJECTED counts what it sent and was left
out, OUT the services in which it takes no part and its exports of nothing.

  PROGRAM members
  PROGRAM members -o json`,
	flags: func(*pflag.FlagSet) func(context.Context, *terminal, []string) error { return members },
}

func members(ctx context.Context, t *terminal, args []string) error {
	if len(args) > 0 {
		return usage("members takes no argument: got %q", args[0])
	}
	m, document, err := ask[status.Members](ctx, t, status.PathMembers, nil)
	if err != nil {
		return err
	}
	if done, err := t.encode(document); done || err != nil {
		return err
	}
	now := verdict.Time(m.Server.Time)
	rows := [][]cell{headings("MEMBER", "REGION", "STATE", "PROOF", "HEALTH", "CREDENTIALS", "SERVICES", "ENDPOINTS", "REJECTED", "OUT", "ADDRESS", "WEIGHT")}
	for i := range m.Members {
		one := &m.Members[i]
		state, silence, ends := verdict.Watches(one.Sources)
		expiry := plain("")
		if !ends.IsZero() {
			expiry.text, expiry.level = verdict.End(ends, now)
			if expiry.level == verdict.Good {
				expiry.level = ""
			}
		}
		name, address, weight := one.ID, one.Address, ""
		if one.Local {
			name += " (local)"
		}
		if len(one.Gateway) > 0 {
			address = strings.Join(one.Gateway, ",")
		}
		if one.Weight != nil {
			weight = fmt.Sprint(*one.Weight)
		}
		rows = append(rows, []cell{
			plain(name), plain(one.Region), {state, verdict.State(state)}, plain(verdict.Ago(silence)), {one.Health.State, verdict.Health(one.Health.State)}, expiry,
			plain(verdict.Number(one.Services)), plain(verdict.Number(one.Endpoints)), some(sum(one.Rejections)), some(sum(one.Unusable) + sum(one.Invalid)), plain(address), plain(weight),
		})
	}
	t.table(rows)
	t.notices(verdict.Members(&m))
	return nil
}

func sum[T int | uint64](of map[string]T) (n T) {
	for v := range maps.Values(of) {
		n += v
	}
	return n
}

// some is a count that should be 0.
func some[T int | uint64](n T) cell {
	if n > 0 {
		return cell{verdict.Number(n), verdict.Warn}
	}
	return plain("0")
}

var servicesCommand = command{
	name: "services", arguments: "[NAMESPACE/NAME]", short: "List the services, or tell about one", remote: true, offline: true,
	long: `
  PROGRAM services
  PROGRAM services shop/web
  PROGRAM services -n shop -o yaml

With NAMESPACE/NAME it tells what each member has of the service, and which share of the
clients at each place each member gets. With --manifests it needs no server: see explain.`,
	flags: func(f *pflag.FlagSet) func(context.Context, *terminal, []string) error {
		namespace := f.StringP("namespace", "n", "", "only those in this `NAMESPACE`")
		return func(ctx context.Context, t *terminal, args []string) error {
			switch {
			case len(args) > 1:
				return usage("services takes one NAMESPACE/NAME at most: got %q in addition", args[1])
			case len(args) == 0:
				return services(ctx, t, *namespace)
			case *namespace != "" && !strings.Contains(args[0], "/"):
				return service(ctx, t, *namespace+"/"+args[0])
			default:
				return service(ctx, t, args[0])
			}
		}
	},
}

func services(ctx context.Context, t *terminal, namespace string) error {
	from, err := t.teller()
	if err != nil {
		return err
	}
	s, document, err := from.services(ctx)
	if err != nil {
		return err
	}
	if namespace != "" {
		s.Services = slices.DeleteFunc(s.Services, func(one status.ServiceSummary) bool { return one.Namespace != namespace })
		s.Matrix = nil // that is of all
		if document, err = json.Marshal(s); err != nil {
			return err
		}
	}
	if done, err := t.encode(document); done || err != nil {
		return err
	}
	rows := [][]cell{headings("SERVICE", "TYPE", "READY", "MEMBERS", "CONFLICTS", "LEFT OUT")}
	for i := range s.Services {
		one := &s.Services[i]
		kind := one.Type
		if one.Imported {
			kind += " (import)"
		}
		rows = append(rows, []cell{
			plain(one.Namespace + "/" + one.Name), plain(kind), ready(one.Ready, one.Total), plain(parts(one)), {strings.Join(one.Conflicts, ","), verdict.Warn},
			{leftOut(one), verdict.Warn},
		})
	}
	t.table(rows)
	return nil
}

// ready says how many endpoints are; all is well without a colour.
func ready(n, total int) cell {
	c := cell{fmt.Sprintf("%s/%s", verdict.Number(n), verdict.Number(total)), verdict.Readiness(n, total)}
	if c.level == verdict.Good {
		c.level = ""
	}
	return c
}

// parts lists the members of a service with their weights.
func parts(s *status.ServiceSummary) string {
	var out []string
	for i, m := range s.Members {
		if len(s.Weights) == len(s.Members) {
			m += "=" + verdict.Decimal(s.Weights[i])
		}
		out = append(out, m)
	}
	return strings.Join(out, ",")
}

// leftOut lists the members that take no part in a service, or not with all that they have.
func leftOut(s *status.ServiceSummary) string {
	var out []string
	for _, member := range slices.Sorted(maps.Keys(s.LeftOut)) {
		out = append(out, member+"="+s.LeftOut[member])
	}
	return strings.Join(out, ",")
}

func service(ctx context.Context, t *terminal, which string) error {
	namespace, name, ok := strings.Cut(which, "/")
	if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
		return usage("services %q: use NAMESPACE/NAME", which)
	}
	from, err := t.teller()
	if err != nil {
		return err
	}
	s, document, err := from.service(ctx, namespace, name)
	if err != nil {
		return err
	}
	if done, err := t.encode(document); done || err != nil {
		return err
	}
	var ports []string
	for _, p := range s.Ports {
		ports = append(ports, verdict.Port(p))
	}
	affinity, known := "", "ServiceExports"
	if s.ClientIPAffinity {
		affinity = "ClientIP"
	}
	if s.Imported {
		known = "a ServiceImport"
	}
	t.facts(plain("Name"), plain(s.FQDN), plain("Type"), plain(s.Type), plain("Known by"), plain(known), plain("IPs"), plain(strings.Join(s.IPs, ", ")),
		plain("Ports"), plain(strings.Join(ports, ", ")), plain("Affinity"), plain(affinity), plain("Distribution"), plain(s.TrafficDistribution),
		plain("Ready"), ready(s.Ready, s.Total), plain("Conflicts"), cell{strings.Join(s.Conflicts, ", "), verdict.Warn})
	rows := [][]cell{headings("MEMBER", "READY", "WEIGHT", "ADDRESSES", "EXPORTED", "LEFT OUT")}
	for _, c := range s.Contributions {
		rows = append(rows, []cell{
			plain(c.Member), ready(c.Ready, c.Total), plain(verdict.Decimal(c.Weight)), plain(strings.Join(c.Addresses, ",")), plain(c.Exported), {s.Unusable[c.Member], verdict.Warn},
		})
		delete(s.Unusable, c.Member)
	}
	for _, member := range slices.Sorted(maps.Keys(s.Unusable)) {
		rows = append(rows, []cell{plain(member), {}, {}, {}, {}, {s.Unusable[member], verdict.Warn}})
	}
	fmt.Fprintln(t.out)
	t.table(rows)
	t.matrix(s.Matrix)
	return nil
}

// matrix prints who gets what: in each line only the members that get something, since there may be a hundred.
func (t *terminal) matrix(rows []status.MatrixRow) {
	if len(rows) == 0 {
		return
	}
	out := [][]cell{headings("CLIENTS IN", "GET")}
	for _, r := range rows {
		ids := slices.SortedFunc(maps.Keys(r.Shares), func(a, b string) int {
			if r.Shares[a] != r.Shares[b] {
				return int(1e9 * (r.Shares[b] - r.Shares[a]))
			}
			return strings.Compare(a, b)
		})
		var shares []string
		for _, id := range ids {
			if r.Shares[id] > 0 {
				shares = append(shares, fmt.Sprintf("%s %s %%", id, verdict.Percent(r.Shares[id])))
			}
		}
		gets := plain(strings.Join(shares, ", "))
		if len(shares) == 0 {
			gets = cell{"nothing: nobody serves", verdict.Bad}
		}
		out = append(out, []cell{plain(verdict.Place(r.Region, r.Cluster, r.Zone)), gets})
	}
	fmt.Fprintln(t.out)
	t.table(out)
}

var explainCommand = command{
	name: "explain", arguments: "NAME", short: "Tell why a client is answered as it is, now", remote: true, offline: true,
	long: `
It tells where the client is and how that is known, who could be answered, what became of each,
and the very records that a query gets now. The exit code is 1 when there are none.

  PROGRAM explain web.shop.svc.clusterset.local
  PROGRAM explain web.shop.svc.clusterset.local --client 10.1.2.3 --type AAAA

Without a server, in a pipeline, so that a change can be tried before it is rolled out: from a
Corefile and a folder of manifests for each cluster, as 'kubectl get -o yaml' writes them of
serviceexports, services, endpointslices, namespaces and nodes (and clusterproperties,
servicecidrs and serviceimports, where there are any). --health asks what if.

  PROGRAM explain web.shop.svc.clusterset.local --client 10.1.2.3 --manifests clusters \
      --corefile deploy/drop-in/Corefile --health west=unhealthy`,
	flags: func(f *pflag.FlagSet) func(context.Context, *terminal, []string) error {
		client := f.String("client", "", "the `ADDRESS` of who asks, by default that of who runs this as the server sees it")
		kind := f.String("type", "A", "the `TYPE` of the records asked for")
		return func(ctx context.Context, t *terminal, args []string) error {
			if len(args) != 1 {
				return usage("explain takes one NAME: got %d", len(args))
			}
			from, err := t.teller()
			if err != nil {
				return err
			}
			e, document, err := from.explain(ctx, args[0], *kind, *client)
			if err != nil {
				return err
			}
			return t.explanation(&e, document)
		}
	},
}

// explanation prints one; without records it is a negative answer.
func (t *terminal) explanation(e *status.Explanation, document []byte) error {
	done, err := t.encode(document)
	if err != nil {
		return err
	}
	if !done {
		t.tell(e)
	}
	if len(e.Answer.Answer) == 0 && !e.Answer.Next {
		return negative
	}
	return nil
}

// tell prints an explanation for people.
func (t *terminal) tell(e *status.Explanation) {
	fmt.Fprintf(t.out, "%s\n\n", t.paint(cell{e.Verdict, verdict.Rcode(e.Answer.Rcode)}))
	where := verdict.Place(e.Client.Region, e.Client.Cluster, e.Client.Zone, e.Client.Node) + " (by " + e.Client.Source + ")"
	t.facts(plain("Client"), plain(e.Client.Address), plain("in"), plain(where), plain("since"), plain(e.Client.Because), plain("Service"), plain(strings.TrimSpace(e.Service+" "+e.ServiceType)))
	if len(e.Tiers) > 0 {
		rows := [][]cell{headings("TIER", "DISTANCE", "HEALTHY", "DEGRADED", "EXCLUDED", "ENDPOINTS", "TAKES", "")}
		for _, tier := range e.Tiers {
			takes, marks := verdict.Decimal(tier.HealthyPercent)+" %", ""
			if tier.DegradedPercent > 0 {
				takes += " and, degraded, " + verdict.Decimal(tier.DegradedPercent) + " %"
			}
			if tier.Panic {
				marks = "panic "
			}
			if e.Draw != nil && e.Draw.Tier == tier.Tier {
				marks += "<- drawn"
			}
			rows = append(rows, []cell{
				plain(fmt.Sprint(tier.Tier)), plain(tier.Distance), plain(fmt.Sprint(tier.Healthy)), plain(fmt.Sprint(tier.Degraded)), plain(fmt.Sprint(tier.Excluded)),
				plain(fmt.Sprint(tier.Total)), plain(takes), plain(strings.TrimSpace(marks)),
			})
		}
		fmt.Fprintln(t.out)
		t.table(rows)
	}
	t.draw(e.Draw)
	t.candidates(e.Candidates)
	t.records(&e.Answer)
}

func (t *terminal) draw(d *status.Draw) {
	if d == nil {
		return
	}
	text := fmt.Sprintf("The draw fell on %s of 100: tier %d", verdict.Decimal(d.Point), d.Tier)
	if d.Part != "" {
		text += ", its " + d.Part + " part"
	}
	if d.Member != "" {
		text += ", and there on " + d.Member
	}
	if d.Sticky {
		text += ". It never changes for this client."
	} else {
		text += fmt.Sprintf(". It is that of epoch %d, which lasts %d s.", d.Epoch, d.EpochSeconds)
	}
	fmt.Fprintf(t.out, "\n%s\n", printable(text))
}

func (t *terminal) candidates(all []status.Candidate) {
	if len(all) == 0 {
		return
	}
	rows := [][]cell{headings("MEMBER", "HOST", "PLACE", "EXPORTS", "HEALTH", "READY", "WEIGHT", "TIER", "KEPT", "BECAUSE", "ADDRESSES")}
	for _, c := range all {
		place, exports, tier, kept := "", c.MemberState, "none", cell{"no", ""}
		if c.Region+c.Zone+c.Node != "" {
			place = verdict.Place(c.Region, c.Zone, c.Node)
		}
		if c.ProofAgeSeconds != nil {
			exports += " " + verdict.Ago(c.ProofAgeSeconds)
		}
		if c.Tier >= 0 {
			tier = fmt.Sprint(c.Tier)
		}
		if c.Kept {
			kept = cell{"yes", verdict.Good}
		}
		health := cell{c.Health, verdict.Health(c.Health)}
		if c.HealthReason != "" {
			health.text += ": " + c.HealthReason
		}
		rows = append(rows, []cell{
			plain(c.Member), plain(c.Host), plain(place), plain(exports), health, plain(fmt.Sprintf("%d/%d", c.Ready, c.Total)), plain(verdict.Decimal(c.Weight)), plain(tier),
			kept, plain(c.Reason), plain(strings.Join(c.Addresses, ",")),
		})
	}
	fmt.Fprintln(t.out)
	t.table(rows)
}

// records prints the answer as dig does.
func (t *terminal) records(a *status.Answer) {
	marks := ""
	if a.Next {
		marks += ", the next plugin answers"
	}
	if a.Truncated {
		marks += ", truncated"
	}
	fmt.Fprintf(t.out, "\n%s%s\n", t.paint(cell{a.Rcode, verdict.Rcode(a.Rcode)}), marks)
	for _, section := range []struct {
		name    string
		records []string
	}{{"", a.Answer}, {"authority", a.Authority}, {"additional", a.Additional}} {
		if len(section.records) > 0 && section.name != "" {
			fmt.Fprintf(t.out, ";; %s\n", section.name)
		}
		for _, r := range section.records {
			fmt.Fprintln(t.out, printable(r))
		}
	}
}

var checkCommand = command{
	name: "check", arguments: "COREFILE", short: "Look for errors in a Corefile, without a server or a network",
	long: `
Every plugin of the server reads its part, as at a start, and none is started: nobody is
contacted. COREFILE may be - for the standard input. What only the server's pod has, such as
its ServiceAccount and mounted files, is taken for granted, and a note says so. Environment
variables in the Corefile have the values that they have here.

  PROGRAM check deploy/drop-in/Corefile
  kubectl --namespace kube-system get configmap coredns -o jsonpath={.data.Corefile} | PROGRAM check -

The exit code is 1 when there are errors.`,
	flags: func(*pflag.FlagSet) func(context.Context, *terminal, []string) error { return check },
}

func check(_ context.Context, t *terminal, args []string) error {
	if len(args) != 1 {
		return usage("check takes one COREFILE: got %d", len(args))
	}
	path, text, err := t.corefile(args[0])
	if err != nil {
		return usage("check: %w", err)
	}
	r, err := checkCorefile(path, text)
	if err != nil {
		return failure{fmt.Errorf("check: %w", err), exitUnreachable}
	}
	document, err := json.Marshal(r)
	if err != nil {
		return err
	}
	done, err := t.encode(document)
	if err != nil {
		return err
	}
	if !done {
		t.findings(r)
	}
	if !r.OK {
		return negative
	}
	return nil
}

// corefile reads a Corefile from a file, or from the standard input.
func (t *terminal) corefile(name string) (path string, text []byte, err error) {
	if name == "-" {
		text, err = io.ReadAll(t.in)
		return "Corefile", text, err
	}
	text, err = os.ReadFile(name)
	return name, text, err
}

func (t *terminal) findings(r report) {
	for _, f := range r.Errors {
		fmt.Fprintf(t.out, "%s %s\n", t.paint(cell{"Error:", verdict.Bad}), printable(f.String()))
	}
	for _, f := range r.Notes {
		fmt.Fprintf(t.out, "%s %s\n", t.paint(cell{"Note:", verdict.Info}), printable(f.String()))
	}
	if r.OK {
		fmt.Fprintf(t.out, "%s %s\n", t.paint(cell{"OK:", verdict.Good}), printable(r.Corefile))
	}
}
