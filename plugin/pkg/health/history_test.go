package health

import (
	"fmt"
	"testing"
	"time"
)

func TestHistory(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	var h, none History
	for i := range 3 * HistoryLength {
		before := h
		h = h.With("west", Change{at.Add(time.Duration(i) * time.Second), Unhealthy, fmt.Sprint(i)})
		if len(before["west"]) > 0 && before["west"][0].Reason != fmt.Sprint(i-1) {
			t.Fatal("A history that somebody may be reading was changed")
		}
	}
	if got := h["west"]; len(got) != HistoryLength || got[0].Reason != "59" || got[HistoryLength-1].Reason != "40" {
		t.Errorf("Kept are %v", got)
	}
	other := none.With("west", Change{at.Add(time.Hour), Healthy, "later"}).With("west", Change{at.Add(2 * time.Hour), Degraded, "latest"})
	if got := Join(h["west"], other["west"]); len(got) != HistoryLength || got[0].Reason != "latest" || got[1].Reason != "later" || got[2].Reason != "59" {
		t.Errorf("Joined they are %v", got)
	}
	if got := h.Without("west"); len(got) != 0 || len(h) != 1 {
		t.Errorf("Without a member there is %v", got)
	}
}
