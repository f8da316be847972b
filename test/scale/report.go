//go:build linux

package scale

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/measure"
)

// figure is something that is measured in a world. 1 MB is 1,000,000 octets.
type figure string

// The figures.
const (
	syncTime     figure = "start to right answers about all members, s"
	received     figure = "received from the members, MB"
	facts        figure = "live heap: facts, MB"
	factsEach    figure = "live heap: facts, bytes per endpoint"
	compiled     figure = "live heap: compiled answers, MB"
	compiledEach figure = "live heap: compiled answers, bytes per name"
	residentPeak figure = "RSS peak after the start, MB"
	resident     figure = "RSS when every name has been asked for, MB"
	shownMedian  figure = "event to answer, p50 ms"
	shown99      figure = "event to answer, p99 ms"
	commonMedian figure = "the name that all members export: event to answer, p50 ms"
	common99     figure = "the name that all members export: event to answer, p99 ms"
	eventMean    figure = "event to published, mean ms"
	workMean     figure = "of which merging and publishing, mean ms"
	cpuPerUpdate figure = "CPU per update at 1,000 updates/s, us"
)

func queriesUnder(updates int) figure { return underUpdates(updates, "queries/s") }
func cpuUnder(updates int) figure     { return underUpdates(updates, "CPU per query, us") }
func medianUnder(updates int) figure  { return underUpdates(updates, "p50 at 5,000 q/s, us") }
func p99Under(updates int) figure     { return underUpdates(updates, "p99 at 5,000 q/s, us") }

func waitedUnder(updates int) figure {
	return underUpdates(updates, "meanwhile the server waited for its processor, %")
}

func underUpdates(updates int, what string) figure {
	if updates == 0 {
		return figure(what)
	}
	return figure(fmt.Sprintf("%s, %s updates/s", what, thousands(updates)))
}

// figures are all, in the order of the tables.
func figures() []figure {
	all := []figure{
		syncTime, received, facts, factsEach, compiled, compiledEach, residentPeak, resident,
		shownMedian, shown99, commonMedian, common99, eventMean, workMean, cpuPerUpdate,
	}
	for _, of := range []func(int) figure{queriesUnder, cpuUnder, medianUnder, p99Under, waitedUnder} {
		for _, updates := range rates {
			all = append(all, of(updates))
		}
	}
	return all
}

// Figures are what was measured in a world.
type Figures map[figure]float64

// World is what was measured in one world of one size.
type World struct {
	Name      string
	Endpoints int
	Figures
}

// Results are what Run has measured.
type Results struct {
	Options Options
	// Versions are those of the programs.
	Versions []string
	Worlds   []World
	Return   Return
	// Empty is the live heap of a server whose members have no services, in octets.
	Empty int64
	// Notes are sentences about what was not measured, and why.
	Notes []string
}

// of returns the worlds of a name, by their size.
func (r *Results) of(name string) (all []World) {
	for _, w := range r.Worlds {
		if w.Name == name {
			all = append(all, w)
		}
	}
	return all
}

// bound is a figure that must not become larger than that.
type bound struct {
	what string
	unit string
	most float64
	// of takes the figure from the worlds of a name.
	of func(all []World) float64
}

// growth compares a figure of the largest world with that of the smallest.
func growth(f figure) func([]World) float64 {
	return func(all []World) float64 { return all[len(all)-1].Figures[f] / all[0].Figures[f] }
}

var bounds = []bound{
	{"event to published, the largest / the smallest world", "", 2, growth(eventMean)},
	{"event to answer (p50), the largest / the smallest world", "", 2, growth(shownMedian)},
	{"facts in the largest world, per endpoint", "bytes", 200, func(all []World) float64 { return all[len(all)-1].Figures[factsEach] }},
}

// Write prints the tables: figures with their bounds, then everything over size, then the return of an API server.
func (r *Results) Write(w io.Writer) {
	var table [][]string
	for _, b := range bounds {
		for _, world := range worlds {
			v, verdict := b.of(r.of(world.name)), "met"
			if v > b.most {
				verdict = "**missed**"
			}
			table = append(table, []string{b.what + ": " + world.name, withUnit(v, b.unit), withUnit(b.most, b.unit), verdict})
		}
	}
	measure.Table(w, []string{"figure", "measured", "bound", ""}, table)
	for _, world := range worlds {
		fmt.Fprintln(w)
		r.growth(w, world.name)
	}
	fmt.Fprintln(w)
	r.Return.write(w, r.Options)
	for _, note := range r.Notes {
		fmt.Fprintf(w, "\n%s.\n", note)
	}
}

func withUnit(v float64, unit string) string { return strings.TrimSpace(measure.Short(v) + " " + unit) }

