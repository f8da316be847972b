//go:build linux

package compare

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/kube"
	"github.com/clusterset-dns/clusterset-dns/test/measure"
)

// row is a figure of ours with the bound that it must keep.
type row struct {
	group Group
	what  string
	unit  string
	bound float64 // 0 for none
	// of returns the figure in each round.
	of func(*Results) []float64
}

// value takes a figure as it is.
func value(s subject, f figure) func(*Results) []float64 {
	return func(r *Results) []float64 { return r.values(s.name, f) }
}

// ratio compares a figure of two subjects.
func ratio(a, b subject, f figure) func(*Results) []float64 {
	return func(r *Results) []float64 { return r.ratios(key{a.name, f}, key{b.name, f}) }
}

// difference is what one subject has more than another.
func difference(a, b subject, f figure) func(*Results) []float64 {
	return func(r *Results) []float64 { return r.differences(key{a.name, f}, key{b.name, f}) }
}

// within compares two figures of one subject.
func within(s subject, a, b figure) func(*Results) []float64 {
	return func(r *Results) []float64 { return r.ratios(key{s.name, a}, key{s.name, b}) }
}

// limit170 is kubeadm's memory limit for CoreDNS, 170 MiB, in MB.
const limit170 = 170 * (1 << 20) / 1e6

// rows are in the order of the table.
var rows = []row{
	{CPU, "CPU per query: ours / prebuilt records", "", 1.10, ratio(ours, prebuilt, cpuPerQuery)},
	{CPU, "CPU per query: ours / kubernetes", "", 0.55, ratio(ours, kubernetes, cpuPerQuery)},
	{CPU, "CPU per query in kubeadm's chain: ours / kubernetes", "", 0.65, ratio(chainOurs, chain, cpuPerQuery)},
	{CPU, "allocations per query: ours / kubernetes", "", 0, ratio(ours, kubernetes, allocationsPerQuery)},
	{Latency, "p99 at 5,000 q/s: ours / prebuilt records", "", 1.3, ratio(ours, prebuilt, quietly.p99)},
	{Latency, "p99 at 5,000 q/s: ours / kubernetes", "", 0.7, ratio(ours, kubernetes, quietly.p99)},
	{Churn, "p99 at 5,000 q/s, ours: 200 updates/s / quiet", "", 0, within(ours, underUpdates.p99, before.p99)},
	{Churn, "p99 at 5,000 q/s, kubernetes: 200 updates/s / quiet", "", 0, within(kubernetes, underUpdates.p99, before.p99)},
	{Churn, "p99 at 5,000 q/s, ours: 1,000 updates/s (simulated members) / quiet", "", 1.5, within(oursSimulated, underUpdates.p99, before.p99)},
	{Change, "API reply to changed answer, p50", "ms", 1, value(ours, changeMedian)},
	{Change, "API reply to changed answer, p99", "ms", 3, value(ours, change99)},
	{Change, "API reply to changed answer, 200 updates/s, p50", "ms", 1, value(ours, changeChurnMedian)},
	{Change, "API reply to changed answer, 200 updates/s, p99", "ms", 3, value(ours, changeChurn99)},
	{Start, "start to right answers, one member: ours / kubernetes", "", 1.0, ratio(ours, kubernetes, startTime)},
	{Start, "start to right answers, three members: ours / kubernetes", "", 1.5, ratio(oursThree, kubernetes, startTime)},
	{Start, "live heap per service with 5 endpoints", "kB", 1.3, value(ours, heapPerService)},
	{Start, "RSS after loading: ours / kubernetes", "", 0.6, ratio(ours, kubernetes, resident)},
	{Kubeadm, "kubeadm's chain, three members: RSS peak added at the start", "MB", 30, difference(withFew, aloneFew, residentPeak)},
	{Kubeadm, "kubeadm's chain, three members: RSS peak added in a reload", "MB", 30, difference(withFew, aloneFew, reloadPeak)},
	{Kubeadm, "kubeadm's chain, usual size: RSS peak at the start", "MB", limit170, value(withUsual, residentPeak)},
	{Kubeadm, "kubeadm's chain, usual size: RSS peak in a reload", "MB", limit170, value(withUsual, reloadPeak)},
}

// details are what was measured of each subject.
var details = []struct {
	title string
	// against is a figure that is compared with that of kubernetes in a last column; "" for none.
	against figure
	figures []figure
}{
	{"cost of a query", cpuPerQuery, []figure{cpuPerQuery, queriesPerSecond, allocationsPerQuery, octetsPerQuery}},
	{"time of a query", quietly.p99, quietly.all()},
	{"before updates", before.p99, before.all()},
	{"under updates", underUpdates.p99, append(underUpdates.all(), updatesPerSecond)},
	{"time of a change", "", []figure{changeMedian, change99, changeChurnMedian, changeChurn99}},
	{"start", startTime, []figure{startTime, resident, residentPeak, reloadPeak, liveHeap, heapPerService}},
}

