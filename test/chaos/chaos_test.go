package chaos

import (
	"os"
	"testing"
	"time"
)

// row is a fault: what happens, and how bad its consequences may be.
type row struct {
	name string
	setting
	// gap is the longest time that any name may be without a right answer, and recovery how long it may take after the
	// fault until all is right and changes show.
	gap, recovery time.Duration
	// happen does it and undoes it.
	happen func(*testing.T, *scene)
	// possible returns why the row cannot be had here, "" if it can.
	possible func() string
}

// Bounds. What is known goes on being answered, so that a gap is no more than a busy machine makes. After an outage the
// server tries again every few seconds, and does so spread over some more.
const (
	noGap = time.Second
	soon  = 15 * time.Second
)

func rows() []row {
	return []row{
		{name: "An API server crashes and is started again", gap: noGap, recovery: soon, happen: crash},
		{name: "An API server hangs until it is stale", gap: noGap, recovery: soon, happen: hang},
		{name: "The way to an API server takes 5 seconds", gap: noGap, recovery: soon, happen: slow},
	}
}

// TestChaos lets one thing after another happen. With CHAOS_WRITE=1 the table goes into README.md.
func TestChaos(t *testing.T) {
	found := &table{results: map[string]*result{}}
	for _, r := range rows() {
		t.Run(r.name, func(t *testing.T) {
			if r.possible != nil {
				if why := r.possible(); why != "" {
					found.add(r.name, &result{skipped: why})
					t.Skip(why)
				}
			}
			x := begin(t, r.setting)
			r.happen(t, x)
			x.recovered(t, r.recovery)
			x.end(t, r.gap)
			found.add(r.name, x.result)
		})
	}
	t.Logf("\n%s", found)
	if os.Getenv("CHAOS_WRITE") == "" {
		return
	}
	if t.Failed() || len(found.names) != len(rows()) {
		t.Logf("%s stays as it is: it is for runs in which everything is as it should be", readme)
		return
	}
	must(t, found.write())
}

func crash(t *testing.T, x *scene) {
	t.Helper()
	must(t, north.KillAPIServer())
	x.load.more(t, 500)
	must(t, north.StartAPIServer(t.Context()))
	x.undone()
	x.change(t, north)
}

func hang(t *testing.T, x *scene) {
	t.Helper()
	must(t, north.PauseAPIServer())
	resumed := false
	resume := func() {
		if !resumed {
			resumed = true
			must(t, north.ResumeAPIServer())
		}
	}
	defer resume()
	x.becomesStale(t, north)
	resume()
	x.undone()
	x.change(t, north)
}

func slow(t *testing.T, x *scene) {
	t.Helper()
	must(t, x.proxies[north].hurtOne("downstream", "latency", `"latency": 5000`))
	x.change(t, north)
	x.load.more(t, 5000)
	x.proxies[north].heal(t.Context())
	x.undone()
	x.change(t, north)
}
