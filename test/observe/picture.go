package observe

import (
	"fmt"
	"image/color"
	"io"
	"math"
	"slices"
	"time"

	"github.com/grafana/grafana-foundation-sdk/go/units"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// line is what a legend names in a panel: values at moments, in the order of time. Where there is none, the line has a gap.
type line struct {
	legend string
	points []point
}

type point struct {
	at    time.Time
	value float64
}

// drawn is a panel with its lines.
type drawn struct {
	panel
	lines []line
}

// A picture has so many panels side by side, each of this size.
const (
	columns     = 2
	panelWidth  = 15 * vg.Centimeter
	panelHeight = 6 * vg.Centimeter
)

// picture draws panels as SVG, all over the same time. step is the distance of points within a line: those that are farther apart
// are not connected.
func picture(to io.Writer, panels []drawn, step time.Duration) error {
	rows := (len(panels) + columns - 1) / columns
	plots := make([][]*plot.Plot, rows)
	for r := range plots {
		plots[r] = make([]*plot.Plot, columns)
		for c := range plots[r] {
			at := r*columns + c
			if at >= len(panels) {
				continue
			}
			p, err := panels[at].plot(step)
			if err != nil {
				return fmt.Errorf("draw %s: %w", panels[at].title, err)
			}
			plots[r][c] = p
		}
	}
	canvas := vgsvg.New(columns*panelWidth, vg.Length(rows)*panelHeight)
	whole := draw.New(canvas)
	whole.SetColor(color.White)
	whole.Fill(whole.Path())
	tiles := draw.Tiles{Rows: rows, Cols: columns, PadX: vg.Centimeter, PadY: vg.Centimeter / 2, PadTop: 5, PadBottom: 5, PadLeft: 5, PadRight: 15}
	for r, canvases := range plot.Align(plots, tiles, whole) {
		for c, canvas := range canvases {
			if plots[r][c] != nil {
				plots[r][c].Draw(canvas)
			}
		}
	}
	if _, err := canvas.WriteTo(to); err != nil {
		return fmt.Errorf("write the picture: %w", err)
	}
	return nil
}

func (d drawn) plot(step time.Duration) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = d.title
	p.X.Tick.Marker = plot.TickerFunc(minutes)
	p.Y.Tick.Marker = plot.TickerFunc(func(low, high float64) []plot.Tick { return in(d.unit, low, high) })
	p.Y.Min = 0
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	if len(d.lines) == 0 {
		p.Title.Text += " (none)"
	}
	for i, l := range d.lines {
		named := false
		for _, run := range l.runs(step) {
			drawn, err := plotter.NewLine(run)
			if err != nil {
				return nil, err
			}
			drawn.Color, drawn.Dashes, drawn.Width = plotutil.Color(i), plotutil.Dashes(i/len(plotutil.DefaultColors)), vg.Points(1.5)
			p.Add(drawn)
			if !named {
				p.Legend.Add(l.legend, drawn)
				named = true
			}
		}
	}
	const legendLine = 0.14 // of the height below
	p.Y.Max = max(p.Y.Max*(1.1+legendLine*float64(len(d.lines))), 1e-3)
	return p, nil
}

// runs are the parts of a line that have no gap.
func (l line) runs(step time.Duration) (all []plotter.XYs) {
	for i, p := range l.points {
		if i == 0 || p.at.Sub(l.points[i-1].at) > step {
			all = append(all, nil)
		}
		last := &all[len(all)-1]
		*last = append(*last, plotter.XY{X: float64(p.at.UnixMilli()) / 1000, Y: p.value})
	}
	return all
}

// minutes marks every half minute from the begin, which has no name of its own: a picture is of no particular day.
func minutes(low, high float64) (ticks []plot.Tick) {
	for at := 0.0; low+at <= high; at += 30 {
		t := plot.Tick{Value: low + at}
		if math.Mod(at, 60) == 0 {
			t.Label = fmt.Sprintf("%g min", at/60)
		}
		ticks = append(ticks, t)
	}
	return ticks
}

// in writes values with their unit.
func in(unit string, low, high float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(low, high)
	if unit == units.Short { // counts are whole
		ticks = slices.DeleteFunc(ticks, func(t plot.Tick) bool { return t.Value != math.Trunc(t.Value) })
	}
	for i := range ticks {
		if t := &ticks[i]; t.Label != "" {
			t.Label = written(t.Value, unit)
		}
	}
	return ticks
}

func written(value float64, unit string) string {
	switch {
	case unit == units.Seconds && value != 0 && value < 1:
		return fmt.Sprintf("%g ms", math.Round(value*1e6)/1e3)
	case unit == units.Seconds:
		return fmt.Sprintf("%g s", value)
	case unit == units.BytesIEC:
		return fmt.Sprintf("%g MiB", math.Round(value/(1<<20)))
	case unit == units.Short:
		return fmt.Sprintf("%g", value)
	default:
		return fmt.Sprintf("%g/s", value)
	}
}