// names are the subjects and peers in the order of the tables.
func names() []string {
	var all []string
	for _, s := range []subject{
		ours, kubernetes, kubernetesHere, oursSimulated, inTree, prebuilt, fixed, chain, chainOurs, oursThree, oursNoNodes, aloneFew, withFew, withUsual,
	} {
		all = append(all, s.name)
	}
	all = append(all, bareWatch)
	for _, p := range peers {
		all = append(all, p.name)
	}
	return all
}

// Write prints the tables: figures with their bounds, then what was measured of each subject.
func (r *Results) Write(w io.Writer) {
	var table [][]string
	for _, row := range rows {
		if slices.Contains(r.Groups, row.group) {
			table = append(table, row.cells(r))
		}
	}
	measure.Table(w, []string{"figure", "measured", "rounds", "bound", ""}, table)
	for _, d := range details {
		r.detail(w, d.title, d.against, d.figures)
	}
	for _, note := range r.Notes {
		fmt.Fprintf(w, "\n%s.\n", note)
	}
}

// detail prints the medians of figures, for the subjects and in the columns that have any.
func (r *Results) detail(w io.Writer, title string, against figure, figures []figure) {
	var measured []string
	for _, name := range names() {
		if slices.ContainsFunc(figures, func(f figure) bool { return len(r.values(name, f)) > 0 }) {
			measured = append(measured, name)
		}
	}
	figures = slices.DeleteFunc(slices.Clone(figures), func(f figure) bool {
		return !slices.ContainsFunc(measured, func(name string) bool { return len(r.values(name, f)) > 0 })
	})
	if len(measured) == 0 {
		return
	}
	head := []string{title}
	for _, f := range figures {
		head = append(head, string(f))
	}
	if against != "" {
		head = append(head, "/ kubernetes")
	}
	var table [][]string
	for _, name := range measured {
		cells := []string{name}
		for _, f := range figures {
			cells = append(cells, number(r.values(name, f)))
		}
		if against != "" {
			cells = append(cells, number(r.ratios(key{name, against}, key{kubernetes.name, against})))
		}
		table = append(table, cells)
	}
	fmt.Fprintln(w)
	measure.Table(w, head, table)
}

// cells are those of a line of the table.
func (row row) cells(r *Results) []string {
	limit, verdict := "", ""
	if row.bound > 0 {
		limit = row.print(row.bound)
	}
	values := row.of(r)
	if len(values) == 0 {
		return []string{row.what, "-", "", limit, "not measured"}
	}
	switch {
	case row.bound == 0:
	case median(values) > row.bound:
		verdict = "**missed**"
	default:
		verdict = "met"
	}
	spread := fmt.Sprintf("%s to %s", measure.Short(slices.Min(values)), measure.Short(slices.Max(values)))
	return []string{row.what, row.print(median(values)), spread, limit, verdict}
}

func (row row) print(v float64) string { return strings.TrimSpace(measure.Short(v) + " " + row.unit) }

// number is the median of some values, a hyphen for none.
func number(values []float64) string {
	if len(values) == 0 {
		return "-"
	}
	return measure.Short(median(values))
}

// versions says what was compared: what our binary was compiled of, the API server, and the peers.
func (c *comparison) versions() ([]string, error) {
	all, err := measure.Versions(c.programs.coredns)
	if err != nil {
		return nil, err
	}
	for _, plane := range c.planes {
		client, err := kube.New(plane)
		if err != nil {
			return nil, err
		}
		has, err := client.Core.Discovery().ServerVersion()
		if err != nil {
			return nil, err
		}
		all = append(all, "kube-apiserver "+has.GitVersion)
		break // all are the same program
	}
	if !c.has(CPU, Latency) {
		return all, nil
	}
	for _, p := range peers {
		if path, ok := p.find(); ok {
			all = append(all, p.version(path))
		}
	}
	return all, nil
}

// Document is what is kept of a run: the tables, and how to read them.
func (r *Results) Document(at time.Time) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Comparison\n\nWritten by `make compare` on %s.\n\n", at.UTC().Format("2 January 2006"))
	fmt.Fprintf(&b, "* Machine: %s\n* Versions: %s\n* World: %d services, %d rounds\n\n", measure.Machine(), strings.Join(r.Versions, ", "), r.Services, len(r.Rounds))
	r.Write(&b)
	b.WriteString(reading)
	return b.Bytes()
}

