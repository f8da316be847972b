package nearest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// gatewayOfSouth is what services of south are answered with in these tests.
const gatewayOfSouth = "192.0.2.44"

// probing is how a clusterhealth stanza probes.
type probing struct {
	interval, timeout time.Duration
	fall              int
}

// The defaults, and the fastest that makes sense.
var (
	byDefault = probing{5 * time.Second, 2 * time.Second, 3}
	quickly   = probing{time.Second, 500 * time.Millisecond, 2}
)

// bound is how long a member whose data path has died may stay in the answers: 1.1 x interval + fall x timeout +
// (fall - 1) x 1 s + 1 s.
func (p probing) bound() time.Duration {
	return p.interval*11/10 + time.Duration(p.fall)*p.timeout + time.Duration(p.fall-1)*time.Second + time.Second
}

// stanza probes clusters ("CLUSTER KIND TARGET").
func (p probing) stanza(probes ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "clusterhealth {\n")
	if p != byDefault { // else the product's own defaults must do
		fmt.Fprintf(&b, "interval %s\ntimeout %s\nfall %d\n", p.interval, p.timeout, p.fall)
	}
	for _, probe := range probes {
		b.WriteString("probe " + probe + "\n")
	}
	return b.String() + "}"
}

// Once south's API server has died, the answers are looked at for so long. A member is stale after 60 s of silence.
const awayFor = 95 * time.Second

// A member that is not probed is degraded after 60 s without a sign of life, so from staleFrom on, as the last sign of a
// quiet API server may have been 25 s before it died, and must be by staleBy.
const (
	staleFrom = 35 * time.Second
	staleBy   = 90 * time.Second
)

// theirTurn is true once tests of this file wait for what comes of it, while all others run. Those must leave north and south as
// they are; TestDrain, which does not, comes before, since its file does.
var theirTurn atomic.Bool

// TestMembersThatFail lets data paths and an API server die, and then lets the other tests run: what comes of it takes
// a minute and a half. Clients are in the cluster that dies. The services have sessionAffinity, so that nothing but
// health moves a client.
func TestMembersThatFail(t *testing.T) {
	const everywhere, alone = "fails", "alone"
	for i, c := range []cluster{east, west, north, south} {
		c.offers(t, service{name: everywhere, sticky: true, endpoints: pods(2, fmt.Sprintf("10.%d.20.1", i+1)), elsewhere: c.Name() == "south"})
	}
	south.offers(t, service{name: alone, sticky: true, endpoints: pods(2, "10.4.21.1"), elsewhere: true})
	everything.add(name(everywhere), south, gatewayOfSouth)
	everything.add(name(alone), south, gatewayOfSouth)

	rows := []struct {
		what, id, service string
		in                cluster
		kind              string // of probe, "" for none
		dies              func(*path)
		// leaves is how soon the answers must be those of others; 0 means never.
		leaves time.Duration
		// not is how soon they must not be.
		not time.Duration
	}{
		{"probed, the data path refuses and the API lives: it leaves", "refuses", everywhere, north, "tcp", (*path).refuse, byDefault.bound(), 0},
		{"probed, the data path hangs and the API lives: it leaves", "hangs", everywhere, north, "http", (*path).hang, byDefault.bound(), 0},
		{"probed, the API dies and the data path lives: it stays", "api", everywhere, south, "tcp", nil, 0, 0},
		{"probed, all dies: it leaves", "all", everywhere, south, "tcp", (*path).refuse, byDefault.bound(), 0},
		{"not probed, the data path dies and the API lives: nobody knows, so it stays", "unseen", everywhere, north, "", (*path).refuse, 0, 0},
		{"not probed, the API dies: others are preferred", "stale", everywhere, south, "", nil, staleBy, staleFrom},
		{"not probed, all dies: others are preferred", "gone", everywhere, south, "", (*path).refuse, staleBy, staleFrom},
		{"not probed, the API dies and nobody else has the service: it stays", "alone", alone, south, "", nil, 0, 0},
	}
	members := clusterset(three(), member(south, "address "+gatewayOfSouth))
	good := newPath(t)
	paths := make([]*path, len(rows))
	var blocks []string
	for i, row := range rows {
		paths[i] = newPath(t)
		plugins := []string{locality(), members}
		switch row.kind {
		case "tcp":
			plugins = append(plugins, byDefault.stanza("west tcp "+good.address, row.in.Name()+" tcp "+paths[i].address))
		case "http":
			plugins = append(plugins, byDefault.stanza("west tcp "+good.address, row.in.Name()+" http http://"+paths[i].address+"/"))
		default:
			plugins = append(plugins, byDefault.stanza("west tcp "+good.address)) // the plugin stands in all blocks or in none
		}
		port := row.id
		if i == 0 {
			port = "DNS"
		}
		blocks = append(blocks, block(port, plugins...))
	}
	s := run(t, blocks...)
	diaries := make([]*diary, len(rows))
	for i, row := range rows {
		port := row.id
		if i == 0 {
			port = "DNS"
		}
		one := dial(t, s, port, row.in.at(0))
		within(t, limit, row.what+": at the beginning it answers", one.gets(name(row.service), typeA, row.in.Name()))
		one.close()
		diaries[i] = keep(t, s, port, row.in.at(0), name(row.service))
	}

	must(t, south.KillAPIServer())
	died := time.Now()
	for i, row := range rows {
		if row.dies != nil {
			row.dies(paths[i])
		}
	}
	theirTurn.Store(true)
	t.Parallel()

	time.Sleep(time.Until(died.Add(awayFor))) // not for anything to happen: for nothing to
	for i, row := range rows {
		t.Run(row.what, func(t *testing.T) {
			diaries[i].stop()
			entries, asked, err := diaries[i].read()
			must(t, err)
			entries = moves(entries, row.in.Name())
			late := diaries[i].begin.Sub(died)
			t.Logf("%d answers: %v; bound %s", asked, entries, row.leaves)
			switch {
			case row.leaves == 0 && len(entries) != 1:
				t.Errorf("answered by %v, want %s all the time", entries, row.in.Name())
			case row.leaves > 0 && len(entries) != 2:
				t.Errorf("answered by %v, want that it changes once", entries)
			case row.leaves > 0:
				if took := entries[1].after + late; took > row.leaves || took < row.not {
					t.Errorf("others answer after %s, want from %s to %s", round(took), row.not, row.leaves)
				}
			}
		})
	}
	for _, want := range []struct {
		state string
		of    cluster
	}{{"stale", south}, {"synced", north}} {
		if err := shows(t, s, 1, "coredns_clusterset_member_state", "cluster", want.of.Name(), "source", "exports", "state", want.state)(); err != nil {
			t.Error(err)
		}
	}
}

