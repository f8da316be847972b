package nearest

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// weighing is from how many addresses shares are measured where weights are written.
const weighing = 5000

// everybody is that many clients, in all clusters.
func everybody(n int) (out []netip.Addr) {
	for _, c := range []cluster{east, west, north} {
		out = append(out, c.many(n/3+1)...)
	}
	return out[:n]
}

func TestWeights(t *testing.T) {
	const of = "weighed"
	var offers []*offer
	for i, c := range []cluster{east, west, north} {
		offers = append(offers, c.offers(t, service{name: of, sticky: true, endpoints: pods(10, fmt.Sprintf("10.%d.40.1", i+1))}))
	}
	weights := func(inEast, inWest, inNorth string) string {
		return clusterset(member(east, inEast), member(west, "address clusterip", inWest), member(north, "address clusterip", inNorth), "prefer none")
	}
	s := run(t, block("DNS", locality(), weights("", "", "")),
		block("written", locality(), weights("weight 70", "weight 20", "weight 10")),
		block("canary", locality(), weights("weight 95", "weight 5", "weight 0")),
		block("some", locality(), weights("weight 2", "", "")))

	for _, row := range []struct {
		what, port string
		ready      [3]int
		percents   [3]string
		want       [3]float64 // east, west, north
	}{
		{"70/20/10", "written", [3]int{10, 10, 10}, [3]string{}, [3]float64{0.7, 0.2, 0.1}},
		{"70/20/10 without the first", "written", [3]int{0, 10, 10}, [3]string{}, [3]float64{0, 2. / 3, 1. / 3}},
		{"70/20/10 with half of the second, which counts for 0.7", "written", [3]int{10, 5, 10}, [3]string{}, [3]float64{70. / 94, 14. / 94, 10. / 94}},
		{"95/5/0: a canary, and a drained one", "canary", [3]int{10, 10, 10}, [3]string{}, [3]float64{0.95, 0.05, 0}},
		{"2 where others have none: these count for 1", "some", [3]int{10, 10, 10}, [3]string{}, [3]float64{0.5, 0.25, 0.25}},
		{"no weights: by what is ready", "DNS", [3]int{10, 5, 5}, [3]string{}, [3]float64{0.5, 0.25, 0.25}},
		{"weight-percent 100, 25 and 0", "DNS", [3]int{10, 10, 10}, [3]string{"100", "25", "0"}, [3]float64{0.8, 0.2, 0}},
		{"weight-percent times 70/20/10", "written", [3]int{10, 10, 10}, [3]string{"0", "25", "100"}, [3]float64{0, 5. / 15, 10. / 15}},
		{"weight-percent 0 everywhere: somebody must answer", "DNS", [3]int{10, 10, 10}, [3]string{"0", "0", "0"}, [3]float64{1. / 3, 1. / 3, 1. / 3}},
		{"weight-percent of an only ready one is 0", "DNS", [3]int{10, 0, 0}, [3]string{"0", "100", "100"}, [3]float64{1, 0, 0}},
		{"weight-percent taken back", "DNS", [3]int{10, 10, 10}, [3]string{}, [3]float64{1. / 3, 1. / 3, 1. / 3}},
	} {
		t.Run(row.what, func(t *testing.T) {
			for i, o := range offers {
				o.setReady(t, row.ready[i])
				o.annotate(t, row.percents[i])
			}
			settle(t, s, east, west, north)
			settleExports(t, s, east, west, north)
			counts := sample(t, s, row.port, name(of), everybody(weighing))
			t.Log(percent(counts))
			compare(t, row.what, counts, map[string]float64{"east": row.want[0], "west": row.want[1], "north": row.want[2]})
		})
	}
}

// Without sessionAffinity a client is answered anew in every epoch of 5 seconds, with it always the same.
func TestEpochs(t *testing.T) {
	const changing, sticky, clients, members = "changing", "sticky", 100, 3
	for i, c := range []cluster{east, west, north} {
		c.offers(t, service{name: changing, endpoints: pods(2, fmt.Sprintf("10.%d.41.1", i+1))})
		c.offers(t, service{name: sticky, sticky: true, endpoints: pods(2, fmt.Sprintf("10.%d.42.1", i+1))})
	}
	s := run(t, block("DNS", locality(), clusterset(three(), "prefer none", "ttl 1")))
	t.Parallel() // everybody else's turn

	// Three epochs, and the ends of two more.
	const epoch, during = 5 * time.Second, 16 * time.Second
	type history struct{ changing, sticky []string }
	histories := make([]history, clients)
	begin := time.Now()
	note := func(to []string, from string, a netip.Addr) ([]string, error) {
		r, err := once(s, "DNS", a, name(from))
		if err == nil && (len(to) == 0 || to[len(to)-1] != r.from()) {
			to = append(to, r.from())
		}
		return to, err
	}
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			for time.Since(begin) < during {
				for i := worker; i < clients; i += 4 {
					h := &histories[i]
					var err error
					if h.changing, err = note(h.changing, changing, east.at(i)); err == nil {
						h.sticky, err = note(h.sticky, sticky, east.at(i))
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
				time.Sleep(200 * time.Millisecond)
			}
		})
	}
	group.Wait()
	moved, shares := 0, map[string]int{}
	for i, h := range histories {
		if len(h.sticky) != 1 {
			t.Errorf("Client %d of a service with sessionAffinity is answered by %v, want one", i, h.sticky)
		}
		if most := int(during/epoch) + 2; len(h.changing) > most {
			t.Errorf("Client %d is answered by %v, want at most %d in %s", i, h.changing, most, during)
		}
		if len(h.changing) > 1 {
			moved++
		}
		shares[h.sticky[0]]++
	}
	t.Logf("in %s %d of %d clients were told another member, with sessionAffinity none: %s", during, moved, clients, percent(shares))
	// In at least three more epochs, all the same with a chance of 1/27 at most: 6 standard deviations.
	if moved < 84 {
		t.Errorf("%d of %d clients were told another member", moved, clients)
	}
	if len(shares) != members {
		t.Errorf("answered by %v, want all of %d", shares, members)
	}
}