const reading = `
## How to read it

Ratios count, absolute figures do not: they move by half with what else the machine does. "measured" is the median over the
rounds of what was compared within each round, "rounds" the smallest and the largest of them. Where these lie far apart, the
machine had other things to do, and the run says little: on a machine with two processors, nothing else should run. The p99
figures suffer first, since a process that waits for its turn waits for milliseconds; allocations and live heap never do. The
tables below the first have medians, and in the last column the median of the ratios to CoreDNS's own *kubernetes* plugin.
1 MB is 1,000,000 octets.

Who is compared:

* *ours*: the stanza with *locality* (with nodes), *clusterhealth* (with a probe) and weights, in a server block of its own.
* *kubernetes*: CoreDNS as its own project builds it, in the version that ours is made of and with the same compiler, serving
  the same services as cluster.local; *with multicluster*, its option for ServiceImports, in a control plane that has those and
  no Services; and *in our server*, where it gains by what ours does for all plugins.
* *prebuilt records*: a CoreDNS plugin that has the records of all names in a map. *fixed record*: one that answers everything
  with the same record. Less than that, a plugin cannot cost.
* *a bare watch*: who reads the events of EndpointSlices and does nothing with them. Sooner than that, no server can know of a change.
* *kubeadm's chain*: the server block that kubeadm writes, in CoreDNS of its own project, asked about cluster.local, and the
  same with our stanza, in our server, asked about clusterset.local.
* *Knot DNS* and *NSD*: what a server costs that is nothing but an authoritative one, with a zone file.

What they are asked: the services are spread over 100 namespaces, half with a cluster IP, half headless, all with 5 endpoints
in one EndpointSlice. 5 % of the questions are about names that do not exist, 10 % ask for AAAA records, 5 % for SRV records,
the rest for A records of services drawn at random. The answers are checked.

* A query: the server has one processor, who asks has another, if there are two. CPU is what the server's process has used,
  user and system, divided by the answers, while 8 clients have 16 questions each under way. p50 and p99 are those at 5,000
  questions per second for 6 seconds, in which garbage is collected once or more, from the moment at which a question was asked
  until the kernel had the answer. Questions that were due while the one who asks had no processor for more than 0.25 ms are
  left out, and those that took more than 0.1 ms to send. When the host of a virtual machine has taken the server's processor for
  more than 0.3 % of the time ("stolen", in steps of 10 ms) the server is asked again, up to three times in all, and the time with
  the least of that counts. With more than 1 %, p99 is the host's.
* "Collecting garbage" is the share of that time in which a server of Go did so, by what it prints itself (gctrace). With one
  processor it does that by turns with answers, in pieces of up to some milliseconds. Where the share comes near 1 %, p99 is
  how long such a piece takes. That is what a server with a CPU limit of less than two processors shows, too, which CoreDNS takes
  for one; it has no limit where kubeadm installs it.
* No processor sleeps while nothing is to be done, if the user is root: one of a virtual machine comes back when its host
  likes, and half of p50 at 5,000 questions per second was that.
* While one is asked, the others wait, and their clusters do not change. What they and the control planes do all the same, they
  do on the processor of who asks. Under updates, at a change and at a start, nothing runs but the one that is measured, and the
  control planes that it needs; under updates these use both processors.
* Under updates: EndpointSlices of 100 services are written through the API at the same time. An API server takes about 200
  a second beside others on one machine; *ours, 10 simulated members* watches ten clusters that are simulated (see
  [test/members](../members)), with as many services in all, of which 1,000 EndpointSlices a second change, one after the other.
  They are on the processor of who asks, and go first there: held up, they would do in a heap what is due one by one.
* A change: from the API server's reply to a change until an answer shows it; a change is an endpoint, the port of a Service,
  and for ours a new export and one taken back. The server may use every processor. Who asks waits 0.1 ms between an answer and
  the next question.
* A start: from the start of the process until 64 questions in a row are answered right, with every processor. RSS is read a
  little later, the live heap after a garbage collection. The heap of a server that watches an empty cluster is subtracted from
  that per service. Three members are the same API server three times, under three names.
* Before a start, and before changes, the API server collects its garbage. That takes it about 0.4 s of a processor, in which
  everything takes longer, and whoever came when it was due paid for all who came before.
* kubeadm's chain: the members have as many services each, but export 100. The usual size is that for which kubeadm's limit of
  170 MiB is meant: half as many services in the local cluster, with one Pod each.
`