// growth prints the figures of the worlds of a name, one column per size.
func (r *Results) growth(w io.Writer, name string) {
	all := r.of(name)
	head := []string{name + ": endpoints"}
	for _, world := range all {
		head = append(head, thousands(world.Endpoints))
	}
	head = append(head, "largest / smallest")
	var table [][]string
	for _, f := range figures() {
		if !slices.ContainsFunc(all, func(w World) bool { _, ok := w.Figures[f]; return ok }) {
			continue
		}
		cells := []string{string(f)}
		for _, world := range all {
			v, there := world.Figures[f]
			cells = append(cells, cell(v, there))
		}
		ratio := growth(f)(all)
		table = append(table, append(cells, cell(ratio, !math.IsNaN(ratio) && !math.IsInf(ratio, 0))))
	}
	measure.Table(w, head, table)
}

// cell prints a figure, a hyphen where there is none.
func cell(v float64, there bool) string {
	if !there {
		return "-"
	}
	return measure.Short(v)
}

// thousands prints a number with commas.
func thousands(n int) string {
	text := fmt.Sprint(n)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

// peak returns the largest number of something in one second.
func (r *Return) peak(of func(Second) int) (most int) {
	for _, s := range r.Seconds {
		most = max(most, of(s))
	}
	return most
}

func (r *Return) write(w io.Writer, o Options) {
	connections := func(s Second) int { return s.Connections }
	requests := func(s Second) int { return s.Requests }
	watches := func(s Second) int { return s.Watches }
	var table [][]string
	for i, s := range r.Seconds {
		table = append(table, []string{fmt.Sprint(i + 1), fmt.Sprint(s.Connections), fmt.Sprint(s.Requests), fmt.Sprint(s.Watches), fmt.Sprint(s.Known)})
	}
	table = append(table, []string{"peak", fmt.Sprint(r.peak(connections)), fmt.Sprint(r.peak(requests)), fmt.Sprint(r.peak(watches)), ""})
	measure.Table(w, []string{fmt.Sprintf("%d servers: second after the return", o.Clients), "connections", "requests", "watches begun", "servers that know what has changed"}, table)
	fmt.Fprintf(w, "\nThe API server was away for %s. All servers knew what had changed meanwhile %.1f s after its return, and all\n"+
		"%d watches were open again after %.1f s.\n", o.Outage, r.Known.Seconds(), r.Watches, r.Back.Seconds())
}

// Document is what is kept of a run: the tables, and how to read them.
func (r *Results) Document(at time.Time) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Scale\n\nWritten by `make scale` on %s.\n\n", at.UTC().Format("2 January 2006"))
	fmt.Fprintf(&b, "* Machine: %s\n* Versions: %s\n* Worlds: %d members, services of %d endpoints; one run\n"+
		"* Live heap of a server whose members have no services: %s MB\n\n",
		measure.Machine(), strings.Join(r.Versions, ", "), r.Options.Members, endpointsEach, measure.Short(float64(r.Empty)/1e6))
	r.Write(&b)
	b.WriteString(reading)
	return b.Bytes()
}

const reading = `
## How to read it

The members are simulated API servers (see [test/members](../members)) which speak over TLS what kube-apiserver speaks; the
server is the real binary with its default memory settings, and comes by what it knows as it always does. Half of the services
have a cluster IP, the others are headless, all are exported, in 10 namespaces. The server has *locality* (with nodes),
*clusterhealth* (with a probe) and weights. 1 MB is 1,000,000 octets.

It is the growth over size that counts: figures move by half with what else the machine does, those of p99 by more. The last
column compares the largest world with the smallest. Live heap does not depend on the machine, nor does what is received.

* *Distinct names*: no two members have a name in common, but for one, which all export. *The same names in all members*: each
  service is exported by all, so there are fewer names, each with many endpoints.
* Start to right answers: from the start of the process until one name of each member has been answered right, with every
  processor; the members use the same ones. RSS peak is that until then.
* Facts: the live heap after a garbage collection, without that of a server whose members have no services, when nothing has
  been asked for but those names. Compiled answers: what comes on top when every name has been asked for once. Of that the
  records are bounded by 16 MiB; the plans behind them are kept with their services.
* Event to answer: from the moment at which a member moves an endpoint to another address until the answer over UDP that has the
  new one; who asks waits 0.1 ms between an answer and the next question. Event to published: the mean of what the server
  itself counts, from the time in the EndpointSlice until the snapshot is published.
* CPU per update: what the process uses while nobody asks.
* Queries: from here on the server has one processor, who asks another one, the members both. p50 and p99 are those at 5,000
  questions per second, from the moment at which a question was asked, without those that were due while who asks had no processor;
  queries/s is what is answered as fast as it goes, and CPU per query what that costs the server's process, with the updates that
  come meanwhile. Where queries/s falls and CPU per query does not rise, others had the processor. So they had where the server
  waited long for its processor: of three times, that counts in which it waited least. Its own threads wait for each other too,
  for a tenth of the time when there are no updates; with much more than that, queries/s, p50 and p99 say more about the machine
  than about the server.
* The return of an API server: many servers watch one cluster that goes away without a word, refuses connections for a while,
  and comes back without a memory of what happened before. They are members of one process that are all this
  cluster, each with a connection of its own. Requests are all but watches; lists are requests.
`
