package observe

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-foundation-sdk/go/units"
)

func TestPictureShowsTitlesLegendsAndUnits(t *testing.T) {
	begin := time.Unix(1_000_000, 0)
	steady := line{legend: "steady of east"}
	for i := range 120 {
		steady.points = append(steady.points, point{begin.Add(time.Duration(i) * time.Second), 0.02})
	}
	var svg bytes.Buffer
	must(t, picture(&svg, []drawn{
		{panel{title: "Latency", unit: units.Seconds}, []line{steady}},
		{panel{title: "Conflicts", unit: units.Short}, nil},
		{panel{title: "Queries", unit: "reqps"}, []line{steady}},
	}, time.Second))
	decoder := xml.NewDecoder(bytes.NewReader(svg.Bytes()))
	for err := error(nil); !errors.Is(err, io.EOF); _, err = decoder.Token() {
		must(t, err)
	}
	for _, want := range []string{">Latency<", ">Conflicts (none)<", ">Queries<", ">steady of east<", ">0 min<", ">1 min<", ">20 ms<", ">0.02/s<"} {
		if !strings.Contains(svg.String(), want) {
			t.Errorf("There is no %q in the picture", want)
		}
	}
}

func TestLinesHaveGapsWhereValuesAreMissing(t *testing.T) {
	begin := time.Unix(1_000_000, 0)
	var l line
	for _, second := range []int{0, 1, 2, 7, 8} {
		l.points = append(l.points, point{begin.Add(time.Duration(second) * time.Second), 1})
	}
	if runs := l.runs(time.Second); len(runs) != 2 || len(runs[0]) != 3 || len(runs[1]) != 2 {
		t.Errorf("The runs are %v, want 3 points and 2", runs)
	}
}