// frozenFor is how long the guard against mass failure holds members back.
const frozenFor = 5 * time.Minute

// TestMassFailure lets many data paths die at once. Like TestMembersThatFail it lets the other tests run meanwhile.
// Clients are in north, and the first answers after which they are told another cluster are noted.
func TestMassFailure(t *testing.T) {
	const of = "mass"
	for i, c := range []cluster{east, west, north} {
		c.offers(t, service{name: of, sticky: true, endpoints: pods(2, fmt.Sprintf("10.%d.22.1", i+1))})
	}
	bound := quickly.bound()
	rows := []struct {
		what   string
		probed []cluster
		dead   []cluster
		// back is which comes back when all has been dead for backAfter.
		back []cluster
		// watched is where the client is, in a cluster that dies and does not come back.
		watched cluster
		// not and leaves are the times within which it must leave the answers.
		not, leaves time.Duration
		frozen      bool
	}{
		{"both remote members fail: nothing changes for five minutes, then they leave",
			[]cluster{west, north}, []cluster{west, north}, nil, north, frozenFor, frozenFor + bound, true},
		{"both fail and one comes back after ten seconds: the other leaves then",
			[]cluster{west, north}, []cluster{west, north}, []cluster{west}, north, backAfter, backAfter + bound, true},
		{"all fail, the local one too, and one comes back after ten seconds: the other leaves then",
			[]cluster{east, west, north}, []cluster{east, west, north}, []cluster{west}, north, backAfter, backAfter + bound, true},
		{"one of two fails: it leaves", []cluster{west, north}, []cluster{north}, nil, north, 0, bound, false},
		{"the local member alone fails: it leaves", []cluster{east, west, north}, []cluster{east}, nil, east, 0, bound, false},
		{"the only one that is probed fails: it leaves", []cluster{north}, []cluster{north}, nil, north, 0, bound, false},
	}
	type scene struct {
		server *server.Server
		paths  map[string]*path
		diary  *diary
		died   time.Time
		froze  error
	}
	scenes := make([]scene, len(rows))
	for i, row := range rows {
		c := &scenes[i]
		c.paths = map[string]*path{}
		var probes []string
		for _, m := range row.probed {
			c.paths[m.Name()] = newPath(t)
			probes = append(probes, m.Name()+" tcp "+c.paths[m.Name()].address)
		}
		c.server = run(t, block("DNS", locality(), clusterset(three()), quickly.stanza(probes...)))
		one := dial(t, c.server, "DNS", row.watched.at(0))
		within(t, limit, row.what+": at the beginning it answers", one.gets(name(of), typeA, row.watched.Name()))
		one.close()
		c.diary = keep(t, c.server, "DNS", row.watched.at(0), name(of))
		c.died = time.Now()
		for _, m := range row.dead {
			c.paths[m.Name()].refuse()
		}
	}
	var returns sync.WaitGroup
	t.Cleanup(returns.Wait)
	for i, row := range rows {
		c := &scenes[i]
		if !row.frozen {
			continue
		}
		within(t, bound, row.what+": the guard acts", shows(t, c.server, 1, "coredns_clusterhealth_frozen"))
		if row.back == nil {
			continue
		}
		returns.Go(func() {
			time.Sleep(time.Until(c.died.Add(backAfter)))
			for _, m := range row.back {
				c.froze = errors.Join(c.froze, c.paths[m.Name()].up())
			}
		})
	}
	theirTurn.Store(true)
	t.Parallel()

	for i, row := range rows {
		t.Run(row.what, func(t *testing.T) {
			c := &scenes[i]
			var entries []entry
			limit := time.Until(c.died.Add(row.leaves)) + time.Second
			within(t, max(limit, time.Second), "it leaves", func() error {
				var err error
				if entries, _, err = c.diary.read(); err == nil && len(entries) < 2 {
					err = fmt.Errorf("answered by %v", entries)
				}
				return err
			})
			c.diary.stop()
			entries, asked, err := c.diary.read()
			must(t, err)
			entries = moves(entries, row.watched.Name())
			took := entries[1].after - c.died.Sub(c.diary.begin)
			t.Logf("it leaves after %.1f s, want %s to %s (%d answers: %v)", took.Seconds(), row.not, row.leaves, asked, entries)
			if len(entries) != 2 || took < row.not || took > row.leaves {
				t.Errorf("answered by %v, want another once, after %s to %s", entries, row.not, row.leaves)
			}
			within(t, time.Second, "the guard has ended", shows(t, c.server, 0, "coredns_clusterhealth_frozen"))
		})
	}
	returns.Wait()
	for i := range scenes {
		must(t, scenes[i].froze)
	}
}

// backAfter is when a data path comes back in TestMassFailure.
const backAfter = 10 * time.Second

// TestFlapping lets a data path go and come ten times in a minute, while the other tests run.
func TestFlapping(t *testing.T) {
	const (
		of         = "flaps"
		changes    = 10
		every      = 6 * time.Second
		mostShown  = 3
		leastShown = 1 // or the test tests nothing
	)
	for i, c := range []cluster{east, west, north} {
		c.offers(t, service{name: of, sticky: true, endpoints: pods(2, fmt.Sprintf("10.%d.23.1", i+1))})
	}
	steady, flapping := newPath(t), newPath(t)
	s := run(t, block("DNS", locality(), clusterset(three()), quickly.stanza("west tcp "+steady.address, "north tcp "+flapping.address)))
	one := dial(t, s, "DNS", north.at(0))
	within(t, limit, "at the beginning it answers", one.gets(name(of), typeA, "north"))
	one.close()
	d := keep(t, s, "DNS", north.at(0), name(of))
	var failed error
	var group sync.WaitGroup
	group.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for i := range changes {
			if i%2 == 0 {
				flapping.refuse()
			} else {
				failed = errors.Join(failed, flapping.up())
			}
			<-tick.C
		}
	})
	t.Cleanup(group.Wait)
	theirTurn.Store(true)
	t.Parallel()

	group.Wait()
	must(t, failed)
	d.stop()
	entries, asked, err := d.read()
	must(t, err)
	entries = moves(entries, "north")
	shown := len(entries) - 1
	t.Logf("%d changes of the data path, %d changes of %d answers: %v", changes, shown, asked, entries)
	if shown > mostShown || shown < leastShown {
		t.Errorf("%d changes of answers, want %d to %d", shown, leastShown, mostShown)
	}
}
